"""Logging: one line an event, as JSON in production and readable in development; secrets never get through.

Redaction is the last step, after tracebacks were rendered to text, because exceptions quote keys, too.
"""

import logging
import logging.config
import re
from typing import Any

import structlog
from django.conf import settings

SECRET_PATTERN = re.compile(
    r"(?i)(authorization|x-api-key|api[-_]?key|cookie|password|secret)(['\"]?\s*[:=]\s*['\"]?)(?:bearer\s+)?[^\s'\",}]+"
    r"|\b(?:sk|hf|alp)[-_][A-Za-z0-9_\-]{12,}"
)


def known_secrets() -> list[str]:
    """The literal secrets of this process, longest first."""
    values = [
        value for name, value in settings.PROVIDER_ENV.items() if name.endswith(("_KEY", "_TOKEN", "_SECRET"))
    ]
    return sorted(
        {value for value in [*values, settings.SECRET_KEY] if len(value) >= 8}, key=len, reverse=True
    )


class Redactor(logging.Formatter):
    """Wraps the real formatter and blots out secrets in whatever it rendered."""

    def __init__(self, inner: logging.Formatter) -> None:
        super().__init__()
        self.inner = inner
        self.secrets = known_secrets()

    def format(self, record: logging.LogRecord) -> str:
        line = self.inner.format(record)
        for secret in self.secrets:
            line = line.replace(secret, "[secret]")
        return SECRET_PATTERN.sub(lambda m: f"{m[1]}{m[2]}[secret]" if m[1] else "[secret]", line)


def formatter() -> logging.Formatter:
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    render: list[Any] = (
        [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
        if settings.LOG_JSON
        else [structlog.dev.ConsoleRenderer(colors=False, exception_formatter=structlog.dev.plain_traceback)]
    )
    return Redactor(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *render],
        )
    )


def configure(_: dict[str, Any]) -> None:
    """Django's LOGGING_CONFIG: one handler on the root, quiet libraries."""
    handler = logging.StreamHandler()
    handler.setFormatter(formatter())
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(settings.LOG_LEVEL)
    for name in ("urllib3", "kombu", "amqp", "markdown_it", "asyncio"):
        logging.getLogger(name).setLevel(logging.WARNING)
    for name in ("celery.worker.strategy", "celery.app.trace"):
        logging.getLogger(name).setLevel(logging.WARNING)
    # Celery sets the level of the root to its own; the line of a call is for operators, in whatever process.
    logging.getLogger("usage.meter").setLevel(settings.LOG_LEVEL)
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.stdlib.filter_by_level,
            structlog.stdlib.add_log_level,
            structlog.stdlib.add_logger_name,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )

"""A browser that tolerates no console error, no breach of the Content-Security-Policy and no request to other hosts."""

from collections.abc import Iterable
from typing import Any
from urllib.parse import urlsplit

from django.conf import settings
from playwright.sync_api import Browser as Chromium
from playwright.sync_api import BrowserContext, ConsoleMessage, Page, Request, expect

from aleph.accounts.models import User
from tests.product import Product, session_cookie

ARGUMENTS = ("--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",)
OWN_SCHEMES = {"data", "blob", "about"}
BROKEN_OFF = ("htmx:sendAbort,", "htmx:afterRequest,")
"""What htmx writes as errors when a page is left, or typing goes on, before an answer is there. It has names of its own for all
that fails."""
PATIENCE_MS = 20_000  # longer than the slowest reply that a story watches to its end, on a busy machine

expect.set_options(timeout=PATIENCE_MS)


class Browser:
    """`complaints` gathers what went wrong; the fixture fails the test that leaves any. A status that a test provokes
    on purpose is named in `expected_statuses`."""

    def __init__(self, chromium: Chromium, product: Product) -> None:
        self.chromium = chromium
        self.product = product
        self.contexts: list[BrowserContext] = []
        self.complaints: list[str] = []
        self.expected_statuses: set[int] = set()

    def page(self, *, user: User | None = None, **options: Any) -> Page:
        """A page in a context of its own, signed in as `user`. `options` are Playwright's: `viewport`, `color_scheme`,
        `java_script_enabled`, `locale` ... Paths are enough for `page.goto`."""
        context = self.chromium.new_context(
            base_url=self.product.url, **{"locale": "en-US", "timezone_id": "Asia/Jakarta", **options}
        )
        context.set_default_timeout(PATIENCE_MS)
        context.on("console", self._on_console)
        context.on("weberror", lambda fault: self.complaints.append(f"script error: {fault.error}"))
        context.on("request", self._on_request)
        self.contexts.append(context)
        if user is not None:
            cookie = {
                "name": settings.SESSION_COOKIE_NAME,
                "value": session_cookie(user),
                "url": self.product.url,
            }
            context.add_cookies([cookie])  # type: ignore[list-item]
        return context.new_page()

    def close(self) -> None:
        for context in self.contexts:
            context.close()

    def _on_console(self, message: ConsoleMessage) -> None:
        if message.type != "error" or message.text.startswith(BROKEN_OFF):
            return
        if not self._is_expected(message.text, self.expected_statuses):
            self.complaints.append(f"console: {message.text} ({message.location.get('url', '')})")

    def _on_request(self, request: Request) -> None:
        address = urlsplit(request.url)
        if address.scheme not in OWN_SCHEMES and address.netloc != urlsplit(self.product.url).netloc:
            self.complaints.append(f"request to another host: {request.url}")

    @staticmethod
    def _is_expected(text: str, statuses: Iterable[int]) -> bool:
        return any(f"status of {status} " in text for status in statuses)

"""Expected failures that people are told about.

Every app derives its own errors from `Problem`, beside the function that raises them. The API turns one into the
error envelope, a page turns it into a fragment; anything that is not a `Problem` is a fault of ours.
"""

from typing import Any, ClassVar, TypeVar

from django.http import HttpResponseBase
from django.utils.functional import Promise
from django.utils.translation import gettext_lazy as _

Response = TypeVar("Response", bound=HttpResponseBase)


class Problem(Exception):
    """An expected failure: `code` for programs, `status` for HTTP, `message` for people, `data` beside it.

    `retry_after_s` becomes the ``Retry-After`` header where waiting helps.
    """

    code: ClassVar[str] = "INVALID_REQUEST"
    status: ClassVar[int] = 400
    text: ClassVar[str | Promise] = _("This request cannot be carried out.")

    def __init__(
        self,
        message: str | Promise | None = None,
        *,
        data: dict[str, Any] | None = None,
        retry_after_s: int | None = None,
    ) -> None:
        self.message = message if message is not None else self.text
        self.data = data or {}
        self.retry_after_s = retry_after_s
        super().__init__(self.code)

    def __str__(self) -> str:
        return f"{self.code}: {self.message}"


class InvalidRequest(Problem):
    pass


class NotFound(Problem):
    """What does not exist, and what belongs to somebody else."""

    code = "NOT_FOUND"
    status = 404
    text = _("There is no such thing here.")


class Conflict(Problem):
    code = "CONFLICT"
    status = 409
    text = _("Something else is happening here at the moment.")


class IdempotencyMismatch(Problem):
    code = "IDEMPOTENCY_MISMATCH"
    status = 422
    text = _("This key was already used for something else.")


class RateLimited(Problem):
    """Somebody does too much of something; `aleph.rates` counts."""

    code = "RATE_LIMITED"
    status = 429
    text = _("Too many requests. Please wait a moment.")


class Busy(Problem):
    """A part of ours that this needs does not answer for the moment."""

    code = "SERVICE_UNAVAILABLE"
    status = 503
    text = _("Aleph is busy. Please try again in a minute.")


def noting_delay(response: Response, problem: Problem) -> Response:
    """`response` with the ``Retry-After`` of `problem`, where waiting helps."""
    if problem.retry_after_s is not None:
        response["Retry-After"] = str(problem.retry_after_s)
    return response

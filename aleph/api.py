"""What every JSON endpoint shares: who is asking, and the envelope of answers and errors.

``{"success": true, "data": …}`` or ``{"success": false, "error": text, "code": NAME, "data": …}``; the HTTP status
says the same as the code.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any

from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest, HttpResponseBase, JsonResponse
from django.utils import timezone
from django.utils.translation import gettext_lazy as _
from django.utils.translation import gettext_noop
from drf_spectacular.utils import OpenApiParameter, OpenApiResponse
from rest_framework import exceptions, parsers, serializers
from rest_framework.authentication import BaseAuthentication
from rest_framework.request import Request
from rest_framework.response import Response

from aleph.accounts.models import ApiKey, User, hashed
from aleph.prepared import Given, Rows
from aleph.problems import InvalidRequest, NotFound, Problem, RateLimited, noting_delay

OF_REST_FRAMEWORK = (
    gettext_noop("Invalid data. Expected a dictionary, but got {datatype}."),
    gettext_noop("This field may not be null."),
    gettext_noop("This field may not be blank."),
    gettext_noop("Not a valid string."),
    gettext_noop("Ensure this field has no more than {max_length} characters."),
    gettext_noop("A valid integer is required."),
    gettext_noop("A valid number is required."),
    gettext_noop("Ensure that there are no more than {max_digits} digits in total."),
    gettext_noop("Ensure that there are no more than {max_decimal_places} decimal places."),
    gettext_noop("Ensure that there are no more than {max_whole_digits} digits before the decimal point."),
    gettext_noop("Must be a valid boolean."),
    gettext_noop("String value too large."),
    gettext_noop("Ensure this value is greater than or equal to {min_value}."),
    gettext_noop("Ensure this value is less than or equal to {max_value}."),
    gettext_noop("Ensure this field has at least {min_length} characters."),
    gettext_noop("Surrogate characters are not allowed: U+{code_point:X}."),
    gettext_noop('"{input}" is not a valid choice.'),
    gettext_noop('Expected a list of items but got type "{input_type}".'),
    gettext_noop("This list may not be empty."),
    gettext_noop("Ensure this field has at least {min_length} elements."),
    gettext_noop("Ensure this field has no more than {max_length} elements."),
)
"""What REST framework says of wrong fields and has no Indonesian for. Our catalogue comes before its own."""


# How answers are described in the OpenAPI document.


class ErrorBody(serializers.Serializer[Any]):
    success = serializers.BooleanField(default=False)
    error = serializers.CharField(help_text="For people, in the language of Accept-Language.")
    code = serializers.CharField(help_text="For programs.")
    data = serializers.DictField()  # type: ignore[assignment]


@functools.cache
def enveloped(body: type[serializers.Serializer[Any]], *, many: bool = False) -> OpenApiResponse:
    name = body.__name__.removesuffix("Body") + ("ListAnswer" if many else "Answer")
    fields = {"success": serializers.BooleanField(default=True), "data": body(many=many)}
    return OpenApiResponse(type(name, (serializers.Serializer,), fields))


def errors(*statuses: int) -> dict[int, type[ErrorBody]]:
    return dict.fromkeys((401, *statuses), ErrorBody)


KEY = {"type": "string", "minLength": 1, "maxLength": 64}
ONCE = "The same key does the same thing once."
IDEMPOTENCY_KEY = OpenApiParameter("Idempotency-Key", KEY, OpenApiParameter.HEADER, description=ONCE)
REQUIRED_KEY = OpenApiParameter(
    "Idempotency-Key", KEY, OpenApiParameter.HEADER, required=True, description=ONCE
)


class Unauthenticated(Problem):
    code = "UNAUTHENTICATED"
    status = 401
    text = _("Please sign in, or send an API key.")


class Forbidden(Problem):
    code = "FORBIDDEN"
    status = 403
    text = _("This is not allowed.")


class MethodNotAllowed(InvalidRequest):
    status = 405
    text = _("This address does not take that method.")


class UnsupportedMediaType(InvalidRequest):
    status = 415
    text = _("Send JSON, with the content type application/json; where files are taken, multipart/form-data.")


class NotAcceptable(InvalidRequest):
    status = 406
    text = _("This address answers in JSON.")


class JSONParser(parsers.JSONParser):
    """JSON, and an error of the sender's where it is nested deeper than anybody means it."""

    def parse(
        self, stream: Any, media_type: str | None = None, parser_context: Mapping[str, Any] | None = None
    ) -> Any:
        try:
            return super().parse(stream, media_type, dict(parser_context or {}))
        except RecursionError as error:
            raise exceptions.ParseError from error


KEY_OF_HASH = Rows(lambda: ApiKey.objects.select_related("user").filter(hash=Given("hash")))


class ApiKeyAuthentication(BaseAuthentication):
    """``Authorization: Bearer alp_…``. A wrong, revoked or expired key is an error, never a guest."""

    def authenticate(self, request: Request) -> tuple[User, ApiKey] | None:
        scheme, _space, key = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() != "bearer":
            return None
        found = KEY_OF_HASH.first(hash=hashed(key.strip()))
        if found is None:
            raise exceptions.AuthenticationFailed(_("This API key is not known."))
        if not found.is_usable or not found.user.is_active:
            raise exceptions.AuthenticationFailed(_("This API key has expired or was revoked."))
        self._note_use(found)
        return found.user, found

    def authenticate_header(self, request: Request) -> str:
        return "Bearer"

    def _note_use(self, key: ApiKey) -> None:
        """Write down the use now and then, not at every call."""
        now = timezone.now()
        if key.last_used_at is None or now - key.last_used_at > ApiKey.USED_RESOLUTION:
            ApiKey.objects.filter(pk=key.pk).update(last_used_at=now)


def ok(data: Any, status: int = 200) -> Response:
    return Response({"success": True, "data": data}, status=status)


def failed(problem: Problem) -> Response:
    # Errors are JSON, also for those who asked for a stream of events.
    response = Response(body_of(problem), status=problem.status, content_type="application/json")
    return noting_delay(response, problem)


def body_of(problem: Problem) -> dict[str, Any]:
    return {
        "success": False,
        "error": str(problem.message),
        "code": problem.code,
        "data": problem.data,
    }


def envelope_errors(error: Exception, context: dict[str, Any]) -> Response:
    """REST framework's exception handler: every expected error becomes the envelope. The others are raised, so that
    Django logs them with the request's id and `aleph.views.fault` answers."""
    problem = problem_of(error)
    if problem is None:
        raise error
    response = failed(problem)
    header = getattr(error, "auth_header", None)
    if header:
        response["WWW-Authenticate"] = header
    return response


def problem_of(error: Exception) -> Problem | None:
    """The expected failure that an exception stands for; None for a fault of ours."""
    if isinstance(error, Problem):
        return error
    if isinstance(error, Http404):
        return NotFound()
    if isinstance(error, PermissionDenied | exceptions.PermissionDenied):
        return Forbidden()
    if isinstance(error, exceptions.NotAuthenticated):
        return Unauthenticated()
    if isinstance(error, exceptions.AuthenticationFailed):
        return Unauthenticated(str(error.detail))
    if isinstance(error, exceptions.Throttled):
        return RateLimited(retry_after_s=int(getattr(error, "wait", None) or 1))
    if isinstance(error, exceptions.ParseError):
        return InvalidRequest(_("The body is not valid JSON."))
    if isinstance(error, exceptions.ValidationError):
        return InvalidRequest(_("Some fields are missing or wrong."), data={"fields": error.detail})
    if isinstance(error, exceptions.MethodNotAllowed):
        return MethodNotAllowed()
    if isinstance(error, exceptions.UnsupportedMediaType):
        return UnsupportedMediaType()
    if isinstance(error, exceptions.NotAcceptable):
        return NotAcceptable()
    return None


def user_of(request: Request) -> User:
    assert isinstance(request.user, User)
    return request.user


def key_of(request: Request) -> ApiKey | None:
    """The API key that a request came with; None where it came with a session."""
    return request.auth if isinstance(request.auth, ApiKey) else None


def checked(body: type[serializers.Serializer[Any]], request: Request) -> dict[str, Any]:
    serializer = body(data=request.data)
    serializer.is_valid(raise_exception=True)
    return dict(serializer.validated_data)


def idempotency_key(request: Request) -> str:
    """What the request brings, "" for none. One that is there says something."""
    given = request.headers.get("Idempotency-Key")
    key = (given or "").strip()
    if len(key) > 64 or not key.isprintable() or (given is not None and not key):
        raise InvalidRequest(_("An Idempotency-Key has 1 to 64 printable characters."))
    return key


def not_found(request: HttpRequest) -> JsonResponse:
    """The 404 of addresses below /api/ that do not exist."""
    return JsonResponse(body_of(NotFound()), status=404)


def continued(
    view: Callable[..., Any], *, by: Callable[[HttpRequest, Any], HttpResponseBase]
) -> Callable[..., Any]:
    """A REST framework view whose answer may take minutes: if its response carries `pending`, the answer is what
    `by(request, response.pending)` gives, outside of the view."""

    @functools.wraps(view)
    def handler(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        response: Any = view(request, *args, **kwargs)
        pending = getattr(response, "pending", None)
        return response if pending is None else by(request, pending)

    return handler

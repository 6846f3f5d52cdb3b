"""Views for people who are signed in, and the way of the others: to sign in, and back to where they were. For every app."""

from collections.abc import Callable
from functools import wraps
from urllib.parse import urlsplit

from django.contrib.auth.views import redirect_to_login
from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.urls import reverse
from django.utils.http import url_has_allowed_host_and_scheme
from django.views.decorators.http import require_http_methods
from django_htmx.http import HttpResponseClientRedirect
from django_htmx.middleware import HtmxDetails

View = Callable[..., HttpResponseBase]


def signed_in(view: View) -> View:
    """As Django's `login_required`, also for a form or a fragment whose session has ended meanwhile."""

    @wraps(view)
    def guarded(request: HttpRequest, *args: str, **kwargs: str) -> HttpResponseBase:
        return view(request, *args, **kwargs) if request.user.is_authenticated else to_sign_in(request)

    return guarded


def to_sign_in(request: HttpRequest) -> HttpResponse:
    """To sign in, and then back: to the page that the reader looked at, never to where its form was sent, which shows
    nothing. By htmx the whole page goes, since its place must not be taken by a form."""
    htmx = getattr(request, "htmx", None)
    if isinstance(htmx, HtmxDetails) and htmx:
        return HttpResponseClientRedirect(redirect_to_login(htmx.current_url_abs_path or "/").url)
    is_safe = request.method in ("GET", "HEAD")
    return redirect_to_login(request.get_full_path() if is_safe else page_before(request))


def posted(form_page: str) -> Callable[[View], View]:
    """A view that a form is sent to. Whoever merely goes there, such as by reloading the answer in another language, is led
    to the page with the form, and changes nothing. The address of `form_page` takes what this one takes."""

    def decorate(view: View) -> View:
        @wraps(view)
        def guarded(request: HttpRequest, *args: str, **kwargs: str) -> HttpResponseBase:
            if request.method == "POST":
                return view(request, *args, **kwargs)
            return HttpResponse(status=303, headers={"Location": reverse(form_page, kwargs=kwargs)})

        return require_http_methods(["GET", "HEAD", "POST"])(guarded)

    return decorate


def page_before(request: HttpRequest) -> str:
    """Where a request came from, as far as it is a page of ours; else the first one."""
    return of_ours(request, request.headers.get("Referer", "")) or "/"


def of_ours(request: HttpRequest, url: str) -> str:
    """The path of an address of ours; "" for that of another site, or none."""
    is_ours = url_has_allowed_host_and_scheme(
        url, allowed_hosts={request.get_host()}, require_https=request.is_secure()
    )
    return urlsplit(url)._replace(scheme="", netloc="").geturl() if is_ours else ""

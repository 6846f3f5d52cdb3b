"""What people do with what is kept about them: have a copy of it, or have it erased. Both ask for the password again."""

from typing import cast

from allauth.account.decorators import reauthentication_required
from django.contrib import messages
from django.contrib.auth import logout
from django.http import HttpRequest, HttpResponse, StreamingHttpResponse
from django.shortcuts import redirect, render
from django.utils import timezone
from django.utils.translation import gettext as _
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from aleph import erasure, exports, rates
from aleph.accounts.models import User
from aleph.pages import page as guarded
from billing import ledger


@require_safe
@guarded
def home(request: HttpRequest) -> HttpResponse:
    return render(request, "accounts/data.html", {"export": exports.newest(_person(request))})


@require_POST
@guarded
@reauthentication_required
def ask(request: HttpRequest) -> HttpResponse:
    rates.take(request, "personal")
    exports.ask(_person(request))
    messages.success(request, _("Your data is being prepared. You will get a mail when it is ready."))
    return redirect("personal_data")


@require_POST
@guarded
def fetch(request: HttpRequest, export_id: str) -> HttpResponse | StreamingHttpResponse:
    """Nobody is asked for his password to learn that it is not his."""
    exports.assert_own(_person(request), export_id)
    return _fetch(request, export_id)


@reauthentication_required
def _fetch(request: HttpRequest, export_id: str) -> HttpResponse | StreamingHttpResponse:
    export = exports.take(_person(request), export_id)
    name = f"aleph-{timezone.localdate():%Y-%m-%d}.zip"
    return StreamingHttpResponse(
        exports.pieces(export),
        content_type="application/zip",
        headers={
            "Content-Disposition": f'attachment; filename="{name}"',
            "Content-Length": str(export.size_bytes),
        },
    )


@require_http_methods(["GET", "HEAD", "POST"])
@guarded
@reauthentication_required
def erase(request: HttpRequest) -> HttpResponse:
    person = _person(request)
    typed = request.POST.get("email", "")
    context = {
        "balance": ledger.balance_of(person),
        "typed": typed,
        "wrong": False,
        "place": "personal_data",
    }
    if request.method != "POST" or person.is_staff:
        return render(request, "accounts/erasure.html", context)
    if typed.strip().lower() != person.email.lower() or "sure" not in request.POST:
        return render(request, "accounts/erasure.html", {**context, "wrong": True}, status=422)
    rates.take(request, "personal")
    erasure.begin(person)
    logout(request)
    messages.success(request, _("Your account is closed, and what you wrote is being deleted."))
    return redirect("account_login")


def _person(request: HttpRequest) -> User:
    return cast(User, request.user)

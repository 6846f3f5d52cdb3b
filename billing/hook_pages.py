"""The pages of webhooks, under Settings: the list, and each with its kinds, its secret and the log of what was sent."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, cast

from allauth.account.decorators import reauthentication_required
from django import forms
from django.contrib import messages
from django.db import transaction
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.utils import timezone
from django.utils.functional import Promise
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from aleph import outbound, rates
from aleph.accounts.entrance import signed_in
from aleph.accounts.models import User
from aleph.pages import page as guarded
from aleph.problems import Problem
from billing import hooks
from billing.models import Notice, WebhookAttempt, WebhookDelivery, WebhookEndpoint

State = WebhookDelivery.State
KINDS = [(kind.value, kind.label) for kind in Notice.Kind if kind in hooks.EVENTS]
PROBLEMS: dict[str, str | Promise] = {
    "address": gettext_lazy("The address is not one of the public internet."),
    "name": gettext_lazy("The name of the host was not found."),
    "tls": gettext_lazy("No safe connection: the certificate cannot be trusted."),
    "connection": gettext_lazy("Nobody answered, or the connection broke."),
    "timeout": gettext_lazy("No answer in time."),
}
SOON = timedelta(seconds=15)


@dataclass(frozen=True, slots=True)
class Try:
    attempt: WebhookAttempt
    problem: str | Promise
    is_good: bool


@dataclass(frozen=True, slots=True)
class Line:
    """A message of the log. `next_at` is when it is tried again, None where it is under way or through."""

    delivery: WebhookDelivery
    tries: Sequence[Try]
    next_at: Any
    is_live: bool


class EndpointForm(forms.Form):
    url = forms.CharField(
        label=gettext_lazy("Address"),
        max_length=outbound.LONGEST_URL,
        widget=forms.URLInput(attrs={"placeholder": "https://"}),
    )
    kinds = forms.MultipleChoiceField(
        label=gettext_lazy("What it is told"), choices=KINDS, widget=forms.CheckboxSelectMultiple
    )


class ChoiceForm(forms.Form):
    kinds = forms.MultipleChoiceField(
        label=gettext_lazy("What it is told"),
        choices=KINDS,
        required=False,
        widget=forms.CheckboxSelectMultiple,
    )
    is_on = forms.BooleanField(label=gettext_lazy("Send to this address"), required=False)


@signed_in
@never_cache
@require_http_methods(["GET", "HEAD", "POST"])
def endpoints(request: HttpRequest) -> HttpResponse:
    if request.method == "POST":
        return cast(HttpResponse, _add(request))
    return _list(request, EndpointForm(initial={"kinds": [kind for kind, _label in KINDS]}))


@require_safe
@guarded
def endpoint(request: HttpRequest, endpoint_id: str) -> HttpResponse:
    return _page(request, hooks.get(_person(request), endpoint_id))


@require_POST
@guarded
def choose(request: HttpRequest, endpoint_id: str) -> HttpResponse:
    user = _person(request)
    form = ChoiceForm(request.POST)
    if not form.is_valid():
        return _page(request, hooks.get(user, endpoint_id), form=form, status=422)
    with transaction.atomic():
        hooks.choose(user, endpoint_id, kinds=form.cleaned_data["kinds"], is_on=form.cleaned_data["is_on"])
    messages.success(request, _("Saved."))
    return redirect("billing:endpoint", endpoint_id)


@require_POST
@guarded
def rotate(request: HttpRequest, endpoint_id: str) -> HttpResponse:
    hooks.get(_person(request), endpoint_id)
    return cast(HttpResponse, _rotate(request, endpoint_id))


@require_POST
@guarded
def remove(request: HttpRequest, endpoint_id: str) -> HttpResponse:
    hooks.remove(_person(request), endpoint_id)
    messages.success(request, _("The webhook is removed."))
    return redirect("billing:endpoints")


@require_POST
@guarded
def test(request: HttpRequest, endpoint_id: str) -> HttpResponse:
    hooks.get(_person(request), endpoint_id)
    rates.take(request, "webhook-test")
    with transaction.atomic():
        hooks.test(_person(request), endpoint_id)
    return _to_log(endpoint_id)


@require_POST
@guarded
def resend(request: HttpRequest, endpoint_id: str) -> HttpResponse:
    hooks.get(_person(request), endpoint_id)
    rates.take(request, "webhook-test")
    with transaction.atomic():
        hooks.resend(_person(request), endpoint_id, request.POST.get("delivery", ""))
    return _to_log(endpoint_id)


# Secrets are shown in the answer itself, once, to whoever has just typed his password.


@reauthentication_required
def _add(request: HttpRequest) -> HttpResponse:
    form = EndpointForm(request.POST)
    if form.is_valid():
        try:
            made = hooks.add(_person(request), url=form.cleaned_data["url"], kinds=form.cleaned_data["kinds"])
        except hooks.InvalidAddress as problem:
            form.add_error("url", str(problem.message))
        except Problem as problem:
            form.add_error(None, str(problem.message))
        else:
            return _page(request, made, secret=made.secret)
    return _list(request, form, status=422)


@reauthentication_required
def _rotate(request: HttpRequest, endpoint_id: str) -> HttpResponse:
    changed = hooks.rotate(_person(request), endpoint_id)
    return _page(request, changed, secret=changed.secret)


def _list(request: HttpRequest, form: EndpointForm, *, status: int = 200) -> HttpResponse:
    context = {
        "place": "billing:endpoints",
        "endpoints": hooks.endpoints_of(_person(request)),
        "form": form,
    }
    return render(request, "billing/endpoints.html", context, status=status)


def _page(
    request: HttpRequest,
    endpoint: WebhookEndpoint,
    *,
    form: ChoiceForm | None = None,
    secret: str = "",
    status: int = 200,
) -> HttpResponse:
    before = request.GET.get("before", "")
    found = hooks.deliveries(_person(request), endpoint.pk, before=before)
    lines = [_line(delivery) for delivery in found[: hooks.PAGE]]
    context = {
        "place": "billing:endpoints",
        "endpoint": endpoint,
        "form": form or ChoiceForm(initial={"kinds": endpoint.kinds, "is_on": endpoint.is_on}),
        "secret": secret,
        "lines": lines,
        "is_live": any(line.is_live for line in lines),
        "is_first_page": not before,
        "older": lines[-1].delivery.pk if len(found) > hooks.PAGE else "",
    }
    return render(request, "billing/endpoint.html", context, status=status)


def _to_log(endpoint_id: str) -> HttpResponse:
    return redirect(f"{reverse('billing:endpoint', args=[endpoint_id])}#log")


def _line(delivery: WebhookDelivery) -> Line:
    tries = [
        Try(
            attempt,
            PROBLEMS.get(attempt.problem, ""),
            attempt.status is not None and 200 <= attempt.status < 300,
        )
        for attempt in delivery.log.all()
    ]
    tries.sort(key=lambda one: one.attempt.number)
    wait = delivery.due_at - timezone.now()
    is_due = delivery.state == State.DUE
    is_waiting = is_due and wait > SOON and bool(tries) and tries[-1].attempt.took_ms is not None
    return Line(delivery, tries, delivery.due_at if is_waiting else None, is_due and not is_waiting)


def _person(request: HttpRequest) -> User:
    return cast(User, request.user)

"""The pages of notices: the inbox behind the bell, and what somebody wants to be told of."""

from dataclasses import dataclass
from typing import Any, ClassVar, cast

from django import forms
from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.urls import NoReverseMatch, reverse
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy
from django.views.decorators.http import require_safe

from aleph.accounts.entrance import posted
from aleph.accounts.models import User
from aleph.pages import page as guarded
from billing import mailing, notices
from billing.amounts import AmountField
from billing.models import Notice

PLACES = {
    Notice.Kind.PURCHASE: "billing:receipt",
    Notice.Kind.TOPUP: "billing:topup",
    Notice.Kind.TOPUP_FAILED: "billing:topup",
    Notice.Kind.BUDGET: "usage:budget",
    Notice.Kind.WEBHOOK: "billing:endpoint",
}
"""Where what a notice is about has a page, by its reference."""
REFUNDED = {"buy_": "billing:receipt", "top_": "billing:topup"}
"""The same for refunds, which are of a purchase or of a top-up."""
ELSEWHERE = {
    Notice.Kind.REFILL: "billing:refill",
    Notice.Kind.BUDGET: "usage:home",
    Notice.Kind.UNUSUAL: "usage:home",
    Notice.Kind.WEBHOOK: "billing:endpoints",
}
"""Where those of a kind lead that have none; the others to the history."""


@dataclass(frozen=True, slots=True)
class Shown:
    notice: Notice
    words: mailing.Words
    address: str


class WishesForm(forms.Form):
    """Mail is wanted for every kind that is ticked, and so is the page for those that may be kept out of it."""

    LONGEST: ClassVar[int] = 10**12

    low_below = AmountField(
        label=gettext_lazy("Tell me when I have fewer tokens than"),
        min_value=1,
        max_value=LONGEST,
        required=False,
    )
    mail = forms.MultipleChoiceField(
        label=gettext_lazy("By email, too"),
        choices=Notice.Kind.choices,
        required=False,
        widget=forms.CheckboxSelectMultiple,
    )
    page = forms.MultipleChoiceField(
        choices=[(kind, kind) for kind in Notice.OPTIONAL],
        required=False,
        widget=forms.CheckboxSelectMultiple,
    )

    def rows(self) -> list[dict[str, Any]]:
        """A kind in each: what it is called, whether it is in the page and mailed, and whether the page is his choice."""
        in_page, mailed = self["page"].value() or [], self["mail"].value() or []
        return [
            {
                "kind": kind.value,
                "label": kind.label,
                "is_optional": kind in Notice.OPTIONAL,
                "in_page": kind not in Notice.OPTIONAL or kind.value in in_page,
                "mailed": kind.value in mailed,
            }
            for kind in Notice.Kind
        ]


@require_safe
@guarded
def page(request: HttpRequest) -> HttpResponse:
    user = cast(User, request.user)
    wishes = notices.wishes_of(user)
    form = WishesForm(
        initial={
            "low_below": wishes.low_below,
            "mail": [kind for kind in Notice.Kind.values if kind not in wishes.without_mail],
            "page": [kind for kind in Notice.OPTIONAL if kind not in wishes.without_page],
        }
    )
    return _page(request, form)


@posted("billing:notices")
@guarded
def readings(request: HttpRequest) -> HttpResponse:
    """Marks one notice as read, or everything that the page has shown."""
    user = cast(User, request.user)
    if "notice" in request.POST:
        notices.read(user, request.POST["notice"])
    else:
        notices.read_all(user, up_to=request.POST.get("up_to", ""))
    return HttpResponse(status=303, headers={"Location": reverse("billing:notices")})


@posted("billing:notices")
@guarded
def wishes(request: HttpRequest) -> HttpResponse:
    form = WishesForm(request.POST)
    if not form.is_valid():
        return _page(request, form, status=422)
    wanted, in_page = form.cleaned_data["mail"], form.cleaned_data["page"]
    notices.wish(
        user=cast(User, request.user),
        low_below=form.cleaned_data["low_below"],
        without_mail=[kind for kind in Notice.Kind.values if kind not in wanted],
        without_page=[kind for kind in Notice.OPTIONAL if kind not in in_page],
    )
    messages.success(request, _("Saved."))
    return redirect("billing:notices")


def _page(request: HttpRequest, form: WishesForm, *, status: int = 200) -> HttpResponse:
    before = request.GET.get("before", "")
    found = notices.inbox(cast(User, request.user), before=before)
    shown = found[: notices.PAGE]
    context: dict[str, Any] = {
        "shown": [Shown(notice, mailing.words_of(notice), address_of(notice)) for notice in shown],
        "newest": shown[0] if shown else None,
        "older": shown[-1].pk if len(found) > notices.PAGE else "",
        "is_first_page": not before,
        "has_unread": any(notice.read_at is None for notice in shown),
        "form": form,
    }
    return render(request, "billing/notices.html", context, status=status)


def address_of(notice: Notice) -> str:
    kind = Notice.Kind(notice.kind)
    otherwise = reverse(ELSEWHERE.get(kind, "billing:history"))
    place = PLACES.get(kind, "")
    if kind == Notice.Kind.REFUND:
        place = REFUNDED.get(notice.reference[:4], "")
    if not place or not notice.reference:
        return otherwise
    try:
        return reverse(place, args=[notice.reference])
    except NoReverseMatch:
        return otherwise

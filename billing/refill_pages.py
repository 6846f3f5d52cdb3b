"""The page on which somebody lets packages be bought automatically, changes that, and turns it off."""

from typing import Any, ClassVar, cast

from django import forms
from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy
from django.views.decorators.http import require_safe

from aleph.accounts.entrance import posted
from aleph.accounts.models import User
from aleph.pages import page as guarded
from aleph.problems import InvalidRequest, NotFound
from aleph.templatetags.aleph import count, rupiah
from billing import ledger, purchases, refills
from billing.amounts import AmountField
from billing.models import Package


class RefillForm(forms.Form):
    LARGEST: ClassVar[int] = 10**12

    package = forms.ChoiceField(label=gettext_lazy("Package"))
    below_tokens = AmountField(
        label=gettext_lazy("Buy when I have fewer tokens than"), min_value=1, max_value=LARGEST
    )
    monthly_limit_idr = AmountField(
        label=gettext_lazy("At most in a month, in rupiah"), min_value=1, max_value=LARGEST
    )

    def __init__(self, packages: list[Package], *given: Any, **how: Any) -> None:
        super().__init__(*given, **how)
        words = _("%(name)s: %(tokens)s tokens, %(price)s")
        cast(forms.ChoiceField, self.fields["package"]).choices = [
            (
                package.slug,
                words
                % {
                    "name": package.name,
                    "tokens": count(package.total_tokens),
                    "price": rupiah(package.price_idr),
                },
            )
            for package in packages
        ]


@require_safe
@guarded
def page(request: HttpRequest) -> HttpResponse:
    return _page(request)


@posted("billing:refill")
@guarded
def settings(request: HttpRequest) -> HttpResponse:
    user = cast(User, request.user)
    form = RefillForm(purchases.packages(), request.POST)
    if not form.is_valid():
        return _page(request, form, status=422)
    slug = form.cleaned_data["package"]
    try:
        refills.set_up(
            user=user,
            package_slug=slug,
            below_tokens=form.cleaned_data["below_tokens"],
            monthly_limit_idr=form.cleaned_data["monthly_limit_idr"],
            terms=request.POST.get(f"terms-{slug}"),
        )
    except (InvalidRequest, NotFound, purchases.TermsChanged) as problem:
        form.add_error(None, str(problem.message))
        return _page(request, form, status=problem.status)
    messages.success(request, _("Tokens are bought automatically from now on."))
    return redirect("billing:refill")


@posted("billing:refill")
@guarded
def stops(request: HttpRequest) -> HttpResponse:
    refills.turn_off(user=cast(User, request.user))
    messages.success(request, _("Nothing is bought automatically any more."))
    return redirect("billing:refill")


def _page(request: HttpRequest, form: RefillForm | None = None, *, status: int = 200) -> HttpResponse:
    user = cast(User, request.user)
    packages = purchases.packages()
    refill = refills.of(user)
    initial = (
        {
            "package": refill.package.slug,
            "below_tokens": refill.below_tokens,
            "monthly_limit_idr": refill.monthly_limit_idr,
        }
        if refill
        else {"below_tokens": 1_000, "monthly_limit_idr": 4 * packages[0].price_idr if packages else None}
    )
    return render(
        request,
        "billing/refill.html",
        {
            "refill": refill,
            "why": refills.WHY.get(refills.Pause(refill.paused_for)) if refill and refill.paused_for else "",
            "spent_idr": refills.spent_idr(user, since=refills.month_began()) if refill else 0,
            "packages": packages,
            "form": form or RefillForm(packages, initial=initial),
            "balance": ledger.balance_of(user),
        },
        status=status,
    )

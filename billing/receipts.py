"""The receipt of a purchase: one source of its figures for the page, the printer, the PDF and the chat.

All of it comes from the purchase as it was kept, never from today's packages. The lines of a quote, which the confirm
step shows, are made by the same function.
"""

from dataclasses import dataclass
from datetime import datetime

from django.http import HttpResponse
from django.utils import timezone, translation
from django.utils.formats import date_format
from django.utils.translation import gettext as _

from aleph import paper
from aleph.accounts.models import User
from aleph.templatetags.aleph import count, rupiah, signed
from billing import purchases
from billing.models import Purchase
from billing.offers import Quote


@dataclass(frozen=True, slots=True)
class Line:
    """One line: what it is, the tokens that it brings, if any, and what it costs; discounts are below zero."""

    label: str
    tokens: int | None
    price_idr: int


@dataclass(frozen=True, slots=True)
class Receipt:
    """What the receipt says. Transfers are ids of the ledger."""

    purchase: Purchase
    name: str
    email: str
    lines: list[Line]
    transfers: list[str]

    @property
    def at(self) -> datetime:
        return timezone.localtime(self.purchase.created_at)


def of(user: User, purchase_id: str) -> Receipt:
    """The receipt of a purchase of `user`. Raises `NotFound`."""
    purchase = purchases.receipt(user, purchase_id)
    return Receipt(
        purchase=purchase,
        name=user.name,
        email=user.email,
        lines=lines_of(purchase),
        transfers=purchases.transfers_of(purchase),
    )


def lines_of(bought: Purchase | Quote) -> list[Line]:
    """What is bought, what comes on top and what goes off, in the order in which it was computed."""
    words = {"name": bought.package_name, "quantity": bought.quantity}
    label = _("%(name)s package × %(quantity)d") if bought.quantity > 1 else _("%(name)s package")
    lines = [Line(label % words, bought.tokens, bought.list_price_idr)]
    if bought.package_bonus_tokens:
        lines.append(Line(_("Bonus"), bought.package_bonus_tokens, 0))
    if bought.first_bonus_tokens:
        lines.append(Line(_("Bonus for the first purchase"), bought.first_bonus_tokens, 0))
    if bought.quantity_discount_idr:
        label = _("Quantity discount, %(percent)d%%") % {"percent": bought.quantity_percent}
        lines.append(Line(label, None, -bought.quantity_discount_idr))
    if bought.promo_code:
        label = _("Promo code %(code)s") % {"code": bought.promo_code}
        lines.append(Line(label, bought.promo_bonus_tokens or None, -bought.promo_discount_idr))
    return lines


def as_pdf(receipt: Receipt) -> HttpResponse:
    """The receipt as a file, in the language of the page."""
    bought = receipt.purchase
    sheet = paper.Paper(title=_("Receipt"), number=bought.number, language=translation.get_language() or "id")
    left = _("%(left)s left") % {"left": rupiah(bought.wallet_after_idr)}
    sheet.facts(
        [
            (_("For"), "\n".join(filter(None, [receipt.name, receipt.email]))),
            (_("Paid on"), date_format(receipt.at, "j F Y, H:i T")),
            (_("Paid from"), f"{_('Aleph wallet')}, {left}"),
            *(
                [(_("Why"), _("Bought automatically, as its owner has set it"))]
                if bought.is_automatic
                else []
            ),
        ]
    )
    sheet.table(
        [_("Item"), _("Tokens"), _("Price")],
        [
            *([line.label, count(line.tokens), rupiah(line.price_idr)] for line in receipt.lines),
            [_("Total"), count(bought.total_tokens), rupiah(bought.price_idr)],
        ],
        widths=(50, 25, 25),
        total=True,
    )
    sheet.table(
        [_("Balance"), _("Before"), _("This purchase"), _("After")],
        [
            [
                _("Wallet"),
                rupiah(bought.wallet_before_idr),
                rupiah(-bought.price_idr),
                rupiah(bought.wallet_after_idr),
            ],
            [
                _("Tokens"),
                count(bought.tokens_before),
                signed(bought.total_tokens),
                count(bought.tokens_after),
            ],
        ],
        widths=(25, 25, 25, 25),
    )
    sheet.small(_("Order %(order)s") % {"order": bought.pk})
    sheet.small(f"{_('Transfers')} {', '.join(receipt.transfers)}")
    return paper.answered(f"{bought.number}.pdf", sheet.as_bytes(at=receipt.at))

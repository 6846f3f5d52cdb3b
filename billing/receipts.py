"""The receipt of a purchase: one source of its figures for the page, the printer, the PDF and the chat.

All of it comes from the purchase as it was kept, never from today's packages. A refund is added below it, and changes
nothing above. The lines of a quote, which the confirm step shows, are made by the same function.
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
from billing import corrections, purchases
from billing.models import Correction, Purchase, Unit
from billing.offers import Quote


@dataclass(frozen=True, slots=True)
class Line:
    """One line: what it is, the tokens that it brings, if any, and what it costs; discounts are below zero."""

    label: str
    tokens: int | None
    price_idr: int


@dataclass(frozen=True, slots=True)
class Refund:
    """What was given back of a purchase, and what both accounts were after it. Figures of `lines` are below zero."""

    correction: Correction
    lines: list[Line]
    wallet_after_idr: int
    tokens_after: int
    transfers: list[str]

    @property
    def at(self) -> datetime:
        return timezone.localtime(self.correction.decided_at)

    @property
    def wallet_before_idr(self) -> int:
        return self.wallet_after_idr - self.correction.amount

    @property
    def tokens_before(self) -> int:
        return self.tokens_after + self.correction.tokens_taken


@dataclass(frozen=True, slots=True)
class Receipt:
    """What the receipt says. Transfers are ids of the ledger."""

    purchase: Purchase
    name: str
    email: str
    lines: list[Line]
    transfers: list[str]
    refund: Refund | None

    @property
    def at(self) -> datetime:
        return timezone.localtime(self.purchase.created_at)

    @property
    def kept_tokens(self) -> int:
        """Of what was bought, after a refund."""
        taken = self.refund.correction.tokens_taken if self.refund else 0
        return self.purchase.total_tokens - taken

    @property
    def kept_price_idr(self) -> int:
        """Of what was paid, after a refund."""
        returned = self.refund.correction.amount if self.refund else 0
        return self.purchase.price_idr - returned


def of(user: User, purchase_id: str) -> Receipt:
    """The receipt of a purchase of `user`. Raises `NotFound`."""
    purchase = purchases.receipt(user, purchase_id)
    return Receipt(
        purchase=purchase,
        name=user.name,
        email=user.email,
        lines=lines_of(purchase),
        transfers=purchases.transfers_of(purchase),
        refund=_refund_of(purchase),
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


def _refund_of(purchase: Purchase) -> Refund | None:
    correction = corrections.applied_refund(purchase)
    if correction is None:
        return None
    transfers = corrections.transfers_of(correction)
    after = {transfer.unit: transfer.balance_after or 0 for transfer in transfers}
    bonus = correction.bonus_taken
    lines = [Line(_("Tokens that were not used"), bonus - correction.tokens_taken, -correction.amount)]
    if bonus:
        lines.append(Line(_("Bonus that was not used"), -bonus, 0))
    return Refund(
        correction=correction,
        lines=lines,
        wallet_after_idr=after[Unit.IDR],
        tokens_after=after[Unit.TOKEN],
        transfers=[transfer.pk for transfer in transfers],
    )


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
    _balances(
        sheet,
        what=_("This purchase"),
        wallet=(bought.wallet_before_idr, bought.wallet_after_idr),
        tokens=(bought.tokens_before, bought.tokens_after),
    )
    transfers = receipt.transfers
    if refund := receipt.refund:
        sheet.heading(_("Refund"))
        sheet.facts(
            [
                (_("Refunded on"), date_format(refund.at, "j F Y, H:i T")),
                (_("Why"), refund.correction.reason),
            ]
        )
        sheet.table(
            [_("Item"), _("Tokens"), _("Price")],
            [
                *([line.label, signed(line.tokens or 0), rupiah(line.price_idr)] for line in refund.lines),
                [_("Total after the refund"), count(receipt.kept_tokens), rupiah(receipt.kept_price_idr)],
            ],
            widths=(50, 25, 25),
            total=True,
        )
        _balances(
            sheet,
            what=_("This refund"),
            wallet=(refund.wallet_before_idr, refund.wallet_after_idr),
            tokens=(refund.tokens_before, refund.tokens_after),
        )
        transfers = transfers + refund.transfers
    sheet.small(_("Order %(order)s") % {"order": bought.pk})
    sheet.small(f"{_('Transfers')} {', '.join(transfers)}")
    return paper.answered(f"{bought.number}.pdf", sheet.as_bytes(at=receipt.at))


def _balances(sheet: paper.Paper, *, what: str, wallet: tuple[int, int], tokens: tuple[int, int]) -> None:
    """Both accounts before and after."""
    plus = "+" if wallet[1] > wallet[0] else ""
    sheet.table(
        [_("Balance"), _("Before"), what, _("After")],
        [
            [_("Wallet"), rupiah(wallet[0]), plus + rupiah(wallet[1] - wallet[0]), rupiah(wallet[1])],
            [_("Tokens"), count(tokens[0]), signed(tokens[1] - tokens[0]), count(tokens[1])],
        ],
        widths=(25, 25, 25, 25),
    )

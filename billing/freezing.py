"""An account that disagrees with its transfers pays for nothing until somebody has looked at it; nor does one whose owner
owes money that went back to the payer after it was spent.

Freezing stops what the account would spend; replies that are open are settled, and what comes in comes in. Only staff
take it back, with a reason, and only once the account agrees again.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol

import structlog
from django.conf import settings
from django.core.mail import mail_admins
from django.db.models.functions import Now
from django.utils import translation
from django.utils.translation import gettext as _

from aleph.accounts.models import User
from billing.models import Account, TopUp

log = structlog.get_logger(__name__)

LINES = 50
"""Accounts that one mail names."""


class Disagreement(Protocol):
    """An account whose figures are not those of its transfers; its text says how."""

    @property
    def account_id(self) -> int: ...


Freeze = Callable[[Disagreement], str]


@contextmanager
def telling_staff() -> Iterator[Freeze]:
    """Gives what freezes an account, and sends the staff one mail at the end about all that were frozen.

    `freeze` returns who it was and how it disagrees, "" where the account was frozen before. Each is logged as an error,
    so that an alarm can ring before anybody reads mail.
    """
    frozen: list[str] = []

    def freeze(found: Disagreement) -> str:
        line = _freeze(found)
        if line:
            frozen.append(line)
        return line

    try:
        yield freeze
    finally:
        if frozen:
            _mail(frozen)


def unfreeze(account: Account) -> None:
    """Let an account spend again. Harmless where it may already."""
    Account.objects.filter(pk=account.pk).update(frozen_at=None)
    log.warning("an account was unfrozen", account_id=account.pk, user_id=account.user_id)


def freeze_debtor(user: User) -> None:
    """Stop what somebody would spend who owes money. Harmless where it is stopped already."""
    Account.objects.filter(user=user, frozen_at=None).update(frozen_at=Now())
    log.error("accounts were frozen for a debt", user_id=user.pk)


def tell_of_payment(topup: TopUp, why: str) -> None:
    """One mail to the staff about a payment that needs a person. A mail that cannot be sent undoes nothing."""
    with translation.override(settings.LANGUAGE_CODE):
        subject = _("A top-up needs you: %(reference)s") % {"reference": topup.pk}
        body = _(
            "%(user)s, Rp %(amount)s by %(gateway)s: %(why)s\n\nLook at it in the administration. What to do then stands in docs/payments.md."
        ) % {
            "user": topup.user,
            "amount": f"{topup.amount_idr:,}".replace(",", "."),
            "gateway": topup.gateway,
            "why": why,
        }
    try:
        mail_admins(subject, body)
    except Exception:
        log.exception("the staff could not be told of a payment", topup=topup.pk)


def _freeze(found: Disagreement) -> str:
    is_fresh = Account.objects.filter(pk=found.account_id, frozen_at=None).update(frozen_at=Now())
    log.error("an account disagrees with its transfers", account_id=found.account_id, how=str(found))
    if not is_fresh:
        return ""
    account = Account.objects.select_related("user").get(pk=found.account_id)
    return f"{account.user}/{account.name}: {found}"


def _mail(frozen: list[str]) -> None:
    """What is wrong with the mail must not undo that the accounts are frozen, nor keep the audit from the next ones."""
    with translation.override(settings.LANGUAGE_CODE):
        subject = _("Frozen accounts: %(number)d") % {"number": len(frozen)}
        lines = [
            _(
                "These accounts disagree with their transfers, and pay for nothing until you have looked at them:"
            ),
            "",
            *frozen[:LINES],
            *([_("… and %(number)d more.") % {"number": len(frozen) - LINES}] if len(frozen) > LINES else []),
            "",
            _("What to do then stands in docs/operations.md, under “What to watch”."),
        ]
    try:
        mail_admins(subject, "\n".join(lines))
    except Exception:
        log.exception("the staff could not be told of frozen accounts", accounts=len(frozen))

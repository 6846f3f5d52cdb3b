"""The words of notices, in the language of whoever reads them, and their mail.

A mail is claimed before it is sent, so two at once send one. Whoever claims it has a lease: where he dies, the mail goes
out later, and may do so twice if he died between sending it and saying so.
"""

import time
from datetime import datetime
from typing import NamedTuple

import structlog
from django.conf import settings
from django.core.mail import send_mail
from django.db import OperationalError
from django.template.loader import render_to_string
from django.urls import reverse
from django.utils import translation
from django.utils.translation import gettext as _

from aleph.templatetags.aleph import count, rupiah, signed
from billing import notices, refills
from billing.models import Notice, TopUp, Unit

log = structlog.get_logger(__name__)

TRIES = 5
BATCH = 100
CLOSINGS, PAUSE_S = 4, 0.5


class Words(NamedTuple):
    """What a notice says: a line, and a sentence or two below it."""

    title: str
    text: str


def words_of(notice: Notice) -> Words:
    amount = notice.amount or 0
    said = rupiah(abs(amount)) if notice.unit == Unit.IDR else count(abs(amount))
    detail = notice.detail
    match notice.kind:
        case Notice.Kind.LOW_BALANCE:
            return Words(
                _("Your tokens are running low"),
                _("You have %(tokens)s left. Replies by paid models need some to begin.")
                % {"tokens": _tokens(amount)},
            )
        case Notice.Kind.TOPUP:
            return Words(_("%(amount)s is in your wallet") % {"amount": said}, _("Your top-up has arrived."))
        case Notice.Kind.TOPUP_FAILED if detail == TopUp.State.EXPIRED:
            return Words(
                _("A top-up of %(amount)s was not paid") % {"amount": said},
                _(
                    "Its payment page is closed, and nothing was charged. If you left it on purpose, nothing has to be done;"
                    " you can begin another at any time."
                ),
            )
        case Notice.Kind.TOPUP_FAILED:
            return Words(
                _("A top-up of %(amount)s did not go through") % {"amount": said},
                _("Nothing was added to your wallet. You can try again at any time."),
            )
        case Notice.Kind.PURCHASE:
            return Words(
                _("%(tokens)s bought") % {"tokens": _tokens(amount)},
                _("%(package)s package, paid from your wallet.") % {"package": detail},
            )
        case Notice.Kind.REFUND:
            return Words(
                _("%(amount)s refunded") % {"amount": said},
                detail or _("Your history shows what has changed."),
            )
        case Notice.Kind.BUDGET:
            percent = notice.facts.get("percent", 0)
            title = (
                _("A budget of yours is used up")
                if percent >= 100
                else _("%(percent)s%% of a budget is used") % {"percent": percent}
            )
            return Words(title, detail)
        case Notice.Kind.UNUSUAL:
            return _unusual(notice)
        case Notice.Kind.WEBHOOK:
            return Words(
                _("A webhook of yours is turned off"),
                _("%(host)s has not taken our messages for days. What was not sent stands in its log.")
                % {"host": detail},
            )
        case Notice.Kind.REFILL:
            return Words(_("Buying automatically is paused"), str(refills.WHY.get(detail, "")))
        case _:
            change = (MINUS_OR_PLUS[amount > 0] + said) if notice.unit == Unit.IDR else signed(amount)
            title = (
                _("Your wallet was adjusted: %(change)s")
                if notice.unit == Unit.IDR
                else _("Your tokens were adjusted: %(change)s")
            )
            return Words(title % {"change": change}, detail)


MINUS_OR_PLUS = ("\u2212", "+")


def send(notice_id: str) -> None:
    """Send the mail of a notice, if it is due. Harmless when run twice, also at once."""
    notice = notices.claim_mail(notice_id)
    if notice is None:
        return
    if notice.mail_tries > TRIES:
        # Whoever sent it died of it every time.
        _close(notice, Notice.Mail.FAILED)
        return
    try:
        with translation.override(notice.user.language or settings.LANGUAGE_CODE):
            words = words_of(notice)
            address = f"{settings.PUBLIC_URL}{reverse('billing:notices')}"
            body = render_to_string("billing/mail/notice.txt", {"words": words, "address": address})
            send_mail(words.title, body, None, [notice.user.email])
    except Exception:
        log.warning("a notice could not be mailed", notice_id=notice.pk, exc_info=True)
        is_over = notice.mail_tries >= TRIES
        _close(notice, Notice.Mail.FAILED if is_over else Notice.Mail.DUE)
    else:
        _close(notice, Notice.Mail.SENT)


def send_due() -> None:
    """Send what was due and was not sent: its bell was lost, or a try failed."""
    for notice in notices.due(limit=BATCH):
        send(notice.pk)


def _close(notice: Notice, state: str) -> None:
    """Say what became of a mail, also to a busy database: left unsaid, it would be sent again."""
    for last in (*[False] * CLOSINGS, True):
        try:
            notices.close_mail(notice, state)
        except OperationalError:
            if last:
                raise
            time.sleep(PAUSE_S)
        else:
            return


def _unusual(notice: Notice) -> Words:
    """Of facts: `tokens` since midnight of UTC, `usual_tokens` of a day, `since` in the user's own zone, `model` and its
    share `model_percent`, "" for none."""
    facts = notice.facts
    since = facts.get("since", "")
    text = _(
        "%(tokens)s LLM tokens so far today; on a day like this it is usually about %(usual)s."
        " It became more than usual at %(at)s."
    ) % {
        "tokens": count(facts.get("tokens", 0)),
        "usual": count(facts.get("usual_tokens", 0)),
        "at": datetime.fromisoformat(since).strftime("%H:%M") if since else "",
    }
    if facts.get("model"):
        said = {"percent": facts.get("model_percent", 0), "model": facts["model"]}
        text += " " + _("%(percent)s%% of it by %(model)s.") % said
    text += " " + _(
        "If this was not you, revoke your API keys under Settings; a budget limits what can be used."
    )
    return Words(_("Much more is used than usual"), text)


def _tokens(number: int) -> str:
    return translation.ngettext("%(number)s token", "%(number)s tokens", number) % {"number": count(number)}

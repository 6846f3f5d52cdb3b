"""The words of notices, in the language of whoever reads them, and their mail.

A mail is claimed before it is sent, so two at once send one. Whoever claims it has a lease: where he dies, the mail goes
out later, and may do so twice if he died between sending it and saying so.
"""

import time
from datetime import datetime
from decimal import Decimal
from typing import NamedTuple

import structlog
from django.conf import settings
from django.core.mail import send_mail
from django.db import OperationalError
from django.template.loader import render_to_string
from django.urls import reverse
from django.utils import translation
from django.utils.formats import date_format
from django.utils.translation import gettext as _

from aleph.templatetags.aleph import count, rupiah, signed, usd
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
            return _budget(notice)
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


def _budget(notice: Notice) -> Words:
    """Of facts, as `aleph.alerts` writes them: `percent`, `spent` and `limit` in `unit`, `every`, `action`, `scope` with
    `name`, and when it `ends` in the budget's own zone."""
    facts = notice.facts
    every = {"day": _("daily budget"), "week": _("weekly budget"), "month": _("monthly budget")}
    percent, budget = facts.get("percent", 0), every.get(facts.get("every", ""), "")
    is_used_up = percent >= 100
    said = {"percent": percent, "budget": budget}
    title = (
        _("The %(budget)s is used up") % said
        if is_used_up
        else _("%(percent)s%% of the %(budget)s is used") % said
    )
    sentences = [
        _("%(spent)s of %(limit)s.")
        % {name: _of_budget(facts.get(name, 0), facts.get("unit", "")) for name in ("spent", "limit")}
    ]
    of_whom = {
        "key": _("It is that of the API key %(name)s."),
        "company": _("It is that of %(name)s."),
        "everyone": _("It is that of everyone together."),
    }.get(facts.get("scope", ""))
    if of_whom:
        sentences.append(of_whom % {"name": facts.get("name", "")})
    if "ends" in facts:
        ends = {"ends": date_format(datetime.fromisoformat(facts["ends"]), "j F Y, H:i")}
        action = facts.get("action") if is_used_up else ""
        if action == "block":
            sentences.append(_("Until %(ends)s nothing more is answered.") % ends)
        elif action == "throttle":
            sentences.append(_("Until %(ends)s replies are slowed down.") % ends)
        else:
            sentences.append(_("It begins anew on %(ends)s.") % ends)
    return Words(title, " ".join(sentences))


def _of_budget(amount: int | str, unit: str) -> str:
    return usd(Decimal(amount)) if unit == "usd" else _tokens(int(amount))


def _unusual(notice: Notice) -> Words:
    """Of facts, as `aleph.alerts` writes them: `tokens` of the day that began at `from`, `usual_tokens` of a day, `since` when
    it was more than that, both times in the reader's own zone, `model` with its share `model_percent`, and `keys` that were used."""
    facts = notice.facts
    text = _("%(tokens)s LLM tokens since %(begin)s; in a whole day it is usually about %(usual)s.") % {
        "tokens": count(facts.get("tokens", 0)),
        "begin": _clock(facts.get("from", "")),
        "usual": count(facts.get("usual_tokens", 0)),
    }
    if facts.get("model"):
        said = {
            "at": _clock(facts.get("since", "")),
            "percent": facts.get("model_percent", 0),
            "model": facts["model"],
        }
        text += " " + _("That was passed after %(at)s; %(percent)s%% is %(model)s.") % said
    if facts.get("keys"):
        text += " " + _("API keys that were used: %(keys)s.") % {"keys": ", ".join(facts["keys"])}
    text += " " + _(
        "If this was not you, revoke your API keys under Settings; a budget limits what can be used."
    )
    return Words(_("Much more is used than usual"), text)


def _clock(moment: str) -> str:
    return datetime.fromisoformat(moment).strftime("%H:%M") if moment else ""


def _tokens(number: int) -> str:
    return translation.ngettext("%(number)s token", "%(number)s tokens", number) % {"number": count(number)}

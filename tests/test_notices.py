"""Whoever's money changes is told of it: once, in his own language, and by mail where he wants that."""

import re
from datetime import timedelta
from typing import Any

import pytest
from django.core import mail
from django.db import transaction
from django.db.models.functions import Now
from django.utils import translation

from aleph import ids
from aleph.accounts.models import User
from aleph.problems import NotFound
from billing import ledger, mailing, notices, purchases, refills
from billing.models import Notice, NoticeWishes, Unit
from tests import people
from tests.test_billing_pages import signed_in, words


def tell(person: User, key: str = "one", **fields: Any) -> None:
    notices.tell(
        **{
            "user": person,
            "kind": notices.Kind.TOPUP,
            "key": key,
            "amount": 50_000,
            "unit": Unit.IDR,
            "reference": "top_1",
            **fields,
        }
    )


def spend(person: User, amount: int) -> None:
    ledger.spend(
        user=person,
        account=ledger.TOKENS,
        amount=amount,
        to="consumed",
        kind=ledger.Kind.REPLY,
        reference="msg_1",
        key=ids.new("use"),
    )


def kinds(person: User) -> list[str]:
    return [notice.kind for notice in notices.inbox(person)]


# The inbox


def test_one_event_is_told_once(db: None) -> None:
    alice = people.alice()
    for _again in range(3):
        tell(alice)
    assert kinds(alice) == ["topup"]
    tell(people.bob())
    assert notices.unread(alice) == 1


def test_a_purchase_is_told(db: None) -> None:
    alice = people.alice()
    bought = purchases.buy(user=alice, package_slug="starter", key="a")
    purchases.buy(user=alice, package_slug="starter", key="a")
    (notice,) = notices.inbox(alice)
    assert (notice.kind, notice.amount, notice.reference) == ("purchase", 10_500, bought.pk)
    with translation.override("en"):
        assert mailing.words_of(notice).title == "10,500 tokens bought"


def test_what_was_read_is_not_counted_again(db: None) -> None:
    alice = people.alice()
    tell(alice, "one")
    tell(alice, "two")
    newest, older = notices.inbox(alice)
    notices.read(alice, older.pk)
    assert notices.unread(alice) == 1
    tell(alice, "three")
    notices.read_all(alice, up_to=newest.pk)
    assert notices.unread(alice) == 1, "what came after the page was drawn stays unread"


def test_nobody_reads_the_notices_of_others(db: None) -> None:
    alice = people.alice()
    tell(alice)
    with pytest.raises(NotFound):
        notices.read(people.carol(), notices.inbox(alice)[0].pk)
    for nonsense in ("", "\0", "ntc_1", "x" * 500):
        with pytest.raises(NotFound):
            notices.read(alice, nonsense)
    assert notices.unread(alice) == 1


@pytest.mark.parametrize("kind", Notice.Kind.values)
def test_every_kind_has_words(db: None, kind: str) -> None:
    why = next(iter(refills.WHY)) if kind == Notice.Kind.REFILL else "because"
    notice = Notice(kind=kind, amount=-1_500, unit=Unit.IDR, detail=why)
    words = mailing.words_of(notice)
    assert words.title
    assert words.text


# Low balance


def test_a_low_balance_is_told_once_until_it_has_recovered(db: None) -> None:
    alice = people.alice()
    notices.watch()
    assert kinds(alice) == []
    spend(alice, 9_600)
    notices.watch()
    notices.watch()
    assert kinds(alice) == ["low_balance"]
    spend(alice, 100)
    notices.watch()
    assert len(kinds(alice)) == 1
    people.give_tokens(alice, 5_000)
    notices.watch()
    spend(alice, 5_000)
    notices.watch()
    assert len(kinds(alice)) == 2


def test_who_never_had_tokens_is_not_told_that_they_run_low(db: None) -> None:
    carol = people.carol()
    notices.watch()
    notices.watch()
    assert kinds(carol) == []


def test_everybody_chooses_what_is_low(db: None) -> None:
    alice, bob = people.alice(), people.alice()
    notices.wish(user=alice, low_below=8_000, without_mail=[])
    notices.wish(user=bob, low_below=None, without_mail=[])
    notices.watch()
    for person in (alice, bob):
        spend(person, 3_000)
    notices.watch()
    assert kinds(alice) == ["low_balance"]
    assert kinds(bob) == []
    assert notices.inbox(alice)[0].amount == 7_500


def test_a_hold_is_no_fall(db: None) -> None:
    alice = people.alice()
    notices.watch()
    ledger.hold(user=alice, amount=10_000, reference="msg_1", key=ids.new("hold"))
    notices.watch()
    assert kinds(alice) == []


# Mail


def lease_is_over(notice: Notice) -> None:
    Notice.objects.filter(pk=notice.pk).update(mail_until=Now() - timedelta(seconds=1))


def mailed(person: User) -> list[str]:
    return [str(letter.subject) for letter in mail.outbox if letter.to == [person.email]]


def test_a_mail_goes_out_once_in_the_readers_language(db: None) -> None:
    budi = people.someone("Budi")
    budi.language = "id"
    budi.save()
    tell(budi)
    (notice,) = notices.inbox(budi)
    mailing.send(notice.pk)
    mailing.send(notice.pk)
    assert mailed(budi) == ["Rp 50.000 ada di dompet Anda"]
    notice.refresh_from_db()
    assert notice.mail == Notice.Mail.SENT


def test_who_wants_no_mail_of_a_kind_gets_none(db: None) -> None:
    alice = people.alice()
    notices.wish(user=alice, low_below=100, without_mail=["topup", "nonsense"])
    tell(alice)
    (notice,) = notices.inbox(alice)
    mailing.send(notice.pk)
    assert mailed(alice) == []
    assert NoticeWishes.objects.get(user=alice).without_mail == ["topup"]


def test_a_mail_that_fails_is_tried_again_and_given_up_at_last(db: None, settings: Any) -> None:
    alice = people.alice()
    tell(alice)
    (notice,) = notices.inbox(alice)
    settings.EMAIL_BACKEND = "django.core.mail.backends.smtp.EmailBackend"
    settings.EMAIL_HOST, settings.EMAIL_PORT = "127.0.0.1", 1
    for _try in range(mailing.TRIES):
        mailing.send(notice.pk)
    notice.refresh_from_db()
    assert (notice.mail, notice.mail_tries) == (Notice.Mail.FAILED, mailing.TRIES)
    assert notices.unread(alice) == 1


def test_the_clock_sends_what_was_forgotten(db: None, monkeypatch: pytest.MonkeyPatch) -> None:
    alice = people.alice()
    tell(alice)
    mailing.send_due()
    assert mailed(alice) == [], "whose bell has only just rung is left to it"
    monkeypatch.setattr(notices, "GRACE", -notices.GRACE)
    mailing.send_due()
    assert mailed(alice) == ["Rp 50.000 is in your wallet"]


def test_a_mail_whose_sender_died_goes_out_when_his_lease_is_over(db: None) -> None:
    alice = people.alice()
    tell(alice)
    (notice,) = notices.inbox(alice)
    dead = notices.claim_mail(notice.pk)
    assert dead is not None
    mailing.send(notice.pk)
    assert mailed(alice) == [], "he may be sending it still"
    lease_is_over(notice)
    mailing.send(notice.pk)
    assert mailed(alice) == ["Rp 50.000 is in your wallet"]
    notices.close_mail(dead, Notice.Mail.DUE)
    notice.refresh_from_db()
    assert (notice.mail, notice.mail_tries) == (Notice.Mail.SENT, 2), (
        "he was not dead after all, and too late"
    )


def test_the_clock_finds_what_a_dead_sender_left(db: None, monkeypatch: pytest.MonkeyPatch) -> None:
    alice = people.alice()
    tell(alice)
    (notice,) = notices.inbox(alice)
    notices.claim_mail(notice.pk)
    monkeypatch.setattr(notices, "GRACE", -notices.GRACE)
    mailing.send_due()
    assert mailed(alice) == []
    lease_is_over(notice)
    mailing.send_due()
    assert mailed(alice) == ["Rp 50.000 is in your wallet"]


def test_a_mail_that_kills_every_sender_is_given_up(db: None) -> None:
    alice = people.alice()
    tell(alice)
    (notice,) = notices.inbox(alice)
    for _try in range(mailing.TRIES):
        assert notices.claim_mail(notice.pk)
        lease_is_over(notice)
    mailing.send(notice.pk)
    notice.refresh_from_db()
    assert (notice.mail, mailed(alice)) == (Notice.Mail.FAILED, [])


def test_what_was_undone_is_not_told(db: None) -> None:
    alice = people.alice()
    with transaction.atomic():
        tell(alice)
        transaction.set_rollback(True)
    assert kinds(alice) == []


# The pages


INBOX = "/billing/notices"


def test_the_bell_counts_what_was_not_read(db: None) -> None:
    alice = people.alice()
    client = signed_in(alice)
    assert "unread" not in client.get("/billing").content.decode()
    tell(alice)
    assert "Notices, 1 unread" in client.get("/billing").content.decode()
    page = client.get(INBOX)
    assert "Rp 50.000 is in your wallet" in words(page)
    assert notices.unread(alice) == 1, "looking changes nothing"
    client.post(f"{INBOX}/readings", {"up_to": notices.inbox(alice)[0].pk})
    assert notices.unread(alice) == 0
    assert "Mark" not in words(client.get(INBOX))


def test_a_notice_leads_to_what_it_is_about(db: None) -> None:
    alice = people.alice()
    bought = purchases.buy(user=alice, package_slug="starter", key="a")
    tell(alice, kind=notices.Kind.REFUND, reference="cor_1")
    tell(alice, "two", kind=notices.Kind.REFUND, reference="top_1")
    page = signed_in(alice).get(INBOX).content.decode()
    assert f'href="/billing/purchases/{bought.pk}"' in page
    assert 'href="/billing/history"' in page
    assert 'href="/billing/topups/top_1"' in page


def test_wishes_are_kept_and_wrong_ones_refused(db: None) -> None:
    alice = people.alice()
    client = signed_in(alice)
    assert client.post(f"{INBOX}/wishes", {"low_below": "2.500", "mail": ["refund"]}).status_code == 302
    wishes = notices.wishes_of(alice)
    assert wishes.low_below == 2_500
    assert set(wishes.without_mail) == {*Notice.Kind.values} - {"refund"}
    assert client.post(f"{INBOX}/wishes", {"low_below": "-1"}).status_code == 422
    assert client.post(f"{INBOX}/wishes", {"low_below": "1" * 40}).status_code == 422
    assert client.post(f"{INBOX}/wishes", {"mail": ["nonsense"]}).status_code == 422
    client.post(f"{INBOX}/wishes", {})
    assert notices.wishes_of(alice).low_below is None


def test_what_is_not_about_money_may_be_kept_out_of_the_page(db: None) -> None:
    alice = people.alice()
    client = signed_in(alice)
    client.post(f"{INBOX}/wishes", {"low_below": "1000", "mail": ["unusual"], "page": ["low_balance"]})
    assert notices.wishes_of(alice).without_page == ["budget", "unusual"]
    tell(alice, "money")
    tell(alice, "use", kind=notices.Kind.UNUSUAL)
    assert kinds(alice) == ["topup"]
    assert notices.unread(alice) == 1
    for notice in Notice.objects.filter(user=alice):
        mailing.send(notice.pk)
    assert mailed(alice) == ["Much more is used than usual"]
    page = client.get(INBOX).content.decode()
    assert 'name="page" value="low_balance" checked' in page
    assert 'name="page" value="unusual">' in page
    assert 'name="page" value="topup"' not in page


def test_a_full_inbox_has_pages(db: None) -> None:
    alice = people.alice()
    for which in range(30):
        tell(alice, str(which))
    client = signed_in(alice)
    first = client.get(INBOX)
    older = re.search(r'href="([^"]*before=[^"]*)"', first.content.decode())
    assert older is not None
    second = client.get(older[1])
    assert first.content.decode().count('class="notice ') == notices.PAGE
    assert second.content.decode().count('class="notice ') == 30 - notices.PAGE


def test_others_cannot_read_in_ones_place(db: None) -> None:
    alice = people.alice()
    tell(alice)
    notice = notices.inbox(alice)[0].pk
    carol = signed_in(people.carol())
    assert carol.post(f"{INBOX}/readings", {"notice": notice}).status_code == 404
    carol.post(f"{INBOX}/readings", {"up_to": notice})
    assert notices.unread(alice) == 1

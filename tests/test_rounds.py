"""The audit that goes round by slices: it freezes accounts that disagree with their transfers, tells the staff, and lets
staff take that back.
"""

from collections.abc import Callable
from http import HTTPStatus
from io import StringIO
from typing import Any

import pytest
from django.contrib.admin.models import LogEntry
from django.core import mail
from django.core.management import CommandError, call_command
from django.db.models import F
from django.test import Client

from aleph.accounts.models import User
from billing import ledger, rounds
from billing.models import Account, AuditRound
from billing.tasks import audit as audit_task
from tests import people
from tests.forms import filled
from tests.test_admin import address, office, saved, staff_who_may, text_of
from tests.test_audit import alice_after_a_day, hold_of, smuggle, tokens_of


@pytest.fixture(autouse=True)
def staff(settings: Any) -> str:
    """The address at which the staff is told."""
    settings.ADMINS = [("", "staff@aleph.test")]
    return "staff@aleph.test"


def drift(person: User, **figures: Any) -> Account:
    Account.objects.filter(pk=tokens_of(person).pk).update(**figures)
    return tokens_of(person)


def is_frozen(person: User) -> bool:
    return ledger.balance_of(person).frozen


WRONGS: dict[str, Callable[[User], object]] = {
    "a balance that is too high": lambda alice: drift(alice, balance=F("balance") + 5),
    "a balance that is too low": lambda alice: drift(alice, balance=F("balance") - 1),
    "more bonus than was left": lambda alice: drift(alice, bonus=F("bonus") + 1),
    "less bonus than was left": lambda alice: drift(alice, bonus=F("bonus") - 1),
    "too little held": lambda alice: drift(alice, held=F("held") - 1),
    "a hold that is not there": lambda alice: drift(alice, held=F("held") + 7),
    "a transfer past the account": lambda alice: smuggle(alice),
    "a post past the account": lambda alice: smuggle(
        alice,
        phase="post",
        kind="reply",
        pending_id=hold_of(alice),
        debit=tokens_of(alice),
        credit=None,
        credit_id=ledger.house("consumed"),
        amount=1,
    ),
}


class TestARound:
    @pytest.mark.parametrize("wrong", WRONGS)
    def test_freezes_who_disagrees_and_nobody_else(self, db: None, wrong: str) -> None:
        alice, bob = alice_after_a_day(), people.bob()
        WRONGS[wrong](alice)

        found = rounds.run()

        assert (found.drifted, found.ended_at is not None) == (1, True)
        assert (is_frozen(alice), is_frozen(bob)) == (True, False)
        assert tokens_of(alice).frozen_at
        assert not Account.objects.get(user=alice, name=ledger.WALLET).frozen_at

    def test_finds_nothing_in_books_that_are_right(self, db: None) -> None:
        alice = alice_after_a_day()
        before = rounds.run()

        people.carol()
        found = rounds.run()

        assert (found.drifted, found.accounts, mail.outbox) == (0, before.accounts + 2, [])
        assert not is_frozen(alice)

    def test_knows_what_is_held_and_since_when(self, db: None) -> None:
        before = rounds.run()
        alice = alice_after_a_day()

        found = rounds.run()

        assert found.open_holds == before.open_holds + 1
        assert found.held_tokens == before.held_tokens + 300
        assert found.oldest_hold == (before.oldest_hold or hold_of(alice))

    def test_goes_on_where_it_stopped(self, db: None, monkeypatch: pytest.MonkeyPatch) -> None:
        last = [alice_after_a_day() for _each in range(3)][-1]
        everybody = Account.objects.exclude(user=None).count()
        drift(last, balance=F("balance") + 5)
        monkeypatch.setattr(rounds, "SLICE", 1)

        found = [rounds.run(budget_s=0) for _run in range(everybody)]

        assert [each.accounts for each in found] == [*range(1, everybody + 1)]
        assert found[-1].ended_at is None, "nobody knows yet that this was the last account"
        assert rounds.run(budget_s=0).ended_at
        assert (rounds.run(budget_s=0).accounts, found[-1].drifted) == (1, 1)
        assert is_frozen(last)

    def test_begins_again_behind_the_last_account(self, db: None) -> None:
        first, second = rounds.run(), rounds.run()

        assert first.pk != second.pk
        assert first.accounts == second.accounts

    def test_of_two_at_once_the_slower_one_stops(self, db: None, monkeypatch: pytest.MonkeyPatch) -> None:
        alice = alice_after_a_day()
        compare = rounds.compare

        def overtaken(*, after: int, limit: int) -> list[rounds.Compared]:
            monkeypatch.setattr(rounds, "compare", compare)
            rounds.run()
            return compare(after=after, limit=limit)

        monkeypatch.setattr(rounds, "compare", overtaken)
        slower = rounds.run()

        assert (slower.ended_at, slower.accounts) == (None, 0)
        assert AuditRound.objects.get(pk=slower.pk).accounts >= 2
        assert not is_frozen(alice)

    def test_is_what_the_clock_rings(self, db: None, settings: Any) -> None:
        entry = settings.CELERY_BEAT_SCHEDULE["audit"]
        assert entry["task"] == audit_task.name
        assert entry["schedule"] > rounds.BUDGET_S

        audit_task()

        assert AuditRound.objects.get().ended_at


class TestStaff:
    def test_are_told_once_of_all_that_was_frozen(self, db: None, staff: str) -> None:
        alice, dian = alice_after_a_day(), alice_after_a_day()
        for person in (alice, dian):
            drift(person, balance=F("balance") + 5)

        rounds.run()
        rounds.run()

        (letter,) = mail.outbox
        assert letter.to == [staff]
        assert "2" in letter.subject
        for person in (alice, dian):
            line = f"{person.email}/tokens: the account says balance 20780, held 300, bonus 275; its transfers 20775, its open holds 300, what is left of its bonuses 275"
            assert line in letter.body

    def test_find_the_account_frozen_though_no_mail_can_be_sent(self, db: None, settings: Any) -> None:
        alice = alice_after_a_day()
        drift(alice, balance=F("balance") + 5)
        settings.EMAIL_BACKEND = "django.core.mail.backends.nowhere.EmailBackend"

        rounds.run()

        assert is_frozen(alice)

    def test_freeze_by_the_command(self, db: None) -> None:
        alice = alice_after_a_day()
        drift(alice, balance=F("balance") + 5)
        out = StringIO()

        with pytest.raises(CommandError):
            call_command("check_ledger", stdout=out)
        assert not is_frozen(alice)
        with pytest.raises(CommandError):
            call_command("check_ledger", "--freeze", stdout=out)

        assert is_frozen(alice)
        assert f"frozen: {alice.email}/tokens: the account says balance 20780" in out.getvalue()
        assert len(mail.outbox) == 1


class TestAFrozenAccount:
    def test_pays_for_nothing_and_says_so_in_plain_words(self, db: None) -> None:
        alice = alice_after_a_day()
        hold_id = hold_of(alice)
        drift(alice, balance=F("balance") + 5)
        rounds.run()

        with pytest.raises(ledger.Frozen, match="ACCOUNT_FROZEN"):
            ledger.hold(user=alice, amount=1, reference="r", key=f"hold:{alice.pk}:more")
        client = Client(headers={"Accept-Language": "en"})
        client.force_login(alice)
        assert (
            "Frozen while we check this account. Nothing is lost." in client.get("/billing").content.decode()
        )

        ledger.post(hold_id=hold_id, amount=100, key=f"close:{hold_id}")
        assert ledger.balance_of(alice).held == 0

    def test_is_taken_back_into_use_by_staff_with_a_reason(self, db: None) -> None:
        alice, dewi = alice_after_a_day(), people.dewi()
        account = frozen_and_mended(alice)

        answer = unfreeze(office(dewi), account, reason="A restored backup; mended by hand.")

        assert saved(answer)
        assert not is_frozen(alice)
        entry = LogEntry.objects.get(user=dewi, object_id=account.pk)
        assert entry.get_change_message() == "Unfrozen: A restored backup; mended by hand."
        ledger.hold(user=alice, amount=1, reference="r", key=f"hold:{alice.pk}:more")

    def test_needs_a_reason(self, db: None) -> None:
        alice = alice_after_a_day()
        account = frozen_and_mended(alice)

        assert "This field is required." in text_of(unfreeze(office(), account, reason=" "))
        assert is_frozen(alice)

    def test_stays_frozen_while_it_disagrees(self, db: None) -> None:
        alice = alice_after_a_day()
        account = drift(alice, balance=F("balance") + 5)
        rounds.run()
        page = text_of(office().get(address(Account, "change", account.pk)))
        assert "balance 20,775, held 300" in page

        answer = unfreeze(office(), account, reason="It will be fine.")

        assert "This account still disagrees with its transfers." in text_of(answer)
        assert is_frozen(alice)

    def test_is_left_alone_by_staff_who_may_only_look(self, db: None) -> None:
        alice = alice_after_a_day()
        account = frozen_and_mended(alice)
        client = office(staff_who_may("view_account"))

        assert 'name="reason"' not in text_of(client.get(address(Account, "change", account.pk)))
        refused = client.post(
            address(Account, "change", account.pk), {"unfreeze": "on", "reason": "Why not", "_save": "Save"}
        )

        assert refused.status_code == HTTPStatus.FORBIDDEN
        assert is_frozen(alice)

    def test_gives_staff_nothing_else_to_change(self, db: None) -> None:
        alice = alice_after_a_day()
        account = frozen_and_mended(alice)

        unfreeze(office(), account, reason="ok", balance="999999", held="0")

        account.refresh_from_db()
        assert (account.balance, account.held) == (20_775, 300)


def frozen_and_mended(person: User) -> Account:
    drift(person, balance=F("balance") + 5)
    rounds.run()
    assert is_frozen(person)
    return drift(person, balance=F("balance") - 5)


def unfreeze(client: Client, account: Account, **fields: str) -> Any:
    url = address(Account, "change", account.pk)
    form = filled(client.get(url), id="account_form")
    return client.post(url, {**form, "unfreeze": "on", **fields, "_save": "Save"})

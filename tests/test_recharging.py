"""A rate that was wrong is put right: people get back what they paid too much, once, and nobody pays more."""

from io import StringIO
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.db import IntegrityError, transaction
from django.urls import reverse
from django.utils import timezone

from aleph import ids, recharging
from aleph.accounts.models import User
from aleph.problems import IdempotencyMismatch
from billing import audit, corrections
from billing.models import Account, Correction, Notice, Transfer
from chat.models import Message, RateCorrection
from tests import people
from tests.stories_of_chat import calls_of, fresh, orphaned
from tests.test_admin import office, staff_who_may
from tests.test_billing_pages import signed_in, words
from tests.test_check_usage import nothing_else, over, rules_about
from tests.test_money_office import said_by
from usage.models import TokenUsage

pytestmark = pytest.mark.django_db
USED = 1000
"""LLM tokens of the reply that `over` ends: 700 of input, 300 of output."""


@pytest.fixture(autouse=True)
def alone(db: None, simulator: object) -> None:
    """The replies of these stories are written by a model that can be asked, and there are no others of it."""
    nothing_else()


def corrected(reply: Any, input_rate: int, output_rate: int, *, apply: bool = True, **more: Any) -> str:
    today = timezone.now().date()
    told = StringIO()
    call_command(
        "correct_charges",
        reply.model.slug,
        since=today,
        until=today,
        input_rate=input_rate,
        output_rate=output_rate,
        apply=apply,
        author=people.dewi().email,
        reason="The rate was for another model",
        stdout=told,
        **more,
    )
    return told.getvalue()


def balance_of(person: Any) -> int:
    return int(Account.objects.get(user=person, name=Account.TOKENS).balance)


def test_what_was_charged_too_much_comes_back_once() -> None:
    reply = over(orphaned(people.alice()))
    charged, before = reply.tokens_used, balance_of(reply.user)
    row = TokenUsage.objects.filter(pk=calls_of(reply)[-1].pk).values().get()
    half = reply.input_rate // 2
    right = -(-USED * half // 1000)
    assert 0 < right < charged

    said = corrected(reply, half, half, apply=False)
    assert f"{reply.pk}: {charged} → {right}" in said
    assert balance_of(reply.user) == before, "to look changes nothing"

    for _again in range(2):
        corrected(reply, half, half)
        assert balance_of(reply.user) == before + charged - right
    moved = Transfer.objects.get(reference=reply.pk, kind="adjustment")
    assert (moved.amount, moved.reason) == (charged - right, "The rate was for another model")
    notice = Notice.objects.get(user=reply.user, kind=Notice.Kind.ADJUSTMENT)
    assert (notice.amount, notice.detail) == (charged - right, "The rate was for another model")
    assert TokenUsage.objects.filter(pk=row["id"]).values().get() == row
    assert fresh(reply).tokens_used == charged
    assert rules_about(reply) == set()


def test_nobody_pays_more_afterwards() -> None:
    reply = over(orphaned(people.alice()))
    before = balance_of(reply.user)
    assert "1 replies were charged too little" in corrected(
        reply, reply.input_rate * 3, reply.output_rate * 3
    )
    assert balance_of(reply.user) == before


def test_a_reply_is_put_right_to_one_rate_only() -> None:
    reply = over(orphaned(people.alice()))
    corrected(reply, reply.input_rate // 2, reply.output_rate // 2)
    before = balance_of(reply.user)
    with pytest.raises(CommandError, match="1 replies were put right at another rate"):
        corrected(reply, reply.input_rate // 4, reply.output_rate // 4)
    assert balance_of(reply.user) == before


def test_who_gives_something_back_has_a_name_and_a_reason() -> None:
    reply = over(orphaned(people.alice()))
    today = timezone.now().date()
    assert reply.model is not None
    with pytest.raises(CommandError, match="--author"):
        call_command(
            "correct_charges",
            reply.model.slug,
            since=today,
            until=today,
            input_rate=1,
            output_rate=1,
            apply=True,
            stdout=StringIO(),
        )


# In the administration


def reviewed(reply: Message, rate: int, **differences: Any) -> str:
    """The address of a review of today's replies of the same model."""
    today = timezone.now().date()
    said = {"model": reply.model_id, "first": today, "last": today, "input_rate": rate, "output_rate": rate}
    query = "&".join(f"{name}={value}" for name, value in (said | differences).items())
    return f"{reverse('admin:chat_ratecorrection_add')}?{query}"


def halved(reply: Message) -> int:
    return reply.tokens_used - -(-USED * (reply.input_rate // 2) // 1000)


def proposed(*replies: Message, by: User | None = None, key: str = "") -> RateCorrection:
    reply = replies[0]
    assert reply.model is not None
    today = timezone.now().date()
    half = reply.input_rate // 2
    return recharging.propose(
        rates=recharging.Rates.of_days(
            model=reply.model, first=today, last=today, input_rate=half, output_rate=half
        ),
        author=by or people.dewi(),
        reason="The rate was for another model",
        key=key or ids.new("key"),
    )


def test_dewi_sees_what_differs_before_anything_moves() -> None:
    reply, dewi = over(orphaned(people.alice())), people.dewi()
    before = balance_of(reply.user)
    page = said_by(office(dewi).get(reviewed(reply, reply.input_rate // 2)))
    assert f"Give {halved(reply)} tokens back" in page
    assert reply.user.email in page
    assert "to 1 person" in page
    dearer = said_by(office(dewi).get(reviewed(reply, reply.input_rate * 2)))
    assert "Replies charged too little 1" in dearer
    assert "Nobody was charged too much" in dearer
    assert balance_of(reply.user) == before
    assert not Correction.objects.filter(author=dewi).exists()


def test_dewi_gives_it_back_and_its_owner_reads_why() -> None:
    reply, dewi = over(orphaned(people.alice())), people.dewi()
    before = balance_of(reply.user)
    client, address = office(dewi), reviewed(reply, reply.input_rate // 2)
    for _again in range(2):
        client.post(address, {"reason": "The rate was for another model", "key": "one"})
    made = RateCorrection.objects.get(correction__author=dewi)
    assert (made.correction.state, made.correction.author, made.people) == ("applied", dewi, 1)
    for _again in range(2):
        recharging.run()
    assert balance_of(reply.user) == before + halved(reply)
    made.refresh_from_db()
    assert made.given_back == made.correction.amount == halved(reply)
    assert made.ended_at is not None
    assert "Nobody was charged too much" in said_by(client.get(address)), "nothing is left"
    history = words(signed_in(reply.user).get(reverse("billing:history")))
    assert "The rate was for another model" in history
    assert [notice.detail for notice in Notice.objects.filter(user=reply.user, kind="adjustment")] == [
        "The rate was for another model"
    ]
    assert rules_about(reply) == set()
    assert not [drift for drift in audit.check() if drift.subject == made.correction_id]


def test_above_the_limit_somebody_else_approves(settings: Any) -> None:
    settings.CORRECTION_LIMITS = {"wallet": 1, "tokens": 1}
    reply, dewi = over(orphaned(people.alice())), people.dewi()
    before = balance_of(reply.user)
    answer = office(dewi).post(
        reviewed(reply, reply.input_rate // 2), {"reason": "Too dear", "key": "one"}, follow=True
    )
    assert "It is above the limit, and waits for a second person." in said_by(answer)
    made = RateCorrection.objects.get(correction__author=dewi)
    recharging.run()
    assert balance_of(reply.user) == before
    with pytest.raises(corrections.OwnProposal):
        corrections.approve(correction_id=made.correction_id, by=dewi)
    page = office().get(reverse("admin:billing_correction_change", args=[made.correction_id]))
    assert f"?q={made.correction_id}" in page.content.decode()
    corrections.approve(correction_id=made.correction_id, by=people.dewi())
    recharging.run()
    assert balance_of(reply.user) == before + halved(reply)


def test_what_was_declined_gives_nothing_back(settings: Any) -> None:
    settings.CORRECTION_LIMITS = {"wallet": 1, "tokens": 1}
    reply = over(orphaned(people.alice()))
    before = balance_of(reply.user)
    corrections.decline(correction_id=proposed(reply).correction_id, by=people.dewi())
    recharging.run()
    assert balance_of(reply.user) == before


def test_two_corrections_of_the_same_replies_give_back_once() -> None:
    reply = over(orphaned(people.alice()))
    before = balance_of(reply.user)
    both = [proposed(reply), proposed(reply)]
    assert [recharging.give_back(made) for made in both] == [halved(reply), 0]
    assert balance_of(reply.user) == before + halved(reply)


def test_no_more_goes_back_than_was_reviewed() -> None:
    alice = people.alice()
    reply = over(orphaned(alice))
    made = proposed(reply)
    later = over(orphaned(alice))
    assert recharging.give_back(made) == halved(reply)
    assert not Transfer.objects.filter(reference=later.pk, kind="adjustment").exists()


def test_one_key_is_one_correction() -> None:
    reply, dewi = over(orphaned(people.alice())), people.dewi()
    first = proposed(reply, by=dewi, key="one")
    assert proposed(reply, by=dewi, key="one") == first
    with pytest.raises(IdempotencyMismatch):
        recharging.propose(
            rates=recharging.Rates(first.model, first.since, first.until, 1, 1),
            author=dewi,
            reason="Another rate",
            key="one",
        )


def test_the_command_waits_for_a_second_person_or_names_him(settings: Any) -> None:
    settings.CORRECTION_LIMITS = {"wallet": 1, "tokens": 1}
    reply = over(orphaned(people.alice()))
    before = balance_of(reply.user)
    with pytest.raises(CommandError, match="somebody else approves it"):
        corrected(reply, reply.input_rate // 2, reply.output_rate // 2)
    assert balance_of(reply.user) == before
    corrected(reply, reply.input_rate // 2, reply.output_rate // 2, second=people.dewi().email)
    assert balance_of(reply.user) == before + halved(reply)


def test_check_usage_finds_what_went_back_without_a_transfer() -> None:
    made = proposed(over(orphaned(people.alice())))
    recharging.run()
    call_command("check_usage", stdout=StringIO())
    RateCorrection.objects.filter(pk=made.pk).update(given_back=1)
    told = StringIO()
    with pytest.raises(CommandError):
        call_command("check_usage", stdout=told)
    assert "what goes back has its transfers" in told.getvalue()


def test_too_many_replies_are_asked_for_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    reply = over(orphaned(people.alice()))
    monkeypatch.setattr(recharging, "MOST", 0)
    assert "Choose fewer days." in said_by(office().get(reviewed(reply, 1)))


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"input_rate": "-1"}, "greater than or equal to 0"),
        ({"last": "2026-01-01"}, "The last day comes before the first."),
        ({"first": "1999-01-01"}, "There were no replies at that time."),
        ({"model": "x"}, "Select a valid choice"),
    ],
)
def test_what_makes_no_sense_is_said_and_what_was_typed_stays(wrong: dict[str, str], said: str) -> None:
    reply = over(orphaned(people.alice()))
    answer = office().get(reviewed(reply, 17, **wrong))
    assert said in said_by(answer)
    assert 'value="17"' in answer.content.decode()


def test_a_reason_is_needed() -> None:
    reply, dewi = over(orphaned(people.alice())), people.dewi()
    answer = office(dewi).post(reviewed(reply, 1), {"reason": " ", "key": "one"})
    assert "This field is required." in said_by(answer)
    assert not Correction.objects.filter(author=dewi).exists()


@pytest.mark.parametrize(
    "rights", [(), ("view_ratecorrection",), ("add_ratecorrection",), ("add_correction",)]
)
def test_who_may_not_correct_gets_no_review(rights: tuple[str, ...]) -> None:
    reply = over(orphaned(people.alice()))
    eko = staff_who_may(*rights)
    client = office(eko)
    assert client.get(reviewed(reply, 1)).status_code == 403
    assert client.post(reviewed(reply, 1), {"reason": "Mine", "key": "one"}).status_code == 403
    assert not Correction.objects.filter(author=eko).exists()


def test_the_database_wants_a_return_to_be_of_many(settings: Any) -> None:
    made = proposed(over(orphaned(people.alice()))).correction
    for wrong in ({"user": people.alice()}, {"account": "wallet"}, {"amount": -1}):
        with pytest.raises(IntegrityError), transaction.atomic():
            Correction.objects.filter(pk=made.pk).update(**wrong)

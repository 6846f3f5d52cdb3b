"""A rate that was wrong is put right: people get back what they paid too much, once, and nobody pays more."""

from io import StringIO
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.utils import timezone

from billing.models import Account, Notice, Transfer
from tests import people
from tests.stories_of_chat import calls_of, fresh, orphaned
from tests.test_check_usage import over, rules_about
from usage.models import TokenUsage

pytestmark = pytest.mark.django_db
USED = 1000
"""LLM tokens of the reply that `over` ends: 700 of input, 300 of output."""


@pytest.fixture(autouse=True)
def connected(simulator: object) -> None:
    """The replies of these stories are written by a model that can be asked."""


def corrected(reply: Any, input_rate: int, output_rate: int, *, apply: bool = True) -> str:
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
    with pytest.raises(CommandError, match="1 people"):
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

"""Budgets as turns meet them: reserved with the hold, settled with it, and never passed."""

from collections.abc import Iterator
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from django.db import IntegrityError, transaction
from django.db.models import F
from django.utils import timezone, translation

from aleph import ids
from aleph.accounts.models import ApiKey, Company, Membership, User
from aleph.reconcile import Reconciliation
from chat import replies, turns
from chat.models import Message
from chat.turns import Turn
from tests import people
from tests.crowd import at_once, failures, successes
from tests.product import simulated_model
from tests.stories_of_chat import (
    answered,
    ask,
    assert_books_are_right,
    available,
    fresh,
    orphaned,
    statements,
    told,
)
from usage import budget_terms, budgets, recosting
from usage.budgets import Action, BudgetExceeded, Every, Unit
from usage.models import (
    USD_UNIT,
    Budget,
    BudgetCrossing,
    BudgetEntry,
    BudgetPeriod,
    ModelPrice,
    PriceCorrection,
    TokenUsage,
)

pytestmark = pytest.mark.usefixtures("committed", "simulator", "in_english")

DOLLAR = int(1 / USD_UNIT)


@pytest.fixture
def in_english() -> Iterator[None]:
    with translation.override("en"):
        yield


def budget_of(person: User, limit: int, **terms: Any) -> Budget:
    """A daily budget in tokens that stops at its limit, but for what `terms` say."""
    usual = {"unit": Unit.TOKEN, "every": Every.DAY, "action": Action.BLOCK}
    return budget_terms.create(author=person, limit=limit, **{**usual, **terms})


def counters(budget: Budget) -> tuple[int, int]:
    """What is spent and what is reserved in the newest period."""
    budget.refresh_from_db()
    assert budget.current is not None
    return budget.current.spent, budget.current.reserved


def most_for(person: User, *, rate: int = 150) -> int:
    """Tokens that "Halo" can cost at most."""
    slug = simulated_model("sim-echo", rate=rate)
    return turns.quote(user=person, session=None, text="Halo", model_slug=slug).at_most


def say_halo(person: User, *, rate: int = 150, **more: Any) -> Turn:
    slug = simulated_model("sim-echo", rate=rate)
    return turns.start(user=person, session=None, text="Halo", model_slug=slug, turn=ids.new("trn"), **more)


def assert_counters_are_right() -> None:
    assert list(budgets.differences()) == []
    assert_books_are_right()


# The life of a reservation


def test_a_turn_reserves_what_it_holds_and_settles_what_it_costs() -> None:
    alice = people.alice()
    budget = budget_of(alice, 5_000)
    turn = say_halo(alice)
    assert counters(budget) == (0, turn.reply.held_tokens)
    reply = answered(turn)
    assert reply.tokens_used > 0
    assert counters(budget) == (reply.tokens_used, 0)
    assert_counters_are_right()


def test_of_fifty_sends_at_once_three_are_admitted_where_a_budget_pays_for_three() -> None:
    alice = people.alice()
    people.give_tokens(alice, 100_000)
    at_most = most_for(alice)
    budget = budget_of(alice, 3 * at_most)
    outcomes = at_once([lambda: say_halo(alice)] * 50)
    assert len(successes(outcomes)) == 3
    assert {type(error) for error in failures(outcomes)} == {BudgetExceeded}
    assert counters(budget) == (0, 3 * at_most)
    assert Message.objects.filter(user=alice).count() == 6
    assert BudgetEntry.objects.filter(period__budget=budget).count() == 3
    assert_counters_are_right()


def test_a_stopped_turn_gives_its_reservation_back() -> None:
    alice = people.alice()
    budget = budget_of(alice, 5_000)
    turn = say_halo(alice)
    turns.stop(user=alice, reply_id=turn.reply.pk)
    assert counters(budget) == (0, 0)
    assert_counters_are_right()


def test_a_reply_that_failed_or_whose_worker_died_gives_its_reservation_back() -> None:
    alice = people.alice()
    budget = budget_of(alice, 5_000)
    assert told(alice, script="sim-error-500").state == "failed"
    assert counters(budget) == (0, 0)
    orphan = orphaned(alice, text="Are you there?")
    assert counters(budget) == (0, orphan.held_tokens)
    gone = timezone.now() - timedelta(minutes=5)
    Message.objects.filter(pk=orphan.pk).update(lease_until=gone, attempts=2)
    replies.sweep()
    assert fresh(orphan).state == "interrupted"
    assert counters(budget) == (0, 0)
    assert_counters_are_right()


def test_a_second_answer_an_edit_and_the_rest_of_a_reply_reserve_too() -> None:
    alice = people.alice()
    budget = budget_of(alice, 50_000)
    first = told(alice, script="sim-words-5-length")
    assert first.parent is not None
    spent = first.tokens_used
    for act in (
        lambda: turns.retry(user=alice, reply_id=first.pk, turn=ids.new("trn")),
        lambda: turns.edit(user=alice, message_id=first.parent_id or "", text="Other", turn=ids.new("trn")),
        lambda: turns.go_on(user=alice, reply_id=first.pk, turn=ids.new("trn")),
    ):
        turn = act()
        assert counters(budget) == (spent, turn.reply.held_tokens)
        spent += answered(turn).tokens_used
        assert counters(budget) == (spent, 0)
    assert_counters_are_right()


def test_a_turn_that_is_sent_twice_reserves_once() -> None:
    alice = people.alice()
    budget = budget_of(alice, 50_000)
    simulated_model("sim-words-5")
    outcomes = at_once([lambda: ask(alice, turn="the same")] * 12)
    assert failures(outcomes) == []
    assert counters(budget) == (0, successes(outcomes)[0].reply.held_tokens)
    assert_counters_are_right()


# What fits


def test_a_reply_is_as_long_as_the_budget_pays_for() -> None:
    alice = people.alice()
    at_most = most_for(alice, rate=1000)
    budget = budget_of(alice, at_most - 900)
    turn = say_halo(alice, rate=1000)
    assert turn.reply.is_limited_by_budget
    assert not turn.reply.is_limited_by_balance
    assert fresh(turn.reply).max_output_tokens == turn.reply.max_output_tokens < 2048
    assert counters(budget) == (0, at_most - 900)
    assert answered(turn).tokens_used <= at_most - 900


def test_what_is_too_little_for_a_useful_reply_refuses_and_says_until_when() -> None:
    alice = people.alice()
    budget = budget_of(alice, 30)
    with pytest.raises(BudgetExceeded) as refusal:
        say_halo(alice, rate=1000)
    problem = refusal.value
    assert (problem.code, problem.status) == ("BUDGET_EXCEEDED", 429)
    assert "daily budget of 30 tokens has 30 tokens left" in str(problem.message)
    assert problem.data["budgetId"] == budget.pk
    assert (problem.data["limit"], problem.data["remaining"], problem.data["action"]) == ("30", "30", "block")
    budget.refresh_from_db()
    assert budget.current is not None
    seconds = (budget.current.ends_at - timezone.now()).total_seconds()
    assert problem.retry_after_s == pytest.approx(seconds, abs=30)
    assert not Message.objects.filter(user=alice).exists()
    assert (available(alice), counters(budget)) == (10_500, (0, 0))


def test_of_several_budgets_the_tightest_decides_and_the_one_that_lasts_longest_is_waited_for() -> None:
    alice = people.alice()
    wide = budget_of(alice, 100_000)
    month, day = budget_of(alice, 30, every=Every.MONTH), budget_of(alice, 31)
    with pytest.raises(BudgetExceeded) as refusal:
        say_halo(alice, rate=1000)
    month.refresh_from_db()
    day.refresh_from_db()
    assert month.current is not None
    assert day.current is not None
    lasting = max(month, day, key=lambda budget: budget.current.ends_at)  # type: ignore[union-attr]
    assert refusal.value.data["budgetId"] == lasting.pk
    assert [counters(budget) for budget in (wide, month, day)] == [(0, 0)] * 3


def test_a_free_reply_needs_no_budget_of_tokens() -> None:
    alice = people.alice()
    budget = budget_of(alice, 1)
    reply = answered(say_halo(alice, rate=0))
    assert reply.state == "complete"
    assert counters(budget) == (0, 0)
    assert not BudgetEntry.objects.filter(period__budget=budget).exists()


def test_a_budget_that_only_warns_lets_everything_pass_and_notes_each_threshold_once() -> None:
    alice = people.alice()
    budget = budget_of(alice, 1, action=Action.WARN, thresholds=[50, 100, 200])
    for _again in range(2):
        answered(say_halo(alice))
    crossings = BudgetCrossing.objects.filter(period__budget=budget).order_by("percent")
    assert [crossing.percent for crossing in crossings] == [50, 100, 200]
    assert {crossing.told_at for crossing in crossings} == {None}
    assert_counters_are_right()


def test_a_threshold_is_noted_when_it_is_passed_and_not_before() -> None:
    alice = people.alice()
    first = answered(say_halo(alice))
    budget = budget_of(alice, 10 * first.tokens_used, thresholds=[10, 20, 30, 90], action=Action.WARN)
    noted = BudgetCrossing.objects.filter(period__budget=budget).order_by("percent")
    assert counters(budget) == (first.tokens_used, 0), "what was spent before is counted"
    answered(say_halo(alice))
    assert [crossing.percent for crossing in noted.all()] == [20]
    answered(say_halo(alice))
    assert [crossing.percent for crossing in noted.all()] == [20, 30]


def test_a_budget_that_slows_down_lets_two_a_minute_begin_beyond_its_limit() -> None:
    alice = people.alice()
    budget = budget_of(alice, 10, action=Action.THROTTLE)
    for _time in range(budgets.THROTTLED):
        assert not say_halo(alice).reply.is_limited_by_budget
    with pytest.raises(BudgetExceeded) as refusal:
        say_halo(alice)
    assert refusal.value.data["action"] == "throttle"
    assert 0 < (refusal.value.retry_after_s or 0) <= 60
    BudgetEntry.objects.filter(period__budget=budget).update(created_at=F("created_at") - budgets.WINDOW)
    say_halo(alice)
    assert_counters_are_right()


def test_of_thirty_at_once_a_budget_that_slows_down_lets_two_pass() -> None:
    alice = people.alice()
    budget_of(alice, 10, action=Action.THROTTLE)
    simulated_model("sim-echo", rate=150)
    outcomes = at_once([lambda: say_halo(alice)] * 30)
    assert len(successes(outcomes)) == budgets.THROTTLED
    assert {type(error) for error in failures(outcomes)} == {BudgetExceeded}
    assert_counters_are_right()


# Periods


def into_the_past(budget: Budget) -> None:
    """The current period was yesterday's."""
    day = timedelta(days=1)
    BudgetPeriod.objects.filter(budget=budget).update(
        starts_at=F("starts_at") - day, ends_at=F("ends_at") - day
    )


def test_a_reply_belongs_to_the_period_in_which_it_began() -> None:
    alice = people.alice()
    budget = budget_of(alice, 5_000)
    turn = say_halo(alice)
    into_the_past(budget)
    following = say_halo(alice)
    assert counters(budget) == (0, following.reply.held_tokens)
    reply = answered(turn)
    before, now = BudgetPeriod.objects.filter(budget=budget).order_by("starts_at")
    assert (before.spent, before.reserved) == (reply.tokens_used, 0)
    assert (now.spent, now.reserved) == (0, following.reply.held_tokens)
    assert before.ends_at == now.starts_at
    assert_counters_are_right()


def test_where_a_period_ends_as_many_are_admitted_by_the_next_one_as_it_pays_for() -> None:
    alice = people.alice()
    people.give_tokens(alice, 100_000)
    at_most = most_for(alice)
    budget = budget_of(alice, 3 * at_most)
    into_the_past(budget)
    outcomes = at_once([lambda: say_halo(alice)] * 30)
    assert len(successes(outcomes)) == 3
    assert {type(error) for error in failures(outcomes)} == {BudgetExceeded}
    assert BudgetPeriod.objects.filter(budget=budget).count() == 2
    assert counters(budget) == (0, 3 * at_most)
    assert_counters_are_right()


@pytest.mark.parametrize(
    ("every", "moment", "starts", "ends"),
    [
        (Every.DAY, "2026-08-13T16:59:59+00:00", "2026-08-13", "2026-08-14"),
        (Every.DAY, "2026-08-13T17:00:00+00:00", "2026-08-14", "2026-08-15"),
        (Every.WEEK, "2026-08-16T16:59:59+00:00", "2026-08-10", "2026-08-17"),
        (Every.MONTH, "2026-12-31T17:00:00+00:00", "2027-01-01", "2027-02-01"),
        (Every.MONTH, "2026-02-28T12:00:00+00:00", "2026-02-01", "2026-03-01"),
    ],
)
def test_periods_are_those_of_the_owners_time_zone(every: str, moment: str, starts: str, ends: str) -> None:
    budget = Budget(user=people.someone("Ayu", time_zone="Asia/Jakarta"), every=every)
    assert [f"{at:%Y-%m-%d}" for at in budgets.bounds(budget, datetime.fromisoformat(moment))] == [
        starts,
        ends,
    ]


def test_another_time_zone_begins_no_period_before_the_last_has_ended() -> None:
    alice = people.alice()
    budget = budget_of(alice, 5_000)
    budget.refresh_from_db()
    assert budget.current is not None
    ends_at = budget.current.ends_at
    User.objects.filter(pk=alice.pk).update(time_zone="Pacific/Kiritimati")
    alice.refresh_from_db()
    say_halo(alice)
    budget.refresh_from_db()
    assert budget.current is not None
    assert budget.current.ends_at == ends_at
    with transaction.atomic():
        late = budgets.open_period(Budget.objects.get(pk=budget.pk), ends_at, after=ends_at)
    assert late.starts_at == ends_at
    assert late.ends_at < ends_at + timedelta(days=1)


# Dollars


def dollar_priced(script: str, *, each: Decimal) -> str:
    """A model of which a million LLM tokens, read or written, cost us so much."""
    ModelPrice.objects.get_or_create(
        provider="openai",
        model=script,
        defaults={
            "valid_from": timezone.now() - timedelta(days=30),
            "input_usd_per_million": each,
            "output_usd_per_million": each,
        },
    )
    return simulated_model(script)


def test_dollars_are_counted_exactly_as_they_are_logged() -> None:
    alice = people.alice()
    slug = dollar_priced("sim-words-17", each=Decimal("0.333333"))
    budget = budget_of(alice, DOLLAR, unit=Unit.USD)
    paid = Decimal(0)
    for _again in range(3):
        turn = turns.start(user=alice, session=None, text="Halo", model_slug=slug, turn=ids.new("trn"))
        spent, reserved = counters(budget)
        assert reserved > 0
        reply = answered(turn)
        cost = TokenUsage.objects.get(operation_id=reply.pk).total_cost_usd
        assert cost is not None
        assert spent + reserved >= int(cost / USD_UNIT)
        paid += cost
        assert counters(budget) == (int(paid / USD_UNIT), 0)
    assert_counters_are_right()


def test_a_budget_in_dollars_limits_and_refuses() -> None:
    alice = people.alice()
    slug = dollar_priced("sim-words-18", each=Decimal(10_000))
    budget = budget_of(alice, 3 * DOLLAR, unit=Unit.USD)
    turn = turns.start(user=alice, session=None, text="Halo", model_slug=slug, turn=ids.new("trn"))
    assert turn.reply.is_limited_by_budget
    assert counters(budget)[1] <= 3 * DOLLAR
    with pytest.raises(BudgetExceeded) as refusal:
        turns.start(user=alice, session=None, text="Halo", model_slug=slug, turn=ids.new("trn"))
    assert refusal.value.data["limit"] == "3"


def test_what_failed_is_counted_in_dollars_as_it_is_logged() -> None:
    alice = people.alice()
    slug = dollar_priced("sim-words-19-drop-3", each=Decimal(3))
    budget = budget_of(alice, DOLLAR, unit=Unit.USD)
    reply = answered(turns.start(user=alice, session=None, text="Halo", model_slug=slug, turn=ids.new("trn")))
    logged = [call.total_cost_usd or 0 for call in TokenUsage.objects.filter(operation_id=reply.pk)]
    assert counters(budget) == (int(sum(logged) / USD_UNIT), 0)


def test_a_price_that_is_found_later_is_counted_then() -> None:
    from usage import meter

    alice = people.alice()
    budget = budget_of(alice, DOLLAR, unit=Unit.USD)
    reply = told(alice, script="sim-words-21")
    assert counters(budget) == (0, 0)
    dollar_priced("sim-words-21", each=Decimal(3))
    meter.reprice()
    cost = TokenUsage.objects.get(operation_id=reply.pk).total_cost_usd
    assert cost
    assert counters(budget) == (int(cost / USD_UNIT), 0)
    assert_counters_are_right()


def test_a_price_that_is_put_right_is_counted_then() -> None:
    alice = people.alice()
    dollar_priced("sim-words-21", each=Decimal(3))
    budget = budget_of(alice, DOLLAR, unit=Unit.USD)
    reply = told(alice, script="sim-words-21")
    call = TokenUsage.objects.get(operation_id=reply.pk)
    made = recosting.correct(
        price_id=call.price_id or 0,
        figures={name: usd and usd / 3 for name, usd in figures_of(call).items()},
        since=call.created_at - timedelta(days=1),
        reason="It is a third of that",
        author=people.dewi(),
    )
    TokenUsage.objects.filter(pk=call.pk).update(id=f"use_{ids.at(call.created_at - timedelta(hours=1))}")
    PriceCorrection.objects.filter(pk=made.pk).update(created_at=timezone.now() - timedelta(minutes=11))
    recosting.run()
    made.refresh_from_db()
    assert made.calls == 1
    assert counters(budget)[0] == int((call.total_cost_usd or Decimal(0)) / 3 / USD_UNIT)
    assert_counters_are_right()


def figures_of(call: TokenUsage) -> dict[str, Any]:
    return {name: getattr(call.price, name) for name in ModelPrice.FIGURES}


# Whose budgets


def test_a_budget_of_a_key_counts_what_comes_with_it() -> None:
    alice = people.alice()
    ApiKey.issue(user=alice, name="laptop")
    ApiKey.issue(user=alice, name="phone")
    laptop, phone = ApiKey.objects.filter(user=alice).order_by("pk")
    budget = budget_of(alice, 1, api_key=laptop)
    say_halo(alice, key_id=phone.pk)
    say_halo(alice)
    with pytest.raises(BudgetExceeded):
        say_halo(alice, key_id=laptop.pk)
    assert counters(budget) == (0, 0)


def test_a_budget_of_a_company_counts_all_its_members_and_tells_them_no_amount() -> None:
    admin, member, stranger = people.alice(), people.alice(), people.alice()
    company = Company.objects.create(name="Lurik")
    Membership.objects.create(company=company, user=admin, role=Membership.Role.ADMIN)
    Membership.objects.create(company=company, user=member)
    at_most = most_for(admin)
    budget = budget_of(admin, 2 * at_most, company=company)
    say_halo(admin)
    say_halo(member)
    assert counters(budget) == (0, 2 * at_most)
    with pytest.raises(BudgetExceeded) as refusal:
        say_halo(member)
    assert "of your company" in str(refusal.value.message)
    assert refusal.value.data.keys() == {"scope", "period", "unit", "renewsAt", "action"}
    say_halo(stranger)


def test_a_budget_for_everyone_counts_everybody() -> None:
    alice, bea = people.alice(), people.alice()
    at_most = most_for(alice)
    budget = Budget(
        scope="everyone",
        unit=Unit.TOKEN,
        every=Every.DAY,
        limit=at_most,
        action=Action.BLOCK,
        is_by_staff=True,
    )
    with transaction.atomic():
        budget_terms.begin(budget, timezone.now())
    try:
        say_halo(alice)
        with pytest.raises(BudgetExceeded):
            say_halo(bea)
    finally:
        budget_terms.end(budget, by_staff=True)
    say_halo(bea)


# Terms


def limit_now(budget: Budget) -> int:
    budget.refresh_from_db()
    return budgets.limit_at(budget, timezone.now())


def as_of_tomorrow(budget: Budget) -> tuple[int, str]:
    later = budget_terms.next_day(budget, timezone.now())
    return budgets.limit_at(budget, later), budgets.action_at(budget, later)


def test_what_tightens_holds_at_once_and_what_loosens_from_the_next_day_on() -> None:
    alice = people.alice()
    budget = budget_of(alice, 1_000, action=Action.THROTTLE)
    budget = budget_terms.change(budget, limit=500, action=Action.WARN, thresholds=[50])
    assert (limit_now(budget), budget.action) == (500, "throttle")
    assert as_of_tomorrow(budget) == (500, "warn")
    budget = budget_terms.change(budget, limit=2_000, action=Action.BLOCK, thresholds=[50])
    assert (limit_now(budget), budget.action) == (500, "block")
    assert as_of_tomorrow(budget) == (2_000, "block")
    budget = budget_terms.change(budget, limit=400, action=Action.BLOCK, thresholds=[50])
    assert (limit_now(budget), budget.later_at, as_of_tomorrow(budget)) == (400, None, (400, "block"))


def test_a_higher_limit_lets_more_pass_on_the_next_day() -> None:
    alice = people.alice()
    budget = budget_of(alice, 1)
    budget_terms.change(budget, limit=5_000, action=Action.BLOCK, thresholds=[])
    with pytest.raises(BudgetExceeded):
        say_halo(alice)
    Budget.objects.filter(pk=budget.pk).update(later_at=timezone.now())
    say_halo(alice)


def test_a_lower_limit_that_is_passed_already_is_noted() -> None:
    alice = people.alice()
    answered(say_halo(alice))
    budget = budget_of(alice, 1_000, thresholds=[50, 80])
    spent, _reserved = counters(budget)
    budget_terms.change(budget, limit=spent + 1, action=Action.BLOCK, thresholds=[50, 80])
    noted = BudgetCrossing.objects.filter(period__budget=budget).order_by("percent")
    reached = [percent for percent in (50, 80) if spent * 100 >= percent * (spent + 1)]
    assert reached
    assert [crossing.percent for crossing in noted] == reached


def test_a_budget_ends_with_its_day_unless_it_is_kept() -> None:
    alice = people.alice()
    budget = budget_of(alice, 1)
    budget_terms.end(budget)
    with pytest.raises(BudgetExceeded):
        say_halo(alice)
    budget_terms.keep(budget)
    budget.refresh_from_db()
    assert budget.ended_at is None
    budget_terms.end(budget)
    Budget.objects.filter(pk=budget.pk).update(ended_at=timezone.now())
    say_halo(alice)


def test_what_staff_set_its_owner_cannot_change() -> None:
    alice = people.alice()
    budget = budget_of(alice, 1)
    Budget.objects.filter(pk=budget.pk).update(is_by_staff=True)
    for act in (
        lambda: budget_terms.change(budget, limit=1, action=Action.BLOCK, thresholds=[]),
        lambda: budget_terms.end(budget),
        lambda: budget_terms.keep(budget),
    ):
        with pytest.raises(budget_terms.NotYours):
            act()


# What holds them


@pytest.mark.parametrize(
    "change",
    [
        {"spent": -1},
        {"reserved": -1},
        {"ends_at": F("starts_at")},
    ],
)
def test_the_database_refuses_impossible_periods(change: dict[str, Any]) -> None:
    budget = budget_of(people.alice(), 100)
    with pytest.raises(IntegrityError), transaction.atomic():
        BudgetPeriod.objects.filter(budget=budget).update(**change)


@pytest.mark.parametrize(
    "change",
    [
        {"limit": 0},
        {"limit": 10**18 + 1},
        {"later_limit": 5},
        {"user": None},
        {"scope": "key"},
        {"scope": "everyone"},
    ],
)
def test_the_database_refuses_impossible_budgets(change: dict[str, Any]) -> None:
    budget = budget_of(people.alice(), 100)
    with pytest.raises(IntegrityError), transaction.atomic():
        Budget.objects.filter(pk=budget.pk).update(**change)


def test_counters_that_are_not_the_sums_of_their_entries_are_found() -> None:
    alice = people.alice()
    budget = budget_of(alice, 5_000)
    answered(say_halo(alice))
    assert list(budgets.differences()) == []
    for wrong in ({"spent": F("spent") + 1}, {"reserved": F("reserved") + 1}):
        periods = BudgetPeriod.objects.filter(budget=budget)
        right = dict(periods.values("spent", "reserved")[0])
        periods.update(**wrong)
        assert len(list(budgets.differences())) == 1
        periods.update(**right)


def test_who_has_no_budget_pays_no_statement_for_them() -> None:
    with_budget, without = people.alice(), people.alice()
    for _number in range(2):
        budget_of(with_budget, 50_000)
    say_halo(without)
    begun, closed = [], []
    for person in (without, with_budget):
        with statements() as sent:
            turn = say_halo(person)
        begun.append(len(sent))
        with statements() as sent:
            replies.generate(turn.reply.pk)
        closed.append(len(sent))
        budgeted = [sql for sql in sent if sql.startswith(("SELECT", "UPDATE")) and "usage_budget" in sql]
        assert bool([sql for sql in budgeted if 'UPDATE "chat' not in sql]) is (person is with_budget)
    assert begun[1] - begun[0] == 3
    assert closed[1] - closed[0] == 3


def test_check_usage_names_budgets_that_do_not_count_what_replies_cost() -> None:
    alice = people.alice()
    budget = budget_of(alice, 50_000)
    reply, open_reply = answered(say_halo(alice)), say_halo(alice).reply
    entries = BudgetEntry.objects.filter(period__budget=budget)

    def told() -> set[str]:
        names = Reconciliation().differences()
        mine = {budget.pk, reply.pk, open_reply.pk}
        return {found.rule for found in names if any(name in str(found) for name in mine)}

    assert told() == set()
    entries.filter(reference=reply.pk).update(spent=F("spent") + 1)
    BudgetPeriod.objects.filter(budget=budget).update(spent=F("spent") + 1)
    assert told() == {"budgets count what replies cost"}
    entries.filter(reference=reply.pk).update(spent=F("spent") - 1)
    assert told() == {"budgets count what replies cost"}
    BudgetPeriod.objects.filter(budget=budget).update(spent=F("spent") - 1)
    assert told() == set()
    entries.filter(reference=open_reply.pk).update(reference="msg_of_nobody")
    names = {found.rule for found in Reconciliation().differences() if found.subject == "msg_of_nobody"}
    assert names == {"no budget reserves for what is over"}
    entries.filter(reference="msg_of_nobody").update(reference=open_reply.pk)

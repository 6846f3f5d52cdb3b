"""A provider's price that was wrong is put right: what past calls cost is corrected beside them, and nothing is rewritten."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from io import StringIO
from typing import Any

import pytest
from django.contrib.admin.models import LogEntry
from django.core.management import CommandError, call_command
from django.db import IntegrityError, transaction
from django.utils import timezone

from aleph import ids, insights
from aleph.accounts.models import User
from tests import people
from tests.stories_of_usage import LONG_AGO, call_of, price_of
from tests.test_admin import address, office, save, saved, staff_who_may
from tests.test_check_usage import nothing_else
from tests.test_money_office import said_by
from usage import (
    costs,
    currency,
    explained,
    figures,
    history,
    overview,
    pricing,
    recosting,
    reports,
    retention,
    rollups,
)
from usage.models import (
    CostCorrection,
    ModelPrice,
    PriceCorrection,
    PriceProposal,
    TokenUsage,
    UsageDay,
    UsageHour,
    UsageMonth,
)
from usage.wishes import Wish

pytestmark = pytest.mark.django_db

DAY, MINUTE = timedelta(days=1), timedelta(minutes=1)
NOON = (datetime.now(UTC) - 5 * DAY).replace(hour=12, minute=0, second=0, microsecond=0)
WRONG, RIGHT = Decimal("0.0045"), Decimal("0.0022")
"""What `call_of` costs at 2.5 and 10 dollars a million, and at 1.2 and 5."""


@pytest.fixture(autouse=True)
def wrong(db: None) -> ModelPrice:
    nothing_else()
    for table in (CostCorrection, PriceCorrection, PriceProposal, ModelPrice):
        table.objects.all().delete()
    return price_of("openai", "gpt-4o", "2.5 1.25 3 10")


def corrected(price: ModelPrice, figures: str = "1.2 0.6 1.5 5", **differences: Any) -> PriceCorrection:
    fresh, cached, written, output = figures.split()
    said: dict[str, Any] = {
        "price_id": price.pk,
        "figures": {
            "input_usd_per_million": Decimal(fresh),
            "cached_input_usd_per_million": Decimal(cached),
            "cache_write_usd_per_million": Decimal(written),
            "cache_write_1h_usd_per_million": None,
            "output_usd_per_million": Decimal(output),
        },
        "since": price.valid_from,
        "reason": "We read the table of another model",
        "author": people.dewi(),
    }
    return recosting.correct(**(said | differences))


def written() -> None:
    """All corrections are written, as some minutes later."""
    PriceCorrection.objects.update(created_at=timezone.now() - 2 * rollups.LAG)
    recosting.run()
    assert not PriceCorrection.objects.filter(ended_at=None).exists()


def added_up() -> None:
    while rollups.run():
        pass


def proven() -> None:
    call_command("check_usage", stdout=StringIO())


def cost_of(person: User) -> Decimal:
    return history.tallies(person).whole.cost_usd


def test_a_correction_stands_beside_the_call(wrong: ModelPrice) -> None:
    alice = people.alice()
    call = call_of(alice, at=NOON)
    row = TokenUsage.objects.filter(pk=call.pk).values().get()
    made = corrected(wrong)
    written()
    (entry,) = CostCorrection.objects.all()
    assert (entry.usage_id, entry.correction_id, entry.total_cost_usd) == (call.pk, made.pk, RIGHT - WRONG)
    assert entry.input_cost_usd + entry.output_cost_usd == entry.total_cost_usd
    assert TokenUsage.objects.filter(pk=call.pk).values().get() == row, "the call is not rewritten"
    stored = ModelPrice.objects.get(pk=wrong.pk)
    assert [getattr(stored, name) for name in ModelPrice.FIGURES] == [
        getattr(wrong, name) for name in ModelPrice.FIGURES
    ]
    made.refresh_from_db()
    assert (made.calls, made.difference_usd) == (1, RIGHT - WRONG)
    added_up()
    proven()


def test_calls_to_come_are_priced_right_whenever_they_began(wrong: ModelPrice) -> None:
    call_of(people.alice(), at=NOON)
    made = corrected(wrong)
    for began in (timezone.now(), NOON):
        call = call_of(people.alice(), started_at=began)
        assert (call.price_id, call.total_cost_usd) == (made.right_id, RIGHT)
    written()
    assert CostCorrection.objects.count() == 1


def test_everybody_who_reads_costs_reads_the_right_ones(wrong: ModelPrice) -> None:
    alice = people.alice()
    for at in (NOON, NOON + 70 * MINUTE, timezone.now() - timedelta(hours=1)):
        call_of(alice, at=at, session="cht_1")
    added_up()
    corrected(wrong)
    written()
    wish, rates = Wish.read(alice, {"days": "30"}), currency.rates_until(timezone.localdate())

    def costs_told() -> set[Decimal | None]:
        period = insights.Period(30, wish.zone)
        by_day = history.by_day(alice, wish.first, wish.last)
        return {
            cost_of(alice),
            sum((tally.cost_usd for _day, tally in by_day), Decimal(0)),
            overview.of(alice, wish, rates).whole.cost_usd,
            overview.chats(alice, wish)[0].cost_usd,
            sum((call.cost_usd or Decimal(0) for call in reports.recent(alice).calls), Decimal(0)),
            insights.totals(period.since, period.until).cost_usd,
            insights.by_model(period)[0].cost_usd,
            costs.total(TokenUsage.objects.all()),
        }

    added_up()
    assert costs_told() == {3 * RIGHT}
    assert history.tallies(alice).whole.calls == 3
    proven()


def test_sums_of_hours_days_and_months_are_those_of_calls_and_corrections(wrong: ModelPrice) -> None:
    alice = people.alice()
    long_ago = NOON - 70 * DAY
    call_of(alice, at=long_ago)
    added_up()
    corrected(wrong)
    written()
    added_up()
    for table in (UsageHour, UsageDay, UsageMonth):
        (sums,) = table.objects.all()
        assert (sums.calls, sums.total_tokens, sums.total_cost_usd) == (1, 1200, RIGHT)
    proven()
    UsageMonth.objects.update(total_cost_usd=WRONG)
    assert any("total_cost_usd" in line for line in rollups.differences())
    rollups.rebuild(since=long_ago, until=timezone.now())
    proven()


def test_only_calls_since_the_price_was_wrong_are_corrected(wrong: ModelPrice) -> None:
    alice = people.alice()
    before, after = call_of(alice, at=NOON), call_of(alice, at=NOON + DAY)
    made = corrected(wrong, since=NOON + timedelta(hours=2))
    written()
    assert [entry.usage_id for entry in CostCorrection.objects.all()] == [after.pk]
    assert pricing.price_at("openai", "gpt-4o", before.created_at) == wrong
    assert pricing.price_at("openai", "gpt-4o", after.created_at) == made.right
    added_up()
    proven()


def test_a_price_is_put_right_once_more(wrong: ModelPrice) -> None:
    alice = people.alice()
    call = call_of(alice, at=NOON)
    first = corrected(wrong)
    again = call_of(alice, at=timezone.now() - 10 * MINUTE)
    assert again.price_id == first.right_id
    second = corrected(first.right, "1 0.5 1.5 4")
    written()
    assert second.since == first.since
    assert cost_of(alice) == 2 * Decimal("0.0018")
    assert CostCorrection.objects.filter(usage=call).count() == 2
    assert recosting.run() == 0
    added_up()
    proven()


def test_an_earlier_time_of_the_same_price_is_put_right_by_itself(wrong: ModelPrice) -> None:
    alice = people.alice()
    early, late = call_of(alice, at=NOON), call_of(alice, at=NOON + DAY)
    corrected(wrong, since=NOON + timedelta(hours=2))
    corrected(ModelPrice.objects.get(pk=wrong.pk), "1 0.5 1.5 4", since=NOON - DAY)
    written()
    told = {call.pk: call.cost_usd for call in reports.recent(alice).calls}
    assert told == {early.pk: Decimal("0.0018"), late.pk: RIGHT}
    proven()


def test_to_write_twice_changes_nothing(wrong: ModelPrice) -> None:
    alice = people.alice()
    calls = [call_of(alice, at=NOON + 7 * nth * MINUTE) for nth in range(5)]
    made = corrected(wrong)
    written()
    for _again in range(2):
        PriceCorrection.objects.filter(pk=made.pk).update(ended_at=None)
        recosting.run()
    assert CostCorrection.objects.count() == len(calls)
    with pytest.raises(IntegrityError), transaction.atomic():
        CostCorrection.objects.create(
            usage=calls[0], correction=made, input_cost_usd=1, output_cost_usd=1, total_cost_usd=2
        )


def test_whoever_is_interrupted_goes_on(wrong: ModelPrice, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recosting, "BATCH", 2)
    alice = people.alice()
    for nth in range(5):
        call_of(alice, at=NOON + 7 * nth * MINUTE)
    made = corrected(wrong)
    while not (done := recosting._step()):
        assert done is not None
    assert CostCorrection.objects.count() == 2
    assert cost_of(alice) == 2 * RIGHT + 3 * WRONG
    proven()
    written()
    made.refresh_from_db()
    assert (made.calls, cost_of(alice)) == (5, 5 * RIGHT)
    proven()


def test_a_call_that_was_being_recorded_meanwhile_is_corrected_too(
    wrong: ModelPrice, monkeypatch: pytest.MonkeyPatch
) -> None:
    alice = people.alice()
    call_of(alice, at=NOON)
    corrected(wrong)
    recosting.run()
    assert PriceCorrection.objects.filter(ended_at=None).exists(), "until those that had begun are over"
    late = call_of(alice)
    TokenUsage.objects.filter(pk=late.pk).update(
        price=wrong, total_cost_usd=WRONG, input_cost_usd=Decimal("0.0025"), output_cost_usd=Decimal("0.002")
    )
    moment = timezone.now() + 3 * rollups.LAG
    monkeypatch.setattr(timezone, "now", lambda: moment)
    recosting.run()
    assert not PriceCorrection.objects.filter(ended_at=None).exists()
    assert cost_of(alice) == 2 * RIGHT


def test_the_page_of_a_call_names_its_correction(wrong: ModelPrice) -> None:
    alice = people.alice()
    call = call_of(alice, at=NOON)
    made = corrected(wrong)
    written()
    found = explained.of(alice, call.pk)
    assert (found.call.cost_usd, found.price) == (RIGHT, made.right)
    assert [entry.correction.reason for entry in found.corrections] == ["We read the table of another model"]
    assert sum((line.cost_usd or Decimal(0) for line in found.lines), Decimal(0)) == RIGHT


def test_a_price_that_no_call_used_is_not_corrected(wrong: ModelPrice) -> None:
    with pytest.raises(recosting.NeverCharged):
        corrected(wrong)
    assert ModelPrice.objects.count() == 1


@pytest.mark.parametrize(
    ("said", "error"),
    [
        ({"since": LONG_AGO - DAY}, recosting.OutOfItsTime),
        ({"figures": "2.5 1.25 3 10"}, recosting.NothingDiffers),
    ],
)
def test_what_makes_no_sense_is_refused(wrong: ModelPrice, said: dict[str, Any], error: type) -> None:
    call_of(people.alice(), at=NOON)
    with pytest.raises(error):
        corrected(wrong, **said)
    assert ModelPrice.objects.count() == 1


def test_corrections_go_with_the_calls_that_are_not_kept(wrong: ModelPrice, settings: Any) -> None:
    alice = people.alice()
    call_of(alice, at=NOON - 70 * DAY)
    added_up()
    corrected(wrong)
    settings.USAGE_RETENTION_DAYS = 30
    retention.clean_up()
    assert TokenUsage.objects.exists(), "they are kept until they are corrected"
    written()
    added_up()
    retention.clean_up()
    assert not TokenUsage.objects.exists()
    assert not CostCorrection.objects.exists()
    assert cost_of(alice) == RIGHT
    proven()


def test_check_usage_finds_a_wrong_correction(wrong: ModelPrice) -> None:
    call_of(people.alice(), at=NOON)
    corrected(wrong)
    written()
    added_up()
    CostCorrection.objects.update(total_cost_usd=Decimal("-0.001"))
    told = StringIO()
    with pytest.raises(CommandError):
        call_command("check_usage", stdout=told)
    assert "corrections make costs right" in told.getvalue()


def test_figures_of_the_month_are_corrected(wrong: ModelPrice) -> None:
    alice = people.alice()
    call_of(alice)
    TokenUsage.objects.update(id=f"use_{ids.at(timezone.now() - rollups.LAG - MINUTE)}")
    corrected(wrong)
    written()
    found = figures.of(alice, newest="", available_tokens=0, rates=currency.rates_until(timezone.localdate()))
    assert found.cost_month_usd == RIGHT


# In the administration


def form_of(price: ModelPrice) -> str:
    return f"{address(PriceCorrection, 'add')}?price={price.pk}"


def typed(**changes: str) -> dict[str, str]:
    return {"input_usd_per_million": "1.2", "output_usd_per_million": "5", "reason": "Read wrong"} | changes


def test_dewi_corrects_a_price_from_its_page(wrong: ModelPrice) -> None:
    alice, dewi = people.alice(), people.dewi()
    call = call_of(alice, at=NOON)
    client = office(dewi)
    assert form_of(wrong) in client.get(address(ModelPrice, "change", wrong.pk)).content.decode()
    assert saved(save(client, form_of(wrong), "pricecorrection_form", **typed()))
    made = PriceCorrection.objects.get()
    assert (made.wrong, made.author, made.since, made.reason) == (wrong, dewi, wrong.valid_from, "Read wrong")
    assert made.right.input_usd_per_million == Decimal("1.2")
    assert LogEntry.objects.filter(user=dewi, object_id=str(made.pk)).exists()
    written()
    page = said_by(client.get(address(ModelPrice, "change", wrong.pk)))
    assert "It was wrong from" in page
    assert "Read wrong" in page
    assert "Correct this price" not in page, "another stands for it"
    assert "Correct this price" in said_by(client.get(address(ModelPrice, "change", made.right_id)))
    assert "−$0.0023: Read wrong" in said_by(client.get(address(TokenUsage, "change", call.pk)))
    assert "Read wrong" in said_by(client.get(address(PriceCorrection, "changelist")))
    assert saved(save(client, address(ModelPrice, "change", wrong.pk), "modelprice_form", source="A slip"))
    refused = save(
        client, address(ModelPrice, "change", made.right_id), "modelprice_form", output_usd_per_million="9"
    )
    assert "use “Correct this price”" in said_by(refused)


def test_a_price_that_no_call_used_is_simply_edited(wrong: ModelPrice) -> None:
    client, place = office(), address(ModelPrice, "change", wrong.pk)
    assert "Correct this price" not in said_by(client.get(place))
    assert saved(save(client, place, "modelprice_form", output_usd_per_million="9"))
    refused = save(client, form_of(wrong), "pricecorrection_form", **typed())
    assert "No call was priced at this price" in said_by(refused)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"output_usd_per_million": "0"}, "0 says that this costs us nothing."),
        ({"output_usd_per_million": "-1"}, "greater than or equal to 0"),
        ({"since_0": "2020-01-01"}, "The price was not valid at that moment."),
        ({"since_0": "yesterday"}, "Enter a valid date."),
        ({"reason": " "}, "This field is required."),
    ],
)
def test_a_slip_of_the_pen_is_said_and_nothing_typed_is_lost(
    wrong: ModelPrice, changes: dict[str, str], said: str
) -> None:
    call_of(people.alice(), at=NOON)
    answer = save(office(), form_of(wrong), "pricecorrection_form", **typed(**changes))
    assert said in said_by(answer)
    assert 'value="1.2"' in answer.content.decode()
    assert not PriceCorrection.objects.exists()


def test_who_may_not_correct_a_price_cannot(wrong: ModelPrice) -> None:
    call_of(people.alice(), at=NOON)
    client = office(staff_who_may("view_modelprice", "change_modelprice", "view_pricecorrection"))
    assert "Correct this price" not in said_by(client.get(address(ModelPrice, "change", wrong.pk)))
    assert client.get(form_of(wrong)).status_code == 403
    assert client.post(form_of(wrong), typed(price=str(wrong.pk))).status_code == 403
    assert not PriceCorrection.objects.exists()


@pytest.mark.parametrize("said", ["", "?price=", "?price=x", "?price=0", f"?price={'9' * 30}"])
def test_without_a_price_the_way_leads_to_the_list(said: str) -> None:
    answer = office().get(f"{address(PriceCorrection, 'add')}{said}", follow=True)
    assert "Choose the price that was wrong" in said_by(answer)

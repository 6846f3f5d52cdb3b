"""The usage page: figures that equal the rows in every time zone, filters in the address, forecasts that know their
limits, and why a call cost what it did."""

import random
from collections import defaultdict
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from functools import partial
from typing import Any
from urllib.parse import urlencode
from zoneinfo import ZoneInfo

import pytest
from django.test import Client
from django.utils import timezone

from aleph import charts
from aleph.accounts.models import User
from chat.models import Session
from tests import people
from tests.stories_of_usage import call_of, price_of
from usage import currency, explained, figures, forecast, meter, overview
from usage.models import ExchangeRate, TokenUsage
from usage.wishes import Wish

pytestmark = pytest.mark.django_db

JAKARTA, NEW_YORK = ZoneInfo("Asia/Jakarta"), ZoneInfo("America/New_York")


@pytest.fixture
def alice() -> User:
    return people.alice()


@pytest.fixture
def carol() -> User:
    return people.someone("Carol")


@pytest.fixture
def page(alice: User) -> Client:
    """Alice's browser."""
    return browser_of(alice)


def browser_of(person: User) -> Client:
    browser = Client(headers={"accept-language": "en"})
    browser.force_login(person)
    return browser


def days_ago(days: int) -> datetime:
    return timezone.now() - timedelta(days=days)


def figures_of(person: User) -> figures.Figures:
    return figures.of(person, newest="", available_tokens=1000, rates=currency.rates_until(date.max))


def overview_of(person: User, **said: str) -> overview.Overview:
    return overview.of(person, Wish.read(person, said), currency.rates_until(date.max))


# The figures


def test_the_figures_tell_of_today_and_of_this_month(alice: User) -> None:
    today = timezone.now()
    call_of(alice, at=today)
    call_of(alice, at=today, provider="acme", model="new", requested_model="new")
    call_of(alice, at=today - timedelta(days=32))
    found = figures_of(alice)
    assert (found.tokens_today, found.calls_today) == (2400, 2)
    assert (found.calls_month, found.unpriced_month) == (2, 1)
    assert found.cost_month_usd == Decimal("0.0045")


def at_noon(monkeypatch: pytest.MonkeyPatch, day: str, zone: ZoneInfo = JAKARTA) -> datetime:
    """The clock stands at noon of a day."""
    noon = datetime.combine(date.fromisoformat(day), time(12), tzinfo=zone)
    monkeypatch.setattr(timezone, "now", lambda: noon.astimezone(UTC))
    return noon


def test_they_are_compared_with_the_same_time_of_the_day_and_of_the_month_before(
    alice: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    noon = at_noon(monkeypatch, "2026-11-20")
    yesterday, october = noon - timedelta(days=1), noon.replace(month=10)
    for at in (yesterday - timedelta(minutes=1), yesterday + timedelta(minutes=1)):
        call_of(alice, at=at)
    for at in (october - timedelta(minutes=1), october + timedelta(minutes=1)):
        call_of(alice, at=at, requested_model="the-old-one")
    found = figures_of(alice)
    assert (found.tokens_today, found.tokens_before) == (0, 1200)
    assert found.cost_before_usd == Decimal("0.0045")
    assert (found.top.model, found.top_before.model) == ("gpt-4o", "the-old-one")


def test_the_end_of_a_long_month_is_compared_with_all_of_a_short_one(
    alice: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    at_noon(monkeypatch, "2027-03-31")
    call_of(alice, at=datetime(2027, 2, 28, 23, 59, tzinfo=JAKARTA))
    call_of(alice, at=datetime(2027, 3, 1, 0, 0, tzinfo=JAKARTA))
    found = figures_of(alice)
    assert (found.cost_before_usd, found.cost_month_usd) == (Decimal("0.0045"), Decimal("0.0045"))


def test_the_most_used_model_is_that_of_the_most_tokens(alice: User) -> None:
    call_of(alice, requested_model="acme/swift", counts=meter.Counts(fresh_input=700))
    for _ in range(3):
        call_of(alice, requested_model="slow", counts=meter.Counts(fresh_input=100))
    assert figures_of(alice).top == figures.Top("swift", 70)


def test_nothing_used_is_no_division_by_zero(alice: User) -> None:
    call_of(alice, counts=meter.Counts())
    found = figures_of(alice)
    assert (found.calls_today, found.top) == (1, figures.Top("", 0))
    assert overview_of(alice).by_model[0].share_percent == 0


# The sums: the same as of the rows, one by one


def independent_sums(person: User, zone: ZoneInfo) -> dict[date, tuple[int, int, Decimal]]:
    sums: dict[date, tuple[int, int, Decimal]] = defaultdict(lambda: (0, 0, Decimal(0)))
    for row in TokenUsage.objects.filter(user=person):
        day = row.created_at.astimezone(zone).date()
        calls, tokens, cost = sums[day]
        sums[day] = (calls + 1, tokens + row.total_tokens, cost + (row.total_cost_usd or Decimal(0)))
    return sums


@pytest.mark.parametrize(
    ("zone", "day"),
    [
        (JAKARTA, "2026-11-20"),
        (NEW_YORK, "2026-11-01"),  # clocks go back: this day has 25 hours
        (NEW_YORK, "2026-03-08"),  # clocks go forward: this day has 23 hours
        (ZoneInfo("UTC"), "2026-11-20"),
        (ZoneInfo("Asia/Kathmandu"), "2026-11-20"),  # a quarter of an hour off
    ],
)
def test_every_day_adds_up_to_its_rows_at_the_edges_of_the_day(
    alice: User, zone: ZoneInfo, day: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    alice.time_zone = zone.key
    noon = at_noon(monkeypatch, day, zone)
    midnight = datetime.combine(noon.date(), time(0), tzinfo=zone).astimezone(UTC)
    for nth in range(-50, 30):
        at = midnight + timedelta(minutes=30 * nth)
        for edge in (at - timedelta(microseconds=1), at):
            call_of(alice, at=edge, counts=meter.Counts(fresh_input=100 + nth, visible_output=nth % 7))
    expected = independent_sums(alice, zone)
    for picked in (noon.date() - timedelta(days=1), noon.date()):
        found = overview_of(alice, **{"from": picked.isoformat(), "to": picked.isoformat()})
        assert (found.whole.calls, found.whole.tokens, found.whole.cost_usd) == expected[picked]
    week = overview_of(alice, days="7")
    by_day = {
        column.first: sum(series.tokens[place] for series in week.series)
        for place, column in enumerate(week.columns)
    }
    for picked, (_calls, tokens, _cost) in expected.items():
        if picked in by_day:
            assert by_day[picked] == tokens
    today = figures_of(alice)
    until_now = sum(
        row.total_tokens
        for row in TokenUsage.objects.filter(user=alice)
        if row.created_at.astimezone(zone).date() == noon.date()
    )
    assert today.tokens_today == until_now


def test_a_week_and_a_month_are_sums_of_their_days(alice: User, monkeypatch: pytest.MonkeyPatch) -> None:
    noon = at_noon(monkeypatch, "2026-11-20")
    dice = random.Random(5)
    for _ in range(120):
        call_of(
            alice, at=noon - timedelta(hours=dice.randrange(24 * 80)), requested_model=f"m{dice.randrange(9)}"
        )
    sums = independent_sums(alice, JAKARTA)
    for grain in ("day", "week", "month"):
        found = overview_of(alice, days="90", by=grain)
        assert len(found.series) == overview.NAMED + 1
        for place, column in enumerate(found.columns):
            days = [
                column.first + timedelta(days=nth) for nth in range((column.last - column.first).days + 1)
            ]
            assert sum(series.tokens[place] for series in found.series) == sum(sums[day][1] for day in days)
        firsts = [column.first for column in found.columns[1:]]
        assert all(first.weekday() == 0 for first in firsts if grain == "week")
        assert all(first.day == 1 for first in firsts if grain == "month")
        assert (found.columns[0].first, found.columns[-1].last) == (date(2026, 8, 23), date(2026, 11, 20))


def test_the_days_before_are_as_many_and_end_where_these_begin(
    alice: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    at_noon(monkeypatch, "2026-11-20")
    for day in (13, 14):
        call_of(alice, at=datetime(2026, 11, day, 0, 0, tzinfo=JAKARTA) - timedelta(microseconds=1))
    call_of(alice, at=datetime(2026, 11, 14, 0, 0, tzinfo=JAKARTA))
    call_of(alice, at=datetime(2026, 11, 7, 0, 0, tzinfo=JAKARTA) - timedelta(microseconds=1))
    found = overview_of(alice, days="7")
    assert (found.whole.calls, found.before.calls) == (1, 2)


def test_one_pass_over_the_calls_says_the_same_as_one_for_each(
    alice: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The figures look at the month before and the weeks of a forecast, the overview at its days; and both at cuts."""
    noon = at_noon(monkeypatch, "2026-11-20")
    for nth, hours in enumerate(
        (0, 1, 13, 25, 23 * 24, 31 * 24 - 1, 31 * 24 + 1, 70 * 24, 89 * 24, 8 * 24, 99 * 24)
    ):
        call_of(alice, at=noon - timedelta(hours=hours), counts=meter.Counts(fresh_input=2**nth))
    known = currency.rates_until(date.max)
    for days in ("7", "30", "90"):
        wish = Wish.read(alice, {"days": days})
        assert overview.of(alice, wish, known).before.calls > 0
        for since in (wish.first, wish.first_before):
            both = figures.read(alice, since=since)
            assert overview.of(alice, wish, known, both) == overview.of(alice, wish, known)
            shown = partial(figures.of, alice, newest="", available_tokens=9, rates=known)
            assert shown(calls=both) == shown()


def test_a_quarter_is_drawn_by_week_unless_days_are_wished_for(alice: User) -> None:
    assert [Wish.read(alice, {"days": days}).grain for days in ("7", "30", "90")] == ["day", "day", "week"]
    assert Wish.read(alice, {"days": "90", "by": "day"}).grain == "day"


def test_each_day_is_valued_at_its_own_rate(alice: User) -> None:
    ExchangeRate.objects.all().delete()
    today = timezone.localdate()
    for day, rate in ((today - timedelta(days=10), 10_000), (today - timedelta(days=1), 20_000)):
        ExchangeRate.objects.create(valid_on=day, idr_per_usd=Decimal(rate))
    price_of("acme", "swift", "1 - - 1")
    for at in (days_ago(3), days_ago(0)):
        call_of(alice, at=at, provider="acme", model="swift", counts=meter.Counts(fresh_input=1_000_000))
    assert overview_of(alice).cost_idr == 10_000 + 20_000
    call_of(alice, at=days_ago(20), provider="acme", model="swift", counts=meter.Counts(fresh_input=1))
    assert overview_of(alice).cost_idr is None


def test_five_models_have_names_and_the_others_are_one(alice: User) -> None:
    for rank in range(1, 9):
        call_of(alice, requested_model=f"m{rank}", counts=meter.Counts(fresh_input=1000 - rank))
    series = overview_of(alice, days="7").series
    assert [part.name for part in series] == ["m1", "m2", "m3", "m4", "m5", ""]
    assert (series[5].is_rest, sum(series[5].tokens)) == (True, 994 + 993 + 992)


def test_a_single_other_model_keeps_its_name(alice: User) -> None:
    for rank in range(1, 7):
        call_of(alice, requested_model=f"m{rank}", counts=meter.Counts(fresh_input=1000 - rank))
    assert [series.name for series in overview_of(alice, days="7").series][5] == "m6"


def test_models_go_by_the_names_that_people_know(alice: User) -> None:
    flash: dict[str, Any] = {"provider": "deepseek", "model": "flash", "requested_model": "deepseek-flash"}
    call_of(alice, label="DeepSeek Chat", **flash)
    call_of(alice, label="DeepSeek Coder", counts=meter.Counts(fresh_input=5000), **flash)
    call_of(alice, label="DeepSeek Coder", **{**flash, "requested_model": "deepseek-flash-2"})
    call_of(alice, requested_model="meta/llama", counts=meter.Counts(fresh_input=7))
    assert [(line.name, line.sums.tokens) for line in overview_of(alice).by_model] == [
        ("DeepSeek Coder", 6200),
        ("DeepSeek Chat", 1200),
        ("llama", 7),
    ]
    for name, number in (("DeepSeek Coder", 2), ("llama", 1)):
        wish = Wish.read(alice, {"model": name})
        assert len(overview.calls(alice, wish).calls) == number
        assert overview_of(alice, model=name).whole.calls == number


# Forecasts


def days_of(values: list[int], *, last: date) -> list[tuple[date, Decimal]]:
    first = last - timedelta(days=len(values) - 1)
    return [(first + timedelta(days=nth), Decimal(value)) for nth, value in enumerate(values)]


def test_too_few_days_are_no_pattern() -> None:
    assert forecast.learnt(days_of([5] * 6, last=date(2026, 11, 22))) is None
    assert forecast.learnt(days_of([5] * 7, last=date(2026, 11, 22))) is not None


def test_a_steady_use_is_forecast_to_the_token() -> None:
    pattern = forecast.learnt(days_of([5] * 56, last=date(2026, 11, 22)))
    assert pattern is not None
    coming = forecast.to_month_end(date(2026, 11, 23), Decimal("0.5"))
    assert forecast.rest(pattern, coming) == forecast.Range(Decimal("37.5"), Decimal("37.5"))
    lasting = forecast.lasting(pattern, Decimal(10), today=date(2026, 11, 23), left_of_today=Decimal(1))
    assert lasting == forecast.Lasting(*[date(2026, 11, 24)] * 3)


def test_a_weekend_counts_as_a_weekend() -> None:
    working_week = [
        10 if day.weekday() < 5 else 0 for day, _value in days_of([0] * 56, last=date(2026, 11, 22))
    ]
    pattern = forecast.learnt(days_of(working_week, last=date(2026, 11, 22)))
    assert pattern is not None
    saturday, monday = date(2026, 11, 28), date(2026, 11, 30)
    assert pattern.mean_of(saturday) < 2 < 9 < pattern.mean_of(monday)


def test_the_range_holds_about_four_times_of_five_on_a_year_of_made_up_months() -> None:
    dice, held, number = random.Random(11), 0, 0
    for _person in range(25):
        busy = [dice.choice((0.2, 1, 1.5)) for _weekday in range(7)]
        values = [
            int(1000 * busy[nth % 7] * dice.lognormvariate(0, 0.6)) if dice.random() > 0.15 else 0
            for nth in range(7 * 60)
        ]
        for end in range(56, len(values) - 31, 30):
            days = days_of(values[end - 56 : end], last=date(2026, 11, 22))
            pattern = forecast.learnt(days)
            assert pattern is not None
            coming = [(date(2026, 11, 23) + timedelta(days=nth), Decimal(1)) for nth in range(14)]
            found = forecast.rest(pattern, coming)
            held += found.low <= sum(values[end : end + 14]) <= found.high
            number += 1
    assert 0.7 < held / number < 0.93, held / number


def test_little_data_makes_a_wide_range() -> None:
    dice = random.Random(3)
    values = [dice.randrange(100) for _ in range(56)]
    coming = [(date(2026, 11, 23) + timedelta(days=nth), Decimal(1)) for nth in range(20)]
    widths = []
    for days in (8, 56):
        pattern = forecast.learnt(days_of(values[-days:], last=date(2026, 11, 22)))
        assert pattern is not None
        found = forecast.rest(pattern, coming)
        widths.append(found.high - found.low)
    assert widths[0] > widths[1]


def test_a_balance_that_nothing_is_taken_from_has_no_end() -> None:
    pattern = forecast.learnt(days_of([0] * 20, last=date(2026, 11, 22)))
    assert pattern is not None
    assert forecast.lasting(pattern, Decimal(5), today=date(2026, 11, 23), left_of_today=Decimal(1)) is None
    slow = forecast.learnt(days_of([1] * 20, last=date(2026, 11, 22)))
    assert slow is not None
    lasting = forecast.lasting(slow, Decimal(10_000), today=date(2026, 11, 23), left_of_today=Decimal(1))
    assert lasting == forecast.Lasting(None, None, None)


def test_the_page_says_what_the_month_may_come_to_and_how_long_the_balance_lasts(
    page: Client, alice: User
) -> None:
    call_of(alice, charged_tokens=10)
    assert "too early for a forecast" in page.get("/usage").content.decode()
    for day in range(1, 30):
        call_of(alice, at=days_ago(day), charged_tokens=10)
    shown = page.get("/usage").content.decode()
    assert "too early for a forecast" not in shown
    assert "by the end of the month" in shown
    found = figures_of(alice)
    assert found.lasts is not None
    assert found.lasts.likely == found.today + timedelta(days=100)


# The page


def test_a_guest_is_asked_to_sign_in(client: Client) -> None:
    response = client.get("/usage")
    assert response.status_code == 302
    assert "login" in response["Location"]


def test_an_empty_account_sees_what_will_be_here(page: Client) -> None:
    shown = page.get("/usage").content.decode()
    assert "Nothing was used yet" in shown
    assert "<table" not in shown


def test_the_page_shows_figures_chart_and_calls(page: Client, alice: User) -> None:
    call_of(alice, requested_model="meta-llama/Llama-3.3-70B-Instruct", model="something-else")
    shown = page.get("/usage").content.decode()
    assert "1,200" in shown
    assert "Llama-3.3-70B-Instruct" in shown
    assert "answered by something-else" in shown
    assert shown.count('class="chart__column"') == 30
    for heading in ("Top operations", "Cost by model", "Top chats", "Last calls"):
        assert heading in shown


def test_the_month_s_cost_is_said_in_rupiah_by_the_rate_of_the_day(page: Client, alice: User) -> None:
    call_of(alice)
    ExchangeRate.objects.update(idr_per_usd=16_000)
    assert "about Rp 72" in page.get("/usage").content.decode()
    ExchangeRate.objects.all().delete()
    assert "about Rp" not in page.get("/usage").content.decode()


def test_a_call_without_a_price_says_so(page: Client, alice: User) -> None:
    call_of(alice, provider="acme", model="new", requested_model="new")
    shown = page.get("/usage").content.decode()
    assert "no price" in shown
    assert "without 1 call that has no price yet" in shown
    for panel, end in (("by-model-heading", "<tfoot>"), ("by-operation-heading", "</section>")):
        lines = shown[shown.index(panel) :]
        lines = lines[: lines.index(end)]
        assert "no price" in lines
        assert "$0.00" not in lines
        assert "Rp 0" not in lines


def test_the_range_is_picked_in_the_address(page: Client, alice: User) -> None:
    call_of(alice)
    shown = page.get("/usage?days=7").content.decode()
    assert shown.count('class="chart__column"') == 7
    assert 'href="?days=7" aria-current="true"' in shown
    custom = page.get("/usage?from=2026-01-30&to=2026-02-02").content.decode()
    assert custom.count('class="chart__column"') in (0, 4)


def test_a_custom_range_is_put_in_order_and_has_an_end() -> None:
    person = User(time_zone="Asia/Jakarta")
    today = timezone.localdate(timezone=JAKARTA)
    backwards = Wish.read(person, {"from": "2026-03-09", "to": "2026-03-01"})
    assert (backwards.first, backwards.last, backwards.length) == (date(2026, 3, 1), date(2026, 3, 9), 9)
    endless = Wish.read(person, {"from": "2001-01-01", "to": "2199-01-01"})
    assert (endless.last, endless.length, endless.is_cut) == (today, 366, True)
    future = Wish.read(person, {"from": "2190-01-01", "to": "2199-01-01"})
    assert (future.first, future.last) == (today, today)


def test_an_address_says_its_wish_again() -> None:
    person = User(time_zone="Asia/Jakarta")
    said = {
        "from": "2026-03-01",
        "to": "2026-03-09",
        "by": "week",
        "model": "GPT & co",
        "sort": "cost",
        "show": "cost",
    }
    wish = Wish.read(person, said)
    assert wish.query() == f"?{urlencode({name: said[name] for name in wish.places if name in said})}"
    assert wish.query(days=7, model="") == "?by=week&show=cost&sort=cost&days=7"
    assert Wish.read(person, {}).query() == "?"


@pytest.mark.parametrize(
    "query",
    [
        *("days=", "days=8", "days=-7", "days=x", "days=7&days=x", "days=%00", "days=" + "9" * 5000),
        *("before=x", "before=%00", "before=1-%00", "before=9999999999999999-x", "before=" + "1" * 5000),
        *("from=2026-02-31", "from=%00&to=x", "by=year", "show=x", "sort=x", "status=x", "model=%00"),
        *("operation=" + "x" * 5000, "session=%00", "from=0001-01-01", "to=9999-12-31", "model=%F0%9F"),
    ],
)
def test_an_address_that_makes_no_sense_shows_the_usual_page(page: Client, alice: User, query: str) -> None:
    call_of(alice)
    response = page.get(f"/usage?{query}")
    assert response.status_code == 200
    assert "Tokens today" in response.content.decode()


def test_the_filters_stand_in_the_address_and_narrow_everything(page: Client, alice: User) -> None:
    call_of(alice, requested_model="swift", operation="title", status="failed")
    call_of(alice, requested_model="slow", session="cht_1")
    for query, wanted in (
        ("model=swift", "swift"),
        ("operation=title", "swift"),
        ("status=failed", "swift"),
        ("session=cht_1", "slow"),
    ):
        shown = page.get(f"/usage?{query}")
        assert [call.requested_model for call in shown.context["calls"].calls] == [wanted]
        assert shown.context["found"].whole.calls == 1
    empty = page.get("/usage?model=swift&session=cht_1").content.decode()
    assert "Nothing fits this filter." in empty
    assert "chart__plot" not in empty


def test_a_range_without_calls_says_so_and_draws_no_chart(page: Client, alice: User) -> None:
    call_of(alice, at=days_ago(40))
    shown = page.get("/usage?days=7").content.decode()
    assert "Nothing was used in these 7 days." in shown
    assert "There are no calls in this time." in shown
    assert "chart__plot" not in shown


def test_older_calls_are_on_the_next_page_and_the_dearest_on_one(page: Client, alice: User) -> None:
    call_of(alice, at=days_ago(5), requested_model="the-oldest", counts=meter.Counts(fresh_input=90_000))
    for nth in range(25):
        call_of(alice, at=days_ago(1) + timedelta(minutes=nth))
    first = page.get("/usage?days=7")
    assert len(first.context["calls"].calls) == 25
    second = page.get(f"/usage{first.context['older_query']}")
    assert [call.requested_model for call in second.context["calls"].calls] == ["the-oldest"]
    assert "Newest" in second.content.decode()
    dearest = page.get("/usage?days=7&sort=cost")
    assert dearest.context["calls"].calls[0].requested_model == "the-oldest"
    assert dearest.context["calls"].older == ""


def test_the_chats_that_cost_most_are_named_and_lead_to_their_calls(page: Client, alice: User) -> None:
    mine = Session.objects.create(id="cht_01JZZZZZZZZZZZZZZZZZZZZZZZ", user=alice, title="Home loan")
    call_of(alice, session=mine.pk)
    call_of(alice, session="cht_gone", counts=meter.Counts(fresh_input=9))
    call_of(alice)
    shown = page.get("/usage")
    assert [(chat.calls, title) for chat, title, _query in shown.context["chats"]] == [
        (1, "Home loan"),
        (1, None),
    ]
    assert "Deleted chat" in shown.content.decode()
    narrowed = page.get(f"/usage{shown.context['chats'][0][2]}").content.decode()
    assert "Only the calls of “Home loan”." in narrowed


def test_names_of_models_are_text_and_never_markup(page: Client, alice: User) -> None:
    call = call_of(alice, requested_model="<script>alert(1)<script>", model="<img src=x>")
    for address in ("/usage", f"/usage/calls/{call.pk}"):
        shown = page.get(address).content.decode()
        assert "<script>alert" not in shown
        assert "<img" not in shown


def test_the_page_asks_the_database_only_a_handful_of_times(
    page: Client, alice: User, django_assert_max_num_queries: Any
) -> None:
    """Five of them are for the frame of every page: who it is, his balance, his chats, his notices; one is for budgets."""
    for nth in range(30):
        call_of(alice, at=days_ago(nth), requested_model=f"m{nth}", session=f"cht_{nth}")
    page.get("/usage")
    with django_assert_max_num_queries(12):
        page.get("/usage")


def test_a_stranger_s_page_does_not_show_my_calls(alice: User, carol: User) -> None:
    secret = call_of(alice, requested_model="my-secret-model", session="cht_alice")
    call_of(carol)
    hers = browser_of(carol)
    for address in (
        "/usage?days=90",
        "/usage?session=cht_alice",
        "/usage?model=my-secret-model",
    ):
        body = hers.get(address).content.decode()
        assert f"/usage/calls/{secret.pk}" not in body
        if "model=" not in address:
            assert "my-secret-model" not in body
    assert hers.get(f"/usage/calls/{secret.pk}").status_code == 404


# Why a call cost what it did


def test_a_call_is_explained_by_its_classes_and_the_price_row(page: Client, alice: User) -> None:
    price = price_of("acme", "swift", "3 0.30 - 15")
    counts = meter.Counts(fresh_input=900, cache_read=100, visible_output=150, reasoning=50)
    row = call_of(alice, provider="acme", model="swift", counts=counts)
    found = explained.of(alice, row.pk)
    assert [(line.name, line.tokens, line.cost_usd) for line in found.lines] == [
        ("fresh_input", 900, Decimal("0.0027")),
        ("cache_read", 100, Decimal("0.00003")),
        ("visible_output", 150, Decimal("0.00225")),
        ("reasoning", 50, Decimal("0.00075")),
    ]
    assert sum(line.cost_usd or 0 for line in found.lines) == row.total_cost_usd
    assert found.cached_percent == 10
    assert (found.call.price, found.usual, found.times) == (price, None, None)
    shown = page.get(f"/usage/calls/{row.pk}").content.decode()
    assert "valid since 1 Jan 2024" in shown
    assert "10% of the prompt from the cache" in shown


def test_a_dear_call_is_compared_with_the_person_s_own_median(alice: User, carol: User) -> None:
    for tokens in (100, 1000, 1000, 1000, 1100):
        call_of(alice, counts=meter.Counts(fresh_input=tokens, visible_output=0))
    for _ in range(9):
        call_of(carol, counts=meter.Counts(fresh_input=90_000))
        call_of(alice, operation="title", counts=meter.Counts(fresh_input=90_000))
    dear = call_of(alice, counts=meter.Counts(fresh_input=4000, cache_read=0, visible_output=0))
    found = explained.of(alice, dear.pk)
    assert found.usual is not None
    assert (found.usual.calls, found.usual.input_tokens, found.times) == (5, 1000, Decimal("4.0"))
    assert list(found.reasons) == ["long_prompt", "not_cached"]
    ordinary = call_of(alice, counts=meter.Counts(fresh_input=1000, visible_output=0))
    assert explained.of(alice, ordinary.pk).reasons == []


def test_a_call_without_a_price_or_a_reply_is_explained_too(page: Client, alice: User) -> None:
    row = call_of(alice, provider="acme", model="new", requested_model="new", operation_id="evt-1")
    found = explained.of(alice, row.pk)
    assert (found.prompt, found.cost_idr, found.times) == (None, None, None)
    assert "The call is priced when there is." in page.get(f"/usage/calls/{row.pk}").content.decode()
    for nonsense in ("x", "use_01JZZZZZZZZZZZZZZZZZZZZZZZ", "%00"):
        assert page.get(f"/usage/calls/{nonsense}").status_code == 404


# The ring


def test_a_ring_is_whole() -> None:
    arcs = charts.ring([50, 0, 30, 20])
    assert [arc.slot for arc in arcs] == [1, 3, 4]
    shares = [float(arc.dash.split()[0]) + charts.GAP for arc in arcs]
    assert sum(shares) == pytest.approx(100)
    assert [arc.offset for arc in arcs] == ["25.00", "-25.00", "-55.00"]
    assert charts.ring([7])[0].dash == "100.00 0.00"
    assert charts.ring([]) == []

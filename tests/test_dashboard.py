"""The dashboard of the administration: everybody's use, for staff who may see calls."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from zoneinfo import ZoneInfo

import pytest
from django.contrib.auth.models import Permission
from django.core.management import CommandError, call_command
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone

from aleph import ids, insights
from aleph.accounts.models import User
from billing import purchases
from tests import people
from tests.stories_of_usage import call_of, price_of
from usage import meter, rollups
from usage.models import Calibration, ExchangeRate, TokenUsage, UsageHour

pytestmark = pytest.mark.django_db

NOON = (datetime.now(UTC) - timedelta(days=3)).replace(hour=12, minute=0, second=0, microsecond=0)
PERIOD = insights.Period(30, ZoneInfo("Asia/Jakarta"))
BEFORE = insights.Period(10, ZoneInfo("Asia/Jakarta"), NOON.date() - timedelta(days=2))


@pytest.fixture(autouse=True)
def price(db: None) -> None:
    price_of("openai", "*", "2.5 1.25 3 10")
    ExchangeRate.objects.update(idr_per_usd=Decimal(16_000))


def client_of(person: User) -> Client:
    client = Client()
    client.force_login(person)
    return client


def used() -> User:
    """Alice asked three days ago and just now, and was charged 180 tokens each time; one of Bob's calls failed."""
    alice = people.alice()
    for at in (NOON, None):
        call_of(alice, at=at, label="GPT-4o", charged_tokens=180, value_idr_per_1k=4762)
    call_of(people.bob(), at=NOON, label="GPT-4o", status=meter.Status.FAILED)
    while rollups.run():
        pass
    return alice


def test_sums_and_the_calls_since_make_one_figure() -> None:
    used()
    assert UsageHour.objects.exists()
    totals = insights.totals(PERIOD.since, PERIOD.until)
    assert (totals.calls, totals.failed, totals.tokens, totals.charged_tokens) == (3, 1, 3600, 360)
    assert totals.charged_idr == 2 * 180 * 4762 // 1000
    assert (totals.cost_usd, totals.cost_idr) == (Decimal("0.0135"), 216)
    assert round(totals.margin_percent or 0, 1) == Decimal("87.4")


def test_the_same_is_said_by_model_by_day_and_by_provider() -> None:
    used()
    (line,) = insights.by_model(PERIOD)
    assert (line.name, line.calls, line.charged_tokens, line.bar) == ("GPT-4o", 3, 360, "100.0%")
    over_time = insights.over_time(PERIOD, insights.read(PERIOD), named=5)
    assert [sum(tokens) for _name, tokens in over_time.models] == [3600]
    assert over_time.models[0][1][-1] == 1200
    assert (sum(over_time.charged_tokens), over_time.charged_tokens[-1]) == (360, 180)
    assert over_time.cost_idr is not None
    assert sum(over_time.cost_idr) == 216
    assert sum(over_time.charged_idr) == 2 * (180 * 4762 // 1000)
    (provider,) = insights.by_provider(PERIOD, insights.read(PERIOD))
    assert (provider.calls, provider.failed, provider.first_token_ms, provider.state) == (3, 1, 420, "fine")
    assert insights.by_provider(BEFORE, insights.read(BEFORE)) == []


def test_what_is_asked_less_is_one_sum() -> None:
    for nth, label in enumerate(("A", "B", "C")):
        call_of(people.carol(), label=label, counts=meter.Counts(fresh_input=100 - nth, visible_output=0))
    assert [
        (name, sum(tokens))
        for name, tokens in insights.over_time(PERIOD, insights.read(PERIOD), named=1).models
    ] == [
        ("A", 100),
        ("", 197),
    ]


def test_a_provider_that_fails_often_is_not_answering() -> None:
    for status in (meter.Status.FAILED, meter.Status.COMPLETE):
        call_of(None, status=status)
    assert insights.by_provider(PERIOD, insights.read(PERIOD))[0].state == "silent"


def test_people_are_counted_once() -> None:
    alice = used()
    found = insights.people(PERIOD)
    assert (found.active, found.paid) == (2, 1)
    assert found.top[0].email == alice.email


def test_who_came_back() -> None:
    monday = timezone.now().astimezone(UTC).replace(hour=9) - timedelta(days=timezone.now().weekday())
    alice, bob = people.alice(), people.bob()
    User.objects.filter(pk__in=[alice.pk, bob.pk]).update(date_joined=monday - timedelta(weeks=3))
    call_of(alice, at=monday - timedelta(weeks=2))
    call_of(alice, at=monday - timedelta(weeks=1))
    call_of(bob, at=monday - timedelta(weeks=1))
    while rollups.run():
        pass
    (cohort,) = [cohort for cohort in insights.retention(timezone.now().date()) if cohort.people == 2]
    assert cohort.came_back_percent == [50, 100]


def test_staff_who_may_see_calls_see_it_and_others_do_not() -> None:
    used()
    address = reverse("admin:dashboard")
    assert client_of(people.alice()).get(address).status_code == 302
    clerk = people.someone("Clerk")
    User.objects.filter(pk=clerk.pk).update(is_staff=True)
    assert client_of(clerk).get(address).status_code == 403
    clerk.user_permissions.add(Permission.objects.get(codename="view_tokenusage"))
    said = client_of(clerk).get(address, {"days": 7})
    assert said.status_code == 200
    assert "GPT-4o" in said.content.decode()
    assert client_of(people.dewi()).get(address, {"days": "nonsense"}).status_code == 200


def test_it_is_drawn_without_any_calls() -> None:
    TokenUsage.objects.all().delete()
    ExchangeRate.objects.all().delete()
    assert client_of(people.dewi()).get(reverse("admin:dashboard")).status_code == 200


def test_it_asks_as_much_for_many_calls_as_for_few() -> None:
    dewi = client_of(people.dewi())
    used()
    dewi.get(reverse("admin:dashboard"))
    with CaptureQueriesContext(connection) as few:
        dewi.get(reverse("admin:dashboard"))
    for nth in range(12):
        call_of(people.carol(), at=NOON - timedelta(hours=nth), label=f"Model {nth}")
    with CaptureQueriesContext(connection) as many:
        dewi.get(reverse("admin:dashboard"))
    assert len(many) == len(few) <= 40


def test_the_table_as_a_file() -> None:
    used()
    said = client_of(people.dewi()).get(reverse("admin:dashboard"), {"format": "csv"})
    assert said["Content-Type"].startswith("text/csv")
    lines = said.content.decode("utf-8-sig").splitlines()
    assert lines[0].startswith("day,provider,model,calls")
    assert [line.split(",")[3] for line in lines[1:]] == ["1", "2"]


def test_what_was_sold_is_told_by_package_and_day() -> None:
    alice = people.alice()
    people.give_rupiah(alice, 1_000_000)
    insights_before = insights.sales(PERIOD)
    bought = [
        purchases.buy(user=alice, package_slug=slug, key=ids.new("key")) for slug in ("starter", "pro", "pro")
    ]
    sales = insights.sales(PERIOD)
    revenue = sum(purchase.price_idr for purchase in bought)
    assert sales.revenue_idr - insights_before.revenue_idr == revenue
    assert sales.purchases - insights_before.purchases == 3
    assert sales.tokens - insights_before.tokens == sum(purchase.total_tokens for purchase in bought)
    assert sum(line.revenue_idr for line in sales.packages) == sales.revenue_idr
    assert sum(part[-1] for part in sales.revenue_over_time) >= revenue
    assert insights.revenue_idr(PERIOD.since, PERIOD.until) == sales.revenue_idr
    assert insights.sales(BEFORE).packages == []


def test_days_may_be_picked_and_many_are_drawn_by_week() -> None:
    used()
    page = client_of(people.dewi())
    day = NOON.astimezone(PERIOD.zone).date()
    shown = page.get(reverse("admin:dashboard"), {"from": day.isoformat(), "to": day.isoformat()})
    assert shown.context["totals"].calls == 2
    assert len(shown.context["tokens_chart"].stacks) == 1
    year = page.get(reverse("admin:dashboard"), {"days": 365})
    assert 52 <= len(year.context["tokens_chart"].stacks) <= 54
    assert year.context["totals"].calls == 3
    for nonsense in ({"from": "2026-02-31"}, {"from": "2199-01-01", "to": "2001-01-01"}, {"to": "x"}):
        assert page.get(reverse("admin:dashboard"), nonsense).status_code == 200
    sales = page.get(reverse("admin:dashboard"), {"format": "csv", "of": "sales"})
    assert sales.content.decode("utf-8-sig").startswith("from,to,package,revenueIdr")


def test_a_model_without_a_price_has_no_margin() -> None:
    call_of(
        people.alice(), provider="acme", model="new", label="New", charged_tokens=180, value_idr_per_1k=4762
    )
    line = insights.by_model(PERIOD)[0]
    assert (line.name, line.charged_idr) == ("New", 857)
    assert (line.cost_usd, line.cost_idr, line.margin_percent) == (None, None, None)
    page = client_of(people.dewi()).get(reverse("admin:dashboard"), headers={"accept-language": "en"})
    assert "no price" in page.content.decode()


def test_how_far_estimates_are_off_is_published() -> None:
    Calibration.objects.create(
        model="gpt-4o", kind="prose", factor=1000, reserve=1300, observations=10**9, errors=[10, 42, 900]
    )
    answer = client_of(people.dewi()).get(reverse("admin:dashboard"), headers={"accept-language": "en"})
    shown = answer.content.decode()
    assert "Estimate error" in shown
    assert "4.2%" in shown


def test_made_up_calls_are_not_asked_for_in_vain() -> None:
    before = User.objects.count()
    for wrong in ({"rows": -5}, {"people": -1}, {"days": 0}):
        with pytest.raises(CommandError):
            call_command("seed_usage", **({"rows": 1, "people": 1} | wrong))
    assert User.objects.count() == before


def test_made_up_calls_are_plausible() -> None:
    call_command("seed_usage", rows=60, people=2, days=9, verbosity=0)
    assert TokenUsage.objects.filter(operation_id__startswith="seed_").count() == 60
    while rollups.run():
        pass
    assert not list(rollups.differences())

"""Usage as programs read it: the sources' shapes, the asker's own calls and nobody else's, by a handful of statements."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from django.test import Client
from django.utils import timezone

from aleph.accounts.models import ApiKey, Company, Membership, User
from tests import people
from tests.stories_of_chat import statements
from tests.stories_of_usage import call_of
from usage import history, meter

pytestmark = pytest.mark.django_db

PLACES = (
    "/api/tokens/stats",
    "/api/tokens/history",
    "/api/tokens/usage-by-period",
    "/api/usage",
    "/api/usage/all",
    "/api/usage-logs",
)


def program(person: User) -> Client:
    key = ApiKey.issue(user=person, name="test")
    return Client(headers={"Authorization": f"Bearer {key}", "Accept-Language": "en"})


def asked(person: User, path: str, **query: Any) -> Any:
    answer = program(person).get(path, query)
    assert answer.status_code == 200, answer.content
    return answer.json()


def refused(person: User, path: str, **query: Any) -> str:
    answer = program(person).get(path, query)
    assert answer.status_code == 400, answer.content
    assert answer.json()["code"] == "INVALID_REQUEST"
    error: str = answer.json()["error"]
    return error


def sized(fresh: int, visible: int) -> meter.Counts:
    return meter.Counts(fresh_input=fresh, visible_output=visible)


# Shapes


def test_the_stats_are_those_of_the_source() -> None:
    alice = people.alice()
    call_of(alice, operation="presentation_generate", counts=sized(1500, 3000))
    call_of(alice, counts=sized(1000, 200))
    call_of(alice, provider="nobody", model="unheard-of", requested_model="unheard-of", counts=sized(10, 5))
    stats = asked(alice, "/api/tokens/stats")
    assert (stats["userId"], stats["totalInputTokens"], stats["totalOutputTokens"]) == (alice.pk, 2510, 3205)
    assert stats["totalTokens"] == 5715
    priced = Decimal("2.5") * 2500 / 10**6 + Decimal(10) * 3200 / 10**6
    assert Decimal(stats["totalCostExact"]) == priced
    assert stats["totalCost"] == float(priced)
    assert stats["unpricedCalls"] == 1
    assert [(each["operation"], each["count"], each["totalTokens"]) for each in stats["byOperation"]] == [
        ("presentation_generate", 1, 4500),
        ("chat_message", 2, 1215),
    ]
    assert [(each["provider"], each["model"], each["totalTokens"]) for each in stats["byModel"]] == [
        ("openai", "gpt-4o-2024-08-06", 5700),
        ("nobody", "unheard-of", 15),
    ]


def test_a_call_of_the_history_has_the_fields_of_the_source() -> None:
    alice = people.alice()
    call = call_of(alice, session="cht_1", metadata={"request_id": "req_of_the_provider"})
    (found,) = asked(alice, "/api/tokens/history")["usage"]
    assert found["id"] == call.pk
    assert (found["operation"], found["operationId"]) == ("chat_message", call.operation_id)
    assert (found["inputTokens"], found["outputTokens"], found["totalTokens"]) == (1000, 200, 1200)
    assert (found["modelProvider"], found["modelId"]) == ("openai", "gpt-4o-2024-08-06")
    assert found["cost"] == found["totalCost"] == 0.0045
    assert (found["inputCost"], found["outputCost"], found["costExact"]) == (0.0025, 0.002, "0.0045")
    assert datetime.fromisoformat(found["createdAt"]) == call.created_at
    assert found["createdAt"].endswith("Z")
    assert found["metadata"] == {"session": "cht_1"}, "ids of the provider are not for people"


def test_what_nobody_knows_is_null_and_not_0() -> None:
    alice = people.alice()
    call_of(alice, provider="nobody", model="unheard-of", requested_model="")
    (found,) = asked(alice, "/api/tokens/history")["usage"]
    assert found["cost"] is found["costExact"] is found["inputCost"] is found["cachedTokens"] is None


def test_a_period_has_a_row_for_each_of_its_days() -> None:
    alice = people.alice()
    today = history.today(alice)
    for back, tokens in ((0, 100), (3, 50), (3, 50), (7, 999), (29, 7)):
        call_of(alice, at=timezone.now() - timedelta(days=back), counts=sized(tokens, 0))
    week = asked(alice, "/api/tokens/usage-by-period", period="week")
    assert [row["date"] for row in week["data"]] == [str(today - timedelta(days=n)) for n in range(6, -1, -1)]
    assert [row["tokens"] for row in week["data"]] == [0, 0, 0, 100, 0, 0, 100]
    assert week["data"][3]["cost"] == 0.00025
    assert len(asked(alice, "/api/tokens/usage-by-period", period="day")["data"]) == 1
    month = asked(alice, "/api/tokens/usage-by-period", period="month")["data"]
    assert (len(month), month[0]["tokens"], sum(row["tokens"] for row in month)) == (30, 7, 1206)
    weeks = asked(alice, "/api/tokens/usage-by-period", period="month", by="week")["data"]
    assert sum(row["tokens"] for row in weeks) == 1206
    assert all(datetime.fromisoformat(row["date"]).weekday() == 0 for row in weeks)
    other = {"from": str(today - timedelta(days=7)), "to": str(today - timedelta(days=6))}
    assert [row["tokens"] for row in asked(alice, "/api/tokens/usage-by-period", **other)["data"]] == [999, 0]


def test_days_are_those_of_the_reader() -> None:
    alice = people.alice()
    alice.time_zone = "Asia/Jakarta"
    alice.save()
    call_of(alice, at=datetime(2026, 3, 9, 18, 30, tzinfo=UTC))
    days = asked(alice, "/api/tokens/usage-by-period", **{"from": "2026-03-09", "to": "2026-03-10"})["data"]
    assert [row["calls"] for row in days] == [0, 1]
    assert len(asked(alice, "/api/tokens/history", **{"from": "2026-03-10"})["usage"]) == 1
    assert asked(alice, "/api/tokens/history", to="2026-03-09")["usage"] == []


def test_a_timeframe_sums_what_fell_into_it() -> None:
    alice = people.alice()
    for back in (0, 6, 29, 89, 364, 500):
        call_of(alice, at=timezone.now() - timedelta(days=back))
    calls = {name: asked(alice, f"/api/usage/{name}")["totals"]["calls"] for name in ("day", "week", "month")}
    assert calls == {"day": 1, "week": 2, "month": 3}
    assert asked(alice, "/api/usage/quarter")["totals"]["calls"] == 4
    assert asked(alice, "/api/usage/year")["totals"]["calls"] == 5
    ever = asked(alice, "/api/usage/all")
    assert (ever["totals"]["calls"], ever["first"], ever["timeframe"]) == (6, None, "all")
    assert asked(alice, "/api/usage") == asked(alice, "/api/usage/month")
    assert program(alice).get("/api/usage/decade").status_code == 404


# Pages and filters


def test_the_history_is_paged_through_and_filtered() -> None:
    alice = people.alice()
    calls = [call_of(alice, at=timezone.now() - timedelta(minutes=n)) for n in range(5)]
    seen: list[str] = []
    cursor: str | None = ""
    while cursor is not None:
        page = asked(alice, "/api/tokens/history", limit=2, cursor=cursor)
        seen += [call["id"] for call in page["usage"]]
        cursor = page["nextCursor"]
    assert seen == [call.pk for call in calls]


@pytest.mark.parametrize(
    ("wish", "found"),
    [
        ({"operation": "editor_assist"}, ["edit"]),
        ({"model": "claude-haiku-5-5"}, ["claude"]),
        ({"model": "claude-3-haiku"}, ["claude"]),
        ({"provider": "anthropic"}, ["claude"]),
        ({"session": "cht_of_alice"}, ["edit"]),
        ({"status": "failed"}, ["failed"]),
        ({"operation": "nothing"}, []),
    ],
)
def test_each_filter_leaves_what_it_names(wish: dict[str, str], found: list[str]) -> None:
    alice = people.alice()
    made = {
        "edit": call_of(alice, operation="editor_assist", session="cht_of_alice"),
        "claude": call_of(
            alice, provider="anthropic", model="claude-haiku-5-5", requested_model="claude-3-haiku"
        ),
        "failed": call_of(alice, status=meter.Status.FAILED),
    }
    answer = asked(alice, "/api/tokens/history", **wish)["usage"]
    assert [call["id"] for call in answer] == [made[name].pk for name in found]


@pytest.mark.parametrize(
    "wish",
    [
        {"limit": "0"},
        {"limit": "101"},
        {"limit": "x"},
        {"limit": "²"},
        {"cursor": "x"},
        {"status": "odd"},
        {"status": ""},
        {"from": ""},
        {"from": "2026-3-1"},
        {"from": "yesterday"},
        {"from": "2026-02-30"},
        {"from": "2026-03-02", "to": "2026-03-01"},
        {"model": "x" * 121},
        {"session": "\x00"},
    ],
)
def test_what_makes_no_sense_is_refused(wish: dict[str, str]) -> None:
    assert refused(people.carol(), "/api/tokens/history", **wish)


def test_a_period_has_an_end() -> None:
    carol = people.carol()
    assert refused(carol, "/api/tokens/usage-by-period", period="century")
    assert refused(carol, "/api/tokens/usage-by-period", by="hour")
    assert "at most a year" in refused(carol, "/api/tokens/usage-by-period", **{"from": "2020-01-01"})
    assert refused(carol, "/api/usage-logs", type="CHAT")


# Whose they are


@pytest.mark.parametrize("place", PLACES)
def test_nobody_sees_what_is_anothers(place: str) -> None:
    alice = people.alice()
    for operation in ("chat_message", "training"):
        call_of(alice, operation=operation, model="model-of-alice", session="cht_of_alice")
    assert Client().get(place).status_code == 401
    assert "model-of-alice" in program(alice).get(place).content.decode() or "by-period" in place
    for other in (people.carol(), people.dewi()):
        body = program(other).get(place)
        assert body.status_code == 200
        assert "of-alice" not in body.content.decode()
        assert "2400" not in body.content.decode()


def test_a_companys_log_is_its_administrators_and_each_members_own_part() -> None:
    company, rival = Company.objects.create(name="PT Satu"), Company.objects.create(name="PT Dua")
    boss, worker, spy = people.alice(), people.bob(), people.carol()
    Membership.objects.create(company=company, user=boss, role="admin")
    Membership.objects.create(company=company, user=worker)
    Membership.objects.create(company=rival, user=spy, role="admin")
    trained = call_of(worker, operation="training", company_id=company.pk, model="text-embedding-3-small")
    answered = call_of(None, operation="auto_response", company_id=company.pk)
    call_of(worker, company_id=company.pk)
    logs = asked(boss, "/api/usage-logs")
    assert [(row["id"], row["type"], row["companyId"]) for row in logs["logs"]] == [
        (answered.pk, "AUTO_RESPONSE", str(company.pk)),
        (trained.pk, "TRAINING", str(company.pk)),
    ]
    assert set(logs["logs"][0]) == {
        *("id", "companyId", "type", "provider", "model", "inputTokens", "outputTokens", "totalTokens"),
        *("metadata", "createdAt"),
    }
    assert logs["stats"] == {"total": 2400, "training": 1200, "autoResponse": 1200}
    only = asked(boss, "/api/usage-logs", type="TRAINING")
    assert [row["id"] for row in only["logs"]] == [trained.pk]
    assert only["stats"] == logs["stats"]
    assert [row["id"] for row in asked(worker, "/api/usage-logs")["logs"]] == [trained.pk]
    assert asked(spy, "/api/usage-logs")["logs"] == []


def test_a_log_has_fifty_rows_a_page() -> None:
    alice = people.alice()
    for _each in range(51):
        call_of(alice, operation="training")
    first = asked(alice, "/api/usage-logs")
    assert len(first["logs"]) == 50
    rest = asked(alice, "/api/usage-logs", cursor=first["nextCursor"])
    assert (len(rest["logs"]), rest["nextCursor"]) == (1, None)


@pytest.mark.parametrize("place", PLACES)
def test_every_answer_takes_a_handful_of_statements(place: str) -> None:
    alice = people.alice()
    for number in range(20):
        call_of(alice, operation=f"operation_{number}", model=f"model-{number}")
        call_of(alice, operation="training")
    by = program(alice)
    by.get(place)
    with statements() as sent:
        by.get(place)
    assert len(sent) <= 5, sent

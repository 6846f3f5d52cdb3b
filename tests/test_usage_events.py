"""Calls that other software reports: each counts once, each is answered for itself, none that has an id is lost."""

import json
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from django.test import Client
from django.utils import timezone

from aleph import ids, usage_events
from aleph.accounts.models import ApiKey, User
from tests import people
from tests.stories_of_usage import price_of
from usage.models import ReportedCall, TokenUsage

PLACE = "/api/v1/usage/events"

pytestmark = pytest.mark.django_db


def program(person: User) -> Client:
    key = ApiKey.issue(user=person, name="test")
    return Client(headers={"Authorization": f"Bearer {key}", "Accept-Language": "en"})


def event(**said: Any) -> dict[str, Any]:
    usual = {"operation": "presentation_generate", "provider": "cerebras", "model": "llama3.1-70b"}
    counts = {} if "response" in said else {"inputTokens": 1500, "outputTokens": 3500}
    return {"id": ids.new("own"), **usual, **counts, **said}


def sent(person: User, body: Any, *, status: int = 200) -> Any:
    answer = program(person).post(PLACE, json.dumps(body), "application/json")
    assert answer.status_code == status, answer.content
    return answer.json()["data"] if status == 200 else answer.json()


def told(person: User, *items: Any) -> list[tuple[str, str | None]]:
    found = sent(person, {"events": list(items)})["results"]
    return [(each["status"], each["error"]) for each in found]


def calls_of(person: User) -> list[TokenUsage]:
    return list(TokenUsage.objects.filter(user=person).order_by("id"))


def test_a_call_is_recorded_priced_and_shown_as_its_owner_named_it() -> None:
    alice = people.alice()
    happened = timezone.now() - timedelta(hours=1)
    said = event(operationId="pres456", metadata={"slideCount": 10}, createdAt=happened.isoformat())
    found = sent(alice, said)
    assert (found["recorded"], found["results"][0]["status"], found["results"][0]["id"]) == (
        1,
        "recorded",
        said["id"],
    )
    (call,) = calls_of(alice)
    assert found["results"][0]["usageId"] == call.pk
    assert (call.input_tokens, call.output_tokens, call.source) == (1500, 3500, "reported")
    assert call.total_cost_usd == Decimal("0.003")
    (shown,) = program(alice).get("/api/tokens/history").json()["usage"]
    assert (shown["operationId"], shown["metadata"]) == ("pres456", {"slideCount": 10})
    assert shown["totalCost"] == 0.003


def test_the_same_event_counts_once_and_another_under_its_id_is_told_apart() -> None:
    alice = people.alice()
    said = event()
    first = sent(alice, said)["results"][0]
    again = sent(alice, said)["results"][0]
    assert (again["status"], again["usageId"]) == ("duplicate", first["usageId"])
    other = sent(alice, {**said, "inputTokens": 1})["results"][0]
    assert (other["status"], other["usageId"]) == ("mismatch", None)
    assert "already used" in other["error"]
    assert len(calls_of(alice)) == 1
    assert sent(people.carol(), said)["recorded"] == 1, "ids are each person's own"


def test_a_batch_is_answered_item_by_item() -> None:
    alice = people.alice()
    good = event()
    bad = {"inputTokens": -1}, {"operation": "Not a name"}, {"model": ""}, {"cachedTokens": 9999}
    results = told(
        alice, good, good, *(event(**wrong) for wrong in bad), {"operation": "x"}, "text", event(id="")
    )
    assert [status for status, _error in results] == [
        *("recorded", "duplicate"),
        *["dead_lettered"] * 4,
        *["rejected"] * 3,
    ]
    assert all(error for status, error in results if status not in ("recorded", "duplicate"))
    assert len(calls_of(alice)) == 1
    assert ReportedCall.objects.filter(user=alice, state="dead").count() == 4


def test_a_thousand_go_at_once_and_no_more() -> None:
    alice = people.alice()
    many = [event() for _each in range(1000)]
    assert sent(alice, {"events": many})["recorded"] == 1000
    assert sent(alice, {"events": many})["duplicates"] == 1000
    assert TokenUsage.objects.filter(user=alice).count() == 1000
    wrongs: list[Any] = [{"events": [*many, event()]}, {"events": []}, {"events": "x"}, [event()], 5]
    for wrong in wrongs:
        assert sent(alice, wrong, status=400)["code"] == "INVALID_REQUEST"


ANSWERS: dict[str, tuple[dict[str, Any], tuple[int, int, int | None]]] = {
    "openai": (
        {
            "model": "gpt-4o-2024-08-06",
            "usage": {
                "prompt_tokens": 100,
                "completion_tokens": 20,
                "total_tokens": 120,
                "prompt_tokens_details": {"cached_tokens": 64},
            },
        },
        (100, 20, 64),
    ),
    "anthropic": (
        {"usage": {"input_tokens": 21, "cache_read_input_tokens": 1024, "output_tokens": 9}},
        (1045, 9, 1024),
    ),
    "gemini": (
        {
            "modelVersion": "gemini-3.8-flash",
            "usageMetadata": {
                "promptTokenCount": 12,
                "candidatesTokenCount": 5,
                "thoughtsTokenCount": 40,
                "totalTokenCount": 57,
            },
        },
        (12, 45, 0),
    ),
    "ollama": ({"prompt_eval_count": 26, "eval_count": 298, "done": True}, (26, 298, None)),
}


@pytest.mark.parametrize("name", ANSWERS)
def test_a_providers_own_answer_is_read_by_its_format(name: str) -> None:
    alice = people.alice()
    answer, (into, out, cached) = ANSWERS[name]
    said = event(provider="my-gateway", format=name, model="my-model", response=answer)
    assert sent(alice, said)["recorded"] == 1
    (call,) = calls_of(alice)
    assert (call.input_tokens, call.output_tokens, call.cache_read_tokens) == (into, out, cached)
    assert call.provider == "my-gateway"


def test_the_provider_is_the_format_and_the_response_names_the_model() -> None:
    alice = people.alice()
    said = event(provider="openai", response=ANSWERS["openai"][0])
    del said["model"]
    assert sent(alice, said)["recorded"] == 1
    assert calls_of(alice)[0].model == "gpt-4o-2024-08-06"


@pytest.mark.parametrize(
    "said",
    [
        {"format": "klingon", "response": {"usage": {}}},
        {"response": {"usage": {"nothing": "known"}}},
        {"response": {}},
        {"response": "text"},
        {"metadata": {"much": "x" * 5000}},
        {"createdAt": "2999-01-01T00:00:00Z"},
        {"status": "odd"},
    ],
)
def test_what_is_unknown_is_kept_for_people_and_may_come_again_mended(said: dict[str, Any]) -> None:
    alice = people.alice()
    first = event(**said)
    ((status, error),) = told(alice, first)
    assert (status, bool(error)) == ("dead_lettered", True)
    letter = ReportedCall.objects.get(user=alice)
    assert (letter.state, letter.event_id) == ("dead", first["id"])
    assert letter.reason
    assert calls_of(alice) == []
    mended = event(id=first["id"])
    assert told(alice, mended) == [("recorded", None)]
    assert told(alice, mended) == [("duplicate", None)]
    letter.refresh_from_db()
    assert (letter.state, letter.reason, letter.skeleton) == ("recorded", "", None)


def test_a_dead_letter_keeps_no_words() -> None:
    alice = people.alice()
    answer = {"choices": [{"message": {"content": "My secret diary"}}], "usage": {"odd": 5}, "model": "m"}
    told(alice, event(response=answer, metadata={"note": "of my sister"}))
    letter = ReportedCall.objects.get(user=alice)
    kept = json.dumps(letter.skeleton)
    assert "diary" not in kept
    assert "sister" not in kept
    assert letter.skeleton is not None
    assert letter.skeleton["response"]["usage"] == {"odd": 5}
    assert letter.skeleton["response"]["model"] == "m"


def test_staff_see_dead_letters_and_change_nothing() -> None:
    alice, dewi = people.alice(), people.dewi()
    told(alice, event(format="klingon", response={"usage": {}}))
    letter = ReportedCall.objects.get(user=alice)
    client = Client(headers={"Accept-Language": "en"})
    client.force_login(dewi)
    page = client.get("/admin/usage/reportedcall/?state__exact=dead").content.decode()
    assert letter.event_id in page
    assert "klingon" in page
    assert client.get(f"/admin/usage/reportedcall/{letter.pk}/change/").status_code == 200
    assert client.post(f"/admin/usage/reportedcall/{letter.pk}/delete/").status_code == 403


def test_guests_report_nothing_and_nobody_reports_for_others() -> None:
    assert Client().post(PLACE, "{}", "application/json").status_code == 401
    alice, carol = people.alice(), people.carol()
    sent(carol, event(userId=alice.pk, user_id=alice.pk))
    assert calls_of(alice) == []
    assert len(calls_of(carol)) == 1


def test_a_reported_call_costs_no_prepaid_tokens_and_leaves_its_time() -> None:
    alice = people.alice()
    price_of(
        "cerebras", "llama-x", "1 - - 1", datetime(2024, 1, 1, tzinfo=UTC), datetime(2025, 1, 1, tzinfo=UTC)
    )
    price_of("cerebras", "llama-x", "2 - - 2", datetime(2025, 1, 1, tzinfo=UTC))
    sent(alice, event(model="llama-x", inputTokens=10**6, outputTokens=0, createdAt="2024-06-01T00:00:00Z"))
    (call,) = calls_of(alice)
    assert (call.total_cost_usd, call.charged_tokens, call.transfer_id) == (Decimal(1), 0, "")


def test_every_format_that_is_named_has_a_reader() -> None:
    assert {
        "openai",
        "anthropic",
        "gemini",
        "ollama",
        "tgi",
        "n8n",
        "huggingface",
    } <= usage_events.FORMATS.keys()
    for reader in usage_events.FORMATS.values():
        assert reader({}) is None

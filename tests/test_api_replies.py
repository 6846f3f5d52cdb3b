"""Replies as programs get them, from the product's own processes: whole, in pieces, failed, deleted meanwhile."""

import re
from typing import Any

import pytest

from aleph import ids
from aleph.accounts.models import User
from chat.models import Message
from tests import people
from tests.product import Product, Visitor, simulated_model
from tests.programs import ROOT, events_of, session_of
from tests.stories_of_chat import available, calls_of, ending_of, held, special_model

JSON = "application/json"


@pytest.fixture
def alice(product: Product) -> User:
    return people.alice()


@pytest.fixture
def program(product: Product, alice: User) -> Visitor:
    return product.program(alice)


def test_a_message_is_answered_with_the_whole_reply(program: Visitor, alice: User) -> None:
    session = session_of(program, "sim-words-5")
    answer = program.post(f"{session}/messages", json={"content": "Tell me a story"})
    assert (answer.status_code, answer.headers["Content-Type"]) == (200, JSON)
    data = answer.json()["data"]
    reply = Message.objects.get(pk=data["messageId"])
    assert answer.json() == {
        "success": True,
        "data": {
            "messageId": reply.pk,
            "parentId": reply.parent_id,
            "content": "word1 word2 word3 word4 word5 ",
            "tokensUsed": reply.tokens_used,
            "remainingBalance": 10_500 - reply.tokens_used,
            "state": "complete",
            "finishReason": "stop",
            "model": "sim-words-5-at-100",
            "provider": "openai",
            "answeredBy": "sim-words-5-2026-09-01",
            "temperature": 0.7,
            "reused": False,
        },
    }
    assert reply.tokens_used > 0
    assert program.get(f"{session}/messages/{reply.pk}").json() == answer.json()
    assert program.get(session).json()["data"]["totalTokensUsed"] == reply.tokens_used
    assert available(alice) == 10_500 - reply.tokens_used
    assert re.fullmatch(r"req_[0-9A-Z]{26}", answer.headers["X-Request-Id"])


def test_a_reply_comes_in_pieces_to_who_asks_for_events(program: Visitor) -> None:
    session = session_of(program, "sim-slow-40x100ms")
    with program.post(
        f"{session}/messages",
        json={"content": "Tell me a story"},
        headers={"Accept": "text/event-stream"},
        stream=True,
    ) as answer:
        assert (answer.status_code, answer.headers["Content-Type"]) == (200, "text/event-stream")
        events = list(events_of(answer))
    names = [name for name, _data in events]
    assert names[0] == "start"
    assert names[-1] == "done"
    assert set(names[1:-1]) == {"delta"}
    assert len(names) > 8
    text = ""
    for _name, delta in events[1:-1]:
        assert delta["offset"] == len(text)
        text += delta["text"]
    done = events[-1][1]
    assert done["success"]
    assert done["data"]["messageId"] == events[0][1]["messageId"]
    assert text == done["data"]["content"]
    assert text.split() == [f"word{number}" for number in range(1, 41)]


def test_who_lost_the_stream_finds_the_reply_again(program: Visitor) -> None:
    session = session_of(program, "sim-slow-60x100ms")
    with program.post(
        f"{session}/messages",
        json={"content": "Tell me a story"},
        headers={"Accept": "text/event-stream"},
        stream=True,
    ) as answer:
        events = events_of(answer)
        message = next(events)[1]["messageId"]
        next(events)
    assert program.get(f"{session}/messages/{message}").json()["data"]["state"] == "streaming"
    with program.get(
        f"{session}/messages/{message}", headers={"Accept": "text/event-stream"}, stream=True
    ) as again:
        events = events_of(again)
        assert next(events) == ("start", {"sessionId": session.rpartition("/")[2], "messageId": message})
        whole = list(events)
    assert whole[0][1]["offset"] == 0
    assert (
        "".join(delta["text"] for name, delta in whole if name == "delta") == whole[-1][1]["data"]["content"]
    )
    assert whole[-1][1]["data"]["state"] == "complete"


def test_the_same_key_asks_once_and_answers_twice(product: Product, program: Visitor, alice: User) -> None:
    session = session_of(program, "sim-words-6")
    asked = len(product.simulator.requests)
    first, second = (
        program.post(f"{session}/messages", json={"content": "Halo"}, headers={"Idempotency-Key": "one"})
        for _time in range(2)
    )
    assert first.json() == second.json()
    assert len(product.simulator.requests) == asked + 1
    assert Message.objects.filter(user=alice).count() == 2


def test_a_provider_that_fails_is_an_unavailable_service_and_free(program: Visitor, alice: User) -> None:
    session = session_of(program, "sim-cut-5")
    answer = program.post(f"{session}/messages", json={"content": "Halo"}, headers={"Accept-Language": "id"})
    said = answer.json()
    assert (answer.status_code, said["code"]) == (503, "AI_SERVICE_UNAVAILABLE")
    assert said["error"] == "Layanan AI sedang tidak tersedia. Coba lagi nanti."
    assert said["data"]["state"] == "failed"
    assert said["data"]["content"] == "word1 word2 word3 word4 word5 "
    assert (said["data"]["tokensUsed"], said["data"]["remainingBalance"]) == (0, 10_500)
    assert (available(alice), held(alice)) == (10_500, 0)
    kept = program.get(session).json()["data"]["messages"]
    assert [message["content"] for message in kept] == ["Halo", "word1 word2 word3 word4 word5 "]


def test_a_failure_ends_a_stream_with_an_error(program: Visitor) -> None:
    session = session_of(program, "sim-error-500")
    with program.post(
        f"{session}/messages",
        json={"content": "Halo"},
        headers={"Accept": "text/event-stream", "Accept-Language": "id"},
        stream=True,
    ) as answer:
        events = list(events_of(answer))
    assert [name for name, _data in events] == ["start", "error"]
    assert events[-1][1]["code"] == "AI_SERVICE_UNAVAILABLE"
    assert events[-1][1]["error"] == "Layanan AI sedang tidak tersedia. Coba lagi nanti."


def test_a_message_may_choose_another_model(program: Visitor) -> None:
    session = session_of(program, "sim-words-5")
    other = simulated_model("sim-words-2", rate=0)
    said = program.post(f"{session}/messages", json={"content": "Halo", "model": other}).json()["data"]
    assert (said["model"], said["tokensUsed"], said["content"]) == (other, 0, "word1 word2 ")
    assert program.get(session).json()["data"]["model"] == other


def test_deleting_a_session_ends_its_reply_and_who_waits_for_it_is_told(
    program: Visitor, product: Product, alice: User
) -> None:
    session = session_of(program, "sim-slow-200x50ms")
    with program.post(
        f"{session}/messages",
        json={"content": "Halo"},
        headers={"Accept": "text/event-stream"},
        stream=True,
    ) as answer:
        events = events_of(answer)
        next(events)
        next(events)
        reply = Message.objects.get(user=alice, role="assistant")
        assert product.program(alice).delete(session).json()["success"]
        last = list(events)[-1]
    # Between its end and its deletion a reply is a stopped one for a moment.
    name, said = last
    assert said["code"] == "NOT_FOUND" if name == "error" else said["data"]["state"] == "stopped"
    assert (ending_of(reply), held(alice)) == ("post", 0)
    assert calls_of(reply)[0].status == "stopped"
    assert available(alice) < 10_500


def test_many_wait_for_whole_replies_at_once(product: Product) -> None:
    """More of them than the web process has connections to its database, and none holds one while it waits."""
    alice = people.alice()
    program = product.program(alice)
    paths = [session_of(program, "sim-slow-30x50ms", rate=0) for _each in range(24)]
    streams = [
        product.program(alice).post(
            f"{path}/messages",
            json={"content": "Halo"},
            headers={"Accept": "text/event-stream"},
            stream=True,
        )
        for path in paths
    ]
    assert program.get(f"{ROOT}/tokens/balance", timeout=3).json()["success"]
    for answer in streams:
        name, said = list(events_of(answer))[-1]
        assert (name, said["data"]["state"]) == ("done", "complete")
        answer.close()


def test_a_message_to_an_earlier_reply_begins_a_branch(program: Visitor, alice: User) -> None:
    session = session_of(program, "sim-echo")
    say = f"{session}/messages"
    first = program.post(say, json={"content": "The beginning"}).json()["data"]
    left = program.post(say, json={"content": "To the left"}).json()["data"]
    body = {"content": "To the right", "parentId": first["messageId"]}
    right = program.post(say, json=body).json()["data"]

    def told(**query: str) -> list[tuple[str, str | None]]:
        found = program.get(session, params=query).json()["data"]["messages"]
        return [(message["content"], message["parentId"]) for message in found]

    beginning = [("The beginning", None), ("The beginning", first["parentId"])]
    assert told() == [
        *beginning,
        ("To the right", first["messageId"]),
        ("To the right", right["parentId"]),
    ]
    assert told(at=left["messageId"]) == [
        *beginning,
        ("To the left", first["messageId"]),
        ("To the left", left["parentId"]),
    ]
    again = program.post(say, json=body, headers={"Idempotency-Key": "once"}).json()["data"]
    assert program.post(say, json=body, headers={"Idempotency-Key": "once"}).json()["data"] == again
    other = {**body, "parentId": left["messageId"]}
    assert program.post(say, json=other, headers={"Idempotency-Key": "once"}).status_code == 422


def test_the_same_question_at_temperature_0_is_answered_from_before(program: Visitor, alice: User) -> None:
    User.objects.filter(pk=alice.pk).update(reuses_replies=True)
    say = f"{session_of(program, 'sim-words-5')}/messages"
    exactly = {"content": "Tell me a story", "temperature": 0}
    first = program.post(say, json=exactly).json()["data"]
    assert (first["temperature"], first["reused"], "reusedFrom" in first) == (0, False, False)
    body = {"serviceType": "external_llm", "model": simulated_model("sim-words-5"), "temperature": 0}
    made = program.post(f"{ROOT}/sessions", json=body).json()["data"]
    assert made["temperature"] == 0
    say = f"{ROOT}/sessions/{made['id']}/messages"
    again = program.post(say, json={"content": exactly["content"]}).json()["data"]
    assert (again["reused"], again["reusedFrom"]) == (True, first["messageId"])
    assert (again["content"], again["tokensUsed"]) == (first["content"], 0)
    read = program.get(f"{ROOT}/sessions/{made['id']}").json()["data"]["messages"][1]
    assert (read["reused"], read["reusedFrom"], read["temperature"]) == (True, first["messageId"], 0)
    anew = program.post(f"{say}/{again['messageId']}/retries", json={}).json()["data"]
    assert (anew["reused"], anew["temperature"], anew["tokensUsed"] > 0) == (False, 0, True)


def test_who_wants_no_reuse_says_so_and_a_stream_has_the_whole_text_of_one(
    program: Visitor, alice: User
) -> None:
    User.objects.filter(pk=alice.pk).update(reuses_replies=True)
    exactly = {"content": "Tell me a story", "temperature": 0}

    def told(**more: bool) -> Any:
        return program.post(f"{session_of(program, 'sim-words-5')}/messages", json=exactly | more).json()[
            "data"
        ]

    assert [told()["reused"], told(reuse=False)["reused"], told()["reused"]] == [False, False, True]
    say = f"{session_of(program, 'sim-words-5')}/messages"
    answer = program.post(say, json=exactly, headers={"Accept": "text/event-stream"}, stream=True)
    start, delta, done = events_of(answer)
    assert (start[0], delta[1]["text"], done[0]) == ("start", "word1 word2 word3 word4 word5 ", "done")
    assert done[1]["data"]["reused"]


def test_a_model_that_takes_no_temperature_says_so(program: Visitor) -> None:
    model = special_model(ids.new("mod").lower(), takes_temperature=False).slug
    body = {"serviceType": "external_llm", "model": model, "temperature": 0}
    made = program.post(f"{ROOT}/sessions", json=body).json()["data"]
    say = f"{ROOT}/sessions/{made['id']}/messages"
    refused = program.post(say, json={"content": "Halo", "temperature": 0})
    assert (refused.status_code, refused.json()["code"]) == (400, "TEMPERATURE_NOT_TAKEN")
    assert program.post(say, json={"content": "Halo"}).json()["data"]["temperature"] is None
    wrong = program.post(say, json={"content": "Halo", "temperature": 2.5}).json()
    assert list(wrong["data"]["fields"]) == ["temperature"]


def test_an_empty_key_is_no_key(program: Visitor) -> None:
    say = f"{session_of(program, 'sim-words-5')}/messages"
    assert program.post(say, json={"content": "Halo"}, headers={"Idempotency-Key": ""}).status_code == 400

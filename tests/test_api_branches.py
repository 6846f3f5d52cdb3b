"""What programs can do about what was said: say it otherwise, have another reply or the rest of one, stop one."""

import json
from typing import Any

import pytest

from aleph import ids
from aleph.accounts.models import User
from chat.models import ChatModel, Message
from tests import people
from tests.product import Product, Visitor, simulated_model
from tests.programs import ROOT, events_of, session_of
from tests.stories_of_chat import available, calls_of, ending_of, held, special_model, until

LENGTH = "sim-words-6-length"


@pytest.fixture
def alice(product: Product) -> User:
    return people.alice()


@pytest.fixture
def program(product: Product, alice: User) -> Visitor:
    return product.program(alice)


def said(program: Visitor, session: str, text: str, **more: Any) -> dict[str, Any]:
    return data_of(program.post(f"{session}/messages", json={"content": text, **more}))


def data_of(answer: Any) -> dict[str, Any]:
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()["data"]
    return found


def told(program: Visitor, session: str, **query: str) -> list[str]:
    return [
        message["content"].strip()
        for message in program.get(session, params=query).json()["data"]["messages"]
    ]


def test_any_message_is_said_otherwise_and_the_first_one_too(program: Visitor, alice: User) -> None:
    session = session_of(program, "sim-echo")
    first = said(program, session, "One")
    second = said(program, session, "Two")
    other = data_of(
        program.post(f"{session}/messages/{second['parentId']}/edits", json={"content": "Two, rather"})
    )
    assert told(program, session) == ["One", "One", "Two, rather", "Two, rather"]
    assert other["tokensUsed"] > 0
    program.post(f"{session}/messages/{first['parentId']}/edits", json={"content": "Zero"})
    assert told(program, session) == ["Zero", "Zero"]
    assert told(program, session, at=second["messageId"]) == ["One", "One", "Two", "Two"]
    spent = sum(reply.tokens_used for reply in Message.objects.filter(user=alice, role="assistant"))
    assert (available(alice), held(alice)) == (10_500 - spent, 0)


def test_another_reply_stands_beside_the_first(program: Visitor) -> None:
    session = session_of(program, "sim-words-3")
    first = said(program, session, "Count")
    again = f"{session}/messages/{first['messageId']}/retries"
    same = data_of(program.post(again))
    assert same["parentId"] == first["parentId"]
    assert same["messageId"] != first["messageId"]
    assert same["model"] == first["model"]
    other = data_of(program.post(again, json={"model": simulated_model("sim-words-2", rate=0)}))
    assert (other["content"], other["tokensUsed"]) == ("word1 word2 ", 0)
    assert told(program, session) == ["Count", "word1 word2"]


def test_the_rest_of_a_reply_follows_it(program: Visitor) -> None:
    session = session_of(program, LENGTH)
    first = said(program, session, "Count")
    assert first["finishReason"] == "length"
    rest = data_of(program.post(f"{session}/messages/{first['messageId']}/continuations", json={}))
    assert rest["parentId"] == first["messageId"]
    assert rest["tokensUsed"] > 0
    (call,) = calls_of(Message.objects.get(pk=rest["messageId"]))
    assert call.visible_output_tokens == 6
    assert told(program, session) == ["Count", first["content"].strip(), rest["content"].strip()]


def test_what_is_whole_has_no_rest(program: Visitor) -> None:
    session = session_of(program, "sim-words-3")
    whole = said(program, session, "Count")
    answer = program.post(f"{session}/messages/{whole['messageId']}/continuations", json={})
    assert (answer.status_code, answer.json()["code"]) == (400, "INVALID_REQUEST")


def test_each_comes_in_pieces_to_who_asks_for_events(program: Visitor) -> None:
    session = session_of(program, LENGTH)
    first = said(program, session, "Count")
    for what, body in (("retries", {}), ("continuations", {}), ("edits", {"content": "Count again"})):
        at = first["parentId"] if what == "edits" else first["messageId"]
        with program.post(
            f"{session}/messages/{at}/{what}", json=body, headers={"Accept": "text/event-stream"}, stream=True
        ) as answer:
            events = list(events_of(answer))
        assert (events[0][0], events[-1][0]) == ("start", "done")
        text = "".join(delta["text"] for name, delta in events if name == "delta")
        assert text == events[-1][1]["data"]["content"] != ""


def test_the_same_key_asks_for_each_once(program: Visitor, alice: User) -> None:
    session = session_of(program, LENGTH)
    first = said(program, session, "Count")
    other = simulated_model("sim-words-2")
    for what, body, different in (
        ("retries", {}, {"model": other}),
        ("continuations", {}, {"model": other}),
        ("edits", {"content": "Count again"}, {"content": "Count on"}),
    ):
        at = first["parentId"] if what == "edits" else first["messageId"]
        path, once = f"{session}/messages/{at}/{what}", {"Idempotency-Key": ids.new("key")}
        before = Message.objects.filter(user=alice, role="assistant").count()
        answers = [program.post(path, json=body, headers=once) for _each in range(2)]
        assert data_of(answers[0]) == data_of(answers[1])
        assert Message.objects.filter(user=alice, role="assistant").count() == before + 1
        refused = program.post(path, json=different, headers=once)
        assert (refused.status_code, refused.json()["code"]) == (422, "IDEMPOTENCY_MISMATCH")


def test_nothing_begins_at_a_price_that_nobody_was_told(program: Visitor, alice: User) -> None:
    model = special_model(ids.new("dear").lower(), script=LENGTH)
    session = session_of(program, "sim-words-3")
    first = said(program, session, "Count", model=model.slug)
    known = f"{model.slug}:{model.input_rate}:{model.output_rate}"
    before = available(alice)
    ChatModel.objects.filter(pk=model.pk).update(input_rate=900, output_rate=900)
    for path, body in (
        (f"messages/{first['messageId']}/retries", {}),
        (f"messages/{first['messageId']}/continuations", {}),
        (f"messages/{first['parentId']}/edits", {"content": "Count again"}),
        ("messages", {"content": "And on"}),
    ):
        answer = program.post(f"{session}/{path}", json={**body, "terms": known})
        assert (answer.status_code, answer.json()["code"]) == (409, "CONFLICT")
    assert (available(alice), held(alice)) == (before, 0)


def test_without_enough_tokens_nothing_begins(product: Product, program: Visitor) -> None:
    bob = people.bob()
    his = product.program(bob)
    session = session_of(his, "sim-words-6-length", rate=0)
    first = said(his, session, "Count")
    dear = special_model(ids.new("dear").lower(), input_rate=1000, output_rate=1000).slug
    for path, body in (
        (f"messages/{first['messageId']}/retries", {}),
        (f"messages/{first['messageId']}/continuations", {}),
        (f"messages/{first['parentId']}/edits", {"content": "Count again"}),
    ):
        answer = his.post(f"{session}/{path}", json={**body, "model": dear})
        assert (answer.status_code, answer.json()["code"]) == (402, "INSUFFICIENT_TOKENS")
    assert Message.objects.filter(user=bob).count() == 2


def test_what_is_anothers_can_be_neither_changed_nor_stopped(product: Product, program: Visitor) -> None:
    session = session_of(program, LENGTH)
    first = said(program, session, "Count")
    carol = product.program(people.carol())
    own = session_of(carol, "sim-words-3", rate=0)
    for at, what, body in (
        (first["parentId"], "edits", {"content": "Mine"}),
        (first["messageId"], "retries", {}),
        (first["messageId"], "continuations", {}),
        (first["messageId"], "stops", None),
    ):
        for asker, chat in ((carol, session), (carol, own), (program, f"{ROOT}/sessions/{ids.new('cht')}")):
            answer = asker.post(f"{chat}/messages/{at}/{what}", json=body)
            assert (answer.status_code, answer.json()["code"]) == (404, "NOT_FOUND")
    # A question has no other reply, and a reply is not said otherwise.
    assert (
        program.post(f"{session}/messages/{first['messageId']}/edits", json={"content": "x"}).status_code
        == 404
    )
    assert program.post(f"{session}/messages/{first['parentId']}/retries", json={}).status_code == 404


def test_a_reply_is_stopped_and_paid_up_to_there(program: Visitor, alice: User) -> None:
    session = session_of(program, "sim-slow-400x50ms")
    with program.post(
        f"{session}/messages",
        json={"content": "Tell me a story"},
        headers={"Accept": "text/event-stream"},
        stream=True,
    ) as answer:
        events = events_of(answer)
        reply_id = next(events)[1]["messageId"]
        next(events)
        at = f"{session}/messages/{reply_id}"
        assert program.post(f"{at}/retries", json={}).status_code == 409
        assert data_of(program.post(f"{at}/stops"))["messageId"] == reply_id
        name, end = list(events)[-1]
    assert (name, end["data"]["state"]) == ("done", "stopped")
    reply = Message.objects.get(pk=reply_id)
    assert ending_of(reply) == "post"
    assert data_of(program.post(f"{at}/stops")) == end["data"]
    rest = program.post(f"{at}/continuations", json={}, headers={"Accept": "text/event-stream"}, stream=True)
    start = json.loads(next(line for line in rest.iter_lines() if line.startswith(b"data: "))[6:])
    program.post(f"{session}/messages/{start['messageId']}/stops")
    rest.close()
    until(lambda: not Message.objects.filter(user=alice, state__in=Message.OPEN).exists())
    assert held(alice) == 0

"""How often somebody may do what costs something: exactly, over all processes, and when Redis is away."""

import logging
import os
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from django.core.exceptions import ImproperlyConfigured
from django.test import Client
from django.utils import translation

from aleph import ids, rates
from aleph.accounts.models import ApiKey, User
from aleph.embedded_redis import EmbeddedRedis
from aleph.problems import Busy, RateLimited
from aleph.rates import Rate, Slot, parsed, take
from billing.models import Purchase
from chat import stream
from chat.models import Message
from tests import people
from tests.crowd import at_once, failures, successes
from tests.forms import filled
from tests.limits import OtherProcess, asked_by, counted, forget_limits
from tests.product import Product, simulated_model
from tests.stories_of_chat import told

HTMX = {"HX-Request": "true"}


@pytest.fixture(autouse=True)
def fresh_limits() -> Iterator[None]:
    forget_limits()
    with translation.override("en"):
        yield
    forget_limits()


@pytest.fixture
def limit(settings: Any) -> Callable[..., None]:
    """``limit(message="3/m/user")``"""

    def set_to(**texts: str) -> None:
        settings.RATE_LIMITS = {
            **settings.RATE_LIMITS,
            **{name: parsed(text) for name, text in texts.items()},
        }

    return set_to


def someone(number: int = 1) -> User:
    """Somebody of whom only his id matters."""
    return User(pk=900_000 + number)


def outcomes(times: int, action: Callable[[], object]) -> list[bool]:
    """Of so many attempts, which were allowed."""
    allowed = []
    for _each in range(times):
        try:
            action()
        except RateLimited:
            allowed.append(False)
        else:
            allowed.append(True)
    return allowed


# Writing rates down


def test_a_rate_is_written_as_so_many_a_time_for_whom() -> None:
    assert parsed("20/m/user, 60/10m/ip,1/d/user") == (
        Rate(20, 60, "user"),
        Rate(60, 600, "ip"),
        Rate(1, 86_400, "user"),
    )
    assert parsed(" ") == ()


@pytest.mark.parametrize(
    "wrong", ["20", "20/m", "0/m/user", "20/0m/user", "20/m/key", "x/m/ip", "-1/m/ip", "2/m/ip/ip"]
)
def test_a_rate_that_nobody_understands_is_refused_when_a_process_starts(wrong: str) -> None:
    with pytest.raises(ImproperlyConfigured, match=wrong):
        parsed(wrong)


# Counting


def test_exactly_as_many_are_allowed_and_each_is_told_what_is_left(limit: Callable[..., None]) -> None:
    limit(message="3/m/user, 100/h/user")
    left = [take(asked_by(someone()), "message") for _each in range(3)]
    assert [(each.most, each.remaining) for each in left if each] == [(3, 2), (3, 1), (3, 0)]
    with pytest.raises(RateLimited) as refusal:
        take(asked_by(someone()), "message")
    assert refusal.value.retry_after_s is not None
    assert 1 <= refusal.value.retry_after_s <= 60
    assert refusal.value.data == {"limit": "message"}
    assert re.search(r"try again in \d+ seconds?\.$", str(refusal.value.message))
    assert all(outcomes(3, lambda: take(asked_by(someone(2)), "message"))), "others are others"


def test_whoever_waits_as_long_as_he_was_told_gets_through(limit: Callable[..., None]) -> None:
    """And what was refused meanwhile does not make it longer."""
    limit(message="2/s/user")
    outcomes(2, lambda: take(asked_by(someone()), "message"))
    refused_at = time.monotonic()
    while not outcomes(1, lambda: take(asked_by(someone()), "message"))[0]:
        assert time.monotonic() - refused_at < 10
        time.sleep(0.01)


def test_of_several_rates_all_must_allow_and_none_counts_what_another_refuses(
    limit: Callable[..., None],
) -> None:
    limit(message="3/h/user, 1/m/ip")
    assert outcomes(5, lambda: take(asked_by(someone(), at="203.0.113.1"), "message")) == [True] + [False] * 4
    for address in ("203.0.113.2", "203.0.113.3"):
        take(asked_by(someone(), at=address), "message")
    assert outcomes(1, lambda: take(asked_by(someone(), at="203.0.113.4"), "message")) == [False]


def test_an_account_is_one_wherever_it_comes_from_and_a_guest_is_his_address(
    limit: Callable[..., None],
) -> None:
    limit(message="1/m/user")
    assert take(asked_by(someone(1), at="203.0.113.1"), "message")
    assert take(asked_by(someone(2), at="203.0.113.1"), "message"), "a shared address is no reason"
    assert outcomes(1, lambda: take(asked_by(someone(1), at="203.0.113.2"), "message")) == [False]
    guests = (asked_by(None, at=address) for address in ("203.0.113.1", "2001:db8::1", "2001:db8::2:2"))
    assert outcomes(3, lambda: take(next(guests), "message")) == [True, True, False]


def test_no_rates_cost_no_question(limit: Callable[..., None]) -> None:
    limit(message="")
    assert take(asked_by(someone()), "message") is None
    assert not [*counted()]


def test_what_was_counted_goes_away_by_itself(limit: Callable[..., None]) -> None:
    limit(message="5/s/user, 5/m/ip")
    take(asked_by(someone()), "message", slot=Slot("stream", 1, 5))
    lives_ms = sorted(int(str(stream.client().pttl(key))) for key in counted())
    assert len(lives_ms) == 3
    assert 0 < lives_ms[0] <= 1_000 < lives_ms[1] <= 60_000 < lives_ms[2] <= rates.SLOT_S * 1000


def test_many_at_once_are_counted_one_by_one(limit: Callable[..., None]) -> None:
    limit(message="20/m/user")
    done = at_once([lambda: take(asked_by(someone()), "message")] * 64)
    assert len(successes(done)) == 20
    assert all(isinstance(error, RateLimited) for error in failures(done))


def test_two_processes_count_together() -> None:
    code = """
allowed = 0
for _each in range(40):
    try:
        rates.take(request, "message")
        allowed += 1
    except rates.RateLimited:
        pass
print(json.dumps(allowed))
"""
    processes = [OtherProcess(1, code, RATE_LIMIT_MESSAGE="25/m/user") for _each in range(2)]
    for process in processes:
        process.go()
    assert sum(process.answer() for process in processes) == 25


def test_a_refusal_is_seen_in_the_log(limit: Callable[..., None], caplog: pytest.LogCaptureFixture) -> None:
    limit(message="1/m/user")
    outcomes(2, lambda: take(asked_by(someone()), "message"))
    (record,) = [each for each in caplog.records if "a limit was reached" in str(each.msg)]
    assert record.levelno == logging.WARNING
    said = str(record.msg)
    for part in ("'limit': 'message'", "'user_id': 900001", "'ip': '203.0.113.7'", "'rate': '1/60s/user'"):
        assert part in said


@pytest.mark.parametrize(
    ("wait_s", "english", "indonesian"),
    [
        (1, "in 1 second.", "1 detik"),
        (99, "in 99 seconds.", "99 detik"),
        (100, "in 2 minutes.", "2 menit"),
        (86_400, "in 24 hours.", "24 jam"),
    ],
)
def test_how_long_to_wait_is_said_in_words(wait_s: int, english: str, indonesian: str) -> None:
    assert rates._words(wait_s).endswith(english)
    with translation.override("id"):
        assert indonesian in rates._words(wait_s)


# Slots: so many at once


def test_so_many_are_open_at_once_and_no_more() -> None:
    slots = [Slot("stream", 1, 3) for _each in range(3)]
    for slot in slots:
        take(asked_by(someone()), slot=slot)
    with pytest.raises(RateLimited) as refusal:
        take(asked_by(someone()), slot=Slot("stream", 1, 3))
    assert refusal.value.retry_after_s == rates.FULL_WAIT_S
    rates.free(slots[0])
    take(asked_by(someone()), slot=Slot("stream", 1, 3))


def test_what_a_full_house_refuses_is_not_counted_either(limit: Callable[..., None]) -> None:
    limit(message="2/m/user")
    take(asked_by(someone()), slot=Slot("stream", 1, 1))
    full = Slot("stream", 1, 1)
    assert outcomes(5, lambda: take(asked_by(someone()), "message", slot=full)) == [False] * 5
    assert outcomes(3, lambda: take(asked_by(someone()), "message")) == [True, True, False]


def test_slots_of_a_process_that_was_killed_are_free_after_a_while() -> None:
    code = """
rates.SLOT_S = 1.0
for _each in range(2):
    rates.take(request, slot=rates.Slot("stream", 1, 2))
print(json.dumps("taken"), flush=True)
os.kill(os.getpid(), 9)
"""
    process = OtherProcess(1, code)
    process.go()
    assert process.answer() == "taken"
    began = time.monotonic()
    while not outcomes(1, lambda: take(asked_by(someone()), slot=Slot("stream", 1, 2)))[0]:
        assert time.monotonic() - began < 10
        time.sleep(0.05)


def test_a_renewed_slot_lasts_and_one_that_was_given_back_does_not_return(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(rates, "SLOT_S", 1.0)
    kept, given_back = Slot("stream", 1, 2), Slot("stream", 1, 2)
    take(asked_by(someone()), slot=kept)
    take(asked_by(someone()), slot=given_back)
    rates.free(given_back)
    monkeypatch.setattr(rates, "SLOT_S", 60.0)
    rates.renew([kept, given_back])
    time.sleep(1.1)
    assert outcomes(1, lambda: take(asked_by(someone()), slot=Slot("stream", 1, 1))) == [False]
    assert outcomes(1, lambda: take(asked_by(someone()), slot=Slot("stream", 1, 2))) == [True]


# Redis is away


@pytest.fixture
def own_redis(tmp_path: Path, settings: Any) -> Iterator[EmbeddedRedis]:
    """A server that a test may stop: the one in which this process counts."""
    server = EmbeddedRedis(socket_path=Path(f"/tmp/aleph-{ids.new('rds')}.sock"), folder=tmp_path)
    server.start()
    settings.REDIS_URL = f"unix://{server.socket_path}"
    settings.CACHES = {"default": {**settings.CACHES["default"], "LOCATION": settings.REDIS_URL}}
    yield server
    server.stop()
    server.socket_path.unlink(missing_ok=True)


@pytest.fixture(autouse=True)
def forgiving(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each test finds a limiter that has not seen the faults of another."""
    monkeypatch.setattr(rates, "_away_until", 0.0)


def test_without_redis_messages_go_on_and_purchases_wait(
    own_redis: EmbeddedRedis, limit: Callable[..., None], caplog: pytest.LogCaptureFixture
) -> None:
    limit(message="1/m/user", purchase="1/m/user")
    take(asked_by(someone()), "message")
    own_redis.stop()
    assert [take(asked_by(someone()), "message") for _each in range(3)] == [None] * 3
    for _each in range(2):
        with pytest.raises(Busy) as refusal:
            take(asked_by(someone()), "purchase")
        assert refusal.value.retry_after_s
    assert "limits cannot be counted" in caplog.text


def test_redis_is_asked_again_once_it_is_back(
    own_redis: EmbeddedRedis, limit: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    limit(message="1/m/user", purchase="1/m/user")
    monkeypatch.setattr(rates, "AWAY_S", 0.0)
    take(asked_by(someone()), "purchase")
    own_redis.stop()
    assert take(asked_by(someone()), "message") is None
    own_redis.start()
    assert take(asked_by(someone()), "message") is not None
    assert outcomes(1, lambda: take(asked_by(someone()), "message")) == [False]
    assert outcomes(1, lambda: take(asked_by(someone()), "purchase")) == [False], (
        "it has written down the first"
    )


def test_a_redis_that_hangs_holds_up_one_and_not_everybody(
    settings: Any, limit: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    limit(message="1/m/user")
    monkeypatch.setattr(rates, "AWAY_S", 60.0)
    monkeypatch.setattr(rates, "PATIENCE_S", 0.2)
    came: list[socket.socket] = []
    with socket.create_server(("127.0.0.1", 0)) as silent:
        settings.REDIS_URL = f"redis://127.0.0.1:{silent.getsockname()[1]}/0"

        def answer_nothing() -> None:
            while True:
                try:
                    came.append(silent.accept()[0])
                except OSError:
                    return

        threading.Thread(target=answer_nothing, daemon=True).start()
        assert take(asked_by(someone()), "message") is None
        asked = len(came)
        assert [take(asked_by(someone()), "message") for _each in range(20)] == [None] * 20
        assert len(came) == asked
        silent.shutdown(socket.SHUT_RDWR)
    for line in came:
        line.close()


# In the pages and in the API


def page_of(person: User) -> Client:
    client = Client(headers={"accept-language": "en"}, raise_request_exception=False)
    client.force_login(person)
    return client


def program_of(person: User) -> Client:
    key = ApiKey.issue(user=person, name="test")
    return Client(
        headers={"Authorization": f"Bearer {key}", "Accept-Language": "en"}, raise_request_exception=False
    )


def send(client: Client, text: str, **headers: str) -> Any:
    form = {**filled(client.get("/"), id="composer"), "text": text}
    return client.post("/chat/turns", form, headers=headers)


def test_without_javascript_the_page_says_so_and_keeps_the_text(db: None, limit: Callable[..., None]) -> None:
    limit(message="1/h/user")
    alice = people.alice()
    client = page_of(alice)
    assert send(client, "First").status_code == 303
    answer = send(client, "What I have typed")
    assert answer.status_code == 429
    assert int(answer.headers["Retry-After"]) > 3_000
    assert "Too many requests. Please try again in 60 minutes." in answer.content.decode()
    assert filled(answer, id="composer")["text"].strip() == "What I have typed"
    assert Message.objects.filter(user=alice).count() == 2


def test_by_htmx_it_is_a_notice_beside_the_text_that_stays(db: None, limit: Callable[..., None]) -> None:
    limit(message="1/h/user")
    client = page_of(people.alice())
    send(client, "First")
    answer = send(client, "Second", **HTMX)
    assert (answer.status_code, answer.headers["HX-Retarget"]) == (429, "#composer-notice")
    assert answer.headers["Retry-After"]
    assert "Too many requests." in answer.content.decode()
    assert "<html" not in answer.content.decode()


def test_another_try_is_a_message_like_any_other(
    committed: None, simulator: object, limit: Callable[..., None]
) -> None:
    limit(message="1/h/user")
    alice = people.alice()
    reply = told(alice, script="sim-error-503")
    client = page_of(alice)
    form = {"turn": ids.new("trn"), "model": simulated_model("sim-words-5")}
    assert client.post(f"/chat/replies/{reply.pk}/retries", form).status_code == 303
    again = client.post(f"/chat/replies/{reply.pk}/retries", {**form, "turn": ids.new("trn")}, headers=HTMX)
    assert again.status_code == 429


@pytest.mark.parametrize("accept", ["application/json", "text/event-stream"])
def test_a_program_is_told_in_the_envelope_and_nothing_is_written(
    db: None, limit: Callable[..., None], accept: str
) -> None:
    limit(message="2/m/user", stream="100/m/user")
    alice = people.alice()
    program = program_of(alice)
    chats = [
        program.post("/api/v1/chat/sessions", {}, "application/json").json()["data"]["id"]
        for _each in range(3)
    ]
    # What cannot be sent counts, too, and costs nothing.
    sent = [
        program.post(
            f"/api/v1/chat/sessions/{chat}/messages",
            {"content": " "},
            "application/json",
            headers={"Accept": accept},
        )
        for chat in chats
    ]
    assert [answer.status_code for answer in sent] == [400, 400, 429]
    refused = sent[-1]
    assert refused["Content-Type"] == "application/json"
    assert 1 <= int(refused.headers["Retry-After"]) <= 60
    assert refused.json()["code"] == "RATE_LIMITED"
    assert refused.json()["data"] == {"limit": "message"}
    assert not Message.objects.filter(user=alice).exists()
    assert not [*counted("slots")], "whoever sent nothing watches nothing"


def test_a_purchase_too_many_is_refused_and_costs_nothing(db: None, limit: Callable[..., None]) -> None:
    limit(purchase="2/m/user")
    alice = people.alice()
    client, program = page_of(alice), program_of(alice)
    form = {"package": "starter", "key": ids.new("buy")}
    assert client.post("/billing/purchases", form).status_code == 303
    bought = buy(program, ids.new("buy"))
    assert bought.status_code == 200
    assert (bought.headers["RateLimit-Limit"], bought.headers["RateLimit-Remaining"]) == ("2", "0")
    page = client.post("/billing/purchases", {"package": "starter", "key": ids.new("buy")})
    assert page.status_code == 429
    assert page.headers["Retry-After"]
    assert "Too many requests." in page.content.decode()
    refused = buy(program, ids.new("buy"))
    assert (refused.status_code, refused.json()["code"]) == (429, "RATE_LIMITED")
    form = {"text": "It waits", "turn": ids.new("trn"), "package": "starter", "key": ids.new("buy")}
    dialog = client.post("/chat/purchases", form, headers=HTMX)
    assert (dialog.status_code, filled(dialog, action="/chat/purchases")["text"]) == (429, "It waits")
    assert Purchase.objects.filter(user=alice).count() == 2


def buy(program: Client, key: str) -> Any:
    headers = {"Idempotency-Key": key}
    return program.post(
        "/api/v1/chat/tokens/purchase", {"packageId": "starter"}, "application/json", headers=headers
    )


def test_without_redis_pages_are_drawn_messages_sent_and_nothing_bought(
    db: None, own_redis: EmbeddedRedis, limit: Callable[..., None]
) -> None:
    limit(message="1/m/user", purchase="9/m/user", stream="1/m/user")
    own_redis.stop()
    alice = people.alice()
    client, program = page_of(alice), program_of(alice)
    for place in ("/", "/billing", "/usage", "/settings", "/chat/search"):
        assert client.get(place).status_code == 200, place
    assert [send(client, text).status_code for text in ("One", "Two")] == [303, 303]
    page = client.post("/billing/purchases", {"package": "starter", "key": ids.new("buy")})
    assert page.status_code == 503
    assert "Aleph is busy." in page.content.decode()
    refused = buy(program, ids.new("buy"))
    assert (refused.status_code, refused.json()["code"]) == (503, "SERVICE_UNAVAILABLE")
    assert refused.headers["Retry-After"]
    assert not Purchase.objects.filter(user=alice).exists()


# Signing in: allauth's own limits, in the same Redis


@pytest.mark.parametrize("path", ["/accounts/login/", "/accounts/signup/", "/accounts/password/reset/"])
def test_without_redis_nobody_is_let_in_uncounted_and_the_page_is_calm(
    db: None, own_redis: EmbeddedRedis, path: str
) -> None:
    own_redis.stop()
    alice = people.alice()
    guest = Client(headers={"Accept-Language": "en"}, raise_request_exception=False)
    assert guest.get(path).status_code == 200
    form = {
        "login": alice.email,
        "email": alice.email,
        "password": people.PASSWORD,
        "password1": people.PASSWORD,
    }
    answer = guest.post(path, {**form, "name": "Carol"})
    assert answer.status_code == 503
    assert answer.headers["Retry-After"]
    assert "sessionid" not in guest.cookies
    assert "<h1>" in answer.content.decode()


def test_guesses_here_and_in_another_process_are_counted_together(
    product: Product, caplog: pytest.LogCaptureFixture
) -> None:
    alice = people.alice()
    there = product.visitor()
    here = Client(headers={"Accept-Language": "en", "Host": f"127.0.0.1:{product.port}"})
    for number in range(5):
        guess = {"login": alice.email, "password": f"guess-{number}"}
        if number % 2:
            here.post("/accounts/login/", guess)
        else:
            there.post("/accounts/login/", data=guess)
    right = {"login": alice.email, "password": people.PASSWORD}
    assert "Too many attempts." in there.post("/accounts/login/", data=right).text
    assert "Too many attempts." in here.post("/accounts/login/", right).content.decode()
    assert "sessionid" not in here.cookies
    assert "'limit': 'login_failed'" in caplog.text


def test_the_administrations_door_is_the_same_one(db: None) -> None:
    """Django's own form for staff would let anybody guess without end."""
    dewi = people.dewi()
    guest = Client(headers={"Accept-Language": "en"})
    for _each in range(8):
        answer = guest.post("/admin/login/", {"username": dewi.email, "password": people.PASSWORD})
        assert answer.headers["Location"].startswith("/accounts/login/")
    assert "sessionid" not in guest.cookies
    for number in range(5):
        guest.post("/accounts/login/?next=/admin/", {"login": dewi.email, "password": f"guess-{number}"})
    refused = guest.post("/accounts/login/?next=/admin/", {"login": dewi.email, "password": people.PASSWORD})
    assert "Too many attempts." in refused.content.decode()
    assert guest.get("/admin/").status_code == 302


def test_an_environment_without_any_limit_works() -> None:
    code = 'print(json.dumps([rates.take(request, name) for name in ("message", "purchase", "stream")]))'
    limits = dict.fromkeys(("RATE_LIMIT_MESSAGE", "RATE_LIMIT_PURCHASE", "RATE_LIMIT_STREAM"), "")
    process = OtherProcess(1, code, **limits, REDIS_URL="unix:///nowhere.sock", PATH=os.environ["PATH"])
    process.go()
    assert process.answer() == [None] * 3

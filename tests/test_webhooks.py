"""Notices reach the addresses that people name: signed, in time, more than once if need be, and never unseen."""

import base64
import hashlib
import hmac
import json
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from django.db import connection, transaction
from django.utils import timezone

from aleph import ids, outbound
from aleph.accounts.models import User
from aleph.problems import NotFound
from aleph.run import BASE_DIR, child_environment
from billing import delivering, hooks, notices
from billing.models import Notice, WebhookAttempt, WebhookDelivery, WebhookEndpoint
from tests import people
from tests.product import Product, database_url
from tests.simulator_receiver import Receiver, Request
from tests.test_billing_pages import signed_in, words
from tests.test_notices import tell
from tests.test_people import reauthenticated

State = WebhookDelivery.State
PAGE = "/settings/webhooks"


@pytest.fixture(scope="module")
def running() -> Iterator[Receiver]:
    with Receiver() as receiver:
        yield receiver


@pytest.fixture
def receiver(running: Receiver) -> Receiver:
    running.requests.clear()
    return running


@pytest.fixture
def alice(db: None) -> User:
    return people.alice()


def endpoint_of(person: User, url: str, **differences: Any) -> WebhookEndpoint:
    return hooks.add(person, **{"url": url, "kinds": list(hooks.EVENTS), **differences})


def delivery_of(endpoint: WebhookEndpoint) -> WebhookDelivery:
    return endpoint.deliveries.latest("pk")


def send(endpoint: WebhookEndpoint) -> WebhookDelivery:
    """Send the newest message of an endpoint, as though its time had come."""
    delivery = delivery_of(endpoint)
    WebhookDelivery.objects.filter(pk=delivery.pk, state=State.DUE).update(due_at=timezone.now())
    delivering.send(delivery.pk)
    delivery.refresh_from_db()
    endpoint.refresh_from_db()
    return delivery


def verify(request: Request, secret: str, *, now: float | None = None) -> Any:
    """What Standard Webhooks asks a receiver to do, written from its text: the message, or an assertion that fails."""
    message_id, timestamp = request.headers["webhook-id"], request.headers["webhook-timestamp"]
    assert abs((now or time.time()) - int(timestamp)) < 300, "too old, or of another time"
    key = base64.b64decode(secret.split("_", 1)[1])
    content = b".".join([message_id.encode(), timestamp.encode(), request.body])
    expected = base64.b64encode(hmac.new(key, content, hashlib.sha256).digest()).decode()
    given = [part.partition(",") for part in request.headers["webhook-signature"].split(" ")]
    assert any(version == "v1" and hmac.compare_digest(value, expected) for version, _comma, value in given)
    return json.loads(request.body)


# The signature


def test_the_judge_knows_the_example_of_the_standard() -> None:
    request = Request(
        "/",
        {
            "webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
            "webhook-timestamp": "1614265330",
            "webhook-signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
        },
        b'{"test": 2432232314}',
    )
    verify(request, "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", now=1614265330)
    with pytest.raises(AssertionError):
        verify(request, "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSx", now=1614265330)


def test_a_notice_arrives_signed(alice: User, receiver: Receiver) -> None:
    endpoint = endpoint_of(alice, receiver.url("text-thanks"))
    tell(alice)
    assert send(endpoint).state == State.DONE
    (request,) = receiver.requests
    message = verify(request, endpoint.secret)
    assert message["type"] == "topup.paid"
    assert message["data"]["amount"] == 50_000
    assert message["data"]["unit"] == "IDR"
    assert message["data"]["reference"] == "top_1"
    assert request.headers["webhook-id"] == notices.inbox(alice)[0].pk
    assert request.headers["content-type"] == "application/json"
    attempt = WebhookAttempt.objects.get(delivery__endpoint=endpoint)
    assert (attempt.number, attempt.status, attempt.excerpt) == (1, 200, "thanks")


def test_another_secret_signs_beside_the_one_before(alice: User, receiver: Receiver) -> None:
    endpoint = endpoint_of(alice, receiver.url("ok"))
    before = endpoint.secret
    after = hooks.rotate(alice, endpoint.pk).secret
    assert before != after
    hooks.test(alice, endpoint.pk)
    send(endpoint)
    for secret in (before, after):
        verify(receiver.requests[-1], secret)
    WebhookEndpoint.objects.filter(pk=endpoint.pk).update(previous_until=timezone.now())
    hooks.test(alice, endpoint.pk)
    send(endpoint)
    verify(receiver.requests[-1], after)
    with pytest.raises(AssertionError):
        verify(receiver.requests[-1], before)
    hooks.clean()
    endpoint.refresh_from_db()
    assert endpoint.previous_secret == ""


def test_a_secret_is_not_readable_where_it_is_stored(alice: User) -> None:
    endpoint = endpoint_of(alice, "https://example.com/hook")
    with connection.cursor() as cursor:
        cursor.execute("SELECT secret FROM billing_webhookendpoint WHERE id = %s", [endpoint.pk])
        assert endpoint.secret.removeprefix("whsec_") not in cursor.fetchone()[0]


# What is queued


def test_each_is_told_what_he_wants_to_know_once(alice: User, receiver: Receiver) -> None:
    money = endpoint_of(alice, receiver.url("ok"), kinds=["topup"])
    low = endpoint_of(alice, receiver.url("ok"), kinds=["low_balance"])
    endpoint_of(people.bob(), receiver.url("ok"))
    for _again in range(3):
        tell(alice)
    assert [delivery.endpoint_id for delivery in WebhookDelivery.objects.all()] == [money.pk]
    assert not low.deliveries.exists()


def test_what_was_undone_is_not_queued(alice: User, receiver: Receiver) -> None:
    endpoint_of(alice, receiver.url("ok"))
    with transaction.atomic():
        tell(alice)
        transaction.set_rollback(True)
    assert not WebhookDelivery.objects.exists()


def test_every_kind_that_is_offered_has_a_name_on_the_wire() -> None:
    assert {*hooks.EVENTS} == {*Notice.Kind.values} - {Notice.Kind.WEBHOOK}


def test_there_are_only_so_many(alice: User) -> None:
    for _each in range(hooks.MOST):
        endpoint_of(alice, "https://example.com/hook")
    with pytest.raises(hooks.TooMany):
        endpoint_of(alice, "https://example.com/hook")


@pytest.mark.parametrize(
    "url", ["", "example.com", "http://example.com", "https://10.0.0.1/", "https://a@b.c/"]
)
def test_what_cannot_be_reached_is_refused(alice: User, url: str) -> None:
    with pytest.raises(hooks.InvalidAddress):
        endpoint_of(alice, url)


# Trying again


def test_a_failure_is_tried_again_until_it_is_taken(alice: User, receiver: Receiver) -> None:
    endpoint = endpoint_of(alice, receiver.url(f"flaky-2?{ids.new('tst')}"))
    tell(alice)
    for number in (1, 2):
        delivery = send(endpoint)
        wait = (delivery.due_at - delivery.log.get(number=number).started_at).total_seconds()
        assert delivery.state == State.DUE
        assert hooks.DELAYS_S[number - 1] * 0.8 <= wait < hooks.DELAYS_S[number - 1] * 1.2 + 60
        assert endpoint.failing_since
    assert send(endpoint).state == State.DONE
    assert endpoint.failing_since is None
    assert len({request.headers["webhook-id"] for request in receiver.requests}) == 1
    assert [attempt.status for attempt in delivery.log.order_by("number")] == [500, 500, 200]


def test_waits_differ_so_that_not_all_come_at_once(alice: User, receiver: Receiver) -> None:
    endpoint = endpoint_of(alice, receiver.url("500"))
    waits = set()
    for nth in range(6):
        tell(alice, str(nth))
        WebhookDelivery.objects.update(retries_left=3)
        waits.add(round((send(endpoint).due_at - timezone.now()).total_seconds()))
    assert len(waits) > 1


def test_it_is_not_tried_for_ever(alice: User, receiver: Receiver) -> None:
    endpoint = endpoint_of(alice, receiver.url("500"))
    tell(alice)
    for _try in range(20):
        delivery = send(endpoint)
    assert delivery.state == State.FAILED
    assert len(receiver.requests) == len(hooks.DELAYS_S) + 1
    assert endpoint.is_on, "for a day and a half a server may be down"


def test_a_receiver_that_asks_for_time_gets_it(alice: User, receiver: Receiver) -> None:
    endpoint = endpoint_of(alice, receiver.url("busy-3600"))
    tell(alice)
    wait = send(endpoint).due_at - timezone.now()
    assert timedelta(minutes=59) < wait <= timedelta(hours=1)


def test_who_fails_for_days_is_turned_off_and_his_owner_told(alice: User, receiver: Receiver) -> None:
    endpoint = endpoint_of(alice, receiver.url("500"))
    WebhookEndpoint.objects.update(failing_since=timezone.now() - delivering.DISABLED_AFTER)
    tell(alice, "one")
    waiting = delivery_of(endpoint)
    tell(alice, "two")
    WebhookDelivery.objects.exclude(pk=waiting.pk).update(retries_left=0)
    send(endpoint)
    assert not endpoint.is_on
    waiting.refresh_from_db()
    assert waiting.state == State.FAILED, "nothing is sent any more"
    (notice,) = [notice for notice in notices.inbox(alice) if notice.kind == Notice.Kind.WEBHOOK]
    assert notice.reference == endpoint.pk
    assert endpoint.host in words(signed_in(alice).get("/billing/notices"))
    tell(alice, "three")
    assert endpoint.deliveries.count() == 2
    hooks.choose(alice, endpoint.pk, kinds=["topup"], is_on=True)
    tell(alice, "four")
    assert send(endpoint).state == State.DUE
    assert endpoint.failing_since
    assert timezone.now() - endpoint.failing_since < timedelta(minutes=1)


def test_who_says_that_he_is_gone_is_turned_off_at_once(alice: User, receiver: Receiver) -> None:
    endpoint = endpoint_of(alice, receiver.url("410"))
    tell(alice)
    assert send(endpoint).state == State.FAILED
    assert not endpoint.is_on


def test_who_dies_while_sending_leaves_it_to_others(alice: User, receiver: Receiver) -> None:
    endpoint = endpoint_of(alice, receiver.url("ok"))
    tell(alice)
    claimed = delivering._claim(delivery_of(endpoint).pk)
    assert claimed is not None
    delivering.send(delivery_of(endpoint).pk)
    assert receiver.requests == [], "it is somebody's"
    assert timezone.now() < delivery_of(endpoint).due_at <= timezone.now() + hooks.LEASE
    assert send(endpoint).state == State.DONE
    assert delivery_of(endpoint).attempts == 2


def test_a_sender_that_is_killed_leaves_a_trace_and_the_message(committed: None, receiver: Receiver) -> None:
    alice = people.alice()
    endpoint = endpoint_of(alice, receiver.url("hang-1"))
    tell(alice)
    code = "import sys, django; django.setup(); from billing import delivering; delivering.send(sys.argv[1])"
    sender = subprocess.Popen(
        [sys.executable, "-c", code, delivery_of(endpoint).pk],
        cwd=BASE_DIR,
        env={
            **child_environment(),
            "DJANGO_SETTINGS_MODULE": "aleph.settings",
            "DATABASE_URL": database_url(),
        },
    )
    until = time.monotonic() + 60
    while not receiver.requests and sender.poll() is None and time.monotonic() < until:
        time.sleep(0.05)
    sender.kill()
    sender.wait()
    delivering.send(delivery_of(endpoint).pk)
    assert len(receiver.requests) == 1, "for a while it is the dead one's"
    assert delivery_of(endpoint).due_at <= timezone.now() + hooks.LEASE
    assert send(endpoint).state == State.DONE
    first, second = receiver.requests
    assert first.headers["webhook-id"] == second.headers["webhook-id"]
    assert [attempt.status for attempt in delivery_of(endpoint).log.order_by("number")] == [None, 200]
    assert "no answer recorded" in words(signed_in(alice).get(f"{PAGE}/{endpoint.pk}"))


def test_who_comes_back_late_changes_nothing(alice: User, receiver: Receiver) -> None:
    endpoint = endpoint_of(alice, receiver.url("ok"))
    tell(alice)
    late = delivering._claim(delivery_of(endpoint).pk)
    assert late is not None
    assert send(endpoint).state == State.DONE
    hooks.resend(alice, endpoint.pk, delivery_of(endpoint).pk)
    delivering._close(*late, outbound.Answer(500, b"", None))
    assert delivery_of(endpoint).state == State.DUE
    assert delivery_of(endpoint).due_at <= timezone.now()


def test_an_endpoint_that_is_removed_meanwhile_takes_all_with_it(alice: User, receiver: Receiver) -> None:
    endpoint = endpoint_of(alice, receiver.url("ok"))
    tell(alice)
    claimed = delivering._claim(delivery_of(endpoint).pk)
    assert claimed is not None
    hooks.remove(alice, endpoint.pk)
    delivering._close(*claimed, outbound.Answer(200, b"", None))
    assert not WebhookAttempt.objects.exists()


# Receivers that are not as they should be


@pytest.mark.parametrize(
    ("script", "status", "problem"),
    [("302", 302, ""), ("slow", None, "timeout"), ("drip", None, "timeout"), ("cut", None, "connection")],
)
def test_what_is_no_success_is_noted(
    alice: User,
    receiver: Receiver,
    monkeypatch: pytest.MonkeyPatch,
    script: str,
    status: int | None,
    problem: str,
) -> None:
    if problem == "timeout":
        monkeypatch.setattr(outbound, "READ_S", 0.5)
        monkeypatch.setattr(outbound, "TOTAL_S", 1.0)
    endpoint = endpoint_of(alice, receiver.url(script))
    tell(alice)
    assert send(endpoint).state == State.DUE
    attempt = WebhookAttempt.objects.get(delivery__endpoint=endpoint)
    assert (attempt.status, attempt.problem) == (status, problem)
    assert len(receiver.requests) == 1


def test_a_body_without_an_end_leaves_an_excerpt(alice: User, receiver: Receiver) -> None:
    endpoint = endpoint_of(alice, receiver.url("huge"))
    tell(alice)
    assert send(endpoint).state == State.DONE
    assert WebhookAttempt.objects.get(delivery__endpoint=endpoint).excerpt == "y" * 500


def test_an_excerpt_is_a_line_of_text() -> None:
    assert delivering._excerpt(b"a\0b\n\x1b[31mc \xff \xe2\x80\xae") == "a b [31mc \ufffd"


def test_nothing_is_sent_into_our_own_network(alice: User, receiver: Receiver, settings: Any) -> None:
    endpoint = endpoint_of(alice, receiver.url("ok"))
    settings.DEVELOPMENT = False
    tell(alice)
    send(endpoint)
    assert receiver.requests == []
    assert WebhookAttempt.objects.get(delivery__endpoint=endpoint).problem == "address"


# By hand


def test_a_test_is_sent_once(alice: User, receiver: Receiver) -> None:
    endpoint = endpoint_of(alice, receiver.url("500"), kinds=[])
    hooks.test(alice, endpoint.pk)
    assert send(endpoint).state == State.FAILED
    assert verify(receiver.requests[0], endpoint.secret)["type"] == "webhook.test"


def test_a_message_can_be_sent_again_and_is_the_same(alice: User, receiver: Receiver) -> None:
    endpoint = endpoint_of(alice, receiver.url("ok"))
    tell(alice)
    delivery = send(endpoint)
    hooks.resend(alice, endpoint.pk, delivery.pk)
    send(endpoint)
    first, second = receiver.requests
    assert first.body == second.body
    assert first.headers["webhook-id"] == second.headers["webhook-id"]
    assert delivery.log.count() == 2


def test_what_waits_can_be_hurried_and_what_is_under_way_is_left_alone(
    alice: User, receiver: Receiver
) -> None:
    endpoint = endpoint_of(alice, receiver.url("500"))
    tell(alice)
    send(endpoint)
    delivery = send(endpoint)
    assert delivery.due_at > timezone.now() + hooks.LEASE
    hooks.resend(alice, endpoint.pk, delivery.pk)
    delivery.refresh_from_db()
    assert delivery.due_at <= timezone.now()
    assert delivery.retries_left == len(hooks.DELAYS_S) - 2, "it is tried again after that"
    claimed = delivering._claim(delivery.pk)
    assert claimed
    hooks.resend(alice, endpoint.pk, delivery.pk)
    assert delivering._claim(delivery.pk) is None


def test_the_log_is_not_kept_for_ever(alice: User, receiver: Receiver) -> None:
    endpoint = endpoint_of(alice, receiver.url("ok"))
    tell(alice, "old")
    WebhookDelivery.objects.update(created_at=timezone.now() - hooks.KEPT)
    tell(alice, "recent")
    hooks.clean()
    assert endpoint.deliveries.count() == 1


# Rounds of the worker


def test_slow_receivers_of_one_hold_up_nobody(
    committed: None, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Twenty messages to a server that never answers stand before one to a quick one."""
    monkeypatch.setattr(outbound, "READ_S", 5.0)
    alice, bob = people.alice(), people.bob()
    slow, quick = endpoint_of(alice, receiver.url("slow")), endpoint_of(bob, receiver.url("ok"))
    for nth in range(20):
        tell(alice, str(nth))
    tell(bob)
    monkeypatch.setattr(delivering, "ROUND_S", 0.5)
    delivering.run()
    assert delivery_of(quick).attempts == 1
    assert sum(delivery.attempts for delivery in slow.deliveries.all()) == delivering.EACH
    WebhookDelivery.objects.filter(endpoint=slow).update(state=State.FAILED)


def test_the_products_own_worker_sends_what_was_told(product: Product, receiver: Receiver) -> None:
    alice = people.alice()
    endpoint = endpoint_of(alice, receiver.url("text-thanks"))
    with transaction.atomic():
        tell(alice)
    until = time.monotonic() + 60
    while delivery_of(endpoint).state == State.DUE and time.monotonic() < until:
        time.sleep(0.1)
    assert delivery_of(endpoint).state == State.DONE
    (request,) = receiver.requests
    assert verify(request, endpoint.secret)["type"] == "topup.paid"


def test_a_message_that_cannot_be_read_does_not_stop_the_others(committed: None, receiver: Receiver) -> None:
    alice = people.alice()
    broken, fine = (endpoint_of(alice, receiver.url("ok")) for _each in range(2))
    with connection.cursor() as cursor:
        sealed_with_no_key = "\x02nokey:AAAA"
        cursor.execute(
            "UPDATE billing_webhookendpoint SET secret = %s WHERE id = %s", [sealed_with_no_key, broken.pk]
        )
    tell(alice)
    delivering.run()
    assert delivery_of(fine).state == State.DONE
    here = f"{PAGE}/{broken.pk}"
    client = reauthenticated(alice)
    assert client.get(here).status_code == 200
    assert "whsec_" in client.post(f"{here}/secrets").content.decode()


# The pages


def fresh_secret(page: Any) -> str:
    found = re.search(r"whsec_[\w+/=]+", page.content.decode())
    assert found
    return found[0]


def test_the_secret_is_shown_once(alice: User, receiver: Receiver) -> None:
    client = reauthenticated(alice)
    page = client.post(PAGE, {"url": receiver.url("ok"), "kinds": ["topup", "refund"]})
    endpoint = WebhookEndpoint.objects.get(user=alice)
    assert fresh_secret(page) == endpoint.secret
    assert endpoint.kinds == ["topup", "refund"]
    for address in (PAGE, f"{PAGE}/{endpoint.pk}"):
        assert "whsec_" not in client.get(address).content.decode()
    rotated = client.post(f"{PAGE}/{endpoint.pk}/secrets")
    endpoint.refresh_from_db()
    assert fresh_secret(rotated) == endpoint.secret


def test_whoever_finds_a_browser_open_gets_no_secret(alice: User, receiver: Receiver) -> None:
    client = signed_in(alice)
    asked = client.post(PAGE, {"url": receiver.url("ok"), "kinds": ["topup"]})
    assert asked.status_code == 302
    assert "/reauthenticate/" in asked.headers["Location"]
    assert not WebhookEndpoint.objects.filter(user=alice).exists()
    endpoint = endpoint_of(alice, receiver.url("ok"))
    assert "/reauthenticate/" in client.post(f"{PAGE}/{endpoint.pk}/secrets").headers["Location"]
    assert WebhookEndpoint.objects.get(pk=endpoint.pk).secret == endpoint.secret


def test_what_is_wrong_is_said(alice: User) -> None:
    client = reauthenticated(alice)
    page = client.post(PAGE, {"url": "http://example.com", "kinds": ["topup"]})
    assert page.status_code == 422
    assert "Enter an https:// address" in words(page)
    assert client.post(PAGE, {"url": "https://example.com", "kinds": []}).status_code == 422
    for _each in range(hooks.MOST):
        endpoint_of(alice, "https://example.com/hook")
    assert "as many webhooks" in words(client.post(PAGE, {"url": "https://example.com", "kinds": ["topup"]}))


def test_the_log_says_what_happened_and_sends_again(alice: User, receiver: Receiver) -> None:
    endpoint = endpoint_of(alice, receiver.url("500"))
    client, here = signed_in(alice), f"{PAGE}/{endpoint.pk}"
    assert "Nothing yet" in words(client.get(here))
    client.post(f"{here}/tests")
    assert "being sent" in words(client.get(here))
    delivery = send(endpoint)
    said = words(client.get(here))
    for word in ("webhook.test", "failed", "500", "no thanks", delivery.message_id):
        assert word in said
    client.post(f"{here}/resends", {"delivery": delivery.pk})
    send(endpoint)
    assert len(receiver.requests) == 2
    assert 'hx-trigger="every' not in client.get(here).content.decode()


def test_choices_are_kept(alice: User, receiver: Receiver) -> None:
    endpoint = endpoint_of(alice, receiver.url("ok"))
    client, here = signed_in(alice), f"{PAGE}/{endpoint.pk}"
    tell(alice)
    client.post(f"{here}/choices", {"kinds": ["refund"]})
    endpoint.refresh_from_db()
    assert (endpoint.kinds, endpoint.is_on) == (["refund"], False)
    assert delivery_of(endpoint).state == State.FAILED, "what waited is not sent"
    client.post(f"{here}/choices", {"kinds": ["refund"], "is_on": "on"})
    endpoint.refresh_from_db()
    assert endpoint.is_on
    assert client.post(f"{here}/choices", {"kinds": ["nonsense"]}).status_code == 422
    client.post(f"{here}/removals")
    assert not WebhookEndpoint.objects.filter(user=alice).exists()


def test_a_long_log_has_pages(alice: User, receiver: Receiver) -> None:
    endpoint = endpoint_of(alice, receiver.url("ok"))
    for nth in range(hooks.PAGE + 5):
        tell(alice, str(nth))
    client = signed_in(alice)
    first = client.get(f"{PAGE}/{endpoint.pk}").content.decode()
    older = re.search(r'href="([^"]*before=[^"]*)"', first)
    assert older
    assert first.count("<details") == hooks.PAGE
    assert client.get(older[1]).content.decode().count("<details") == 5


def test_nobody_touches_the_webhooks_of_others(alice: User, receiver: Receiver) -> None:
    endpoint = endpoint_of(alice, receiver.url("ok"))
    tell(alice)
    delivery = delivery_of(endpoint)
    carol = people.carol()
    client = reauthenticated(carol)
    assert client.get(f"{PAGE}/{endpoint.pk}").status_code == 404
    for place in ("choices", "secrets", "tests", "resends", "removals"):
        assert client.post(f"{PAGE}/{endpoint.pk}/{place}", {"delivery": delivery.pk}).status_code == 404
    own = endpoint_of(carol, receiver.url("ok"))
    with pytest.raises(NotFound):
        hooks.resend(carol, own.pk, delivery.pk)
    for nonsense in ("", "\0", "whe_1", "x" * 500):
        with pytest.raises(NotFound):
            hooks.get(alice, nonsense)
        with pytest.raises(NotFound):
            hooks.resend(alice, endpoint.pk, nonsense)

"""`/metrics`: who may read it, and that it says how things are."""

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from decimal import Decimal
from http import HTTPStatus
from pathlib import Path
from typing import Any

import pytest
from django.db import OperationalError, connection
from django.db.models.functions import Now
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.parser import text_string_to_metric_families

from aleph import ids, logs, scrape
from aleph.accounts.models import User
from aleph.docs import schema
from aleph.metrics import REGISTRY
from aleph.run import BASE_DIR
from billing import rounds
from billing.models import AuditRound
from chat import breakers, stream, turns
from chat.models import ChatModel, Message, Route
from chat.tasks import sweep
from tests import people
from tests.product import Product, simulated_model
from tests.stories_of_chat import answered, ask, orphaned, special_model, told, until
from tests.stories_of_usage import call_of, price_of
from usage import meter
from usage.models import Calibration, TokenUsage

FAR_AWAY = {"REMOTE_ADDR": "203.0.113.9"}
TOKEN = "a-token-for-the-scraper"


@pytest.fixture
def token(settings: Any) -> str:
    settings.METRICS_TOKEN = TOKEN
    return TOKEN


def asked(authorization: str = "", **where: Any) -> Any:
    headers = {"Authorization": authorization} if authorization else {}
    return Client(headers=headers).get("/metrics", **where)


class Read:
    """What was scraped: figures by their name and labels."""

    def __init__(self, text: str) -> None:
        self.names: set[str] = set()
        self.samples: dict[tuple[str, tuple[tuple[str, str], ...]], float] = {}
        for family in text_string_to_metric_families(text):
            self.names.add(family.name)
            for sample in family.samples:
                self.samples[sample.name, tuple(sorted(sample.labels.items()))] = sample.value

    def __call__(self, name: str, **labels: str) -> float:
        return self.samples[name, tuple(sorted(labels.items()))]

    def has(self, name: str) -> bool:
        return any(name == known for known, _labels in self.samples)


def state() -> Read:
    """The shared state as it is now."""
    registry = CollectorRegistry()
    registry.register(scrape.SharedState(kept_s=0))
    return Read(generate_latest(registry).decode())


class TestWhoMayRead:
    def test_is_who_has_the_token(self, db: None, token: str) -> None:
        answer = asked(f"Bearer {token}", **FAR_AWAY)

        assert answer.status_code == HTTPStatus.OK
        assert answer.headers["Cache-Control"] == "no-store"
        assert answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")
        assert Read(answer.content.decode()).has("aleph_open_replies")

    @pytest.mark.parametrize(
        "authorization", ["", "Bearer", "Bearer wrong", f"Basic {TOKEN}", f"Bearer {TOKEN}x", "Bearer é"]
    )
    def test_is_nobody_else(self, db: None, token: str, authorization: str) -> None:
        answer = asked(authorization, **FAR_AWAY)
        assert answer.status_code == HTTPStatus.NOT_FOUND
        assert "aleph_" not in answer.content.decode()

    @pytest.mark.parametrize("authorization", ["", "Bearer ", "Bearer x"])
    def test_is_nobody_where_no_token_is_set(self, db: None, authorization: str) -> None:
        assert asked(authorization, **FAR_AWAY).status_code == HTTPStatus.NOT_FOUND

    @pytest.mark.parametrize("address", ["127.0.0.1", "127.8.8.8", "::1"])
    def test_is_in_development_who_sits_at_the_machine(self, db: None, address: str) -> None:
        assert asked(REMOTE_ADDR=address).status_code == HTTPStatus.OK

    @pytest.mark.parametrize("address", ["127.0.0.1", "::1", "", "unix:"])
    def test_is_in_production_nobody_for_where_he_sits(
        self, db: None, token: str, settings: Any, address: str
    ) -> None:
        settings.DEVELOPMENT = False
        assert asked(REMOTE_ADDR=address).status_code == HTTPStatus.NOT_FOUND
        assert asked(f"Bearer {token}", REMOTE_ADDR=address).status_code == HTTPStatus.OK

    def test_is_nobody_who_wants_to_write(self, db: None) -> None:
        assert Client().post("/metrics").status_code == HTTPStatus.METHOD_NOT_ALLOWED

    def test_is_told_in_no_document_of_the_api(self) -> None:
        assert not [path for path in schema()["paths"] if "metrics" in path]

    def test_may_ask_for_openmetrics(self, db: None) -> None:
        answer = Client(headers={"Accept": "application/openmetrics-text;version=1.0.0"}).get("/metrics")
        assert answer.headers["Content-Type"].startswith("application/openmetrics-text")
        assert answer.content.endswith(b"# EOF\n")


class TestReplies:
    """On a database that others have written to, so all figures are compared with those before."""

    pytestmark = pytest.mark.usefixtures("committed", "simulator")

    def test_are_counted_with_what_they_hold(self) -> None:
        before = state()
        queued, begun = ask(people.alice()).reply, orphaned(people.alice())
        free = ask(people.carol(), rate=0).reply
        now = state()

        assert now("aleph_open_replies", state="queued") == before("aleph_open_replies", state="queued") + 2
        assert (
            now("aleph_open_replies", state="streaming")
            == before("aleph_open_replies", state="streaming") + 1
        )
        assert now("aleph_open_holds") == before("aleph_open_holds") + 2
        assert (
            now("aleph_open_hold_tokens")
            == before("aleph_open_hold_tokens") + queued.held_tokens + begun.held_tokens
        )
        assert now("aleph_holds_without_lease") == before("aleph_holds_without_lease")
        assert free.held_tokens == 0

    def test_that_wait_say_for_how_long(self) -> None:
        reply = ask(people.alice()).reply
        Message.objects.filter(pk=reply.pk).update(created_at=timezone.now() - timedelta(hours=30))

        found = state()

        assert 30 * 3600 <= found("aleph_oldest_queued_seconds") < 31 * 3600
        assert 30 * 3600 <= found("aleph_oldest_hold_seconds") < 31 * 3600
        sweep()
        assert state()("aleph_oldest_queued_seconds") < 3600

    def test_that_were_handed_back_wait_from_then_on(self) -> None:
        reply = ask(people.alice()).reply
        Message.objects.filter(pk=reply.pk).update(
            created_at=timezone.now() - timedelta(hours=300), lease_until=Now() - timedelta(hours=200)
        )

        assert 200 * 3600 <= state()("aleph_oldest_queued_seconds") < 201 * 3600
        sweep()

    def test_whose_worker_is_dead_are_seen(self) -> None:
        before = state()
        reply = orphaned(people.alice())
        Message.objects.filter(pk=reply.pk).update(lease_until=Now() - timedelta(seconds=1))

        assert state()("aleph_holds_without_lease") == before("aleph_holds_without_lease") + 1


class TestRoutes:
    def test_are_told_with_the_state_of_their_breakers(self, db: None, settings: Any) -> None:
        settings.ROUTE_FAILURES = 1
        model = ChatModel.objects.get(slug="gpt-4o")
        upstream = ids.new("gpt").lower()
        Route.objects.create(model=model, provider="openai", upstream_model=upstream)
        where = {"provider": "openai", "model": upstream}

        assert state()("aleph_route_breaker", **where) == 0
        breakers.failed(f"openai/{upstream}", kind="server")
        assert state()("aleph_route_breaker", **where) == 2
        stream.client().hset(f"{settings.REDIS_PREFIX}breaker:openai/{upstream}", "open_until", 1)
        assert state()("aleph_route_breaker", **where) == 1


class TestCalls:
    def test_are_told_by_provider(self, db: None) -> None:
        price_of("nimbus", "cumulus", "1 - - 2")
        alice = people.alice()
        usual: dict[str, Any] = {"provider": "nimbus", "model": "cumulus", "requested_model": "cumulus"}
        reported = [call_of(alice, **usual) for _each in range(6)]
        call_of(alice, **usual, source=meter.Source.ESTIMATED, metadata={"absorbed_tokens": 70})
        call_of(alice, **usual, source=meter.Source.PARTIAL, metadata={"absorbed_tokens": 5})
        failed = call_of(alice, **usual, status=meter.Status.FAILED, first_token_ms=None)
        call_of(
            alice,
            **usual,
            status=meter.Status.INTERRUPTED,
            counts=meter.Counts(fresh_input=1_000_000, visible_output=0),
        )
        found = state()

        assert found("aleph_recent_calls", provider="nimbus", status="complete") == 8
        assert found("aleph_recent_calls", provider="nimbus", status="failed") == 1
        assert found("aleph_estimated_ratio", provider="nimbus") == pytest.approx(0.2)
        assert failed.total_cost_usd == reported[0].total_cost_usd == Decimal("0.0014")
        assert found("aleph_absorbed_usd", provider="nimbus", status="failed") == pytest.approx(0.0014)
        assert found("aleph_absorbed_usd", provider="nimbus", status="interrupted") == pytest.approx(1)
        assert found("aleph_absorbed_tokens", provider="nimbus") == 75

    def test_are_told_by_model_and_operation(self, db: None) -> None:
        price_of("nimbus", "cumulus", "1 - - 2")
        usual: dict[str, Any] = {"provider": "nimbus", "model": "cumulus", "requested_model": "cumulus"}
        counts = meter.Counts(fresh_input=100, cache_read=900, visible_output=150, reasoning=50)
        for latency_ms in (1000, 3000):
            call_of(None, **usual, counts=counts, latency_ms=latency_ms)
        call_of(None, **usual, operation="title", status=meter.Status.FAILED)
        found = state()

        chat = {"provider": "nimbus", "model": "cumulus", "operation": "chat_message"}
        assert found("aleph_recent_model_calls", **chat, status="complete") == 2
        assert found("aleph_recent_model_calls", **(chat | {"operation": "title"}), status="failed") == 1
        tokens = {
            name: found("aleph_recent_llm_tokens", **chat, **{"class": name}) for name in scrape.CLASSES
        }
        assert tokens == {
            "fresh_input": 200,
            "cache_read": 1800,
            "cache_write": 0,
            "cache_write_1h": 0,
            "visible_output": 300,
            "reasoning": 100,
        }
        assert found("aleph_recent_cost_usd", **chat) == pytest.approx(0.0028)
        assert found("aleph_recent_call_seconds", **chat) == 2

    def test_of_many_models_keep_few_labels(self, db: None) -> None:
        for number in range(scrape.MOST_MODELS + 7):
            call_of(None, provider="nimbus", model=f"m{number}", requested_model=f"m{number}")
        found = state()

        series = {labels for name, labels in found.samples if name == "aleph_recent_model_calls"}
        assert len(series) <= scrape.MOST_MODELS + 7
        other = {"provider": "nimbus", "model": "other", "operation": "other"}
        assert found("aleph_recent_model_calls", **other, status="complete") >= 7

    def test_that_contradict_themselves_or_have_no_price_are_counted(self, db: None) -> None:
        call_of(None, provider="nimbus", counts=meter.Counts(fresh_input=1, visible_output=1, flagged=True))
        price_of("nimbus", "cumulus", "1 - - 2")
        call_of(None, provider="nimbus", model="cumulus")
        nothing = meter.Counts(fresh_input=0, visible_output=0)
        call_of(None, provider="nimbus", counts=nothing, status=meter.Status.FAILED)
        found = state()

        assert found("aleph_flagged_calls", provider="nimbus") == 1
        assert found("aleph_unpriced_calls", provider="nimbus") == 1

    def test_say_how_far_estimates_are_off(self, db: None) -> None:
        Calibration.objects.create(
            model="cumulus",
            kind="code",
            factor=1000,
            reserve=1300,
            observations=10**9,
            exceeded=10**6,
            errors=[*range(1, 101)],
        )
        found = state()

        kind = {"model": "cumulus", "kind": "code"}
        assert found("aleph_estimate_error_ratio", **kind, quantile="0.5") == 0.05
        assert found("aleph_estimate_error_ratio", **kind, quantile="0.95") == 0.095
        assert found("aleph_estimate_exceeded_ratio", **kind) == 0.001

    def test_that_followed_a_failed_one_are_counted(self, db: None) -> None:
        first = call_of(people.alice(), provider="nimbus", status=meter.Status.FAILED)
        call_of(people.alice(), provider="nimbus", operation_id=first.operation_id, attempt=2)

        assert state()("aleph_recent_second_calls", provider="nimbus") == 1

    def test_are_forgotten_after_an_hour(self, db: None) -> None:
        old = call_of(people.alice(), provider="nimbus")
        TokenUsage.objects.filter(pk=old.pk).update(
            id=ids.first("use", timezone.now() - timedelta(minutes=61)) + "0" * 16
        )
        assert 'provider="nimbus"' not in asked().content.decode()
        with pytest.raises(KeyError):
            state()("aleph_recent_calls", provider="nimbus", status="complete")

    def test_tell_how_long_the_first_text_took(self, db: None) -> None:
        for wait_ms in [*range(100, 2001, 100), None]:
            call_of(None, provider="nimbus", first_token_ms=wait_ms)
        call_of(None, provider="stratus", first_token_ms=750)
        found = state()

        assert found("aleph_first_text_seconds", provider="nimbus", quantile="0.5") == 1.0
        assert found("aleph_first_text_seconds", provider="nimbus", quantile="0.95") == 1.9
        assert found("aleph_first_text_seconds", provider="stratus", quantile="0.95") == 0.75

    def test_above_what_was_held_are_the_houses_loss(self, committed: None, simulator: object) -> None:
        person = people.carol()
        people.give_tokens(person, 170)
        slug = ids.new("dear").lower()
        special_model(
            slug, script="sim-words-5-cached", input_rate=1000, output_rate=1000, max_output_tokens=64
        )
        before = state()
        reply = answered(ask_for(person, slug))
        (call,) = TokenUsage.objects.filter(operation_id=reply.pk)

        assert call.metadata["absorbed_tokens"] == 180 - reply.held_tokens > 0
        gain = 180 - reply.held_tokens
        assert state()("aleph_absorbed_tokens", provider="openai") == before_of(before, "openai") + gain

    def test_within_what_was_held_say_nothing_of_it(self, committed: None, simulator: object) -> None:
        reply = told(people.alice())
        (call,) = TokenUsage.objects.filter(operation_id=reply.pk)
        assert "absorbed_tokens" not in call.metadata


def ask_for(person: User, slug: str) -> turns.Turn:
    return turns.start(user=person, session=None, text="Hi", model_slug=slug, turn=ids.new("trn"))


def before_of(read: Read, provider: str) -> float:
    try:
        return read("aleph_absorbed_tokens", provider=provider)
    except KeyError:
        return 0


class TestTheHouse:
    def test_says_when_it_swept(self, db: None) -> None:
        stream.client().delete(stream.SWEPT)
        assert not state().has("aleph_sweep_timestamp_seconds")
        began = timezone.now().timestamp()

        sweep()

        assert began <= state()("aleph_sweep_timestamp_seconds") <= timezone.now().timestamp()

    def test_says_nothing_of_a_sweep_that_fell_over(self, db: None, monkeypatch: pytest.MonkeyPatch) -> None:
        stream.client().delete(stream.SWEPT)

        def fall_over() -> int:
            raise OperationalError("gone")

        monkeypatch.setattr("billing.ledger.expire_due", fall_over)
        with pytest.raises(OperationalError):
            sweep()

        assert stream.last_sweep() is None

    def test_says_what_its_audit_found(self, db: None) -> None:
        AuditRound.objects.all().delete()
        assert state()("aleph_drifted_accounts") == 0
        assert not state().has("aleph_audit_timestamp_seconds")
        hour_ago = timezone.now() - timedelta(hours=1)
        AuditRound.objects.create(
            ended_at=hour_ago,
            drifted=2,
            open_holds=3,
            oldest_hold=ids.first("trf", timezone.now() - timedelta(hours=5)) + "0" * 16,
        )
        found = state()

        assert found("aleph_drifted_accounts") == 2
        assert found("aleph_audit_timestamp_seconds") == pytest.approx(hour_ago.timestamp(), abs=0.001)
        assert found("aleph_audited_open_holds") == 3
        assert found("aleph_audited_oldest_hold_seconds") == pytest.approx(5 * 3600, abs=60)

    def test_says_at_once_what_a_round_finds_that_is_under_way(self, db: None) -> None:
        rounds.run()
        AuditRound.objects.create(drifted=1)
        found = state()
        assert found("aleph_drifted_accounts") == 1
        assert found.has("aleph_audit_timestamp_seconds")


class TestScraping:
    def test_costs_the_database_few_statements_and_none_for_a_while(
        self, db: None, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        call_of(people.alice())
        fresh = scrape.SharedState(kept_s=60)
        with CaptureQueriesContext(connection) as first:
            list(fresh.collect())
        with CaptureQueriesContext(connection) as second:
            list(fresh.collect())
        assert len(first) == 9
        assert len(second) == 0

    def test_of_many_at_once_reads_once(self, committed: None, monkeypatch: pytest.MonkeyPatch) -> None:
        reads: list[str] = []

        def read() -> Iterator[Metric]:
            reads.append("once")
            yield GaugeMetricFamily("aleph_database_up", "", value=1)

        monkeypatch.setattr(scrape, "_database", read)
        fresh = scrape.SharedState(kept_s=60)
        crowd = [threading.Thread(target=fresh.collect) for _each in range(8)]
        for one in crowd:
            one.start()
        for one in crowd:
            one.join()
        assert len(reads) == 1

    def test_says_so_where_the_database_does_not_answer(
        self, db: None, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def gone(*_: object) -> Any:
            raise OperationalError("gone")

        monkeypatch.setattr(scrape, "_rows", gone)
        found = state()
        assert found("aleph_database_up") == 0
        assert found("aleph_redis_up") == 1
        assert not found.has("aleph_open_replies")

    def test_says_so_where_redis_does_not_answer(self, db: None, settings: Any) -> None:
        settings.REDIS_URL = "redis://127.0.0.1:1/0"
        found = state()
        assert (found("aleph_redis_up"), found("aleph_database_up")) == (0, 1)
        assert not found.has("aleph_sweep_timestamp_seconds")

    def test_is_described_in_the_handbook(self, db: None) -> None:
        AuditRound.objects.create(ended_at=timezone.now())
        sweep()
        text = (Path(BASE_DIR) / "docs" / "operations.md").read_text()
        _, _, watch = text.partition("## What to watch")
        described = set(re.findall(r"`(aleph_\w+)", watch.partition("\n## ")[0]))
        said = {
            name for name in state().names | {each.name for each in REGISTRY.collect()} if "aleph_" in name
        }
        assert {name.removesuffix("_total") for name in described} == said


class TestThisProcess:
    def test_counts_what_it_answers_by_route_and_class(self, product: Product) -> None:
        with counted(product) as gained:
            visitor = product.signed_in(people.alice())
            for _each in range(3):
                assert visitor.get("/billing").status_code == 200
            for name in ("one", "two"):
                assert visitor.get(f"/chat/cht_{name}").status_code == 404
            assert visitor.get("/no/such/place").status_code == 404
            assert visitor.get("/admin/login/").status_code in (200, 403)
        assert gained("aleph_http_requests_total", route="billing:home", status="2xx") == 3
        assert gained("aleph_http_requests_total", route="chat:session", status="4xx") == 2
        assert gained("aleph_http_requests_total", route="unknown", status="4xx") == 1
        assert gained("aleph_http_request_seconds_count", route="billing:home") == 3
        assert gained("aleph_http_request_seconds_bucket", route="billing:home", le="+Inf") == 3
        assert gained.now.has("process_resident_memory_bytes")

    def test_counts_the_streams_that_it_sends(self, product: Product) -> None:
        visitor = product.signed_in(people.alice())
        before = scraped(product)("aleph_open_streams")
        form = {"text": "Hi", "model": simulated_model("sim-slow-100x100ms"), "turn": ids.new("trn")}
        assert visitor.post("/chat/turns", data=form, allow_redirects=False).status_code == 303
        reply = Message.objects.get(turn=form["turn"])

        with visitor.get(f"/chat/replies/{reply.pk}/stream", stream=True) as watching:
            lines = watching.iter_lines(chunk_size=1)
            next(lines)
            until(lambda: scraped(product)("aleph_open_streams") == before + 1)

        until(lambda: scraped(product)("aleph_open_streams") == before)

    def test_knows_that_the_house_sweeps(self, product: Product) -> None:
        began = timezone.now().timestamp()
        until(lambda: (stream.last_sweep() or 0) > began, within_s=20)


def test_the_log_blots_out_the_token(settings: Any) -> None:
    settings.PROVIDER_ENV = {**settings.PROVIDER_ENV, "METRICS_TOKEN": TOKEN}
    assert TOKEN in logs.known_secrets()


class Gained:
    """What counters of the product have gained; `now` is what they say in the end."""

    def __init__(self, before: Read) -> None:
        self.before = before
        self.now = before

    def __call__(self, name: str, **labels: str) -> float:
        key = (name, tuple(sorted(labels.items())))
        return self.now.samples[key] - self.before.samples.get(key, 0)


@contextmanager
def counted(product: Product) -> Iterator[Gained]:
    gained = Gained(scraped(product))
    yield gained
    gained.now = scraped(product)


def scraped(product: Product) -> Read:
    answer = product.visitor().get("/metrics")
    assert answer.status_code == 200
    return Read(answer.text)

"""A second call after one that failed: when, by which route, how it is logged and paid for; and routes that are left
alone because they keep failing."""

import time
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from celery import current_app
from django.conf import settings as ours
from django.db import OperationalError, connection
from django.utils import timezone

from aleph import ids
from aleph.accounts.models import User
from chat import breakers, catalogue, refusals, replies, stream, turns
from chat.models import ChatModel, Message, Route
from chat.turns import Turn
from tests import people
from tests.clock import in_time
from tests.simulator import Simulator
from tests.stories_of_chat import (
    answered,
    assert_books_are_right,
    available,
    calls_of,
    ending_of,
    fresh,
    held,
    special_model,
    until,
    worker,
)
from tests.stories_of_usage import price_of
from tests.test_chat_pages import page_of, signed_in, words

pytestmark = pytest.mark.usefixtures("committed", "redis_server", "simulator")

WELL = "sim-words-5"
FIVE = "word1 word2 word3 word4 word5 "


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replies, "PAUSE_S", 0.05)


def model_by(*scripts: str, **clocks: int) -> ChatModel:
    """A model with one route for each script: the first by OpenAI, the others by Hugging Face, which the simulator
    stands in for as well."""
    model = special_model(ids.new("led").lower(), script=scripts[0])
    for position, script in enumerate(scripts[1:], 1):
        Route.objects.create(model=model, provider="huggingface", upstream_model=script, position=position)
    if clocks:
        model.routes.update(**clocks)
    return model


def ask(person: User, model: ChatModel, *, terms: str | None = None) -> Turn:
    return turns.start(
        user=person,
        session=None,
        text="Tell me a story",
        model_slug=model.slug,
        turn=ids.new("trn"),
        terms=terms,
    )


def attempts_of(reply: Message) -> list[tuple[int, str, str]]:
    return [(call.attempt, call.provider, call.status) for call in calls_of(reply)]


class TestASecondCall:
    @pytest.mark.parametrize("script", ["error-500", "error-429", "error-503", "html-502", "error-408"])
    def test_goes_by_the_next_route_where_the_first_one_fails(self, script: str) -> None:
        alice = people.alice()
        model = model_by(f"sim-{script}", WELL)

        reply = answered(ask(alice, model))

        assert (reply.state, reply.content, reply.attempts) == ("complete", FIVE, 2)
        assert (reply.provider, reply.answered_by) == ("huggingface", f"{WELL}-2026-09-01")
        assert attempts_of(reply) == [(1, "openai", "failed"), (2, "huggingface", "complete")]
        assert (ending_of(reply), held(alice)) == ("post", 0)
        assert available(alice) == 10_500 - reply.tokens_used
        assert_books_are_right()

    def test_goes_by_the_next_route_where_nothing_came_in_time(self) -> None:
        reply = answered(ask(people.alice(), model_by("sim-timeout", WELL, first_byte_s=1)))

        assert attempts_of(reply) == [(1, "openai", "failed"), (2, "huggingface", "complete")]
        assert calls_of(reply)[0].metadata["error"] == "timeout"

    def test_costs_what_it_used_and_no_more_than_one_call_would(self) -> None:
        alice, bella = people.alice(), people.alice()

        twice = answered(ask(alice, model_by("sim-error-500", WELL)))
        once = answered(ask(bella, model_by(WELL)))

        assert twice.tokens_used == once.tokens_used > 0
        assert twice.held_tokens == once.held_tokens
        assert [call.transfer_id != "" for call in calls_of(twice)] == [False, True]

    def test_is_priced_in_usd_by_the_provider_that_really_answered(self) -> None:
        script = "sim-words-6"
        price_of("openai", script, "1000 - - 1000", valid_from=timezone.now() - timedelta(days=1))
        theirs = price_of(
            "huggingface", script, "2000 - - 2000", valid_from=timezone.now() - timedelta(days=1)
        )

        first, second = calls_of(answered(ask(people.alice(), model_by("sim-error-500", script))))

        assert (first.provider, second.provider, second.price) == ("openai", "huggingface", theirs)
        assert second.total_cost_usd == second.total_tokens * Decimal("0.002")

    def test_is_paid_at_the_rates_that_were_shown_before_sending(self) -> None:
        alice, model = people.alice(), model_by("sim-error-500", WELL)
        turn = ask(alice, model, terms=model.terms)
        ChatModel.objects.filter(pk=model.pk).update(input_rate=9_000, output_rate=9_000)

        reply = answered(turn)

        (_failed, call) = calls_of(reply)
        assert reply.tokens_used == -(-call.total_tokens * 100 // 1000) <= reply.held_tokens

    def test_goes_by_the_same_route_where_there_is_no_other(self, simulator: Simulator) -> None:
        asked = len(simulator.requests)

        reply = answered(ask(people.alice(), model_by("sim-error-500")))

        assert (reply.state, reply.error_kind, len(simulator.requests) - asked) == ("failed", "server", 2)
        assert attempts_of(reply) == [(1, "openai", "failed"), (2, "openai", "failed")]

    def test_is_the_last(self, simulator: Simulator) -> None:
        alice, asked = people.alice(), len(simulator.requests)

        reply = answered(ask(alice, model_by("sim-error-500", "sim-error-503", WELL)))

        assert (reply.state, reply.error_kind, len(simulator.requests) - asked) == ("failed", "overloaded", 2)
        assert (ending_of(reply), available(alice)) == ("void", 10_500)

    def test_is_not_made_after_any_text(self) -> None:
        reply = answered(ask(people.alice(), model_by("sim-cut-5", WELL)))

        assert (reply.state, reply.content) == ("failed", FIVE)
        assert attempts_of(reply) == [(1, "openai", "failed")]

    @pytest.mark.parametrize(
        ("script", "why"),
        [("error-401", "auth"), ("error-403", "auth"), ("error-404", "not_found"), ("quota", "credit")],
    )
    def test_goes_by_the_next_route_where_the_first_one_refuses_us(self, script: str, why: str) -> None:
        alice = people.alice()
        model = model_by(f"sim-{script}-pace-{_unique()}", WELL)

        reply = answered(ask(alice, model))

        assert (reply.state, reply.content, reply.provider) == ("complete", FIVE, "huggingface")
        assert attempts_of(reply) == [(1, "openai", "failed"), (2, "huggingface", "complete")]
        refused, _answered = calls_of(reply)
        assert (refused.metadata["error"], refused.total_tokens, refused.charged_tokens) == (why, 0, 0)
        assert available(alice) == 10_500 - reply.tokens_used
        assert_books_are_right()

    @pytest.mark.parametrize("script", ["error-401", "error-404", "quota"])
    def test_is_not_made_by_the_route_that_refuses_us(self, script: str) -> None:
        reply = answered(ask(people.alice(), model_by(f"sim-{script}")))

        assert (reply.state, len(calls_of(reply))) == ("failed", 1)

    @pytest.mark.parametrize("script", ["context", "error-400", "html", "empty"])
    def test_is_not_made_where_it_would_fail_as_well(self, script: str) -> None:
        reply = answered(ask(people.alice(), model_by(f"sim-{script}", WELL)))

        assert (reply.state, len(calls_of(reply))) == ("failed", 1)

    def test_is_not_made_where_a_worker_has_died_over_the_first(self) -> None:
        turn = ask(people.alice(), model_by("sim-error-500", WELL))
        Message.objects.filter(pk=turn.reply.pk).update(
            state="streaming",
            epoch=1,
            attempts=1,
            started_at=timezone.now(),
            lease_until=timezone.now() - timedelta(seconds=1),
        )
        replies.sweep()

        reply = answered(turn)

        assert (reply.state, reply.error_kind) == ("failed", "server")
        assert attempts_of(reply) == [(1, "openai", "interrupted"), (2, "openai", "failed")]

    def test_is_not_made_by_a_route_that_staff_have_switched_off(self) -> None:
        model = model_by("sim-error-500", WELL)
        turn = ask(people.alice(), model)
        Route.objects.filter(model=model, provider="huggingface").update(is_enabled=False)

        assert answered(turn).state == "failed"

    def test_is_given_up_where_the_database_does_not_count_it(self) -> None:
        def stumble(execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
            if sql.startswith("UPDATE") and '"stop_requested_at" IS NULL' in sql:
                raise OperationalError("the server closed the connection unexpectedly")
            return execute(sql, params, many, context)

        alice = people.alice()
        turn = ask(alice, model_by("sim-error-500", WELL))
        with connection.execute_wrapper(stumble):
            reply = answered(turn)

        assert (reply.state, reply.error_kind, ending_of(reply)) == ("failed", "server", "void")
        assert attempts_of(reply) == [(1, "openai", "failed")]
        assert_books_are_right()


class TestBetweenTwoCalls:
    def test_a_stop_ends_the_reply_and_nobody_is_asked_again(
        self, simulator: Simulator, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(replies, "PAUSE_S", 2)
        alice, asked = people.alice(), len(simulator.requests)
        turn = ask(alice, model_by("sim-error-500"))
        with worker(turn):
            until(lambda: len(simulator.requests) > asked)
            time.sleep(0.2)
            stopped_at = time.monotonic()
            turns.stop(user=alice, reply_id=turn.reply.pk)
            until(lambda: not fresh(turn.reply).is_open)
            in_time(time.monotonic() - stopped_at, 1.5)
        reply = fresh(turn.reply)
        assert (reply.state, reply.error_kind, reply.tokens_used) == ("stopped", "", 0)
        assert attempts_of(reply) == [(1, "openai", "failed")]
        assert len(simulator.requests) - asked == 1
        assert (ending_of(reply), available(alice)) == ("void", 10_500)
        assert_books_are_right()

    def test_a_stop_that_nobody_has_seen_yet_keeps_the_next_one_from_beginning(self) -> None:
        alice = people.alice()
        turn = ask(alice, model_by("sim-error-500", WELL))
        reply = replies._claim(turn.reply.pk)
        assert reply is not None
        reply.model = turn.reply.model
        turns.stop(user=alice, reply_id=reply.pk)

        route = Route.objects.get(model=reply.model, provider="huggingface")
        assert not replies._count_next(reply, replies.Outcome("failed", error_kind="server"), route)

        assert (fresh(reply).attempts, calls_of(reply)) == (1, [])

    def test_a_worker_that_comes_late_counts_nothing(self) -> None:
        turn = ask(people.alice(), model_by("sim-error-500", WELL))
        late = replies._claim(turn.reply.pk)
        assert late is not None
        late.model = turn.reply.model
        Message.objects.filter(pk=late.pk).update(epoch=7)

        route = Route.objects.get(model=late.model, provider="huggingface")
        assert not replies._count_next(late, replies.Outcome("failed", error_kind="server"), route)
        assert calls_of(late) == []


class TestABusyProvider:
    def test_says_when_to_try_again(self) -> None:
        reply = answered(ask(people.alice(), model_by("sim-error-429")))

        assert (reply.state, reply.error_kind, reply.retry_after_s) == ("failed", "rate_limit", 3)
        assert reply.retry_in_s in (1, 2, 3)
        reply.finished_at = timezone.now() - timedelta(seconds=10)
        assert reply.retry_in_s == 0

    def test_that_does_not_say_when_is_given_a_while(self) -> None:
        reply = answered(ask(people.alice(), model_by("sim-error-503")))

        assert (reply.error_kind, reply.retry_after_s) == ("overloaded", replies.BUSY_S)


class TestARouteThatKeepsFailing:
    @pytest.fixture(autouse=True)
    def watched(self, settings: Any) -> None:
        settings.ROUTE_FAILURES = 2

    def test_is_left_alone_by_all_and_the_next_one_answers_at_once(self, simulator: Simulator) -> None:
        model = model_by(f"sim-error-500-pace-{_unique()}", WELL)
        for _failure in range(2):
            answered(ask(people.alice(), model))
        route = model.routes.get(provider="openai")
        assert breakers.health([str(route)])[0].state == "open"

        reply = answered(ask(people.alice(), model))

        assert attempts_of(reply) == [(1, "huggingface", "complete")]
        assert simulator.requests[-1].body["model"] == WELL

    def test_and_is_the_only_one_refuses_at_once_and_says_for_how_long(self, simulator: Simulator) -> None:
        alice, model = people.alice(), model_by(f"sim-error-401-pace-{_unique()}")
        for _failure in range(2):
            answered(ask(alice, model))
        asked = len(simulator.requests)

        reply = answered(ask(alice, model))

        assert (reply.state, reply.error_kind, calls_of(reply)) == ("failed", "resting", [])
        assert reply.retry_after_s is not None
        assert 1 <= reply.retry_after_s <= breakers.OPEN_S
        assert len(simulator.requests) == asked
        assert (ending_of(reply), available(alice)) == ("void", 10_500)
        told = words(signed_in(alice).get(page_of(reply.session)))
        assert "is not answering at the moment" in told
        assert "Try again in" in told

    def test_and_refuses_us_is_left_alone_from_the_first_time_where_there_is_another(self) -> None:
        alice, script = people.alice(), f"sim-error-401-pace-{_unique()}"
        model = model_by(script, WELL)
        answered(ask(alice, model))
        (health,) = breakers.health([f"openai/{script}"])
        assert (health.state, health.failures, health.kind) == ("open", 1, "auth")

        assert attempts_of(answered(ask(alice, model))) == [(1, "huggingface", "complete")]

    def test_and_refuses_us_goes_on_being_tried_where_it_is_the_only_one(self) -> None:
        script = f"sim-error-401-pace-{_unique()}"
        answered(ask(people.alice(), model_by(script)))
        assert breakers.health([f"openai/{script}"]) == [breakers.Health("closed", 1, kind="auth")]

    def test_is_tried_by_one_when_its_time_is_over_and_closes_when_that_works(self) -> None:
        name = f"openai/{_unique()}"
        _open(name)
        assert breakers.admit([name]).at is None

        _let_pass(name)
        assert breakers.health([name])[0].state == "half-open"
        probe = breakers.admit([name])
        assert (probe.at, probe.failures) == (0, 2)
        assert breakers.admit([name]).at is None

        breakers.worked(name, failures=probe.failures)
        assert breakers.health([name])[0].state == "closed"
        assert breakers.admit([name]).at == 0

    def test_is_left_alone_for_longer_where_its_probe_fails_and_never_for_ever(self) -> None:
        name = f"openai/{_unique()}"
        _open(name)
        waits = []
        for _probe in range(7):
            _let_pass(name)
            assert breakers.admit([name]).at == 0
            breakers.failed(name, kind="server")
            waits.append(breakers.health([name])[0].open_s)
        assert waits == [30, 60, 120, 240, 240, 240, 240]
        assert 0 < stream.client().ttl(f"{ours.REDIS_PREFIX}breaker:{name}") <= 360

    def test_is_not_blamed_for_a_question_that_nobody_could_answer(self) -> None:
        model = model_by(f"sim-context-pace-{_unique()}")
        for _failure in range(3):
            answered(ask(people.alice(), model))
        assert breakers.health([str(model.routes.get())])[0] == breakers.Health("closed", 0)

    def test_and_works_again_is_forgiven(self) -> None:
        name = f"openai/{_unique()}"
        breakers.failed(name, kind="server")
        breakers.worked(name, failures=breakers.admit([name]).failures)
        breakers.failed(name, kind="server")
        assert breakers.admit([name]).at == 0

    def test_is_tried_all_the_same_where_redis_is_away(
        self, settings: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        name = f"openai/{_unique()}"
        _open(name)
        monkeypatch.setattr(breakers, "_away_until", time.monotonic() + 60)

        assert breakers.admit([name]) == breakers.Admission(0)
        assert breakers.health([name])[0].state == "closed"
        breakers.failed(name, kind="server")


class TestARouteThatRefusesUs:
    @pytest.fixture(autouse=True)
    def staffed(self, settings: Any) -> None:
        settings.ADMINS = [("", "staff@aleph.test")]

    def test_is_told_to_the_staff_once(self, mailoutbox: list[Any]) -> None:
        route = f"openai/gpt-{_unique()}"

        refusals.tell(route, "auth")
        refusals.tell(route, "auth")

        (mail,) = mailoutbox
        assert mail.to == ["staff@aleph.test"]
        assert route in mail.subject
        assert "docs/operations.md" in mail.body

        refusals.tell(route, "credit")
        assert len(mailoutbox) == 2

    def test_rings_for_them_and_no_question_of_a_user_does(self, monkeypatch: pytest.MonkeyPatch) -> None:
        rung: list[tuple[str, Any]] = []
        monkeypatch.setattr(
            current_app, "send_task", lambda name, args, **_options: rung.append((name, args))
        )
        turn = ask(people.alice(), model_by("sim-context"))
        other = ask(people.alice(), model_by(f"sim-quota-pace-{_unique()}", WELL))
        rung.clear()
        answered(turn)
        assert rung == []

        reply = answered(other)

        route = f"openai/{calls_of(reply)[0].requested_model}"
        assert rung == [("chat.tasks.tell_of_refusal", [route, "credit"])]

    def test_is_told_again_where_the_mail_did_not_go_out(self, settings: Any, mailoutbox: list[Any]) -> None:
        route, works = f"openai/gpt-{_unique()}", settings.EMAIL_BACKEND
        settings.EMAIL_BACKEND = "django.core.mail.backends.smtp.EmailBackend"
        settings.EMAIL_HOST, settings.EMAIL_PORT = "127.0.0.1", 1
        with pytest.raises(OSError):
            refusals.tell(route, "auth")
        settings.EMAIL_BACKEND = works

        refusals.tell(route, "auth")

        assert len(mailoutbox) == 1


def _open(name: str) -> None:
    for _failure in range(2):
        breakers.failed(name, kind="server")


def _let_pass(name: str) -> None:
    """As if the wait of a breaker were over."""
    stream.client().hset(f"{ours.REDIS_PREFIX}breaker:{name}", "open_until", 1)


def _unique() -> int:
    """Another route each time: what is known of one is kept beyond a test."""
    return time.monotonic_ns() % 1_000_000_000


def test_a_second_call_is_made_by_what_is_connected_only(settings: Any) -> None:
    model = model_by("sim-error-500", WELL)
    settings.PROVIDER_ENV = {**settings.PROVIDER_ENV, "HUGGINGFACE_API_KEY": ""}
    catalogue.connected.cache_clear()

    assert [route.provider for route in catalogue.ways_to(model)] == ["openai"]

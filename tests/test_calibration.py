"""Estimates that learn: from what, how far, and that a reply leaves what there is to learn and no words."""

from collections.abc import Iterator
from typing import Any

import pytest
from django.db import IntegrityError, transaction
from django.utils import timezone

from aleph import ids
from tests import people
from tests.stories_of_chat import answered, ask, calls_of, orphaned
from tests.stories_of_usage import call_of
from usage import calibration, estimate
from usage.calibration import Lesson
from usage.meter import Counts, Source, Status
from usage.models import Calibration, CalibrationMark, TokenUsage
from usage.tasks import learn

MODEL = "gpt-4o"
PROSE = "The quick brown fox jumps over the lazy dog, and then it rests for a while in the warm sun. "
CODE = "def area(width, height):\n    return width * height\n\nprint(area(3, 4))\n"


@pytest.fixture(autouse=True)
def no_memory(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Nothing is read in the background, which would not see what a test has not committed."""
    calibration.forget()
    monkeypatch.setattr(calibration._memory, "_due_at", float("inf"))
    yield
    calibration.forget()


@pytest.fixture
def school(db: None) -> None:
    """From now on there is something to learn; what other tests have stored is known."""
    CalibrationMark.objects.create(pk=1, upto=ids.first("use", timezone.now()))


def counted(text: str, times: float, *, times_prompt: float = 0, **differences: Any) -> TokenUsage:
    """A call whose provider counted `times` as many tokens in the reply as the weights say."""
    sizes = estimate.sizes(text)
    tokens = round(estimate.tokens(text) * times)
    prompt = round(estimate.tokens(text) * times_prompt) + estimate.format_tokens(1)
    said: dict[str, Any] = {
        "lesson": Lesson(MODEL, sizes if times_prompt else {}, 1, sizes),
        "counts": Counts(fresh_input=prompt, visible_output=tokens),
    }
    return call_of(None, **(said | differences))


def learnt(kind: str = "prose", model: str = MODEL) -> Calibration:
    return Calibration.objects.get(model=model, kind=kind)


# What is learnt


def test_a_model_begins_with_the_factor_of_its_family() -> None:
    measure = calibration.measure_of("claude-3.5-sonnet")
    assert set(measure.factors.values()) == {1400}
    assert set(measure.reserves.values()) == {calibration.START_RESERVE}


@pytest.mark.usefixtures("school")
def test_counted_replies_move_the_factor_of_their_model_and_kind() -> None:
    for _each in range(20):
        counted(PROSE * 5, 0.8)
    counted(CODE * 5, 1.3)
    assert calibration.learn() == 21
    assert learnt().factor == pytest.approx(800, abs=5)
    assert learnt().observations == 20
    assert 1000 <= learnt("code").factor < 1300, "one observation is not much against what the family says"
    assert not Calibration.objects.filter(kind="cjk").exists()


@pytest.mark.usefixtures("school")
def test_prompts_teach_like_replies() -> None:
    for _each in range(10):
        counted(PROSE * 5, 0.9, times_prompt=0.9)
    learn()
    assert learnt().observations == 20


@pytest.mark.usefixtures("school")
def test_what_was_learnt_is_used_and_only_for_that_model() -> None:
    for _each in range(20):
        counted(PROSE * 5, 0.8)
    learn()
    calibration._memory.read()
    sizes = estimate.sizes(PROSE * 5)
    assert calibration.measure_of(MODEL).likely(sizes) == pytest.approx(
        estimate.tokens(PROSE * 5) * 0.8, rel=0.01
    )
    assert calibration.measure_of("gpt-4o-mini").likely(sizes) == pytest.approx(
        estimate.tokens(PROSE * 5), abs=1
    )


@pytest.mark.usefixtures("school")
def test_a_few_wild_counts_do_not_move_the_factor() -> None:
    for _each in range(15):
        counted(PROSE * 5, 0.8)
    for _each in range(5):
        counted(PROSE * 5, 2.4)
    learn()
    assert learnt().factor == pytest.approx(800, abs=5)


@pytest.mark.usefixtures("school")
def test_hidden_thinking_is_not_taken_for_vocabulary() -> None:
    for _each in range(30):
        counted(PROSE * 5, 7.0)
    learn()
    assert not Calibration.objects.filter(model=MODEL).exists()


@pytest.mark.usefixtures("school")
@pytest.mark.parametrize(
    "differences",
    [
        {"source": Source.ESTIMATED},
        {"source": Source.PARTIAL},
        {"status": Status.STOPPED},
        {"status": Status.INTERRUPTED},
        {"counts": Counts(fresh_input=7, visible_output=90, flagged=True)},
        {"lesson": None},
    ],
)
def test_only_a_whole_reply_that_was_counted_teaches(differences: dict[str, Any]) -> None:
    row = counted(PROSE * 5, 0.8, **differences)
    assert "sizes" not in row.metadata
    assert learn() is None
    assert not Calibration.objects.filter(model=MODEL).exists()


@pytest.mark.usefixtures("school")
def test_short_texts_and_even_mixtures_teach_nothing() -> None:
    counted("Halo!", 1.0)
    counted(PROSE * 4 + "\n\n" + CODE * 5, 0.9)
    learn()
    assert not Calibration.objects.filter(model=MODEL).exists()


@pytest.mark.usefixtures("school")
def test_each_call_teaches_once() -> None:
    counted(PROSE * 5, 0.8)
    assert (calibration.learn(), calibration.learn()) == (1, 0)
    counted(PROSE * 5, 0.8)
    assert calibration.learn() == 1
    assert learnt().observations == 2
    assert CalibrationMark.objects.count() == 1


def test_only_the_newest_observations_count() -> None:
    row = Calibration(model=MODEL, kind="prose", factor=1000, reserve=1300)
    for _each in range(500):
        calibration.take(row, calibration.Observation("prose", 1400, 10, 1010))
    for _each in range(calibration.KEPT):
        calibration.take(row, calibration.Observation("prose", 700, 10, 1010))
    assert row.factor == 700
    assert (len(row.ratios), len(row.errors), row.observations) == (calibration.KEPT, calibration.KEPT, 700)


# The bound


def test_a_count_above_the_reserve_raises_it_at_once_and_it_falls_slowly() -> None:
    row = Calibration(model=MODEL, kind="prose", factor=1000, reserve=1300)
    calibration.take(row, calibration.Observation("prose", 1000, 10, 1600))
    assert (row.reserve, row.exceeded) == (1760, 1)
    for _each in range(1000):
        calibration.take(row, calibration.Observation("prose", 1000, 10, 1000))
    assert row.reserve == 1660
    for _each in range(10_000):
        calibration.take(row, calibration.Observation("prose", 1000, 10, 1000))
    assert row.reserve == calibration.LEAST_RESERVE


def test_a_reserve_has_a_limit() -> None:
    row = Calibration(model=MODEL, kind="prose", factor=1000, reserve=2900)
    calibration.take(row, calibration.Observation("prose", 1000, 10, 9000))
    assert row.reserve == calibration.MOST_RESERVE


@pytest.mark.usefixtures("school")
def test_the_table_refuses_what_cannot_be_a_factor() -> None:
    for wrong in ({"factor": 0}, {"reserve": 999}, {"factor": 99_999}):
        with pytest.raises(IntegrityError), transaction.atomic():
            Calibration.objects.create(
                **({"model": "x", "kind": "prose", "factor": 1000, "reserve": 1300} | wrong)
            )


# Replies


@pytest.mark.usefixtures("committed", "simulator")
def test_a_counted_reply_leaves_sizes_and_no_words() -> None:
    reply = answered(ask(people.alice(), text="A secret about the oak tree"))
    (call,) = calls_of(reply)
    assert reply.model is not None
    sizes = call.metadata["sizes"]
    assert sizes["model"] == reply.model.slug
    assert sizes["reply"] == estimate.sizes(reply.content)
    assert sizes["messages"] == 2
    assert "oak" not in str(call.metadata)


@pytest.mark.usefixtures("committed", "simulator")
def test_what_was_not_counted_leaves_nothing() -> None:
    reply = orphaned(people.alice())
    assert all("sizes" not in call.metadata for call in calls_of(reply))

"""How good estimates are, by OpenAI's own vocabulary: texts of five kinds that it has counted (`bench.judge`).

Target: after 50 observations of each kind, half of 200 other texts are off by no more than 8 %, and 95 % by no more
than 20 %. Of reservations less than one in a thousand is too small.
"""

import json
import random
from collections.abc import Iterator
from pathlib import Path
from statistics import median

import pytest

from usage import calibration, estimate
from usage.models import Calibration

MODEL = "gpt-4o"
JUDGED = json.loads((Path(__file__).parent / "judged_texts.json").read_text())
KINDS = ("english", "indonesian", "code", "chinese", "json")
Counted = tuple[int, str]


def texts(part: str, *kinds: str) -> Iterator[Counted]:
    for kind in kinds or KINDS:
        yield from ((tokens, text) for tokens, text in JUDGED[part][kind])


def taught(counted: Iterator[Counted], times: float = 1) -> dict[tuple[str, str], Calibration]:
    """What a model learns whose vocabulary makes `times` as many tokens."""
    known: dict[tuple[str, str], Calibration] = {}
    for tokens, text in counted:
        learn(known, tokens * times, text)
    return known


def learn(known: dict[tuple[str, str], Calibration], tokens: float, text: str) -> bool:
    """False where the reservation for the text was too small."""
    sizes = estimate.sizes(text)
    measure = calibration._measure(MODEL, known)
    seen = calibration.observe(sizes, round(tokens), measure)
    if seen is not None:
        key = (MODEL, seen.kind)
        known.setdefault(key, calibration._start(*key))
        calibration.take(known[key], seen)
    return round(tokens) <= measure.at_most(sizes)


def errors(
    known: dict[tuple[str, str], Calibration], counted: Iterator[Counted], times: float = 1
) -> list[float]:
    measure = calibration._measure(MODEL, known)
    return sorted(
        abs(measure.likely(estimate.sizes(text)) - tokens * times) / (tokens * times)
        for tokens, text in counted
    )


def p95(found: list[float]) -> float:
    return found[-(-95 * len(found) // 100) - 1]


@pytest.mark.parametrize("times", [1, 1.4, 0.8])
def test_estimates_meet_their_target_after_fifty_texts_of_each_kind(times: float) -> None:
    """Also for a vocabulary that nobody has measured, as far as it differs by a factor."""
    found = errors(taught(texts("learn"), times), texts("judge"), times)
    assert len(found) == 200
    assert median(found) <= 0.08
    assert p95(found) <= 0.20


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_meets_it_by_itself(kind: str) -> None:
    found = errors(taught(texts("learn")), texts("judge", kind))
    assert median(found) <= 0.08
    assert p95(found) <= 0.20


def test_learning_makes_estimates_better() -> None:
    assert median(errors(taught(texts("learn")), texts("judge"))) < median(errors({}, texts("judge"))) / 2


@pytest.mark.parametrize("times", [1, 1.4])
def test_less_than_one_reservation_in_a_thousand_is_too_small(times: float) -> None:
    chance = random.Random(7)
    every = [*texts("learn"), *texts("judge")]
    known: dict[tuple[str, str], Calibration] = {}
    held = [learn(known, tokens * times, text) for tokens, text in chance.choices(every, k=5000)]
    assert held.count(False) < 5


VOCABULARIES: dict[str, dict[str, float]] = {
    "as it was measured": dict.fromkeys(KINDS, 1),
    "far larger counts": dict.fromkeys(KINDS, 1.6),
    "other by kind": {"english": 1.1, "indonesian": 1.6, "code": 1.3, "chinese": 0.8, "json": 1.2},
    "good at English alone": dict.fromkeys(KINDS, 1.5) | {"english": 0.9},
}


@pytest.mark.parametrize("vocabulary", VOCABULARIES)
@pytest.mark.parametrize("added", [(4, 3), (8, 24)])
def test_of_mixed_conversations_less_than_one_in_a_thousand_is_above_its_reservation(
    vocabulary: str, added: tuple[int, int]
) -> None:
    """From the first call of a model on, that nobody knows yet: prompts of one to eight texts of any kinds, with what a
    chat format adds for each message and for each request."""
    times, chance = VOCABULARIES[vocabulary], random.Random(11)
    every = [(kind, *text) for part in ("learn", "judge") for kind in KINDS for text in texts(part, kind)]
    weights = {text: estimate.sizes(text) for _kind, _tokens, text in every}
    known: dict[tuple[str, str], Calibration] = {}
    too_small = 0
    for _call in range(5000):
        said = chance.choices(every, k=chance.choice((1, 1, 1, 2, 3, 5, 8)))
        counted = sum(round(tokens * times[kind]) for kind, tokens, _text in said)
        counted += added[0] * len(said) + added[1]
        sizes = estimate.together(weights[text] for _kind, _tokens, text in said)
        measure = calibration._measure(MODEL, known)
        too_small += counted > measure.at_most(sizes) + estimate.format_at_most(len(said))
        seen = calibration.observe(sizes, counted - estimate.format_tokens(len(said)), measure)
        if seen is not None:
            key = (MODEL, seen.kind)
            calibration.take(known.setdefault(key, calibration._start(*key)), seen)
    assert too_small < 5


def test_a_reservation_is_no_wild_guess_either() -> None:
    known = taught(texts("learn"))
    measure = calibration._measure(MODEL, known)
    assert all(measure.at_most(estimate.sizes(text)) <= 2 * tokens for tokens, text in texts("judge"))

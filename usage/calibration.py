"""What the counts of providers teach about estimates. A door of this app.

A call whose provider has counted leaves the sizes of its texts with its row (`Lesson`). A task of the house reads those
rows some time later, so that nothing is learnt in the transaction that charges for a call, and keeps for each model and
kind of text the newest ratios of counted to estimated tokens. The factor is their median, with the family's figure
counted in a few times; the reserve is raised by whatever exceeds it, and falls slowly. Every process keeps the
few factors in memory and reads them again now and then.
"""

import threading
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from statistics import median
from typing import Any

import structlog
from django.db import connection, transaction
from django.utils import timezone

from aleph import ids
from usage import estimate
from usage.estimate import KINDS, TOKEN, Measure, Sizes
from usage.models import Calibration, CalibrationMark, TokenUsage

log = structlog.get_logger(__name__)

START_RESERVE = 1500
"""Above the worst text that was measured: Javanese has 1.43 times its estimate."""
LEAST_RESERVE, MOST_RESERVE = 1150, 3000
FALLS_EVERY = 10
"""Observations for which a reserve falls by a thousandth: what happens once in a thousand is still remembered."""
KEPT = 200
PRIOR = 3
"""How many times the figure of the family counts among the observations."""
FARTHEST = 2.5
"""A ratio that many times off the family's is no matter of vocabulary: the provider has hidden something in his count."""
LEAST_TOKENS = 30
DOMINANT = 0.7
"""A text teaches about the kind that makes at least this part of it."""
BATCH = 1000
FIRST_LOOK = timedelta(days=7)
FRESH_S = 30.0


@dataclass(frozen=True, slots=True)
class Lesson:
    """What an estimate was made of: the model that it is known by, the sizes of the prompt with the number of its messages,
    and of the reply. Holds no words."""

    model: str
    prompt: Sizes
    messages: int
    reply: Sizes = field(default_factory=dict)

    def noted(self) -> dict[str, Any]:
        """For the row of the call."""
        return {"model": self.model, "prompt": self.prompt, "messages": self.messages, "reply": self.reply}


def measure_of(model: str) -> Measure:
    """How `model` counts, as far as this process knows. Never waits: what is no longer fresh is read in the background."""
    _memory.refresh()
    return _memory.known.get(model) or _of_family(model)


def learn() -> int:
    """Learn from the calls since the last time; how many taught something. Of two at once one goes after the other."""
    with transaction.atomic():
        CalibrationMark.objects.get_or_create(pk=1)
        mark = CalibrationMark.objects.select_for_update().get(pk=1)
        rows = list(
            TokenUsage.objects.filter(pk__gt=mark.upto or ids.first("use", timezone.now() - FIRST_LOOK))
            .only("source", "status", "flagged", "metadata", "input_tokens", "visible_output_tokens")
            .order_by("pk")[:BATCH]
        )
        if not rows:
            return 0
        known = {(row.model, row.kind): row for row in Calibration.objects.all()}
        taught = sum(_learn_from(row, known) for row in rows if is_counted(row) and "sizes" in row.metadata)
        for learnt in known.values():
            if learnt.observations:
                learnt.save()
        mark.upto = rows[-1].pk
        mark.save()
    return taught


def is_counted(call: TokenUsage) -> bool:
    """Whether there is something to learn from a call: its provider has counted a whole reply, and agrees with himself."""
    is_whole = call.source == TokenUsage.Source.REPORTED and call.status == TokenUsage.Status.COMPLETE
    return is_whole and not call.flagged


@dataclass(frozen=True, slots=True)
class Accuracy:
    """How far estimates of a kind of text are off, in thousandths: half of the newest observations by no more than
    `median`, of a hundred ninety-five by no more than `p95`."""

    model: str
    kind: str
    observations: int
    exceeded: int
    median: int
    p95: int


def accuracies(*, most: int) -> list[Accuracy]:
    """Of what was observed most, by model and kind."""
    rows = Calibration.objects.order_by("-observations", "model", "kind")[:most]
    return [accuracy_of(row) for row in rows]


def accuracy_of(row: Calibration) -> Accuracy:
    errors = sorted(row.errors) or [0]
    return Accuracy(
        model=row.model,
        kind=row.kind,
        observations=row.observations,
        exceeded=row.exceeded,
        median=errors[(len(errors) - 1) // 2],
        p95=errors[-(-95 * len(errors) // 100) - 1],
    )


def forget() -> None:
    """Take what this process remembers for outdated."""
    _memory.forget()


@dataclass(frozen=True, slots=True)
class Observation:
    kind: str
    ratio: int
    """Thousandths of `TOKEN` for the weight of this kind."""
    error: int
    exceeded: int
    """Thousandths: by how much the count is off the estimate, and how many times the estimate it is."""


def _learn_from(row: TokenUsage, known: dict[tuple[str, str], Calibration]) -> bool:
    said = row.metadata["sizes"]
    model = said["model"]
    texts = [
        (said["prompt"], row.input_tokens - estimate.format_tokens(said["messages"])),
        (said["reply"], row.visible_output_tokens or 0),
    ]
    taught = False
    for sizes, counted in texts:
        seen = observe(sizes, counted, _measure(model, known))
        if seen is not None:
            key = (model, seen.kind)
            known[key] = known.get(key) or _start(model, seen.kind)
            taught = take(known[key], seen) or taught
    return taught


def observe(sizes: Mapping[str, int], counted: int, measure: Measure) -> Observation | None:
    """What a counted text says of the kind that it mostly is; None where it is short, or of no kind mostly."""
    sizes = {kind: weight for kind, weight in sizes.items() if kind in KINDS}
    whole = sum(sizes.values())
    if whole < LEAST_TOKENS * TOKEN or counted < LEAST_TOKENS:
        return None
    kind = max(sizes, key=sizes.__getitem__)
    if sizes[kind] < DOMINANT * whole:
        return None
    rest = sum(weight * measure.factors[other] for other, weight in sizes.items() if other != kind)
    likely = measure.likely(sizes)
    return Observation(
        kind=kind,
        ratio=(counted * TOKEN * 1000 - rest) // sizes[kind],
        error=abs(likely - counted) * 1000 // counted,
        exceeded=-(-counted * 1000 // likely),
    )


def take(learnt: Calibration, seen: Observation) -> bool:
    """Let one observation count. False for one that is beyond what a vocabulary can do."""
    start = _start_factor(learnt.model)
    if not start / FARTHEST <= seen.ratio <= start * FARTHEST:
        return False
    learnt.ratios = [*learnt.ratios, seen.ratio][-KEPT:]
    learnt.errors = [*learnt.errors, seen.error][-KEPT:]
    learnt.factor = round(median([*learnt.ratios, *[start] * PRIOR]))
    learnt.observations += 1
    if seen.exceeded > learnt.reserve:
        learnt.exceeded += 1
        learnt.reserve = min(MOST_RESERVE, seen.exceeded * 11 // 10)
    elif learnt.observations % FALLS_EVERY == 0:
        learnt.reserve = max(LEAST_RESERVE, learnt.reserve - 1)
    learnt.updated_at = timezone.now()
    return True


def _start(model: str, kind: str) -> Calibration:
    return Calibration(model=model, kind=kind, factor=_start_factor(model), reserve=START_RESERVE)


def _start_factor(model: str) -> int:
    return int(estimate.factor_of(estimate.family_of(model)) * 1000)


def _of_family(model: str) -> Measure:
    return Measure(dict.fromkeys(KINDS, _start_factor(model)), dict.fromkeys(KINDS, START_RESERVE))


def _measure(model: str, known: Mapping[tuple[str, str], Calibration]) -> Measure:
    return _with(model, [known[model, kind] for kind in KINDS if (model, kind) in known])


def _with(model: str, learnt: Iterable[Calibration]) -> Measure:
    start = _of_family(model)
    learnt = list(learnt)
    return Measure(
        {**start.factors, **{row.kind: row.factor for row in learnt}},
        {**start.reserves, **{row.kind: row.reserve for row in learnt}},
    )


class _Memory:
    """The measures of all models that were learnt about, as this process last read them."""

    def __init__(self) -> None:
        self.known: Mapping[str, Measure] = {}
        self._due_at = 0.0
        self._reading = threading.Lock()

    def refresh(self) -> None:
        if time.monotonic() < self._due_at or not self._reading.acquire(blocking=False):
            return
        self._due_at = time.monotonic() + FRESH_S
        threading.Thread(target=self._read, name="calibration", daemon=True).start()

    def forget(self) -> None:
        self.known, self._due_at = {}, 0.0

    def read(self) -> None:
        rows: dict[str, list[Calibration]] = {}
        for row in Calibration.objects.only("model", "kind", "factor", "reserve"):
            rows.setdefault(row.model, []).append(row)
        self.known = {model: _with(model, learnt) for model, learnt in rows.items()}

    def _read(self) -> None:
        try:
            self.read()
        except Exception as error:
            log.warning("estimates go on as they were", error=str(error))
        finally:
            connection.close()
            self._reading.release()


_memory = _Memory()

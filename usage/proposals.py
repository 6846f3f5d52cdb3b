"""Published prices that differ from ours: found by `manage.py sync_prices`, accepted or refused by staff.

Nothing here changes a price. Accepting writes a row that is valid from that moment on; the one before stays as it is,
with the calls that were charged at it.
"""

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from django.db import IntegrityError, transaction
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from aleph.accounts.models import User
from aleph.problems import Conflict
from usage import pricing, published
from usage.models import ModelPrice, PriceProposal
from usage.published import Published

State = PriceProposal.State


class Decided(Conflict):
    text = _("Somebody has decided this proposal already.")


@dataclass(slots=True)
class Comparison:
    """How many prices are as published, differ, and are not published; and the proposals that are open for it."""

    same: int = 0
    unknown: list[str] = field(default_factory=list)
    refused: int = 0
    proposed: list[PriceProposal] = field(default_factory=list)


def compare(*, at: datetime | None = None) -> Comparison:
    """Compare the prices of now with those published, and keep a proposal for each that differs. What was refused is not
    proposed again with the same figures."""
    at = at or timezone.now()
    found = Comparison()
    for (provider, model), prices in pricing.valid_by_model(at).items():
        lanes = published.prices_of(provider, model, at)
        if not lanes:
            found.unknown.append(f"{provider} {model}")
        for lane in lanes:
            _compare_lane(provider, model, prices, lane, found)
    return found


def accept(*, proposal_id: int, by: User) -> ModelPrice:
    """Write the proposed price, valid from now on. Raises `Decided`."""
    now = timezone.now()
    with transaction.atomic():
        proposal = _decide(proposal_id, State.ACCEPTED, by, now)
        price = ModelPrice.objects.create(
            **{name: getattr(proposal, name) for name in (*ModelPrice.LANE, *ModelPrice.FIGURES, "source")},
            valid_from=now,
        )
        PriceProposal.objects.filter(pk=proposal.pk).update(price=price)
    return price


def refuse(*, proposal_id: int, by: User) -> None:
    """Leave the price as it is. Raises `Decided`."""
    _decide(proposal_id, State.REFUSED, by, timezone.now())


def _decide(proposal_id: int, state: str, by: User, now: datetime) -> PriceProposal:
    decided = PriceProposal.objects.filter(pk=proposal_id, state=State.OPEN).update(
        state=state, decided_at=now, decided_by=by
    )
    if not decided:
        raise Decided
    return PriceProposal.objects.get(pk=proposal_id)


def _compare_lane(
    provider: str, model: str, prices: list[ModelPrice], lane: Published, found: Comparison
) -> None:
    # Days of the week are not published, so the window of an hour is the one that we know by its hours.
    key = (lane.above_input_tokens, lane.from_utc, lane.to_utc)
    ours = next(
        (each for each in prices if (each.above_input_tokens, each.from_utc, each.to_utc) == key), None
    )
    if ours is not None and not published.differences(ours, lane):
        found.same += 1
        return
    figures = {name: getattr(ours, name, None) for name in ModelPrice.FIGURES} | lane.figures
    where: dict[str, Any] = {
        "provider": provider,
        "model": model,
        "above_input_tokens": lane.above_input_tokens,
        "weekdays": ours.weekdays if ours else "",
        "from_utc": lane.from_utc,
        "to_utc": lane.to_utc,
    }
    if PriceProposal.objects.filter(state=State.REFUSED, **where, **figures).exists():
        found.refused += 1
        return
    said = figures | {"source": published.source(), "current": ours}
    try:
        with transaction.atomic():
            proposal, _is_fresh = PriceProposal.objects.update_or_create(
                state=State.OPEN, **where, defaults=said
            )
    except IntegrityError:
        # Somebody compares at the same moment, with the same prices before him.
        proposal = PriceProposal.objects.get(state=State.OPEN, **where)
    found.proposed.append(proposal)

"""`manage.py sync_prices` compares our provider prices with those published, and proposes what differs to the staff."""

from typing import Any

from django.core.management.base import BaseCommand, CommandError

from usage import proposals, published
from usage.models import PriceProposal


class Command(BaseCommand):
    help = (
        "Compare provider prices with genai-prices. Differences become proposals in the administration; no price is"
        " changed."
    )

    def handle(self, *args: Any, **options: Any) -> None:
        if not published.is_installed():
            raise CommandError(
                "genai-prices is not installed. Add it with: python -m pip install genai-prices"
            )
        found = proposals.compare()
        for proposal in found.proposed:
            self.stdout.write(self._told(proposal))
        self.stdout.write(
            f"{found.same} as published by {published.source()}, {len(found.proposed)} proposed,"
            f" {found.refused} refused before, {len(found.unknown)} models not published."
        )

    def _told(self, proposal: PriceProposal) -> str:
        ours = proposal.current
        changes = [
            f"{name.removesuffix('_usd_per_million')} {_usd(getattr(ours, name, None))} -> {_usd(getattr(proposal, name))}"
            for name in proposal.FIGURES
            if getattr(ours, name, None) != getattr(proposal, name)
        ]
        where = f", prompts above {proposal.above_input_tokens:,}" if proposal.above_input_tokens else ""
        return f"{proposal}{where}{' ' + proposal.hours if proposal.hours else ''}: {', '.join(changes)}"


def _usd(figure: Any) -> str:
    return "none" if figure is None else f"{figure.normalize():f}"

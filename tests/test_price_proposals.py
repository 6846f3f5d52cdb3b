"""Prices that others publish: compared, proposed, and decided by staff. And calls that get a price later."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from io import StringIO
from typing import Any

import pytest
from django.contrib.admin.models import LogEntry
from django.core.management import CommandError, call_command
from django.db import IntegrityError, transaction
from django.test import Client
from django.urls import reverse

from aleph import ids
from aleph.accounts.models import User
from tests import people
from tests.stories_of_usage import call_of, price_of
from usage import meter, price_list, pricing, proposals, published
from usage.meter import Counts
from usage.models import ModelPrice, PriceProposal, TokenUsage

pytestmark = pytest.mark.django_db

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
MINE = {"provider": "openai", "model": "gpt-6-luna"}


def sync() -> str:
    said = StringIO()
    call_command("sync_prices", stdout=said)
    return said.getvalue()


def ours_is_dearer() -> ModelPrice:
    price = ModelPrice.objects.get(**MINE, above_input_tokens=0)
    price.output_usd_per_million = Decimal("0.60")
    price.save()
    return price


def proposed() -> PriceProposal:
    return PriceProposal.objects.get(**MINE, state="open")


# Our list against the published one


def test_our_list_is_as_published_where_the_published_one_is_right() -> None:
    found = proposals.compare(at=NOW)
    assert [str(each) for each in found.proposed] == []
    assert found.same > 45
    assert set(found.unknown) == {
        "cerebras llama3.1-70b",
        "deepseek deepseek-coder",
        "gemini gemini-flash",
        "huggingface meta-llama/Llama-3.3-70B-Instruct",
        "together llama-3.1-70b",
        *(" ".join(model) for model in published.STALE),
    }


@pytest.mark.parametrize("model", published.STALE)
def test_what_is_known_to_be_stale_still_is(monkeypatch: pytest.MonkeyPatch, model: tuple[str, str]) -> None:
    """Once genai-prices has mended it, its line can go."""
    monkeypatch.setattr(published, "STALE", {})
    ours = pricing.price_at(*model, NOW)
    assert ours is not None
    assert published.differences(ours, published.prices_of(*model, NOW)[0])


def test_announced_prices_are_as_published_on_their_day() -> None:
    for day in (datetime(2026, 12, 2, tzinfo=UTC), datetime(2027, 1, 2, tzinfo=UTC)):
        assert proposals.compare(at=day).proposed == []


def test_noise_of_binary_figures_is_rounded_away() -> None:
    for listing in price_list.OPENING:
        for lane in published.prices_of(listing.provider, listing.model, NOW):
            assert all(usd == round(usd, 6) for usd in lane.figures.values())


# Proposals


def test_a_difference_becomes_a_proposal_and_changes_no_price() -> None:
    ours = ours_is_dearer()
    said = sync()
    assert "openai gpt-6-luna: output 0.6 -> 0.5" in said
    proposal = proposed()
    assert (proposal.current, proposal.output_usd_per_million) == (ours, Decimal("0.5"))
    assert proposal.input_usd_per_million == ours.input_usd_per_million
    ours.refresh_from_db()
    assert ours.output_usd_per_million == Decimal("0.60")


def test_comparing_again_keeps_one_proposal() -> None:
    ours_is_dearer()
    sync()
    sync()
    assert PriceProposal.objects.filter(**MINE).count() == 1


def test_a_missing_price_for_long_prompts_is_proposed() -> None:
    ModelPrice.objects.filter(**MINE, above_input_tokens=272_000).delete()
    sync()
    proposal = proposed()
    assert (proposal.above_input_tokens, proposal.current) == (272_000, None)
    assert proposal.input_usd_per_million == Decimal("0.2")


def test_an_accepted_proposal_is_a_new_price_and_the_old_one_stays() -> None:
    dewi, ours = people.dewi(), ours_is_dearer()
    before = ModelPrice.objects.filter(pk=ours.pk).values().get()
    sync()
    price = proposals.accept(proposal_id=proposed().pk, by=dewi)
    assert ModelPrice.objects.filter(pk=ours.pk).values().get() == before
    assert pricing.price_at("openai", "gpt-6-luna", price.valid_from) == price
    assert pricing.price_at("openai", "gpt-6-luna", price.valid_from - timedelta(seconds=1)) == ours
    decided = PriceProposal.objects.get(**MINE)
    assert (decided.state, decided.decided_by, decided.price) == ("accepted", dewi, price)
    assert decided.decided_at == price.valid_from
    assert "0 proposed" in sync()


def test_what_was_refused_is_not_proposed_again_until_it_changes() -> None:
    ours_is_dearer()
    sync()
    proposals.refuse(proposal_id=proposed().pk, by=people.dewi())
    assert "0 proposed, 1 refused before" in sync()
    PriceProposal.objects.filter(**MINE).update(output_usd_per_million=Decimal("0.4"))
    assert "1 proposed" in sync()


def test_a_proposal_is_decided_once() -> None:
    dewi = people.dewi()
    ours_is_dearer()
    sync()
    proposal = proposed()
    proposals.accept(proposal_id=proposal.pk, by=dewi)
    for decide in (proposals.accept, proposals.refuse):
        with pytest.raises(proposals.Decided):
            decide(proposal_id=proposal.pk, by=dewi)
    assert ModelPrice.objects.filter(**MINE, above_input_tokens=0).count() == 2


def test_the_table_refuses_two_open_proposals_of_a_price() -> None:
    ours_is_dearer()
    sync()
    again = proposed()
    again.pk = None
    with pytest.raises(IntegrityError), transaction.atomic():
        again.save(force_insert=True)


def test_without_the_package_the_command_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(published, "genai_prices", None)
    with pytest.raises(CommandError, match="pip install genai-prices"):
        sync()


# In the administration


def office(person: User) -> Client:
    client = Client(headers={"Accept-Language": "en"})
    client.force_login(person)
    return client


def decision(client: Client, proposal: PriceProposal, said: str) -> Any:
    address = reverse("admin:usage_priceproposal_decision", args=[proposal.pk])
    return client.post(address, {"decision": said})


@pytest.mark.parametrize(("said", "state"), [("accept", "accepted"), ("refuse", "refused")])
def test_staff_decide_with_a_button_and_it_is_written_down(said: str, state: str) -> None:
    ours_is_dearer()
    sync()
    dewi, proposal = people.dewi(), proposed()
    client = office(dewi)
    page = client.get(reverse("admin:usage_priceproposal_change", args=[proposal.pk])).content.decode()
    assert "0.6 → 0.5" in page
    assert page.count(reverse("admin:usage_priceproposal_decision", args=[proposal.pk])) == 2
    assert decision(client, proposal, said).status_code == 302
    proposal.refresh_from_db()
    assert (proposal.state, proposal.decided_by) == (state, dewi)
    assert LogEntry.objects.filter(user=dewi, object_id=str(proposal.pk)).exists()
    decision(client, proposal, "accept")
    proposal.refresh_from_db()
    assert proposal.state == state, "the first decision holds"


def test_who_may_only_look_decides_nothing() -> None:
    ours_is_dearer()
    sync()
    proposal = proposed()
    guest = people.someone("Eko", is_staff=True)
    assert decision(office(guest), proposal, "accept").status_code == 403
    assert decision(office(people.alice()), proposal, "accept").status_code == 302
    address = reverse("admin:usage_priceproposal_decision", args=[proposal.pk])
    assert office(people.dewi()).get(address, {"decision": "accept"}).status_code == 302
    proposal.refresh_from_db()
    assert proposal.state == "open"


# Prices that come later


def unpriced(**differences: Any) -> TokenUsage:
    said: dict[str, Any] = {"provider": "acme", "model": "swift", "requested_model": "swift"}
    return call_of(None, **(said | differences))


def test_calls_without_a_price_are_priced_once_there_is_one() -> None:
    call = unpriced()
    assert (call.price, call.total_cost_usd) == (None, None)
    price = price_of("acme", "swift", "1 - - 2")
    assert meter.reprice()[0] == 1
    call.refresh_from_db()
    assert call.price == price
    assert call.total_cost_usd == Decimal("0.0014")
    assert call.unit_prices == {"input": "1", "output": "2"}


def test_they_are_priced_as_of_when_they_began_and_by_their_size() -> None:
    at = datetime(2026, 11, 20, 12, tzinfo=UTC)
    call = unpriced(at=at, latency_ms=60_000, counts=Counts(fresh_input=2000, visible_output=1))
    price_of("acme", "swift", "1 - - 2", valid_to=at)
    long = price_of("acme", "swift", "3 - - 4", valid_to=at, above_input_tokens=1000)
    price_of("acme", "swift", "5 - - 6", at)
    meter.reprice()
    call.refresh_from_db()
    assert call.price == long


def test_what_has_a_price_keeps_it() -> None:
    price_of("acme", "swift", "1 - - 2")
    call = unpriced()
    before = TokenUsage.objects.filter(pk=call.pk).values().get()
    price_of("acme", "swift", "3 - - 4", datetime(2026, 1, 1, tzinfo=UTC))
    meter.reprice()
    assert TokenUsage.objects.filter(pk=call.pk).values().get() == before


def test_more_than_a_batch_is_priced_to_the_last() -> None:
    rows = [unpriced(operation_id=ids.new("msg")) for _each in range(7)]
    price_of("acme", "swift", "1 - - 2")
    assert meter.reprice(batch=3)[0] == 7
    assert not TokenUsage.objects.filter(pk__in=[row.pk for row in rows], price=None).exists()

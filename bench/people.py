"""Fills the bench's database: a model of the fake provider, people with tokens and keys, and a session for each request.

    python -m bench.people slow-100x50ms --users 400 --sessions 2000

Prints one JSON line a session: its id, its owner's key. Owners take turns, so that neighbours in the list are
different people. Run with the product's own environment.
"""

import argparse
import json

import django
from django.db import transaction
from django.utils import timezone

django.setup()

from aleph import ids  # noqa: E402
from aleph.accounts.models import ApiKey, User, open_user  # noqa: E402
from billing import ledger  # noqa: E402
from billing.models import Transfer  # noqa: E402
from chat.models import ChatModel, Route, Session  # noqa: E402
from usage.models import ModelPrice  # noqa: E402

TOKENS = 1_000_000_000


@transaction.atomic
def bench_model(upstream_model: str) -> ChatModel:
    """A paid model that the fake provider answers for."""
    model, is_new = ChatModel.objects.get_or_create(
        slug=f"bench-{upstream_model}",
        defaults={
            "name": upstream_model,
            "maker": "Bench",
            "input_rate": 150,
            "output_rate": 150,
            "context_tokens": 128_000,
        },
    )
    if is_new:
        Route.objects.create(model=model, provider="openai", upstream_model=upstream_model)
        ModelPrice.objects.create(
            provider="openai",
            model=upstream_model,
            input_usd_per_million=1,
            output_usd_per_million=4,
            source="bench",
            valid_from=timezone.now(),
        )
    return model


@transaction.atomic
def person(number: int) -> User:
    user = User(email=f"{ids.new('bench')}@aleph.test".lower(), name=f"Bench {number}", password="!")
    open_user(user)
    ledger.receive(
        user=user,
        account=ledger.TOKENS,
        amount=TOKENS,
        source="issued",
        kind=Transfer.Kind.PURCHASE,
        reference="bench",
        key=ids.new("gift"),
        value_idr_per_1k=4762,
    )
    return user


def sessions(model: ChatModel, owners: list[User], number: int) -> list[Session]:
    fresh = [
        Session(
            id=ids.new("cht"),
            user=owners[place % len(owners)],
            title="Bench",
            model=model,
            last_message_at=timezone.now(),
        )
        for place in range(number)
    ]
    return Session.objects.bulk_create(fresh, batch_size=500)


def main() -> None:
    arguments = argparse.ArgumentParser(description="People and sessions for the bench.")
    arguments.add_argument("upstream_model")
    arguments.add_argument("--users", type=int, default=100)
    arguments.add_argument("--sessions", type=int, default=100)
    given = arguments.parse_args()
    model = bench_model(given.upstream_model)
    owners = [person(number) for number in range(given.users)]
    keys = [ApiKey.issue(user=owner, name="bench") for owner in owners]
    for place, session in enumerate(sessions(model, owners, given.sessions)):
        print(json.dumps({"session": session.pk, "key": keys[place % len(keys)]}))


if __name__ == "__main__":
    main()

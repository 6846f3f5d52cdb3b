"""A storm of notices against the real web process: repeated, shuffled, forged, lost, and all at once.

Each payment is credited once, forged notices are refused, what was lost is found by asking, and the books are right.
"""

import json
import random
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import pytest
import requests
from django.core.management import call_command

from aleph.accounts.models import User
from billing import audit, topups
from billing.models import GatewayEvent, TopUp, Transfer
from tests import people
from tests.product import Product
from tests.simulator_gateways import Gateways
from tests.stories_of_topups import begun, wallet

DELIVERIES = 500
DUPLICATES = DELIVERIES * 30 // 100
FORGED = DELIVERIES * 5 // 100
PAYMENTS = DELIVERIES - DUPLICATES - FORGED
LOST = DELIVERIES * 2 // 100
AT_ONCE = 16
PATIENCE_S = 120
GATEWAYS = ("midtrans", "xendit", "stripe")


class Delivery(NamedTuple):
    is_forged: bool
    path: str
    headers: dict[str, str]
    body: bytes


@pytest.fixture
def shop(product: Product, settings: Any) -> Iterator[Gateways]:
    """The gateways of the product's processes, for this process, too."""
    settings.GATEWAY_ENV = {**settings.GATEWAY_ENV, **product.gateways.environment}
    topups.connected.cache_clear()
    yield product.gateways
    topups.connected.cache_clear()


def opened(users: list[User], number: int) -> list[TopUp]:
    return [
        begun(users[count % len(users)], GATEWAYS[count % 3], 10_000 + count * 1_000)
        for count in range(number)
    ]


def forged(delivery: Delivery) -> Delivery:
    """The same notice from somebody who has no key."""
    if "midtrans" in delivery.path:
        said = json.loads(delivery.body) | {"signature_key": "0" * 128}
        return Delivery(True, delivery.path, {}, json.dumps(said).encode())
    return Delivery(
        True, delivery.path, {name: value[::-1] for name, value in delivery.headers.items()}, delivery.body
    )


def send(product: Product, delivery: Delivery) -> int:
    return requests.post(
        product.url + delivery.path, data=delivery.body, headers=delivery.headers, timeout=60
    ).status_code


@pytest.mark.slow
def test_a_storm_of_notices_credits_each_payment_once(product: Product, shop: Gateways) -> None:
    users = [people.carol() for _each in range(8)]
    payments, lost = opened(users, PAYMENTS), opened(users, LOST)
    unpaid = opened(users, FORGED)
    # The clock of the product must not find what is lost before this test has looked.
    TopUp.objects.filter(user__in=users).update(ask_at=None)
    for topup in (*payments, *lost):
        shop.pay(topup.pk)
    true = [Delivery(False, *shop.notice(topup.pk)) for topup in payments]
    rng = random.Random(7)
    storm = [*true, *rng.choices(true, k=DUPLICATES)]
    for topup in unpaid:
        shop.orders[topup.pk].status = "pending" if topup.gateway == "midtrans" else "COMPLETED"
        storm.append(forged(Delivery(False, *shop.notice(topup.pk))))
    rng.shuffle(storm)
    assert len(storm) == DELIVERIES

    with ThreadPoolExecutor(AT_ONCE) as senders:
        answers = Counter(
            zip(
                (one.is_forged for one in storm),
                senders.map(lambda one: send(product, one), storm),
                strict=True,
            )
        )
    assert answers == {(False, 200): PAYMENTS + DUPLICATES, (True, 401): FORGED}

    wait_until_handled(users)
    assert states(payments) == {"paid": PAYMENTS}
    assert states(lost) == {"pending": LOST}, "nobody has told us, and nobody has asked"
    assert states(unpaid) == {"pending": FORGED}
    credited = {topup.pk: topup.amount_idr for topup in payments}
    assert credited_by(users) == credited
    assert GatewayEvent.objects.filter(topup__user__in=users).count() == PAYMENTS

    for topup in unpaid:
        shop.orders[topup.pk].status = {"midtrans": "pending", "xendit": "ACTIVE", "stripe": "open"}[
            topup.gateway
        ]
    call_command("reconcile_topups", "--open", "--seconds", "60")
    assert states(lost) == {"paid": LOST}
    assert states(unpaid) == {"pending": FORGED}
    credited |= {topup.pk: topup.amount_idr for topup in lost}
    assert credited_by(users) == credited
    assert sum(wallet(user) for user in users) == sum(credited.values())
    assert audit.check() == []
    TopUp.objects.filter(user__in=users).update(ask_at=None)


def wait_until_handled(users: list[User]) -> None:
    waiting = GatewayEvent.objects.filter(topup__user__in=users, handled_at=None)
    until = time.monotonic() + PATIENCE_S
    while waiting.exists():
        assert time.monotonic() < until, f"{waiting.count()} notices were not handled"
        time.sleep(0.2)


def states(rows: list[TopUp]) -> dict[str, int]:
    return Counter(TopUp.objects.filter(pk__in=[topup.pk for topup in rows]).values_list("state", flat=True))


def credited_by(users: list[User]) -> dict[str, int]:
    """What came into these wallets, by top-up; a second credit would be a second row and break the equality."""
    rows = list(
        Transfer.objects.filter(credit__user__in=users, kind="topup").values_list("reference", "amount")
    )
    assert len(rows) == len(dict(rows))
    return dict(rows)

"""Programs read the history as the books have it: filtered, paged, exact."""

from typing import Any

import pytest
from django.test import Client

from aleph.accounts.models import ApiKey, User
from billing import ledger, purchases
from tests import people
from tests.test_billing_pages import use

TRANSACTIONS = "/api/v1/billing/transactions"


@pytest.fixture
def person(db: None) -> User:
    """Alice has bought Starter and had three replies."""
    alice = people.alice()
    purchases.buy(user=alice, package_slug="starter", key="a")
    for cost in (1, 2, 3):
        use(alice, cost)
    return alice


@pytest.fixture
def alice(person: User) -> Client:
    return Client(headers={"Authorization": f"Bearer {ApiKey.issue(user=person)}"})


def test_the_books_are_told_page_by_page(alice: Client, person: User) -> None:
    seen: list[dict[str, Any]] = []
    cursor: str | None = ""
    while cursor is not None:
        data = alice.get(TRANSACTIONS, {"limit": "2", "cursor": cursor}).json()["data"]
        seen += data["transactions"]
        cursor = data["nextCursor"]
    assert len({row["id"] for row in seen}) == len(seen)
    for unit, balance in (
        ("TOKEN", ledger.balance_of(person).tokens),
        ("IDR", ledger.balance_of(person).wallet_idr),
    ):
        assert sum(row["amount"] for row in seen if row["unit"] == unit) == balance


def test_they_are_filtered(alice: Client) -> None:
    data = alice.get(TRANSACTIONS, {"kind": "reply", "unit": "TOKEN", "direction": "out"}).json()["data"]
    assert [row["amount"] for row in data["transactions"]] == [-3, -2, -1]


@pytest.mark.parametrize(
    "query",
    [
        {"unit": "gold"},
        {"kind": "x"},
        {"direction": ""},
        {"from": "yesterday"},
        {"to": "2026-13-01"},
        {"cursor": "trf_1"},
        {"limit": "0"},
    ],
)
def test_what_makes_no_sense_is_refused(alice: Client, query: dict[str, str]) -> None:
    answer = alice.get(TRANSACTIONS, query)
    assert (answer.status_code, answer.json()["code"]) == (400, "INVALID_REQUEST")


def test_nobody_reads_anothers(db: None) -> None:
    assert Client().get(TRANSACTIONS).status_code == 401

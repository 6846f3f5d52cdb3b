"""The history says what changed a balance, when and why: filtered by its address, page by page, as CSV and as JSON."""

import csv
import io
import re
from datetime import UTC, datetime, timedelta
from html import unescape
from typing import Any

import pytest
from django.test import Client
from django.urls import reverse
from django.utils import timezone
from pytest_django import DjangoAssertNumQueries

from aleph import ids, sheets
from aleph.accounts.models import User
from billing import corrections, ledger, purchases
from billing.models import Account, Transfer
from tests import people
from tests.test_billing_pages import signed_in, use, words

HISTORY = "/billing/history"


def amounts(page: Any) -> list[str]:
    """What the lines of a page say, in their order."""
    cells = re.findall(r'<td class="num fold-end[^"]*">(.*?)</td>', page.content.decode())
    return [unescape(re.sub(r"<[^>]+>", "", cell)) for cell in cells]


def written(person: User, moment: datetime, amount: int) -> None:
    """A gift that the books have from another time."""
    account = Account.objects.get(user=person, name=Account.TOKENS)
    Transfer.objects.create(
        id=f"{ids.first('trf', moment)}{ids.new('x')[-16:]}",
        phase="single",
        kind="adjustment",
        unit="TOKEN",
        debit_id=ledger.house("corrections_token"),
        credit=account,
        amount=amount,
        reference="gift",
        key=ids.new("gift"),
        input_hash="",
        balance_after=amount,
        created_at=moment,
    )


# What is listed


def test_one_list_has_tokens_and_the_wallet(db: None) -> None:
    alice = people.alice()
    purchases.buy(user=alice, package_slug="starter", key="a")
    use(alice, 225)
    said = words(signed_in(alice).get(HISTORY))
    assert "Reply Its chat was deleted −225 tokens 20,775" in said
    assert "Starter package 10,000 and 500 bonus, paid with Rp 50.000 +10,500 tokens 21,000" in said
    assert "Starter package 10,500 tokens −Rp 50.000 Rp 225.000" in said
    assert "Top-up +Rp 275.000 Rp 275.000" in said


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ({"unit": "idr"}, ["−Rp 50.000", "+Rp 275.000"]),
        ({"unit": "token"}, ["−225", "+10,500", "+10,500"]),
        ({"kind": "reply"}, ["−225 tokens"]),
        ({"kind": "bonus"}, ["+500 tokens"]),
        ({"direction": "out"}, ["−225 tokens", "−Rp 50.000"]),
        ({"direction": "in", "unit": "idr"}, ["+Rp 275.000"]),
        ({"kind": "refund"}, []),
        ({"to": "2020-01-01"}, []),
        ({"unit": "gold", "kind": "<", "direction": "up", "from": "0000-99-99", "to": "x"}, None),
    ],
)
def test_the_address_says_what_is_listed(db: None, query: dict[str, str], expected: list[str] | None) -> None:
    alice = people.alice()
    purchases.buy(user=alice, package_slug="starter", key="a")
    use(alice, 225)
    shown = amounts(signed_in(alice).get(HISTORY, query))
    assert shown == expected if expected is not None else len(shown) == 5


def test_a_refund_is_one_line_in_each_unit(db: None) -> None:
    """The books take out all bonus and put back that of other purchases; nobody has to read that."""
    alice = people.someone("Alice")
    people.give_rupiah(alice, 250_000)
    purchases.buy(user=alice, package_slug="pro", key="a")
    starter = purchases.buy(user=alice, package_slug="starter", key="b")
    corrections.refund(author=people.dewi(), purchase=starter, reason="By mistake", key=ids.new("key"))
    client = signed_in(alice)
    said = words(client.get(HISTORY))
    assert "Refund By mistake −10,500 tokens 55,000" in said
    assert "Refund By mistake +Rp 50.000 Rp 50.000" in said
    assert len(amounts(client.get(HISTORY))) == 7
    assert amounts(client.get(HISTORY, {"kind": "refund", "unit": "token"})) == ["−10,500"]
    assert amounts(client.get(HISTORY, {"kind": "bonus"})) == ["+500 tokens", "+5,000 tokens"]


def test_a_day_is_a_day_of_the_readers_zone(db: None) -> None:
    carol = people.carol()
    carol.time_zone = "Asia/Jakarta"
    carol.save()
    # Midnight of 1 March in Jakarta is 17:00 of 28 February in UTC.
    for second, amount in ((59, 1), (0, 2)):
        hour = 16 if second else 17
        written(carol, datetime(2026, 2, 28, hour, second, second, tzinfo=UTC), amount)
    client = signed_in(carol)
    assert amounts(client.get(HISTORY, {"from": "2026-03-01", "to": "2026-03-01"})) == ["+2 tokens"]
    assert amounts(client.get(HISTORY, {"from": "2026-02-28", "to": "2026-02-28"})) == ["+1 tokens"]


def test_what_is_held_stands_apart_and_what_came_back_nowhere(db: None) -> None:
    alice = people.alice()
    ledger.hold(user=alice, amount=352, reference="msg_1", key=ids.new("hold"))
    failed = ledger.hold(user=alice, amount=7_777, reference="msg_2", key=ids.new("hold"))
    ledger.void(hold_id=failed.id, key=ids.new("close"), reason="failed")
    client = signed_in(alice)
    said = words(client.get(HISTORY))
    assert "Held at the moment" in said
    assert "A reply in progress 352 tokens" in said
    assert "7,777" not in said
    assert "Held at the moment" not in words(client.get(HISTORY, {"kind": "purchase"}))


def test_empty_and_filtered_to_nothing_are_two_things(db: None) -> None:
    client = signed_in(people.carol())
    assert "Nothing has come in or gone out yet." in words(client.get(HISTORY))
    filtered = words(client.get(HISTORY, {"kind": "refund"}))
    assert "Nothing fits this filter. Show everything" in filtered


def test_the_pages_show_every_entry_once_and_keep_the_filter(db: None) -> None:
    alice = people.alice()
    costs = list(range(1, 61))
    for cost in costs:
        use(alice, cost)
    client, shown, address = signed_in(alice), [], f"{HISTORY}?kind=reply"
    while address:
        page = client.get(address)
        shown += [int(amount.removeprefix("−").split()[0]) for amount in amounts(page)]
        older = re.search(r'href="([^"]*before=[^"]*)"', page.content.decode())
        address = unescape(older[1]) if older else ""
    assert shown == costs[::-1]


def test_a_long_history_asks_no_more_of_the_database(
    db: None, django_assert_max_num_queries: DjangoAssertNumQueries
) -> None:
    alice = people.alice()
    people.give_rupiah(alice, 2_000_000)
    for which in range(20):
        purchases.buy(user=alice, package_slug="starter", key=str(which))
        use(alice, 1)
    client = signed_in(alice)
    with django_assert_max_num_queries(16):
        client.get(HISTORY)


@pytest.mark.parametrize("cursor", ["'; --", "\0", "trf_\0", "x" * 5_000])
def test_a_cursor_that_means_nothing_is_harmless(db: None, cursor: str) -> None:
    client = signed_in(people.alice())
    assert client.get(HISTORY, {"before": cursor, "unit": "gold"}).status_code == 200


def test_nobody_sees_the_history_of_others(db: None) -> None:
    alice = people.alice()
    purchases.buy(user=alice, package_slug="starter", key="a")
    assert "Starter package" not in words(signed_in(people.carol()).get(HISTORY))
    assert Client().get(HISTORY).status_code == 302


# CSV


def test_the_csv_is_the_same_list_in_whole_numbers(committed: None) -> None:
    alice = people.alice()
    purchases.buy(user=alice, package_slug="starter", key="a")
    for cost in range(1, 520):
        use(alice, cost % 7 + 1)
    answer = signed_in(alice).get(f"{HISTORY}.csv", {"unit": "token"})
    assert answer["Content-Type"] == "text/csv; charset=utf-8"
    text = b"".join(answer).decode()
    assert text.startswith("\ufeff")
    head, *rows = csv.reader(io.StringIO(text.removeprefix("\ufeff")))
    assert len(head) == 8
    assert len(rows) == 519 + 3
    assert sum(int(row[4]) for row in rows) == ledger.balance_of(alice).tokens
    assert int(rows[0][5]) == ledger.balance_of(alice).tokens
    assert len({row[1] for row in rows}) == len(rows)


@pytest.mark.parametrize(
    "text", ["=1+1", "+1", "-1", "@x", "\t=1", "\r=1", "\n=1", "  =1", "\x00=1", '=HYPERLINK("http://x")']
)
def test_a_text_is_no_formula_in_a_spreadsheet(text: str) -> None:
    (cells,) = csv.reader(io.StringIO(sheets.rows_as_csv([[text, -500, "plain"]])))
    assert cells[0].startswith("'")
    assert cells[1:] == ["-500", "plain"]


def test_what_a_cell_holds_stays_in_it() -> None:
    said = ['a "quoted", text', "two\r\nlines", "", "Rp 50.000"]
    (cells,) = csv.reader(io.StringIO(sheets.rows_as_csv([said]), newline=""))
    assert cells == said


def test_a_moment_in_a_cell_says_its_zone() -> None:
    moment = datetime(2026, 3, 1, 0, 30, tzinfo=timezone.get_fixed_timezone(timedelta(hours=7)))
    assert sheets.rows_as_csv([[moment]]) == "2026-03-01T00:30:00+07:00\r\n"


# The ways on


def test_a_line_leads_to_its_receipt(db: None) -> None:
    alice = people.alice()
    purchase = purchases.buy(user=alice, package_slug="starter", key="a")
    assert reverse("billing:receipt", args=[purchase.pk]) in signed_in(alice).get(HISTORY).content.decode()

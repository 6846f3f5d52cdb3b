"""The statement of a month is one list of figures: as a page, as CSV and as PDF."""

import csv
import io
import re
import zlib
from html import unescape
from typing import Any

import pytest
from django.utils import timezone
from pytest_django import DjangoAssertNumQueries

from aleph import ids
from aleph.accounts.models import User
from billing import ledger, purchases
from tests import people
from tests.stories_of_usage import call_of
from tests.test_billing_pages import signed_in, words

STATEMENTS = "/billing/statements"


def used(person: User, amount: int, model: str = "") -> None:
    held = ledger.hold(user=person, amount=amount, reference=ids.new("msg"), key=ids.new("hold"))
    posted = ledger.post(hold_id=held.id, amount=amount, key=ids.new("post"))
    if model:
        call_of(person, label=model, transfer_id=posted.id)


@pytest.fixture
def alice(db: None) -> User:
    """Has Rp 500.000, bought Pro, and used 40,000 tokens with two models and 100 that nobody recorded."""
    person = people.someone("Alice")
    people.give_rupiah(person, 500_000)
    purchases.buy(user=person, package_slug="pro", key="a")
    used(person, 30_000, "GPT-4o")
    used(person, 5_000, "Claude 3 Haiku")
    used(person, 4_900, "GPT-4o")
    used(person, 100)
    return person


def number() -> str:
    return f"{timezone.localdate():%Y-%m}"


def rows_of_page(page: Any) -> list[list[str]]:
    rows = re.findall(r"<tr[^>]*>(.*?)</tr>", page.content.decode(), re.DOTALL)
    cells = [re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row, re.DOTALL) for row in rows if 'scope="row"' in row]
    return [[unescape(cell).strip() for cell in row] for row in cells]


def text_of_pdf(body: bytes) -> str:
    """What a PDF of ours says, in its order."""
    streams = re.findall(rb"stream\r?\n(.*?)\r?\nendstream", body, re.DOTALL)
    pages = []
    for stream in streams:
        try:
            pages.append(zlib.decompress(stream).decode("latin-1"))
        except zlib.error:
            continue
    said = re.findall(r"\(((?:\\.|[^\\)])*)\) Tj", "".join(pages))
    return " ".join(re.sub(r"\\(.)", r"\1", text) for text in said)


def whole(text: str) -> int:
    """The number that a text shows."""
    figure = re.sub(r"[^\d]", "", text)
    return -int(figure) if "−" in text or "-" in text else int(figure or 0)


def test_the_page_says_what_came_what_went_and_what_is_left(alice: User) -> None:
    said = words(signed_in(alice).get(STATEMENTS))
    bonus = ledger.balance_of(alice)
    assert "Opening balance 0 Rp 0" in said
    assert "Bought 1 +50,000 +Rp 200.000" in said
    assert "Used by GPT-4o 2 −34,900" in said
    assert "Used by Claude 3 Haiku 1 −5,000 −Rp 20.000" in said
    assert "Used, model not recorded 1 −100 −Rp 400" in said
    assert f"Closing balance {bonus.tokens:,}" in said
    assert "Top-ups 1 +Rp 500.000" in said
    assert "Paid for packages 1 −Rp 200.000" in said
    assert "Closing balance Rp 300.000" in said


def test_all_three_forms_carry_the_same_figures(alice: User) -> None:
    client = signed_in(alice)
    page = rows_of_page(client.get(STATEMENTS))
    answer = client.get(f"{STATEMENTS}/{number()}/csv")
    assert answer["Content-Type"] == "text/csv; charset=utf-8"
    _head, *table = csv.reader(io.StringIO(answer.content.decode("utf-8-sig")))
    of_page = [[row[0], *(whole(cell) for cell in row[2:])] for row in page]
    of_csv = [[row[1], *(int(cell) for cell in row[3:] if cell)] for row in table]
    assert of_page == of_csv
    pdf = client.get(f"{STATEMENTS}/{number()}/pdf")
    assert pdf["Content-Type"] == "application/pdf"
    said = text_of_pdf(pdf.content)
    for row in page:
        line = " ".join(cell for cell in row if cell).replace("−", "-")
        assert line in said, line


def test_the_lines_add_up(alice: User) -> None:
    for rows in (rows_of_page(signed_in(alice).get(STATEMENTS)),):
        tokens, wallet = [row for row in rows if len(row) == 4], [row for row in rows if len(row) == 3]
        for table, column in ((tokens, 2), (tokens, 3), (wallet, 2)):
            *moves, closing = [whole(row[column]) for row in table]
            assert sum(moves) == closing


def test_an_empty_month_is_a_statement_too(db: None) -> None:
    said = words(signed_in(people.carol()).get(STATEMENTS))
    assert "Opening balance 0 Rp 0 Closing balance 0 Rp 0" in said


@pytest.mark.parametrize(
    "month", ["1999-01", "2999-01", "2026-13", "2026-1", "x", "2026-08-01", "%00", "0000-00", "٢٠٢٦-٠٨"]
)
def test_other_months_do_not_exist(db: None, month: str) -> None:
    client = signed_in(people.carol())
    for form in ("", "/csv", "/pdf"):
        assert client.get(f"{STATEMENTS}/{month}{form}").status_code == 404


def test_nobody_sees_anothers_statement(alice: User) -> None:
    said = words(signed_in(people.carol()).get(f"{STATEMENTS}/{number()}"))
    assert "GPT-4o" not in said


def test_a_long_month_asks_no_more_of_the_database(
    alice: User, django_assert_max_num_queries: DjangoAssertNumQueries
) -> None:
    for _reply in range(40):
        used(alice, 10, "GPT-4o")
    client = signed_in(alice)
    with django_assert_max_num_queries(30):
        client.get(STATEMENTS)

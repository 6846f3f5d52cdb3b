"""What the usage pages say of real replies: while they are written, what their history cost, and all of it as a file."""

import csv
import io
from datetime import datetime, timedelta
from decimal import Decimal

import pytest
from django.utils import timezone

from aleph.accounts.models import User
from tests import people
from tests.stories_of_chat import answered, ask, told
from tests.stories_of_usage import call_of
from tests.test_usage_page import browser_of, days_ago
from usage import calls_sheet, currency, explained
from usage.models import TokenUsage


def rows_of(person: User, query: str) -> list[dict[str, str]]:
    response = browser_of(person).get(f"/usage/csv?{query}")
    assert response["Content-Disposition"].startswith('attachment; filename="aleph-usage-')
    return [*csv.DictReader(io.StringIO(b"".join(response).decode("utf-8-sig")))]


def test_the_file_holds_every_call_that_is_shown_in_the_time_of_its_reader(
    committed: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calls_sheet, "PAGE", 2)
    alice, carol = people.alice(), people.carol()
    alice.time_zone = "America/New_York"
    alice.save()
    made = [call_of(alice, at=days_ago(nth), requested_model="=cmd()") for nth in range(3)]
    call_of(alice, at=days_ago(1), requested_model="other", status="failed")
    call_of(alice, at=days_ago(40))
    call_of(carol)
    rows = rows_of(alice, "model=%3Dcmd()")
    assert [row["id"] for row in rows] == [call.pk for call in made]
    rate = currency.rate_on(timezone.localdate())
    assert rows[0]["model"] == "'=cmd()"
    assert (rows[0]["totalTokens"], Decimal(rows[0]["costUsd"])) == ("1200", Decimal("0.0045"))
    assert rows[0]["costIdr"] == str(currency.in_idr(Decimal("0.0045"), rate))
    offset = datetime.fromisoformat(rows[0]["createdAt"]).utcoffset()
    assert offset in (timedelta(hours=-5), timedelta(hours=-4))
    assert [row["model"] for row in rows_of(alice, "status=failed&sort=cost")] == ["other"]
    assert len(rows_of(alice, "days=90")) == 5


def test_of_a_long_chat_the_history_is_what_cost(simulator: object, committed: None) -> None:
    alice = people.alice()
    page = browser_of(alice)
    first = told(alice, "word " * 3000)
    reply = answered(ask(alice, "And then?", session=first.session))
    row = TokenUsage.objects.get(operation_id=reply.pk)
    found = explained.of(alice, row.pk)
    assert found.prompt is not None
    assert found.prompt.session_id == reply.session_id
    assert found.prompt.earlier_percent > 90
    assert found.prompt.messages == 3
    shown = page.get(f"/usage/calls/{row.pk}").content.decode()
    assert f"about {found.prompt.earlier_percent}%, of 3 messages sent" in shown

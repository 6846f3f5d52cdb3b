"""Statements that are put together once say what the ORM says."""

from datetime import timedelta
from typing import Any

import pytest
from django.db import connection, transaction
from django.db.models import F, Value
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from aleph.prepared import Given, Rows, Update, insert
from chat import sessions
from chat.models import ChatModel, Session
from tests import people
from usage.models import TokenUsage

pytestmark = pytest.mark.django_db

SINCE = Rows(
    lambda: (
        Session.objects.filter(user=Given("user"), created_at__gte=Given("since"))
        .select_related("model")
        .annotate(two=Value(2))
        .order_by("id")
    )
)
RENAMED = Update(
    lambda: Session.objects.filter(pk=Given("id"), message_count__lt=Given("most")),
    title=Given("title"),
    model=Given("model"),
    message_count=F("message_count") + 1,
)


def test_rows_are_those_of_the_queryset_with_all_that_it_selects() -> None:
    alice, bob = people.alice(), people.bob()
    model = ChatModel.objects.all()[0]
    mine = [sessions.create(user=alice, title="one", model=model), sessions.create(user=alice, title="two")]
    sessions.create(user=bob)
    hour = timedelta(hours=1)

    found = SINCE.all(user=alice.pk, since=timezone.now() - hour)

    assert found == mine
    with CaptureQueriesContext(connection) as asked:
        assert [session.model for session in found] == [model, None]
        assert [(session.title, session.two) for session in found] == [("one", 2), ("two", 2)]  # type: ignore[attr-defined]
        assert found[0].created_at == mine[0].created_at
    assert not asked.captured_queries
    assert SINCE.first(user=alice.pk, since=timezone.now() + hour) is None


def test_columns_that_were_left_out_are_read_when_they_are_wanted() -> None:
    alice = people.alice()
    session = sessions.create(user=alice, title="one")
    brief = Rows(lambda: Session.objects.filter(pk=Given("id")).only("id"))

    found = brief.first(id=session.pk)

    assert found is not None
    assert found.get_deferred_fields() >= {"title", "user_id"}
    assert found.title == "one"


def test_an_update_changes_what_it_matches_and_says_how_much() -> None:
    alice = people.alice()
    session = sessions.create(user=alice, title="one", model=ChatModel.objects.all()[0])

    assert RENAMED(id=session.pk, most=1, title="two", model=None) == 1
    assert RENAMED(id=session.pk, most=1, title="three", model=None) == 0

    session.refresh_from_db()
    assert (session.title, session.model, session.message_count) == ("two", None, 1)


def test_an_update_gives_back_the_rows_as_they_stand_afterwards() -> None:
    alice = people.alice()
    session = sessions.create(user=alice, title="one")

    [changed] = RENAMED.returning(id=session.pk, most=1, title="two", model=None)

    assert not RENAMED.returning(id=session.pk, most=1, title="three", model=None)
    assert (changed.title, changed.message_count, changed.created_at) == ("two", 1, session.created_at)


def test_what_is_stored_sealed_goes_through_its_field(settings: Any) -> None:
    settings.ENCRYPT_MESSAGES = True
    alice = people.alice()
    session = sessions.create(user=alice)

    [changed] = RENAMED.returning(id=session.pk, most=1, title="a word", model=None)

    assert changed.title == "a word"
    with connection.cursor() as cursor:
        cursor.execute("SELECT title FROM chat_session WHERE id = %s", [session.pk])
        assert "a word" not in cursor.fetchone()[0]


def test_rows_are_inserted_together_and_once() -> None:
    alice = people.alice()
    two = [Session(id=f"cht_{number}", user=alice, title=f"{number}") for number in range(2)]

    assert insert(*two) == 2
    assert insert(Session(id="cht_0", user=alice, title="again"), unless_there=True) == 0

    assert list(Session.objects.filter(user=alice).order_by("id").values_list("title", flat=True)) == [
        "0",
        "1",
    ]
    assert not two[0]._state.adding
    with pytest.raises(Exception, match=r"(?i)unique"), transaction.atomic():
        insert(Session(id="cht_0", user=alice))


def test_a_broken_constraint_is_no_row_that_is_there_already() -> None:
    with pytest.raises(Exception, match=r"(?i)constraint"), transaction.atomic():
        insert(TokenUsage(id="use_1", operation_id="x", charged_tokens=-1), unless_there=True)

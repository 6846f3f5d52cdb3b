"""Encrypted columns: what stands in the database, what Python reads, keys that change, and values that were tampered with."""

import base64
import os
from typing import Any

import pytest
from django.core.exceptions import FieldError, ImproperlyConfigured
from django.core.management import call_command
from django.db import connection
from hypothesis import given
from hypothesis import strategies as st

from aleph import sealed
from chat import branches, keeper, replies, search
from chat.models import Message, Session
from tests import people
from tests.stories_of_chat import ask

PLACE = "chat_message.content"
stored_with_people = pytest.mark.usefixtures("db", "simulator")
SECRET = "Seven copper kettles"


def key(name: str) -> str:
    return f"{name}:{base64.urlsafe_b64encode(os.urandom(32)).decode()}"


@pytest.fixture
def encrypted(settings: Any) -> Any:
    settings.ENCRYPT_MESSAGES = True
    return settings


def in_the_database(table: str, column: str, pk: str) -> str:
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT {column} FROM {table} WHERE id = %s", [pk])
        (value,) = cursor.fetchone()
    return str(value)


@given(st.text(min_size=1))
def test_every_text_comes_back_and_no_two_values_are_alike(text: str) -> None:
    first, second = sealed.seal(text, PLACE), sealed.seal(text, PLACE)
    assert first != second
    assert sealed.unseal(first, PLACE) == sealed.unseal(second, PLACE) == text


def test_a_value_is_read_in_its_own_column_only_and_only_unchanged() -> None:
    value = sealed.seal(SECRET, PLACE)
    with pytest.raises(sealed.Unreadable):
        sealed.unseal(value, "chat_session.title")
    last = "A" if value[-5] != "A" else "B"
    with pytest.raises(sealed.Unreadable):
        sealed.unseal(value[:-5] + last + value[-4:], PLACE)


def test_keys_change_without_a_pause(settings: Any) -> None:
    old, young = key("old"), key("young")
    settings.FIELD_KEYS = old
    value = sealed.seal(SECRET, PLACE)
    settings.FIELD_KEYS = f"{young}, {old}"
    assert sealed.unseal(value, PLACE) == SECRET
    assert sealed.seal(SECRET, PLACE).startswith("\x02young:")
    settings.FIELD_KEYS = young
    with pytest.raises(sealed.Unreadable):
        sealed.unseal(value, PLACE)


@pytest.mark.parametrize(
    "text", ["a", "a:short", ":" + "A" * 43, f"{key('a')},{key('a')}", "a:!!", "a b:" + "A" * 43]
)
def test_keys_that_cannot_work_are_refused(text: str) -> None:
    with pytest.raises(ImproperlyConfigured):
        sealed.parsed_keys(text)


@stored_with_people
def test_messages_and_titles_are_encrypted_where_the_operator_wants_it(encrypted: Any) -> None:
    turn = ask(people.alice(), SECRET)
    for table, column, pk in (
        ("chat_message", "content", turn.message.pk),
        ("chat_session", "title", turn.session.pk),
    ):
        kept = in_the_database(table, column, pk)
        assert kept.startswith(sealed.MARK)
        assert "kettles" not in kept
    assert Message.objects.get(pk=turn.message.pk).content == SECRET
    assert Session.objects.get(pk=turn.session.pk).title == SECRET


@stored_with_people
def test_without_the_wish_they_stand_as_they_are() -> None:
    turn = ask(people.alice(), SECRET)
    assert in_the_database("chat_message", "content", turn.message.pk) == SECRET


@stored_with_people
@pytest.mark.parametrize("is_on", [True, False])
def test_a_text_that_looks_encrypted_is_only_a_text(settings: Any, is_on: bool) -> None:
    settings.ENCRYPT_MESSAGES = is_on
    odd = f"a{sealed.MARK}1:AAAA"
    turn = ask(people.alice(), odd)
    Message.objects.filter(pk=turn.message.pk).update(content=odd[1:])
    assert Message.objects.get(pk=turn.message.pk).content == odd[1:]


@stored_with_people
def test_search_finds_what_a_database_cannot_read(encrypted: Any) -> None:
    turn = ask(people.alice(), f"Do you know {SECRET.upper()}?")
    bob = people.bob()
    ask(bob, "Something else")
    (hit,) = search.find(user=turn.session.user, words="copper kettles").hits
    assert (hit.session.pk, hit.at) == (turn.session.pk, turn.message.pk)
    assert hit.excerpt is not None
    assert hit.excerpt.found == "COPPER KETTLES"
    assert search.find(user=bob, words="kettles").hits == []
    assert len(search.find(user=bob, words="").hits) == 1


@stored_with_people
def test_a_lookup_that_would_find_nothing_is_an_error(encrypted: Any) -> None:
    with pytest.raises(FieldError):
        Message.objects.filter(content__contains="kettles").exists()
    with pytest.raises(FieldError):
        Message.objects.filter(content=SECRET).exists()
    assert not Message.objects.filter(role="user", content="").exists()


@stored_with_people
def test_what_a_worker_saves_on_the_way_is_encrypted_too(encrypted: Any) -> None:
    turn = ask(people.alice(), "Tell")
    reply = replies._claim(turn.reply.pk)
    assert reply is not None
    keeper.checkpoint([keeper.Live(reply.pk, reply.epoch, text=SECRET)])
    assert in_the_database("chat_message", "content", reply.pk).startswith(sealed.MARK)
    assert branches.ending_in(branches.newest(turn.session.pk), limit=9).messages[-1].content == SECRET


@stored_with_people
def test_reseal_brings_everything_to_one_state(settings: Any) -> None:
    plain = ask(people.alice(), SECRET).message.pk
    settings.ENCRYPT_MESSAGES = True
    old, young = key("old"), key("young")
    settings.FIELD_KEYS = old
    call_command("reseal")
    assert in_the_database("chat_message", "content", plain).startswith("\x02old:")
    settings.FIELD_KEYS = f"{young},{old}"
    call_command("reseal")
    settings.FIELD_KEYS = young
    assert Message.objects.get(pk=plain).content == SECRET
    settings.ENCRYPT_MESSAGES = False
    call_command("reseal")
    assert in_the_database("chat_message", "content", plain) == SECRET

"""Whoever reads Indonesian meets no English: every text that the source marks is translated, compiled, and shown.

`make translations` brings the catalogue up to date. The pages are every address of the product, as
`tests.test_pages_are_safe` finds them.
"""

import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import polib
import pytest
from django.db import connections
from django.template import engines
from django.template.base import Lexer, TokenType
from django.test import Client
from django.utils import translation
from django.utils.html import escape

from aleph.accounts.models import User
from aleph.management.commands.translations import CATALOGUE, NAMED, Text, compiled, texts
from tests import people
from tests.test_pages_are_safe import PLACES, World

PO = polib.pofile(str(CATALOGUE))
TRANSLATED = {(entry.msgctxt, entry.msgid): entry for entry in PO}
MARKED = {text.key: text for text in texts()}

SAID = {"alt", "aria-description", "aria-label", "placeholder", "title"}
"""Attributes that people read or hear."""

SAME_EVERYWHERE = {
    "Aleph",
    "OpenAPI",
    "Rp",
    "Ctrl",
    "Enter",
    "Esc",
    "LLM",
}
"""Words of templates that no language has its own for."""

OF_THE_STAFF = re.compile(r"Search|.+ \| Can .+|(\w+ → )?tokens")
"""What the administration has in English: alternative texts and permissions of Django's, and accounts of the books."""

IN_ENGLISH = {"api-docs"}
"""Drawn from the OpenAPI document, which programmers read in English."""

PARTS_OF_TAGS = {"admin/index.html", "shell/_theme.html"}
"""Templates that write attributes for the tags of others."""


def indonesian(text: Text) -> str:
    entry = TRANSLATED.get(text.key)
    return "" if entry is None else entry.msgstr or entry.msgstr_plural.get(0, "")


class Words(HTMLParser):
    """What a page says: its texts, and the attributes that are read out; no code, which is the same everywhere."""

    SILENT = {"code", "pre", "script", "style"}

    def __init__(self, page: str) -> None:
        super().__init__()
        self.said: list[str] = []
        self.silent = 0
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.silent += tag in self.SILENT
        self.said += [value for name, value in attrs if name in SAID and value]

    def handle_endtag(self, tag: str) -> None:
        self.silent -= tag in self.SILENT

    def handle_data(self, data: str) -> None:
        if not self.silent and data.strip():
            self.said.append(" ".join(data.split()))


class TestCatalogue:
    def test_says_everything_in_indonesian(self) -> None:
        missing = [text.msgid for text in MARKED.values() if not indonesian(text)]

        assert not missing, "make translations, and translate these"

    def test_has_nothing_doubtful_and_nothing_that_nobody_says(self) -> None:
        assert [entry.msgid for entry in PO if entry.fuzzy or entry.obsolete] == []
        assert {*TRANSLATED} - {*MARKED} == set(), "make translations"

    def test_is_compiled(self) -> None:
        assert CATALOGUE.with_suffix(".mo").read_bytes() == compiled(PO), "make translations"

    @pytest.mark.parametrize("part", [NAMED.pattern, r"%%", r"</?\w+>", r"\A\n|\n+\Z", r"\A\s|[.?!:…]?\Z"])
    def test_leaves_open_and_marks_up_what_the_source_does(self, part: str) -> None:
        changed = {
            text.msgid: indonesian(text)
            for text in MARKED.values()
            if sorted(re.findall(part, text.msgid_plural or text.msgid))
            != sorted(re.findall(part, indonesian(text)))
        }

        assert changed == {}

    def test_says_the_two_binding_texts_word_for_word(self) -> None:
        with translation.override("id"):
            few = translation.gettext("Not enough tokens. Balance: %(balance)d, needed: ~%(needed)d")
            away = "The AI service is not available at the moment. Please try again later."

            assert (
                few % {"balance": 50, "needed": 320} == "Token tidak mencukupi. Saldo: 50, Dibutuhkan: ~320"
            )
            assert translation.gettext(away) == "Layanan AI sedang tidak tersedia. Coba lagi nanti."

    def test_does_not_stand_in_the_way_of_english(self) -> None:
        with translation.override("en"):
            assert translation.gettext("New chat") == "New chat"
            assert translation.ngettext("%(days)s day", "%(days)s days", 2) == "%(days)s days"


def templates() -> dict[str, str]:
    """Every template by its name."""
    folders = [Path(folder) for engine in engines.all() for folder in engine.dirs]
    found = [(folder, path) for folder in folders for path in folder.rglob("*")]
    return {
        path.relative_to(folder).as_posix(): path.read_text()
        for folder, path in sorted(found)
        if path.suffix in (".html", ".txt")
    }


def unmarked(template: str) -> Iterator[str]:
    """What a template says outside of the tags that translate."""
    page, inside = "", ""
    for token in Lexer(template).tokenize():
        name = token.contents.split()[0] if token.contents.split() else ""
        if token.token_type == TokenType.BLOCK and name in ("comment", "blocktranslate"):
            inside = name
        elif token.token_type == TokenType.BLOCK and name == f"end{inside}":
            inside = ""
        elif token.token_type == TokenType.TEXT and not inside:
            page += token.contents
    for words in Words(page).said:
        yield from (word for word in re.findall(r"[^\W\d_]{2,}", words) if word not in SAME_EVERYWHERE)


@pytest.mark.parametrize("name", sorted({*templates()} - PARTS_OF_TAGS))
def test_a_template_marks_all_that_it_says(name: str) -> None:
    assert [*unmarked(templates()[name])] == []


def english_of(page: str) -> list[str]:
    """What a page says in words of the source that are others in Indonesian."""
    return [
        said
        for said in Words(page).said
        for pattern, text in PATTERNS
        if pattern.fullmatch(said) and not re.fullmatch(as_pattern(indonesian(text)), said)
    ]


def is_excused(place: str, words: str) -> bool:
    return place in IN_ENGLISH or (place.startswith("admin:") and bool(OF_THE_STAFF.fullmatch(words)))


def as_pattern(words: str) -> str:
    """A regular expression for a text with anything in its open places."""
    return re.sub(r"%\\\(\w+\\\)[a-z]", ".+", re.escape(" ".join(words.split()).replace("%%", "%")))


def is_telling(text: Text) -> bool:
    """Nothing can be seen from what is the same in both, or hardly more than what is left open."""
    return text.msgid != indonesian(text) and len(NAMED.sub("", text.msgid).strip()) > 3


PATTERNS = [
    (re.compile(as_pattern(words)), text)
    for text in MARKED.values()
    if is_telling(text)
    for words in (text.msgid, text.msgid_plural)
    if words
]


def reader(person: User | None) -> Client:
    """A browser that wishes for Indonesian."""
    client = Client(headers={"Accept-Language": "id-ID,id;q=0.9"})
    if person is not None:
        client.force_login(person)
    return client


@pytest.fixture(scope="module")
def world(django_db_setup: None, django_db_blocker: Any) -> Iterator[World]:
    """What it writes stays, because one of the addresses closes its connection."""
    with django_db_blocker.unblock():
        yield World()
        connections.close_all()


def pages_for(client: Client, world: World) -> Iterator[tuple[str, str]]:
    for place in PLACES:
        answer = client.get(world.url(place))
        if answer.headers.get("Content-Type", "").startswith("text/html"):
            yield place.name, answer.content.decode()


class TestPages:
    @pytest.mark.parametrize("who", ["guest", "alice", "carol", "dewi"])
    def test_say_nothing_in_english(self, world: World, who: str) -> None:
        client = reader(getattr(world, who, None))

        english = {
            name: [words for words in english_of(page) if not is_excused(name, words)]
            for name, page in pages_for(client, world)
        }

        assert len(english) > 8
        assert {name: words for name, words in english.items() if words} == {}

    def test_are_all_in_english_for_whoever_wants_that(self, world: World) -> None:
        client = world.client("alice")
        tell_tale = re.compile(r"\b(yang|Anda|belum|tidak|dengan|Obrolan|Pengaturan)\b")

        foreign = {
            name: tell_tale.findall(" ".join(Words(page).said)) for name, page in pages_for(client, world)
        }

        assert {name: words for name, words in foreign.items() if words} == {}

    def test_count_and_date_the_way_indonesians_do(self, db: None) -> None:
        alice = people.alice()

        page = reader(alice).get("/billing").content.decode()

        assert ">10.500<" in page
        assert "Rp 275.000" in page
        assert escape("10,500") not in page


def test_what_goes_wrong_is_said_in_indonesian(db: None) -> None:
    client = reader(None)

    page = client.post("/accounts/login/", {"login": "nobody@aleph.test", "password": "x"}).content.decode()

    assert "Alamat email dan kata sandi ini tidak cocok." in page
    assert english_of(page) == []

"""`make translations`: the Indonesian catalogue as the source has it now, compiled for machines without gettext.

Reads every text that the source marks, keeps what is translated, leaves the others empty for whoever translates, and
drops what nobody says any more. For developers (polib is not installed in production); `tests/test_translations.py`
asks the same functions whether anything is missing.
"""

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import polib
from django.apps import apps
from django.conf import settings
from django.core.management.base import BaseCommand
from django.template import engines
from django.utils.translation.template import templatize

CATALOGUE = settings.BASE_DIR / "locale" / "id" / "LC_MESSAGES" / "django.po"
METADATA = {
    "Project-Id-Version": "Aleph",
    "Language": "id",
    "MIME-Version": "1.0",
    "Content-Type": "text/plain; charset=utf-8",
    "Content-Transfer-Encoding": "8bit",
    "Plural-Forms": "nplurals=1; plural=0;",
}
ARGUMENTS = {"gettext": ("msgid",), "ngettext": ("msgid", "msgid_plural")}
ARGUMENTS |= {f"{name[:-7]}pgettext": ("msgctxt", *given) for name, given in ARGUMENTS.items()}
ARGUMENTS |= {f"{name}_lazy": given for name, given in ARGUMENTS.items()}
ARGUMENTS |= {"_": ("msgid",), "gettext_noop": ("msgid",)}
"""What the marking functions are called with; further arguments are numbers."""

NAMED = re.compile(r"%\(\w+\)[a-z]")
"""What a text leaves open, as in ``%(tokens)s``."""


@dataclass(slots=True)
class Text:
    """What the source marks: `msgctxt` tells equal words apart, `msgid_plural` is "" where nothing is counted."""

    msgid: str
    msgctxt: str | None = None
    msgid_plural: str = ""
    places: list[str] = field(default_factory=list)

    @property
    def key(self) -> tuple[str | None, str]:
        return self.msgctxt, self.msgid


class Command(BaseCommand):
    help = "Bring the Indonesian catalogue up to date with the source, and compile it."

    def handle(self, *args: Any, **options: Any) -> None:
        catalogue = updated(polib.pofile(str(CATALOGUE)), texts())
        catalogue.save(str(CATALOGUE))
        CATALOGUE.with_suffix(".mo").write_bytes(compiled(catalogue))
        missing = catalogue.untranslated_entries() + catalogue.fuzzy_entries()
        for entry in missing:
            self.stdout.write(f"{entry.occurrences[0][0]}: {entry.msgid}")
        self.stdout.write(f"{len(catalogue)} texts, {len(missing)} to translate in {CATALOGUE}")


def texts() -> list[Text]:
    """Everything that our apps and templates mark for translation, in the order of files, each text once."""
    found: dict[tuple[str | None, str], Text] = {}
    for path in sources():
        place = path.relative_to(settings.BASE_DIR).as_posix()
        for text in texts_in(path):
            known = found.setdefault(text.key, text)
            known.msgid_plural = known.msgid_plural or text.msgid_plural
            if place not in known.places:
                known.places.append(place)
    return list(found.values())


def sources() -> list[Path]:
    """The files that may mark texts: Python of the apps that stand in this folder, and the templates."""
    paths: set[Path] = set()
    for app in apps.get_app_configs():
        home = Path(app.path)
        # A virtual environment may stand in the project's folder, with the apps of others in it.
        if home.is_relative_to(settings.BASE_DIR) and "site-packages" not in home.parts:
            paths.update(home.rglob("*.py"))
    for engine in engines.all():
        for folder in engine.dirs:
            paths.update(path for path in Path(folder).rglob("*") if path.suffix in (".html", ".txt"))
    return sorted(paths)


def texts_in(path: Path) -> Iterator[Text]:
    source = path.read_text()
    if path.suffix != ".py":
        source = calls_of_template(templatize(source))
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call):
            name = node.func.id if isinstance(node.func, ast.Name) else getattr(node.func, "attr", "")
            words = [argument.value for argument in node.args if isinstance(argument, ast.Constant)]
            given = ARGUMENTS.get(name, ())
            if (
                given
                and len(words) >= len(given)
                and all(isinstance(word, str) for word in words[: len(given)])
            ):
                yield Text(**dict(zip(given, words, strict=False)))  # type: ignore[arg-type]


def calls_of_template(source: str) -> str:
    """The marking calls out of what Django makes of a template for gettext, which is calls between crossed-out words."""
    calls: list[str] = []
    depth = 0
    # Its indentation is the template's and means nothing.
    lines = io.StringIO("\n".join(line.strip() for line in source.split("\n")))
    for token in tokenize.generate_tokens(lines.readline):
        if depth == 0 and token.string in ARGUMENTS:
            calls.append("")
        elif depth == 0 and token.string != "(":
            continue
        calls[-1] += token.string
        depth += {"(": 1, ")": -1}.get(token.string, 0)
    return "\n".join(calls)


def updated(catalogue: polib.POFile, marked: list[Text]) -> polib.POFile:
    """A catalogue of exactly the marked texts, with the translations that `catalogue` has for them."""
    known = {(entry.msgctxt, entry.msgid): entry for entry in catalogue if not entry.obsolete}
    fresh = polib.POFile(wrapwidth=98)
    fresh.metadata = METADATA
    for text in marked:
        old = known.get(text.key)
        words = "" if old is None else old.msgstr or old.msgstr_plural.get(0, "")
        fresh.append(
            polib.POEntry(
                msgctxt=text.msgctxt,
                msgid=text.msgid,
                msgid_plural=text.msgid_plural,
                msgstr="" if text.msgid_plural else words,
                msgstr_plural={0: words} if text.msgid_plural else {},
                occurrences=[(place, "") for place in text.places],
                tcomment="" if old is None else old.tcomment,
                flags=(["fuzzy"] if old is not None and old.fuzzy else [])
                + (["python-format"] if NAMED.search(text.msgid) else []),
            )
        )
    return fresh


def compiled(catalogue: polib.POFile) -> bytes:
    return bytes(catalogue.to_binary())

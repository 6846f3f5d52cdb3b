"""Texts of five kinds, cut from what is installed: for `bench.estimates`.

Prose is documentation and the sentences of translated catalogues, code is Python's own library and our scripts, JSON is
made in several styles. The same versions give the same texts.
"""

import json
import random
import re
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from pydoc_data.topics import topics

import polib

ROOT = Path(__file__).resolve().parent.parent
LIBRARY = Path(sysconfig.get_paths()["stdlib"])
PACKAGES = Path(sysconfig.get_paths()["purelib"])
KINDS = ("english", "indonesian", "code", "chinese", "json")
MODULES = (
    "argparse",
    "ast",
    "calendar",
    "configparser",
    "csv",
    "dataclasses",
    "difflib",
    "fractions",
    "heapq",
)
MORE_MODULES = (
    "json/decoder",
    "logging/handlers",
    "mailbox",
    "queue",
    "shutil",
    "statistics",
    "textwrap",
    "zipfile",
)


def texts(kind: str, *, number: int, seed: int) -> list[str]:
    """So many texts of 150 to 2,400 characters."""
    chance = random.Random(f"{kind} {seed}")
    make = {"english": _english, "indonesian": _indonesian, "code": _code, "chinese": _chinese, "json": _json}
    return [make[kind](chance) for _each in range(number)]


def _english(chance: random.Random) -> str:
    if chance.random() < 0.5:
        return _sentences(chance, _messages("en"))
    paragraphs = [
        " ".join(paragraph.split())
        for topic in sorted(topics)
        for paragraph in topics[topic].split("\n\n")
        if len(paragraph) > 200 and not re.search(r"[=|]{2}|>>>|::|   \S", paragraph)
    ]
    return "\n\n".join(chance.sample(paragraphs, chance.randint(1, 3)))[:2400]


def _indonesian(chance: random.Random) -> str:
    return _sentences(chance, _messages("id"))


def _chinese(chance: random.Random) -> str:
    return _sentences(chance, _messages("zh_Hans"), joint="", size=(60, 700))


def _sentences(
    chance: random.Random, known: list[str], *, joint: str = " ", size: tuple[int, int] = (150, 1800)
) -> str:
    wanted, said = chance.randint(*size), ""
    while len(said) < wanted:
        sentence = chance.choice(known)
        said += (chance.choice([joint, joint, joint, "\n\n", "\n- "]) if said else "") + sentence
    return said


_known: dict[str, list[str]] = {}


def _messages(language: str) -> list[str]:
    if language not in _known:
        folder = "id" if language == "en" else language
        files = [*sorted(PACKAGES.glob(f"*/**/locale/{folder}/LC_MESSAGES/*.po"))]
        files += [ROOT / "locale/id/LC_MESSAGES/django.po"] if language != "zh_Hans" else []
        entries = [entry for file in files for entry in polib.pofile(str(file))]
        said = [entry.msgid if language == "en" else entry.msgstr for entry in entries]
        least = 12 if language == "zh_Hans" else 45
        _known[language] = sorted(
            {text for text in said if len(text) >= least and not re.search(r"%|\{|<|\n", text)}
        )
    return _known[language]


def _code(chance: random.Random) -> str:
    if chance.random() < 0.25:
        file = chance.choice(
            sorted((ROOT / "static").rglob("*.js")) + sorted((ROOT / "static").rglob("*.css"))
        )
    else:
        file = LIBRARY / f"{chance.choice(MODULES + MORE_MODULES)}.py"
    lines = file.read_text().splitlines()
    first = chance.randrange(max(1, len(lines) - 60))
    return "\n".join(lines[first : first + chance.randint(10, 60)])[:2400]


def _json(chance: random.Random) -> str:
    made = [_record(chance) for _each in range(chance.randint(1, 9))]
    indent = chance.choice([None, None, 2, 4])
    separators = (",", ":") if indent is None and chance.random() < 0.5 else None
    return json.dumps(
        made if len(made) > 1 else made[0], indent=indent, separators=separators, ensure_ascii=False
    )


def _record(chance: random.Random) -> dict[str, object]:
    words = _messages("en" if chance.random() < 0.5 else "id")
    fields: dict[str, object] = {
        "id": chance.choice([chance.randrange(10**6), f"{chance.getrandbits(64):x}"]),
        "name": " ".join(chance.choice(words).split()[:3]),
        "email": f"user{chance.randrange(1000)}@example.com",
        "createdAt": f"2026-{chance.randint(1, 12):02}-{chance.randint(1, 28):02}T08:{chance.randrange(60):02}:00Z",
        "price": round(chance.random() * 1000, 2),
        "isActive": chance.random() < 0.5,
        "parent_id": None,
        "tags": [word.lower().strip(".,") for word in chance.choice(words).split()[: chance.randint(1, 4)]],
        "location": {"lat": round(chance.uniform(-90, 90), 5), "lng": round(chance.uniform(-180, 180), 5)},
        "description": chance.choice(words),
        "total_tokens": chance.randrange(100_000),
        "status": chance.choice(["complete", "failed", "queued"]),
    }
    names = chance.sample(sorted(fields), chance.randint(4, len(fields)))
    return {name: fields[name] for name in names}


def mixed(*, number: int, seed: int) -> Iterator[tuple[str, str]]:
    """As many texts of each kind, in turns."""
    made = {kind: texts(kind, number=-(-number // len(KINDS)), seed=seed) for kind in KINDS}
    for place in range(number):
        kind = KINDS[place % len(KINDS)]
        yield kind, made[kind][place // len(KINDS)]

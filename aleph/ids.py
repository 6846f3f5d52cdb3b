"""Public ids: a prefix that says what the thing is, and a ULID (sorts by time, 80 random bits)."""

import re
from datetime import datetime

from ulid import ULID

LENGTH = 40
"""Enough for any prefix and the 26 characters of a ULID; the `max_length` of id columns."""


def new(prefix: str) -> str:
    """A fresh id such as ``msg_01K2H8M3...``."""
    return f"{prefix}_{ULID()}"


def at(moment: datetime) -> str:
    """The ULID of something that happened at `moment`; `new` gives those of this moment."""
    return str(ULID.from_datetime(moment))


def is_one(text: str, prefix: str) -> bool:
    """Whether `text` has the shape of such an id. What has not must not reach a database: PostgreSQL refuses NUL."""
    return _SHAPE.fullmatch(text) is not None and text.startswith(f"{prefix}_")


_SHAPE = re.compile(r"[a-z]{3}_[0-9A-Z]{26}")


def first(prefix: str, moment: datetime) -> str:
    """What every id of `moment` and after it sorts behind; ids sort by the millisecond they were made in."""
    return f"{prefix}_{str(ULID.from_datetime(moment))[:10]}"


def moment_of(public_id: str) -> datetime:
    """When an id was made, to the millisecond. Raises `ValueError` for what is none."""
    return ULID.from_str(public_id.partition("_")[2]).datetime

"""Columns that are encrypted at rest (ADR 0018): AES-256-GCM with a ring of keys from `FIELD_KEYS`.

A stored value is ``\\x02key:…``: the name of its key, then base64 of 12 bytes of nonce, the ciphertext and its tag. The name
of table and column is authenticated with it, so that a value cannot be moved to another column. Empty texts stay empty.
Values without the mark are what was stored before a column was sealed, and are read as they stand.
"""

import base64
import hashlib
import os
from collections.abc import Iterable, Mapping
from functools import cache
from typing import Any

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from django.conf import settings
from django.core.exceptions import FieldError, ImproperlyConfigured
from django.db import models
from django.db.models.functions import Cast
from django.db.models.lookups import Exact

MARK = "\x02"
PLAIN = f"{MARK}:"
"""Begins a text that is not encrypted and begins with the mark by itself."""
NONCE_BYTES = 12


class Unreadable(Exception):
    """A value whose key is not in the ring, or that was changed or moved since it was written."""


def parsed_keys(text: str) -> dict[str, bytes]:
    """Keys as ``name:base64, name:base64`` have them, 32 bytes each; the first one encrypts, all of them decrypt. Raises
    `ImproperlyConfigured`."""
    keys: dict[str, bytes] = {}
    for part in filter(None, (piece.strip() for piece in text.split(","))):
        name, colon, encoded = part.partition(":")
        try:
            key = base64.urlsafe_b64decode(encoded + "=" * (-len(encoded) % 4))
        except ValueError:
            key = b""
        if not colon or not name.isalnum() or name in keys or len(key) != 32:
            raise ImproperlyConfigured(
                "FIELD_KEYS is a list of name:key, each name once, each key the base64 of 32 bytes."
            )
        keys[name] = key
    return keys


def named_key(name: str, secret: str) -> str:
    """A key as `parsed_keys` reads it, made of a secret of any length that nobody can guess."""
    return f"{name}:{base64.urlsafe_b64encode(hashlib.sha256(secret.encode()).digest()).decode()}"


def seal(text: str, place: str) -> str:
    """`text` as it is stored in `place`, which is ``table.column``."""
    if not text:
        return text
    name, key = next(iter(_ring().items()))
    nonce = os.urandom(NONCE_BYTES)
    sealed = nonce + key.encrypt(nonce, text.encode("utf-8", "surrogatepass"), place.encode())
    return f"{MARK}{name}:{base64.b64encode(sealed).decode()}"


def unseal(stored: str, place: str) -> str:
    """What `seal` was given. Raises `Unreadable`."""
    if not stored.startswith(MARK):
        return stored
    name, _colon, encoded = stored[len(MARK) :].partition(":")
    if not name:
        return encoded
    key = _ring().get(name)
    if key is None:
        raise Unreadable(f"no key {name!r} for a value of {place}")
    try:
        sealed = base64.b64decode(encoded)
        return key.decrypt(sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], place.encode()).decode(
            "utf-8", "surrogatepass"
        )
    except (ValueError, InvalidTag) as error:
        raise Unreadable(f"a value of {place} was changed or moved") from error


class SealedTextField(models.TextField):
    """A text that is encrypted in the database and plain in Python. With `when`, the name of a setting, only while that is
    on; what is stored is read either way, and `manage.py reseal` brings all of it to one state.

    The database can say of it only whether it is empty.
    """

    def __init__(self, *args: Any, when: str = "", **kwargs: Any) -> None:
        self.when = when
        super().__init__(*args, **kwargs)

    def deconstruct(self) -> tuple[str, str, Any, Any]:
        name, path, args, kwargs = super().deconstruct()
        return name, path, args, {**kwargs, "when": self.when} if self.when else kwargs

    @property
    def is_sealing(self) -> bool:
        return not self.when or bool(getattr(settings, self.when))

    @property
    def place(self) -> str:
        return f"{self.model._meta.db_table}.{self.column}"

    def get_prep_value(self, value: Any) -> Any:
        text = super().get_prep_value(value)
        if not isinstance(text, str):
            return text
        if self.is_sealing:
            return seal(text, self.place)
        return f"{PLAIN}{text}" if text.startswith(MARK) else text

    def from_db_value(self, value: str | None, expression: object, connection: object) -> str | None:
        return None if value is None else unseal(value, self.place)

    def get_lookup(self, lookup_name: str) -> Any:
        if not self.is_sealing or lookup_name == "isnull":
            return super().get_lookup(lookup_name)
        if lookup_name == "exact":
            return IsEmpty
        raise FieldError(f"{self.place} is encrypted; a database cannot look up {lookup_name!r} in it.")


class IsEmpty(Exact):
    """The one comparison that a sealed column knows: two values of one text differ, so any other would find nothing."""

    def get_prep_lookup(self) -> Any:
        if self.rhs != "":
            raise FieldError("An encrypted column can only be compared with an empty text.")
        return self.rhs


def stored(name: str) -> Cast:
    """What stands in the column of a `SealedTextField` itself, to compare it with what stood there."""
    return Cast(name, models.TextField())


def is_current(value: str, field: SealedTextField) -> bool:
    """Whether what is stored is as `field` would store it today: with the newest key, or not encrypted at all."""
    if not value:
        return True
    if not field.is_sealing:
        return not value.startswith(MARK) or value.startswith(PLAIN)
    return value.startswith(f"{MARK}{next(iter(_ring()))}:")


def sealed_fields(found: Iterable[type[models.Model]]) -> list[SealedTextField]:
    return [
        field
        for model in found
        for field in model._meta.concrete_fields
        if isinstance(field, SealedTextField)
    ]


def _ring() -> Mapping[str, AESGCM]:
    return _opened(settings.FIELD_KEYS)


@cache
def _opened(text: str) -> Mapping[str, AESGCM]:
    keys = parsed_keys(text)
    if not keys:
        raise ImproperlyConfigured("FIELD_KEYS is empty.")
    return {name: AESGCM(key) for name, key in keys.items()}

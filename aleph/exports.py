"""Copies of all that is kept about a person: asked for by him, made by a worker, fetched once by him within a day.

One zip: each table as JSON and as CSV, and the images. A worker that dies over one is followed by another.
"""

import json
import tempfile
import zipfile
from collections.abc import AsyncIterator
from datetime import date, datetime, timedelta
from decimal import Decimal
from io import TextIOWrapper
from typing import IO, Any
from uuid import uuid4

import structlog
from celery import current_app
from django.conf import settings
from django.core.files import File
from django.core.files.storage import storages
from django.core.mail import send_mail
from django.db import IntegrityError, transaction
from django.db.models import F, Q
from django.template.loader import render_to_string
from django.urls import reverse
from django.utils import timezone, translation
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from aleph import ids, personal, sheets
from aleph.accounts.models import DataExport, User
from aleph.prepared import Update
from aleph.problems import Conflict, NotFound, Problem
from aleph.threads import in_thread

log = structlog.get_logger(__name__)
State = DataExport.State

MAKING = timedelta(minutes=10)
TRIES = 3
PIECE = 256 * 1024
BATCH = 20


class BeingPrepared(Conflict):
    text = gettext_lazy("Your data is being prepared already.")


class Fetched(Problem):
    code = "GONE"
    status = 410
    text = gettext_lazy("This file was fetched once, or has expired. Ask for another one.")


def ask(user: User) -> DataExport:
    """Have a copy made. Raises `BeingPrepared` while one is."""
    try:
        with transaction.atomic():
            export = DataExport.objects.create(id=ids.new("exp"), user=user)
            transaction.on_commit(lambda: ring(export.pk), robust=True)
    except IntegrityError as error:
        raise BeingPrepared from error
    return export


def newest(user: User) -> DataExport | None:
    """What became of the last copy that was asked for."""
    export = DataExport.objects.filter(user=user).order_by("-pk").first()
    if export and export.state == State.READY and export.expires_at and export.expires_at <= timezone.now():
        export.state = State.EXPIRED
    return export


def assert_own(user: User, export_id: str) -> None:
    """Raises `NotFound` for what is not the user's."""
    if not ids.is_one(export_id, "exp") or not DataExport.objects.filter(user=user, pk=export_id).exists():
        raise NotFound


def take(user: User, export_id: str) -> DataExport:
    """Fetch a copy: the first one who asks gets it, and nobody after him. Raises `Fetched`, and `NotFound` for what is not
    the user's."""
    assert_own(user, export_id)
    ready = DataExport.objects.filter(pk=export_id, state=State.READY, expires_at__gt=timezone.now())
    taken = Update(lambda: ready, state=State.FETCHED).returning()
    if not taken:
        raise Fetched
    return taken[0]


async def pieces(export: DataExport) -> AsyncIterator[bytes]:
    """The file of a copy that was taken, which is gone afterwards."""
    file: IO[bytes] = await in_thread(lambda: storages["exports"].open(export.path))
    try:
        while piece := await in_thread(lambda: file.read(PIECE)):
            yield piece
    finally:
        file.close()
    await in_thread(lambda: _throw_away(export))


def ring(export_id: str) -> None:
    """Tell a worker. Losing this is harmless: the sweep rings again."""
    try:
        current_app.send_task("aleph.tasks.export", args=[export_id], queue="house", retry=False)
    except Exception as error:
        log.warning(
            "the bell was not heard; the sweep will ring again", export_id=export_id, error=str(error)
        )


def make(export_id: str) -> None:
    """Write the copy, unless somebody else is about it."""
    now = timezone.now()
    unclaimed = Q(making_until=None) | Q(making_until__lt=now)
    asked = DataExport.objects.filter(unclaimed, pk=export_id, state=State.ASKED)
    claimed = Update(lambda: asked, making_until=now + MAKING, tries=F("tries") + 1).returning()
    if not claimed:
        return
    (export,) = claimed
    if export.tries > TRIES:
        _become(export, State.FAILED)
        return
    with tempfile.TemporaryFile() as file:
        write(export.user, file)
        size, path = file.tell(), uuid4().hex
        file.seek(0)
        storages["exports"].save(path, File(file))
    ready = _become(
        export,
        State.READY,
        path=path,
        size_bytes=size,
        expires_at=timezone.now() + timedelta(hours=settings.EXPORT_HOURS),
    )
    if not ready:
        storages["exports"].delete(path)
    else:
        _tell(export.user)


def write(user: User, file: IO[bytes]) -> None:
    """All that is kept about the user, as a zip."""
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        with translation.override(user.language or settings.LANGUAGE_CODE):
            archive.writestr("README.txt", render_to_string("accounts/export.txt", {"person": user}))
        for kept in personal.tables():
            _write_table(archive, kept, user)
        for module in personal.modules():
            for name, data in module.files(user) if hasattr(module, "files") else ():
                archive.writestr(f"files/{name}", data, zipfile.ZIP_STORED)


def _write_table(archive: zipfile.ZipFile, kept: personal.Kept, user: User) -> None:
    """One pass for both formats, so that they say the same."""
    with tempfile.TemporaryFile("w+", encoding="utf-8", newline="") as table:
        table.write(sheets.BOM + sheets.rows_as_csv([[column.attname for column in kept.columns]]))
        with archive.open(f"json/{kept.name}.json", "w") as opened:
            text = TextIOWrapper(opened, encoding="utf-8")
            text.write("[")
            for number, row in enumerate(kept.rows(user)):
                text.write(",\n" if number else "\n")
                json.dump(row, text, ensure_ascii=False, default=_plain)
                table.write(sheets.rows_as_csv([[_cell(value) for value in row.values()]]))
            text.write("\n]\n")
            text.flush()
        table.seek(0)
        with archive.open(f"csv/{kept.name}.csv", "w") as opened:
            while piece := table.buffer.read(PIECE):
                opened.write(piece)


def _plain(value: Any) -> str:
    return value.isoformat() if isinstance(value, date | datetime) else str(value)


def _cell(value: Any) -> sheets.Cell:
    if isinstance(value, bool):
        return str(value).lower()
    if value is None or isinstance(value, str | int | Decimal | date | datetime):
        return value
    return json.dumps(value, ensure_ascii=False, default=_plain)


def sweep() -> None:
    """Ring for what waits, and throw away what was fetched or has expired."""
    now = timezone.now()
    waiting = DataExport.objects.filter(Q(making_until=None) | Q(making_until__lt=now), state=State.ASKED)
    for export_id in waiting.values_list("pk", flat=True)[:BATCH]:
        make(export_id)
    over = DataExport.objects.filter(
        Q(state=State.FETCHED, expires_at__lt=now) | Q(state=State.READY, expires_at__lt=now)
    ).exclude(path="")
    for export in over[:BATCH]:
        _throw_away(export)


def forget(user: User) -> None:
    """Delete all copies of the user's at once."""
    for export in DataExport.objects.filter(user=user).exclude(path=""):
        _throw_away(export)


def _throw_away(export: DataExport) -> None:
    storages["exports"].delete(export.path)
    DataExport.objects.filter(pk=export.pk, path=export.path).update(path="")
    DataExport.objects.filter(pk=export.pk, state=State.READY).update(state=State.EXPIRED)


def _become(export: DataExport, state: str, **more: Any) -> bool:
    """Only whoever made the last try says how it ended."""
    same = DataExport.objects.filter(pk=export.pk, state=State.ASKED, tries=export.tries)
    return bool(same.update(state=state, **more))


def _tell(user: User) -> None:
    with translation.override(user.language or settings.LANGUAGE_CODE):
        address = f"{settings.PUBLIC_URL}{reverse('personal_data')}"
        context = {"address": address, "hours": settings.EXPORT_HOURS}
        body = render_to_string("accounts/mail/export.txt", context)
        try:
            send_mail(_("Your data is ready"), body, None, [user.email])
        except Exception:
            log.warning("a mail about an export could not be sent", user_id=user.pk, exc_info=True)

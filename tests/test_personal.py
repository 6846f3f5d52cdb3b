"""What is kept about a person: his copy of it, and his erasure."""

import csv
import io
import json
import zipfile
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from asgiref.sync import async_to_sync
from django.apps import apps
from django.core import mail
from django.core.files.storage import storages
from django.core.management import call_command
from django.db.models import ForeignKey, Model, TextField
from django.db.models.functions import Cast
from django.test import Client
from django.utils import timezone

from aleph import erasure, exports, ids, personal
from aleph.accounts.models import ApiKey, DataExport, Erasure, User
from aleph.problems import NotFound
from billing.models import Transfer
from chat import attachments, replies
from chat.models import Attachment, Message, Session
from tests import people
from tests.stories_of_chat import ask, assert_books_are_right, held, told
from tests.stories_of_images import draft_of
from tests.test_pages_are_safe import SECRET, World

pytestmark = pytest.mark.usefixtures("committed", "simulator")

NOT_ABOUT_HIM = {
    "usage.PriceProposal.decided_by",
    "usage.PriceCorrection.author",
    "billing.Transfer.author",
    "billing.Correction.author",
    "billing.Correction.decided_by",
    "accounts.Erasure.user",
}
"""Who of the staff did something, and what stands apart on purpose."""


@pytest.fixture(autouse=True)
def own_storage(settings: Any, tmp_path: Any) -> None:
    settings.STORAGES["exports"]["OPTIONS"]["location"] = str(tmp_path)


def signed_in(person: User) -> Client:
    """Who has just typed his password once more."""
    client = Client(headers={"accept-language": "en"})
    client.post("/accounts/login/", {"login": person.email, "password": people.PASSWORD})
    client.post("/accounts/reauthenticate/", {"password": people.PASSWORD})
    return client


def whole(answer: Any) -> bytes:
    """What a server would have sent, piece by piece."""

    async def pieces() -> bytes:
        return b"".join([piece async for piece in answer.streaming_content])

    return bytes(async_to_sync(pieces)())


def made(person: User) -> DataExport:
    export = DataExport.objects.filter(user=person, state="asked").first() or exports.ask(person)
    exports.make(export.pk)
    return DataExport.objects.get(pk=export.pk)


def opened(export: DataExport) -> zipfile.ZipFile:
    with storages["exports"].open(export.path) as file:
        return zipfile.ZipFile(io.BytesIO(file.read()))


def places_that_say(words: str) -> set[tuple[str, Any]]:
    """Every column of the database in which `words` stand, with the key of the row."""
    found = set()
    for model in apps.get_models():
        for column in model._meta.concrete_fields:
            texts = model._base_manager.annotate(as_text=Cast(column.attname, TextField()))
            for pk, text in texts.values_list("pk", "as_text").iterator():
                if words in (text or ""):
                    found.add((f"{model._meta.label}.{column.name}", pk))
    return found


def people_in(model: type[Model]) -> Iterator[str]:
    for column in model._meta.concrete_fields:
        if isinstance(column, ForeignKey) and column.related_model is User:
            yield column.name


def test_every_table_that_names_a_person_is_told_to_him() -> None:
    named = {
        f"{kept.model._meta.label}.{lookup.partition('__')[0]}"
        for kept in personal.tables()
        for lookup in kept.by
    }
    naming = {f"{model._meta.label}.{name}" for model in apps.get_models() for name in people_in(model)}
    assert naming - {"chat.Message.user"} - NOT_ABOUT_HIM <= named
    assert {"chat.Message.session", "billing.Transfer.debit", "billing.Transfer.credit"} <= named


class TestACopy:
    def test_has_every_table_twice_and_says_what_the_database_says(self) -> None:
        world = World()
        told(world.alice, f"Do you know {SECRET}?")
        archive = opened(made(world.alice))
        assert archive.testzip() is None
        for kept in personal.tables():
            rows = json.loads(archive.read(f"json/{kept.name}.json"))
            lines = list(csv.reader(io.StringIO(archive.read(f"csv/{kept.name}.csv").decode("utf-8-sig"))))
            assert len(rows) == len(lines) - 1 == kept.of(world.alice).count()
            assert all(list(row) == lines[0] for row in rows)
        messages = {row["id"]: row["content"] for row in json.loads(archive.read("json/messages.json"))}
        assert messages[world.said.pk] == SECRET
        transfers = json.loads(archive.read("json/transfers.json"))
        own = Transfer.objects.filter(debit__user=world.alice) | Transfer.objects.filter(
            credit__user=world.alice
        )
        assert {row["id"] for row in transfers} == set(own.values_list("pk", flat=True))
        assert archive.read(f"files/{world.image.pk}.png") == attachments.read(world.image)

    def test_tells_nothing_of_others_and_no_secret(self) -> None:
        alice, bob = people.alice(), people.bob()
        words = ids.new("sec")
        told(bob, words)
        key = ApiKey.issue(user=alice, name="mine")
        archive = opened(made(alice))
        everything = b"".join(archive.read(name) for name in archive.namelist())
        for secret in (words, bob.email, alice.password, key, ApiKey.objects.get(user=alice).hash):
            assert secret.encode() not in everything
        assert alice.email.encode() in everything

    def test_is_safe_to_open_in_a_spreadsheet(self) -> None:
        alice = people.alice()
        told(alice, "=HYPERLINK(0)")
        archive = opened(made(alice))
        assert "'=HYPERLINK(0)" in archive.read("csv/messages.csv").decode()
        assert '"=HYPERLINK(0)"' in archive.read("json/messages.json").decode()

    def test_is_asked_for_mailed_and_fetched_once(self) -> None:
        alice = people.alice()
        client = signed_in(alice)
        assert "Prepare a copy" in client.get("/settings/data").content.decode()
        client.post("/settings/data/exports")
        assert "being prepared" in client.get("/settings/data").content.decode()
        assert client.post("/settings/data/exports").status_code == 409
        exports.sweep()
        assert "/settings/data" in mail.outbox[-1].body
        assert mail.outbox[-1].to == [alice.email]
        export = DataExport.objects.get(user=alice)
        assert "Fetch it" in client.get("/settings/data").content.decode()
        fetched = client.post(f"/settings/data/exports/{export.pk}")
        archive = zipfile.ZipFile(io.BytesIO(whole(fetched)))
        assert "json/profile.json" in archive.namelist()
        assert client.post(f"/settings/data/exports/{export.pk}").status_code == 410
        assert not storages["exports"].exists(export.path)

    def test_is_nobody_elses(self) -> None:
        export = made(people.alice())
        with pytest.raises(NotFound):
            exports.take(people.bob(), export.pk)
        assert signed_in(people.bob()).post(f"/settings/data/exports/{export.pk}").status_code == 404
        assert exports.take(export.user, export.pk).pk == export.pk

    def test_asks_for_the_password_again(self) -> None:
        alice = people.alice()
        client = Client()
        client.force_login(alice)
        assert "reauthenticate" in client.post("/settings/data/exports")["Location"]
        assert "reauthenticate" in client.get("/settings/data/erasure")["Location"]
        assert not DataExport.objects.filter(user=alice).exists()

    def test_is_gone_after_a_day(self) -> None:
        export = made(people.alice())
        DataExport.objects.filter(pk=export.pk).update(expires_at=timezone.now() - timedelta(seconds=1))
        with pytest.raises(exports.Fetched):
            exports.take(export.user, export.pk)
        exports.sweep()
        assert not storages["exports"].exists(export.path)
        newest = exports.newest(export.user)
        assert newest is not None
        assert newest.state == "expired"

    def test_is_made_by_another_worker_where_one_dies_and_given_up_after_three(self) -> None:
        alice = people.alice()
        export = exports.ask(alice)
        for tries in (1, 2, 3):
            DataExport.objects.filter(pk=export.pk).update(
                tries=tries, making_until=timezone.now() + timedelta(minutes=1)
            )
            exports.make(export.pk)
            assert DataExport.objects.get(pk=export.pk).state == "asked"
        DataExport.objects.filter(pk=export.pk).update(making_until=timezone.now())
        exports.sweep()
        assert DataExport.objects.get(pk=export.pk).state == "failed"
        again = made(alice)
        assert again.state == "ready"


class TestErasure:
    def test_leaves_the_books_and_nothing_of_the_person(self) -> None:
        before = places_that_say(SECRET)
        world = World()
        told(world.alice, f"Do you know {SECRET}?")
        made(world.alice)
        email = world.alice.email
        erasure.finish(erasure.begin(world.alice).subject)
        # What the staff gave as the reason of a correction belongs to the books.
        left = {column for column, _pk in places_that_say(SECRET) - before}
        assert left == {"billing.Correction.reason"}
        assert places_that_say(email) == set()
        assert not Attachment.objects.filter(user=world.alice).exists()
        assert not storages["attachments"].exists(world.image.path)
        assert Transfer.objects.filter(credit__user=world.alice).exists()
        assert_books_are_right()

    def test_ends_a_reply_and_gives_its_hold_back(self) -> None:
        alice = people.alice()
        turn = ask(alice)
        assert held(alice) > 0
        erasure.finish(erasure.begin(alice).subject)
        assert held(alice) == 0
        assert not Session.objects.filter(user=alice).exists()
        replies.generate(turn.reply.pk)  # the bell that was rung before
        assert not Message.objects.filter(pk=turn.reply.pk).exists()
        assert_books_are_right()

    def test_is_at_once_for_whoever_wants_in(self) -> None:
        alice = people.alice()
        key = ApiKey.issue(user=alice)
        client, other = signed_in(alice), signed_in(alice)
        page = client.get("/settings/data/erasure").content.decode()
        assert "10,500 tokens" in page
        wrong = {"email": "somebody@else.test", "sure": "on"}
        assert client.post("/settings/data/erasure", wrong).status_code == 422
        assert client.post("/settings/data/erasure", {"email": alice.email}).status_code == 422
        assert User.objects.get(pk=alice.pk).is_active
        done = client.post("/settings/data/erasure", {"email": alice.email.upper(), "sure": "on"})
        assert done["Location"] == "/accounts/login/"
        assert other.get("/settings").status_code == 302
        bearer = {"Authorization": f"Bearer {key}"}
        assert Client().get("/api/v1/chat/sessions", headers=bearer).status_code == 401
        assert "do not belong together" in (
            Client(headers={"accept-language": "en"})
            .post("/accounts/login/", {"login": alice.email, "password": people.PASSWORD})
            .content.decode()
        )

    def test_frees_the_address(self) -> None:
        alice = people.alice()
        erasure.begin(alice)
        again = User.objects.create_user(alice.email)
        assert again.pk != alice.pk

    def test_is_not_for_staff(self) -> None:
        dewi = people.dewi()
        client = signed_in(dewi)
        client.post("/settings/data/erasure", {"email": dewi.email, "sure": "on"})
        assert User.objects.get(pk=dewi.pk).is_active

    def test_goes_on_where_a_worker_died(self) -> None:
        alice = people.alice()
        words = ids.new("sec")
        told(alice, words)
        begun = erasure.begin(alice)
        assert erasure.begin(User.objects.get(pk=alice.pk)).pk == begun.pk
        erasure.sweep()
        assert Erasure.objects.get(pk=begun.pk).done_at is not None
        assert places_that_say(words) == set()

    def test_who_it_was_is_known_sealed_and_for_its_time(self) -> None:
        alice = people.alice()
        begun = erasure.begin(alice)
        found = Erasure.objects.get(pk=begun.pk)
        assert json.loads(found.identity)["email"] == alice.email
        assert places_that_say(alice.email) == set()
        erasure.sweep()
        Erasure.objects.filter(pk=begun.pk).update(keep_until=timezone.now() - timedelta(seconds=1))
        erasure.sweep()
        assert Erasure.objects.get(pk=begun.pk).identity == ""

    def test_is_done_again_after_a_backup_was_restored(self, tmp_path: Any) -> None:
        alice, bob = people.alice(), people.bob()
        draft_of(bob)
        erasure.begin(bob)
        listed = io.StringIO()
        call_command("erasures", stdout=listed)
        said = [json.loads(line) for line in listed.getvalue().splitlines()]
        (of_bob,) = [line for line in said if line["user_id"] == bob.pk]
        kept = tmp_path / "erased.jsonl"
        kept.write_text(json.dumps({**of_bob, "subject": "sub_01", "user_id": alice.pk}) + "\n")
        call_command("erasures", "--apply", str(kept), stdout=io.StringIO())
        assert User.objects.get(pk=alice.pk).email == "sub_01@erased.invalid"

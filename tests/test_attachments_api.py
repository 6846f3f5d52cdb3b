"""Images as programs send them: uploaded, sent with a message, told of, thrown away; and each refusal by its name."""

import json
from typing import Any

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.test import Client

from aleph import ids, rates
from aleph.accounts.models import ApiKey, User
from chat import attachments, pictures, sessions
from chat.models import ChatModel, Message
from tests import images, people
from tests.limits import forget_limits
from tests.product import simulated_model
from tests.stories_of_images import draft_of, seeing_model, show

ROOT = "/api/v1/chat"

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("simulator")]


def program(person: User) -> Client:
    key = ApiKey.issue(user=person, name="test")
    return Client(headers={"Authorization": f"Bearer {key}", "Accept-Language": "en"})


def uploaded(by: Client, data: bytes | None = None, name: str = "kawah.png") -> Any:
    file = SimpleUploadedFile(name, images.picture() if data is None else data)
    return by.post(f"{ROOT}/attachments", {"image": file})


def test_an_upload_answers_what_was_kept() -> None:
    alice = people.alice()
    answer = uploaded(program(alice), images.of_a_phone(), "liburan.jpg")
    assert answer.status_code == 201
    body = answer.json()["data"]
    kept = attachments.get(alice, body["id"])
    assert (body["name"], body["mediaType"], body["width"], body["height"], body["sizeBytes"]) == (
        "liburan.jpg",
        kept.media_type,
        40,
        60,
        kept.size_bytes,
    )
    assert body["expiresAt"]
    assert program(alice).get(f"{ROOT}/attachments/{kept.pk}").json()["data"] == body


@pytest.mark.parametrize(
    ("data", "status", "words"),
    [
        (b"<svg/>", 400, "PNG, JPEG or WebP"),
        (images.photograph()[:2000], 400, "damaged"),
        (images.bomb(), 400, "pixels"),
        (bytes(pictures.MOST_BYTES + 1), 413, "larger than 10 MB"),
    ],
)
def test_what_is_refused_is_told_why(data: bytes, status: int, words: str) -> None:
    answer = uploaded(program(people.alice()), data)
    assert answer.status_code == status
    assert words in answer.json()["error"]
    assert answer.json()["code"] == "INVALID_REQUEST"
    assert answer["X-Request-Id"]


def test_no_image_and_no_form_are_told_apart() -> None:
    by = program(people.alice())
    assert by.post(f"{ROOT}/attachments", {"other": "x"}).json()["error"].startswith("There is no image")
    assert by.post(f"{ROOT}/attachments", "{}", "application/json").status_code == 415


def test_a_message_with_images_is_told_of_with_them() -> None:
    alice = people.alice()
    draft = draft_of(alice)
    turn = show(alice, draft, model=seeing_model())
    found = program(alice).get(f"{ROOT}/sessions/{turn.session.pk}").json()["data"]["messages"]
    assert [each["id"] for each in found[0]["attachments"]] == [draft.pk]
    assert found[0]["attachments"][0]["expiresAt"] is None
    assert "attachments" not in found[1]


def said(by: Client, session_id: str, **body: Any) -> Any:
    path = f"{ROOT}/sessions/{session_id}/messages"
    return by.post(path, json.dumps({"content": "What is this?", **body}), "application/json")


def test_a_model_that_takes_no_images_refuses_by_name_and_keeps_them() -> None:
    alice = people.alice()
    draft = draft_of(alice)
    blind = ChatModel.objects.get(slug=simulated_model("sim-words-3"))
    session = sessions.create(user=alice, model=blind)
    answer = said(program(alice), session.pk, attachments=[draft.pk])
    assert (answer.status_code, answer.json()["code"]) == (400, "IMAGES_NOT_TAKEN")
    assert attachments.drafts(alice, [draft.pk]) == [draft]
    assert not Message.objects.filter(session=session).exists()


def test_too_many_and_strange_ids_are_refused() -> None:
    alice, carol = people.alice(), people.carol()
    sees = ChatModel.objects.get(slug=seeing_model())
    session = sessions.create(user=alice, model=sees)
    five = [draft_of(alice).pk for _each in range(5)]
    by = program(alice)
    assert said(by, session.pk, attachments=five).status_code == 400
    for strange in (draft_of(carol).pk, ids.new("att"), "x"):
        assert said(by, session.pk, attachments=[strange]).status_code == 404


def test_an_image_is_nobody_elses() -> None:
    draft = draft_of(people.alice())
    for other in (people.carol(), people.dewi()):
        for method in ("GET", "DELETE"):
            assert program(other).generic(method, f"{ROOT}/attachments/{draft.pk}").status_code == 404
    assert Client().get(f"{ROOT}/attachments/{draft.pk}").status_code == 401
    assert Client().post(f"{ROOT}/attachments").status_code == 401


def test_a_draft_can_be_thrown_away_and_a_sent_image_cannot() -> None:
    alice = people.alice()
    draft, sent = draft_of(alice), draft_of(alice)
    show(alice, sent, model=seeing_model())
    by = program(alice)
    assert by.delete(f"{ROOT}/attachments/{draft.pk}").json()["data"] == {"id": draft.pk}
    assert by.get(f"{ROOT}/attachments/{draft.pk}").status_code == 404
    assert by.delete(f"{ROOT}/attachments/{sent.pk}").status_code == 404
    assert by.get(f"{ROOT}/attachments/{sent.pk}").status_code == 200


def test_uploads_have_a_rate(settings: Any) -> None:
    forget_limits()
    settings.RATE_LIMITS = {**settings.RATE_LIMITS, "upload": rates.parsed("2/m/user")}
    by = program(people.alice())
    first = uploaded(by)
    assert first["RateLimit-Remaining"] == "1"
    assert uploaded(by, b"no image").status_code == 400
    refused = uploaded(by)
    assert (refused.status_code, refused.json()["code"]) == (429, "RATE_LIMITED")
    assert refused["Retry-After"]

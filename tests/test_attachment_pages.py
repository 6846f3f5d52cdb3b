"""Images in the pages, without any script: sent with the form, shown, edited, refused with everything kept."""

from typing import Any

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.test import Client

from aleph import ids
from aleph.accounts.models import User
from chat import attachments, turns
from chat.models import Attachment, Message
from tests import images, people
from tests.product import simulated_model
from tests.stories_of_images import draft_of, seeing_model, show, upload

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("simulator")]

HTMX = {"HX-Request": "true"}


def browser_of(person: User) -> Client:
    client = Client(headers={"Accept-Language": "en"})
    client.force_login(person)
    return client


def form(*files: SimpleUploadedFile, **fields: Any) -> dict[str, Any]:
    return {"text": "What is this?", "turn": ids.new("trn"), "images": list(files), **fields}


def test_a_form_without_a_script_brings_its_images_with_it() -> None:
    alice = people.alice()
    answer = browser_of(alice).post(
        "/chat/turns", form(upload(), upload(images.photograph()), model=seeing_model())
    )
    assert answer.status_code == 303
    message = Message.objects.get(user=alice, role="user")
    shown = attachments.of([message])[message.pk]
    assert [image.media_type for image in shown] == ["image/png", "image/jpeg"]
    page = browser_of(alice).get(answer["Location"]).content.decode()
    assert page.count('class="message__images"') == 1
    for image in shown:
        assert f'src="/chat/attachments/{image.pk}"' in page
        assert f'href="/chat/attachments/{image.pk}/page"' in page
    assert 'alt="kawah.png, open large"' in page


def test_one_bad_image_among_good_ones_keeps_the_text_and_the_good_ones() -> None:
    alice = people.alice()
    answer = browser_of(alice).post("/chat/turns", form(upload(), upload(b"<svg/>"), model=seeing_model()))
    assert answer.status_code == 400
    page = answer.content.decode()
    assert "This is no PNG, JPEG or WebP image." in page
    assert "What is this?</textarea>" in page
    draft = Attachment.objects.get(user=alice)
    assert f'name="attachment" value="{draft.pk}" checked' in page
    assert not Message.objects.filter(user=alice).exists()


def test_a_model_that_takes_none_is_said_before_sending_and_all_is_kept() -> None:
    alice = people.alice()
    draft, blind = draft_of(alice), simulated_model("sim-words-3")
    wish = {"text": "What is this?", "turn": ids.new("trn"), "attachment": draft.pk, "model": blind}
    client = browser_of(alice)
    estimate = client.post("/chat/estimates", wish, headers=HTMX).content.decode()
    assert not estimate, "the composer says it beside the images, once"
    assert "This model takes no images." in client.get("/").content.decode()
    asked = turns.start(user=alice, session=None, text="Halo", model_slug=blind, turn=ids.new("trn"))
    edited = {**wish, "session": asked.session.pk, "edited": asked.reply.parent_id}
    assert (
        "This model takes no images." in client.post("/chat/estimates", edited, headers=HTMX).content.decode()
    )
    turns.stop(user=alice, reply_id=asked.reply.pk)
    page = client.post("/chat/turns", wish)
    assert page.status_code == 400
    assert f'value="{draft.pk}" checked' in page.content.decode()
    assert "This model takes no images." in page.content.decode()
    assert attachments.drafts(alice, [draft.pk]) == [draft]


def test_the_estimate_counts_the_images() -> None:
    alice = people.alice()
    model = seeing_model("claude")
    wish = {"text": "What is this?", "turn": ids.new("trn"), "model": model}
    client = browser_of(alice)
    without = client.post("/chat/estimates", wish, headers=HTMX).content
    drafts = [draft_of(alice, images.picture(size=(1500, 1500))).pk for _each in range(4)]
    assert client.post("/chat/estimates", {**wish, "attachment": drafts}, headers=HTMX).content != without


def test_images_travel_with_a_message_that_waits_for_tokens() -> None:
    carol = people.carol()
    draft = draft_of(carol)
    wish = {"text": "What is this?", "turn": ids.new("trn"), "attachment": draft.pk, "model": seeing_model()}
    answer = browser_of(carol).post("/chat/turns", wish, headers=HTMX)
    assert answer.status_code == 402
    assert f'<input type="hidden" name="attachment" value="{draft.pk}">' in answer.content.decode()


def test_an_upload_is_drawn_as_it_stands_in_the_composer() -> None:
    alice = people.alice()
    client = browser_of(alice)
    answer = client.post("/chat/attachments", {"images": upload(name='<b>"x".png')}, headers=HTMX)
    assert answer.status_code == 201
    draft = Attachment.objects.get(user=alice)
    assert f'value="{draft.pk}" checked' in answer.content.decode()
    assert "<b>" not in answer.content.decode()
    again = client.get("/chat/attachments", {"id": [draft.pk, ids.new("att"), "x"]}).content.decode()
    assert again.count("<li") == 1
    assert "<li" not in browser_of(people.carol()).get("/chat/attachments", {"id": draft.pk}).content.decode()
    refused = client.post("/chat/attachments", {"images": upload(b"<svg/>", "bad.png")}, headers=HTMX)
    assert (refused.status_code, refused["HX-Retarget"]) == (400, "#composer-notice")
    assert "bad.png" in refused.content.decode()


def test_an_image_is_served_to_its_owner_as_nothing_but_an_image() -> None:
    alice = people.alice()
    draft = draft_of(alice, name="evil.html")
    address = f"/chat/attachments/{draft.pk}"
    answer = browser_of(alice).get(address)
    assert answer.content == attachments.read(draft)
    assert answer["Content-Type"] == "image/png"
    assert answer["X-Content-Type-Options"] == "nosniff"
    assert answer["Content-Disposition"] == f'inline; filename="{draft.pk}.png"'
    assert answer["Content-Security-Policy"] == "default-src 'none'; sandbox"
    assert answer["Cache-Control"] == "private, no-cache"
    same = browser_of(alice).get(address, headers={"If-None-Match": answer["ETag"]})
    assert (same.status_code, same.content) == (304, b"")
    for other in (people.carol(), people.dewi()):
        assert browser_of(other).get(address, headers={"If-None-Match": answer["ETag"]}).status_code == 404
        assert browser_of(other).get(f"{address}/page").status_code == 404
    assert Client().get(address).status_code == 404


def test_an_edit_shows_the_images_and_sends_those_that_are_ticked() -> None:
    alice = people.alice()
    one, other = draft_of(alice), draft_of(alice)
    turn = show(alice, one, other, model=seeing_model())
    Message.objects.filter(pk=turn.reply.pk).update(state="complete", content="A crater.")
    address = f"/chat/messages/{turn.message.pk}/edits"
    client = browser_of(alice)
    page = client.get(address).content.decode()
    assert page.count(" checked data-thumb") == 2
    wish = {"text": "And this?", "turn": ids.new("trn"), "attachment": other.pk}
    assert client.post(address, wish).status_code == 303
    edited = Message.objects.filter(user=alice, role="user").latest("id")
    assert attachments.of([turn.message, edited]) == {turn.message.pk: (one, other), edited.pk: (other,)}


def test_a_stranger_sends_nobodys_images() -> None:
    alice, carol = people.alice(), people.carol()
    draft = draft_of(alice)
    free = seeing_model(is_free=True, input_rate=0, output_rate=0)
    wish = {"text": "Hi", "turn": ids.new("trn"), "attachment": draft.pk, "model": free}
    assert browser_of(carol).post("/chat/turns", wish).status_code == 404
    assert not Message.objects.filter(user=carol).exists()

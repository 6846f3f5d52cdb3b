"""Images of people: drafts of their own, parts of a message, sent to models that look at them, gone with their chat."""

from base64 import b64decode
from datetime import timedelta
from typing import Any

import pytest
from django.core.files.storage import storages
from django.utils import timezone

from aleph import ids
from aleph.problems import IdempotencyMismatch, NotFound
from chat import attachments, image_tokens, pictures, prompts, sessions, turns
from chat.models import Attached, Attachment, ChatModel
from tests import images, people
from tests.product import simulated_model
from tests.simulator import Simulator
from tests.stories_of_chat import answered, ask, assert_books_are_right, fresh, held
from tests.stories_of_images import draft_of, seeing_model, show, upload

pytestmark = [pytest.mark.usefixtures("committed", "simulator")]


def is_stored(attachment: Attachment) -> bool:
    return storages["attachments"].exists(attachment.path)


def long_ago(attachment: Attachment) -> None:
    past = timezone.now() - attachments.GRACE - timedelta(seconds=1)
    Attachment.objects.filter(pk=attachment.pk).update(expires_at=past)


def parts_of(simulator: Simulator, at: int = -1) -> Any:
    """The content of a message as the provider got it last."""
    return simulator.requests[-1].body["messages"][at]["content"]


# Drafts


def test_a_draft_is_kept_under_a_name_that_nobody_gave() -> None:
    alice = people.alice()
    draft = draft_of(alice, name="../../etc/pass\x00wd/Liburan di Bali.PNG")
    assert draft.name == "Liburan di Bali.PNG"
    assert "Bali" not in draft.path
    assert ".." not in draft.path
    assert pictures.rewritten(images.picture()).data == attachments.read(draft)
    assert attachments.get(alice, draft.pk) == draft


def test_a_draft_is_its_owners_alone() -> None:
    alice = people.alice()
    draft = draft_of(alice)
    for other in (people.carol(), people.dewi()):
        with pytest.raises(NotFound):
            attachments.get(other, draft.pk)
        assert attachments.drafts(other, [draft.pk]) == []
        attachments.remove(other, draft.pk)
        with pytest.raises(attachments.ImageGone):
            show(other, draft, model=seeing_model(is_free=True, input_rate=0, output_rate=0))
    assert attachments.get(alice, draft.pk)


@pytest.mark.parametrize("given", ["", "att_1", "msg_" + "0" * 26, "att_" + "0" * 26, "att_\x00", "../x"])
def test_what_is_no_attachment_is_not_found(given: str) -> None:
    with pytest.raises(NotFound):
        attachments.get(people.alice(), given)


def test_a_draft_that_was_never_sent_is_gone_after_a_day_file_and_all() -> None:
    alice = people.alice()
    old, young = draft_of(alice), draft_of(alice)
    assert old.expires_at is not None
    assert timedelta(hours=23) < old.expires_at - timezone.now() <= timedelta(hours=24)
    long_ago(old)
    with pytest.raises(NotFound):
        attachments.get(alice, old.pk)
    attachments.sweep()
    assert not is_stored(old)
    assert not Attachment.objects.filter(pk=old.pk).exists()
    assert attachments.get(alice, young.pk)
    assert is_stored(young)


def test_a_sweep_that_cannot_delete_a_file_keeps_its_row(
    settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = draft_of(people.alice()), draft_of(people.alice())
    long_ago(one)
    long_ago(other)
    folder = storages["attachments"].path(one.path)
    delete = type(storages["attachments"]).delete

    def stubborn(self: Any, name: str) -> None:
        if self.path(name) == folder:
            raise PermissionError(name)
        delete(self, name)

    monkeypatch.setattr(type(storages["attachments"]), "delete", stubborn)
    attachments.sweep()
    assert Attachment.objects.filter(pk=one.pk).exists()
    assert not Attachment.objects.filter(pk=other.pk).exists()
    monkeypatch.undo()
    attachments.sweep()
    assert not Attachment.objects.filter(pk=one.pk).exists()


def test_a_file_whose_write_failed_leaves_a_row_that_is_swept_up(monkeypatch: pytest.MonkeyPatch) -> None:
    alice = people.alice()

    def full(*_given: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(type(storages["attachments"]), "save", full)
    with pytest.raises(OSError, match="no space"):
        draft_of(alice)
    monkeypatch.undo()
    left = Attachment.objects.get(user=alice)
    with pytest.raises(NotFound):
        attachments.get(alice, left.pk)
    long_ago(left)
    attachments.sweep()
    assert not Attachment.objects.filter(user=alice).exists()


def test_nobody_keeps_more_than_there_is_room_for(settings: Any) -> None:
    alice = people.alice()
    settings.MAX_ATTACHED_MB = 3
    noisy = images.photograph(size=(1800, 1800), quality=60)
    kept = draft_of(alice, noisy)
    fits = 3 * 1024 * 1024 // kept.size_bytes
    for _each in range(fits - 1):
        draft_of(alice, noisy)
    with pytest.raises(attachments.NoMoreRoom):
        draft_of(alice, noisy)
    draft_of(people.carol())
    attachments.remove(alice, kept.pk)
    draft_of(alice)


def test_no_file_is_no_image() -> None:
    with pytest.raises(attachments.NothingUploaded):
        attachments.add(user=people.alice(), upload=None)
    with pytest.raises(pictures.NotAnImage):
        attachments.add(user=people.alice(), upload=upload(b"#!/bin/sh", "really.png"))


# Messages


def test_an_image_goes_with_its_message_to_a_model_that_looks_at_it(simulator: Simulator) -> None:
    alice = people.alice()
    one, other = draft_of(alice), draft_of(alice, images.photograph())
    turn = show(alice, one, other, model=seeing_model())
    assert turn.message.image_count == 2
    assert attachments.of([turn.message]) == {turn.message.pk: (one, other)}
    assert answered(turn).state == "complete"
    first, second, words = parts_of(simulator)
    assert words == {"type": "text", "text": "What is this?"}
    for part, image in ((first, one), (second, other)):
        head, _comma, data = part["image_url"]["url"].partition(",")
        assert head == f"data:{image.media_type};base64"
        assert b64decode(data) == attachments.read(image)
    assert_books_are_right()


def test_a_sent_image_does_not_expire_and_is_no_draft_any_more() -> None:
    alice = people.alice()
    draft = draft_of(alice)
    turn = show(alice, draft, model=seeing_model())
    sent = attachments.get(alice, draft.pk)
    assert (sent.session, sent.expires_at) == (turn.session, None)
    assert attachments.drafts(alice, [draft.pk]) == []
    attachments.remove(alice, draft.pk)
    attachments.sweep()
    assert is_stored(sent)
    with pytest.raises(attachments.ImageGone):
        show(alice, draft, model=seeing_model(), text="In another chat")


def test_a_model_that_takes_no_images_says_so_before_anything_is_sent() -> None:
    alice = people.alice()
    draft = draft_of(alice)
    blind = simulated_model("sim-words-3")
    with pytest.raises(turns.ImagesNotTaken) as refused:
        show(alice, draft, model=blind)
    assert refused.value.code == "IMAGES_NOT_TAKEN"
    with pytest.raises(turns.ImagesNotTaken):
        turns.quote(user=alice, session=None, text="Hi", model_slug=blind, attachments=[draft.pk])
    assert held(alice) == 0
    assert attachments.drafts(alice, [draft.pk]) == [draft]


def test_a_message_takes_four_images() -> None:
    alice = people.alice()
    drafts = [draft_of(alice) for _each in range(attachments.MOST + 1)]
    with pytest.raises(attachments.TooManyImages):
        show(alice, *drafts, model=seeing_model())
    show(alice, *drafts[:-1], drafts[0], model=seeing_model())


def test_the_hold_covers_what_the_images_are_counted_as() -> None:
    alice = people.alice()
    large = images.picture(size=(1600, 1200))
    claude = seeing_model("claude")
    without = show(alice, model=claude)
    with_image = show(alice, draft_of(alice, large), model=claude)
    more = with_image.reply.estimated_input_tokens - without.reply.estimated_input_tokens
    assert more == image_tokens.of("claude", width=1600, height=1200) == 2560
    assert with_image.reply.held_tokens - without.reply.held_tokens >= 2560 * 100 // 1000
    quote = turns.quote(
        user=alice,
        session=None,
        text="What is this?",
        model_slug=claude,
        attachments=[draft_of(alice, large).pk],
    )
    assert quote.at_most == with_image.reply.held_tokens


def test_the_same_turn_shows_the_same_images_once() -> None:
    alice = people.alice()
    model, turn = seeing_model(), ids.new("trn")
    draft, other = draft_of(alice), draft_of(alice)
    first = show(alice, draft, model=model, turn=turn)
    assert show(alice, draft, model=model, turn=turn).reply == first.reply
    assert Attached.objects.filter(message=first.message).count() == 1
    for changed in ((other,), (), (draft, other)):
        with pytest.raises(IdempotencyMismatch):
            show(alice, *changed, model=model, turn=turn)


def test_an_edited_message_keeps_its_images_or_leaves_them_out(simulator: Simulator) -> None:
    alice = people.alice()
    one, other, third = draft_of(alice), draft_of(alice), draft_of(alice)
    first = show(alice, one, other, model=seeing_model())
    answered(first)
    edited = turns.edit(
        user=alice,
        message_id=first.message.pk,
        text="And this?",
        turn=ids.new("trn"),
        attachments=[other.pk, third.pk],
    )
    shown = attachments.of([first.message, edited.message])
    assert shown == {first.message.pk: (one, other), edited.message.pk: (other, third)}
    answered(edited)
    assert [part["type"] for part in parts_of(simulator)] == ["image_url", "image_url", "text"]


def test_another_reply_and_the_rest_of_one_see_the_images_again(simulator: Simulator) -> None:
    alice = people.alice()
    model = seeing_model(script="sim-words-5-length")
    reply = answered(show(alice, draft_of(alice), model=model))
    again = answered(turns.retry(user=alice, reply_id=reply.pk, turn=ids.new("trn")))
    assert [part["type"] for part in parts_of(simulator)] == ["image_url", "text"]
    answered(turns.go_on(user=alice, reply_id=again.pk, turn=ids.new("trn")))
    assert [part["type"] for part in parts_of(simulator, 1)] == ["image_url", "text"]
    with pytest.raises(turns.ImagesNotTaken):
        turns.retry(
            user=alice, reply_id=reply.pk, turn=ids.new("trn"), model_slug=simulated_model("sim-words-4")
        )


def test_a_model_without_eyes_that_comes_later_is_told_that_there_was_an_image(simulator: Simulator) -> None:
    alice = people.alice()
    reply = answered(show(alice, draft_of(alice), model=seeing_model()))
    answered(ask(alice, "Thank you", session=reply.session, script="sim-words-4"))
    assert parts_of(simulator, 1) == f"{prompts.UNSEEN}\nWhat is this?"


def test_of_a_long_chat_the_newest_images_are_sent() -> None:
    sees = ChatModel(slug="x", takes_images=True, context_tokens=1_000_000, max_output_tokens=100)
    some = [Attachment(id=ids.new("att"), width=10, height=10, size_bytes=1000) for _each in range(12)]
    said = [prompts.Spoken("user", str(at), (image,)) for at, image in enumerate(some)]
    seen = prompts.draft(sees, said).images
    assert sorted(seen) == list(range(3, 13)), "the first place is the system's"
    for image in some:
        image.size_bytes = pictures.MOST_KEPT_BYTES
    assert sorted(prompts.draft(sees, said).images) == [9, 10, 11, 12]


def test_a_deleted_chat_takes_its_images_with_it() -> None:
    alice = people.alice()
    draft, kept = draft_of(alice), draft_of(alice)
    turn = show(alice, draft, model=seeing_model())
    answered(turn)
    sessions.delete(turn.session)
    with pytest.raises(NotFound):
        attachments.get(alice, draft.pk)
    left = Attachment.objects.get(pk=draft.pk)
    assert left.session is None
    long_ago(left)
    attachments.sweep()
    assert not is_stored(draft)
    assert is_stored(kept)


def test_what_a_person_leaves_who_is_deleted_is_swept_up() -> None:
    carol = people.carol()
    draft = draft_of(carol)
    Attachment.objects.filter(pk=draft.pk).update(user=None)
    attachments.sweep()
    assert not is_stored(draft)


def test_a_reply_whose_image_is_lost_is_interrupted_and_costs_nothing() -> None:
    alice = people.alice()
    draft = draft_of(alice)
    turn = show(alice, draft, model=seeing_model())
    storages["attachments"].delete(draft.path)
    reply = answered(turn)
    assert (reply.state, reply.tokens_used, held(alice)) == ("interrupted", 0, 0)
    assert fresh(turn.reply).error_kind == "internal"


def test_a_chat_without_images_asks_nobody_about_them(django_assert_num_queries: Any) -> None:
    turn = ask(people.alice())
    with django_assert_num_queries(0):
        assert attachments.of([turn.message, turn.reply]) == {}


class TestAnImageWithoutWords:
    def test_goes_out_and_names_its_chat(self, simulator: Simulator) -> None:
        alice, model = people.alice(), seeing_model()
        image = draft_of(alice, name="kawah ijen.png")

        turn = show(alice, image, model=model, text="  ")
        reply = answered(turn)

        assert (turn.message.content, turn.session.title) == ("", "kawah ijen.png")
        assert (reply.state, reply.tokens_used <= reply.held_tokens) == ("complete", True)
        parts = simulator.requests[-1].body["messages"][-1]["content"]
        assert [part["type"] for part in parts] == ["image_url"]

    def test_is_seen_in_what_follows_and_told_of_to_who_cannot_see(self, simulator: Simulator) -> None:
        alice, sees = people.alice(), seeing_model()
        first = show(alice, draft_of(alice), model=sees, text="")
        answered(first)
        for model, expected in ((sees, ["image_url"]), (simulated_model("sim-words-4"), prompts.UNSEEN)):
            turn = turns.start(
                user=alice, session=first.session, text="And now?", model_slug=model, turn=ids.new("trn")
            )
            answered(turn)
            _system, shown, *_rest = simulator.requests[-1].body["messages"]
            content = shown["content"]
            assert (content if isinstance(content, str) else [part["type"] for part in content]) == expected

    def test_is_had_again_and_takes_the_place_of_words(self, simulator: Simulator) -> None:
        alice, model = people.alice(), seeing_model()
        first = show(alice, draft_of(alice), model=model, text="What is this?")
        answered(first)

        edited = turns.edit(user=alice, message_id=first.message.pk, text="", turn=ids.new("trn"))
        reply = answered(edited)
        again = answered(turns.retry(user=alice, reply_id=reply.pk, turn=ids.new("trn")))

        assert (reply.state, again.state, edited.message.content) == ("complete", "complete", "")
        assert edited.message.parent_id == first.message.parent_id

    def test_and_without_an_image_is_nothing_to_send(self) -> None:
        alice, model = people.alice(), seeing_model()
        with pytest.raises(turns.EmptyText):
            show(alice, model=model, text=" ")
        first = show(alice, draft_of(alice), model=model, text="")
        turns.stop(user=alice, reply_id=first.reply.pk)
        with pytest.raises(turns.EmptyText):
            turns.edit(user=alice, message_id=first.message.pk, text="", attachments=(), turn=ids.new("trn"))

"""The pages of a conversation that branches, by htmx and without it: versions, what another one costs, and what is typed."""

import re
from datetime import date
from functools import partial
from html import unescape
from typing import Any

import pytest
from asgiref.sync import async_to_sync
from django.test import Client, RequestFactory

from aleph import ids
from aleph.accounts.models import User
from billing import ledger
from chat import catalogue, live, picker, sessions, turns
from chat.models import ChatModel, Message
from tests import people
from tests.forms import Answer, filled
from tests.product import simulated_model
from tests.stories_of_chat import answered, ask, fresh, special_model, statements, told
from tests.test_branches import LENGTH, again, gone_on, said_to
from tests.test_chat_pages import HTMX, all_of, long_chat, page_of, signed_in, words

pytestmark = pytest.mark.usefixtures("committed", "simulator")

IN_THREAD = {**HTMX, "HX-Target": "thread"}
both_ways = pytest.mark.parametrize("htmx", [True, False])


@pytest.fixture
def alice() -> User:
    return people.alice()


@pytest.fixture
def client(alice: User) -> Client:
    return signed_in(alice)


@pytest.fixture
def reply(alice: User) -> Message:
    return told(alice, "The question")


def versions(answer: Answer) -> list[str]:
    """The pagers of a page, such as ``2 / 3``."""
    return re.findall(r"\d+ / \d+", " ".join(words(answer, "main").split()))


def links(answer: Answer, which: str) -> list[str]:
    """Where the pagers of a page lead: ``previous`` or ``next``."""
    return re.findall(rf'id="\w+-{which}" href="([^"]+)"', answer.content.decode())


def edits_of(reply: Message) -> str:
    return f"/chat/messages/{reply.parent_id}/edits"


def retries_of(reply: Message) -> str:
    return f"/chat/replies/{reply.pk}/retries"


def user_messages(person: User) -> list[str]:
    return list(
        Message.objects.filter(user=person, role="user").order_by("id").values_list("content", flat=True)
    )


# From version to version


def test_versions_are_links_and_a_message_goes_on_from_the_one_that_is_shown(
    alice: User, client: Client, reply: Message
) -> None:
    assert versions(client.get(page_of(reply.session))) == []
    second, third = again(alice, reply), again(alice, reply)
    page = client.get(page_of(reply.session))
    assert versions(page) == ["3 / 3"]
    assert links(page, "next") == []
    page = client.get(links(page, "previous")[0].partition("#")[0])
    assert versions(page) == ["2 / 3"]
    page = client.get(links(page, "previous")[0].partition("#")[0])
    assert versions(page) == ["1 / 3"]
    assert (links(page, "previous"), f'id="{third.pk}"' in page.content.decode()) == ([], False)
    assert f"?at={second.pk}#{second.pk}" in links(page, "next")[0]

    form = filled(page, id="composer")
    assert form["parent"] == reply.pk
    answer = client.post(f"{page_of(reply.session)}/turns", {**form, "text": "To the first"})
    said = Message.objects.get(session=reply.session, content="To the first")
    assert said.parent_id == reply.pk
    assert versions(client.get(answer.headers["Location"])) == ["1 / 3"]


def test_by_htmx_a_version_takes_the_place_of_the_thread_and_of_the_composers_end(
    alice: User, client: Client, reply: Message
) -> None:
    again(alice, reply)
    answer = client.get(f"{page_of(reply.session)}?at={reply.pk}", headers=IN_THREAD)
    html = answer.content.decode()
    assert "<html" not in html
    assert f'id="{reply.pk}"' in html
    assert 'id="composer-send" hx-swap-oob="true"' in html
    assert f'name="parent" value="{reply.pk}"' in html


def test_a_branch_of_a_stranger_is_not_there(client: Client, reply: Message) -> None:
    foreign = told(people.alice())
    carol = signed_in(people.carol())
    for address in (
        f"{page_of(reply.session)}?at={reply.pk}",
        retries_of(reply),
        edits_of(reply),
    ):
        assert carol.get(address).status_code == 404
    assert client.get(f"{page_of(reply.session)}?at={foreign.pk}").status_code == 404
    for address in (retries_of(reply), edits_of(reply), f"/chat/replies/{reply.pk}/continuations"):
        answer = carol.post(address, {"turn": ids.new("trn"), "text": "Mine"}, headers=HTMX)
        assert answer.status_code == 404
    assert Message.objects.filter(session=reply.session).count() == 2


def test_a_reply_on_another_version_is_pointed_at(alice: User, client: Client, reply: Message) -> None:
    turn = turns.retry(user=alice, reply_id=reply.pk, turn=ids.new("trn"))
    page = client.get(f"{page_of(reply.session)}?at={reply.pk}")
    assert "A reply is being written in another version of this chat." in words(page, "main")
    assert f'href="{page_of(reply.session)}?at={turn.reply.pk}"' in page.content.decode()
    assert "sse-connect" not in page.content.decode()
    page = client.get(page_of(reply.session))
    assert "another version" not in words(page, "main")
    assert versions(page) == ["2 / 2"], "also while it is written"


def test_earlier_messages_are_those_of_the_branch(alice: User, client: Client) -> None:
    chat = long_chat(alice, exchanges=40)
    first = Message.objects.filter(session=chat, role="assistant").order_by("id")[0]
    Message.objects.create(
        id=ids.new("msg"),
        session=chat,
        user=alice,
        parent_id=first.parent_id,
        role="assistant",
        state="complete",
        turn=ids.new("trn"),
        content="Another answer",
    )
    page = client.get(f"{page_of(chat)}?at={first.pk}")
    assert "Question 39" in words(page, "main")
    address = re.search(r'hx-get="([^"]*before=[^"]*)"', page.content.decode())
    assert address is not None
    assert f"at={first.pk}&before=" in unescape(address[1])
    older = client.get(unescape(address[1]), headers=HTMX)
    assert "Question 0" in words(older)
    assert "1 / 2" in words(older)
    whole = client.get(unescape(address[1]))
    end = sessions.end_of(chat, at=first.pk)
    assert filled(whole, id="composer")["parent"] == end
    assert f'href="{page_of(chat)}?at={first.pk}"' in whole.content.decode()


def test_a_page_begins_with_what_somebody_said(alice: User, client: Client) -> None:
    chat = long_chat(alice, exchanges=30)
    tip = Message.objects.filter(session=chat).order_by("-id")[0]
    Message.objects.filter(pk=tip.pk).update(finish_reason="length", model=ChatModel.objects.first())
    answered(
        turns.go_on(user=alice, reply_id=tip.pk, turn=ids.new("trn"), model_slug=simulated_model(LENGTH))
    )
    page = client.get(page_of(chat)).content.decode()
    assert re.findall(r'class="message message--(\w+)"', page)[0] == "user"


def test_search_leads_to_the_branch_where_it_was_said(alice: User, client: Client, reply: Message) -> None:
    hidden = answered(said_to(alice, reply, "Something about Gayo"))
    answered(said_to(alice, reply, "And now something else"))
    assert "Gayo" not in words(client.get(page_of(reply.session)), "main")
    found = client.get("/chat/search?q=gayo").content.decode()
    address = re.search(r'class="hits__open" href="([^"]+)"', found)
    assert address is not None
    assert address[1].endswith(f"#{hidden.parent_id}")
    assert "Something about Gayo" in words(client.get(address[1].partition("#")[0]), "main")


# Answered again


@both_ways
def test_another_reply_is_asked_for_at_the_price_that_is_shown(
    htmx: bool, alice: User, client: Client, reply: Message
) -> None:
    on_this_page = client.get(page_of(reply.session)).content.decode()
    assert f'hx-get="{retries_of(reply)}"' in on_this_page
    menu = client.get(retries_of(reply), headers=HTMX if htmx else {})
    assert ("<html" in menu.content.decode()) is not htmx
    own = picker.others(reply, catalogue.offers(), available=10_500)[0]
    assert re.search(rf"{own.offer.model.name} at most {own.at_most} tokens", words(menu))
    answer = client.post(
        retries_of(reply), filled(menu, action=retries_of(reply)), headers=IN_THREAD if htmx else {}
    )
    made = Message.objects.get(session=reply.session, state="queued")
    assert (made.parent_id, made.held_tokens) == (reply.parent_id, own.at_most)
    if htmx:
        assert (answer.headers["HX-Retarget"], answer.headers["HX-Reswap"]) == ("#thread", "innerHTML")
        assert f'sse-connect="/chat/replies/{made.pk}/stream"' in answer.content.decode()
        assert f'formaction="/chat/replies/{made.pk}/stops"' in answer.content.decode()
    else:
        assert (answer.status_code, answer.headers["Location"]) == (303, page_of(reply.session))


def test_another_reply_in_the_middle_shows_the_branch_that_it_begins(
    alice: User, client: Client, reply: Message
) -> None:
    later = answered(said_to(alice, reply, "Later"))
    here = {**IN_THREAD, "HX-Current-URL": f"http://testserver{page_of(reply.session)}?at={later.pk}"}
    answer = client.post(retries_of(reply), {"turn": ids.new("trn")}, headers=here)
    html = answer.content.decode()
    assert f'id="{reply.parent_id}"' in html
    assert f'id="{later.pk}"' not in html
    assert answer.headers["HX-Replace-Url"] == page_of(reply.session), (
        "which shows the newest when it is reloaded"
    )


def test_why_there_is_no_other_reply_is_said_where_it_was_asked_for(
    alice: User, client: Client, reply: Message
) -> None:
    turn = turns.retry(user=alice, reply_id=reply.pk, turn=ids.new("trn"))
    answer = client.post(retries_of(reply), {"turn": ids.new("trn")}, headers=IN_THREAD)
    assert answer.status_code == 409
    assert answer.headers["HX-Retarget"] == f"#regenerate-{reply.pk}"
    assert "A reply is still being written in this chat." in words(answer)
    without = client.post(retries_of(reply), {"turn": ids.new("trn")})
    assert without.status_code == 409
    assert "A reply is still being written in this chat." in words(without)
    assert Message.objects.filter(session=reply.session).count() == 3
    assert ledger.balance_of(alice).held == turn.reply.held_tokens


def test_a_menu_at_another_price_is_refused_and_drawn_anew(alice: User, client: Client) -> None:
    model = special_model(ids.new("dear").lower())
    turn = turns.start(user=alice, session=None, text="Hi", model_slug=model.slug, turn=ids.new("trn"))
    reply = answered(turn)
    form = filled(client.get(retries_of(reply), headers=HTMX), action=retries_of(reply))
    ChatModel.objects.filter(pk=model.pk).update(input_rate=900, output_rate=900)
    answer = client.post(retries_of(reply), form, headers=IN_THREAD)
    assert answer.status_code == 409
    assert "The price of this model has just changed." in words(answer)
    fresh_form = filled(answer, action=retries_of(reply))
    assert fresh_form["terms"].startswith(f"{model.slug}:900:900@")
    assert client.post(retries_of(reply), fresh_form, headers=IN_THREAD).status_code == 200


def test_a_failed_try_leaves_the_way_back(alice: User, client: Client, reply: Message) -> None:
    """A reply that wrote nothing has no cost to show, and still its versions."""
    broken = simulated_model("sim-error-503")
    answered(turns.retry(user=alice, reply_id=reply.pk, turn=ids.new("trn"), model_slug=broken))
    page = client.get(page_of(reply.session))
    assert versions(page) == ["2 / 2"]
    assert "Nothing was charged" in words(page) or "nothing was charged" in words(page)


# Said otherwise


@both_ways
def test_a_message_is_edited_where_it_stands_and_shows_its_price(
    htmx: bool, alice: User, client: Client, reply: Message
) -> None:
    drawn = client.get(edits_of(reply), headers=HTMX if htmx else {})
    assert drawn.headers.get("HX-Retarget") == (f"#{reply.parent_id}-edit" if htmx else None)
    form = filled(drawn, action=edits_of(reply))
    assert form["text"].strip() == "The question"
    quote = turns.quote_of_edit(
        user=alice, message_id=reply.parent_id or "", text="The question", model_slug=None
    )
    assert f"at most {quote.at_most} tokens" in words(drawn)
    estimate = client.post("/chat/estimates", {**form, "text": "A question " * 90}, headers=HTMX)
    assert words(estimate) != words(client.post("/chat/estimates", form, headers=HTMX))

    answer = client.post(
        edits_of(reply), {**form, "text": "A better question"}, headers=IN_THREAD if htmx else {}
    )
    if htmx:
        assert answer.headers["HX-Retarget"] == "#thread"
    else:
        assert answer.status_code == 303
        answer = client.get(answer.headers["Location"])
    assert "A better question" in words(answer)
    assert "2 / 2" in words(answer)
    assert user_messages(alice) == ["The question", "A better question"]


def test_an_edit_is_answered_by_the_model_that_is_chosen(alice: User, client: Client, reply: Message) -> None:
    other = simulated_model("sim-words-7", rate=20)
    drawn = client.get(f"{edits_of(reply)}?model={other}", headers=HTMX)
    form = {**filled(drawn, action=edits_of(reply)), "model": other, "text": "Otherwise"}
    assert form["terms"].startswith(f"{other}:")
    client.post(edits_of(reply), form, headers=IN_THREAD)
    made = Message.objects.select_related("model").get(session=reply.session, state="queued")
    assert made.model is not None
    assert made.model.slug == other


@both_ways
def test_what_is_typed_into_an_edit_stays_whatever_happens(
    htmx: bool, alice: User, client: Client, reply: Message
) -> None:
    form = {**filled(client.get(edits_of(reply)), action=edits_of(reply)), "text": "Typed </textarea><b>"}
    turns.retry(user=alice, reply_id=reply.pk, turn=ids.new("trn"))
    post = partial(client.post, edits_of(reply), headers=IN_THREAD if htmx else {})
    answer = post(form)
    assert answer.status_code == 409
    assert "A reply is still being written in this chat." in words(answer)
    if htmx:
        assert answer.headers["HX-Retarget"] == f"#{reply.parent_id}-notice", "the text stands where it stood"
    else:
        assert filled(answer, action=edits_of(reply))["text"].strip() == "Typed </textarea><b>"
    assert post({**form, "text": "  "}).status_code == 400
    assert "There is nothing to send yet." in words(post({**form, "text": "  "}))
    sessions.delete(sessions.get(alice, reply.session_id))
    gone = post(form)
    assert gone.status_code == 404
    assert "This chat was deleted." in words(gone)
    assert htmx or filled(gone, id="composer")["text"].strip() == "Typed </textarea><b>"


@both_ways
def test_an_edit_waits_for_tokens_and_is_sent_in_its_place(htmx: bool) -> None:
    carol = people.carol()
    people.give_rupiah(carol, 100_000)
    reply = told(carol, "The question", rate=0)
    client, dear = signed_in(carol), simulated_model("sim-words-5")
    headers = IN_THREAD if htmx else {}
    form = {**filled(client.get(edits_of(reply)), action=edits_of(reply)), "text": "It waits", "model": dear}
    refused = client.post(edits_of(reply), form, headers=headers)
    assert refused.status_code == 402
    waiting = filled(refused, action="/chat/purchases")
    assert (waiting["text"], waiting["edited"]) == ("It waits", reply.parent_id)
    assert ('hx-post="/chat/purchases"' in refused.content.decode()) is htmx
    bought = client.post("/chat/purchases", waiting, headers=headers)
    said = Message.objects.get(user=carol, content="It waits")
    assert said.parent_id is None
    if htmx:
        assert bought.headers["HX-Retarget"] == "#thread"
        assert "2 / 2" in words(bought)
    else:
        assert versions(client.get(bought.headers["Location"])) == ["2 / 2"]


def test_what_waits_for_tokens_on_a_branch_goes_on_from_that_branch() -> None:
    carol = people.carol()
    people.give_rupiah(carol, 100_000)
    first = told(carol, "The question", rate=0)
    again(carol, first)
    client, dear = signed_in(carol), simulated_model("sim-words-5")
    form = filled(client.get(f"{page_of(first.session)}?at={first.pk}"), id="composer")
    refused = client.post(
        f"{page_of(first.session)}/turns", {**form, "text": "It waits", "model": dear}, headers=HTMX
    )
    client.post("/chat/purchases", filled(refused, action="/chat/purchases"), headers=HTMX)
    assert Message.objects.get(user=carol, content="It waits").parent_id == first.pk


# Gone on with


def test_a_reply_that_was_cut_off_goes_on_at_the_price_that_is_shown(alice: User, client: Client) -> None:
    reply = told(alice, "Count", script=LENGTH)
    address = f"/chat/replies/{reply.pk}/continuations"
    page = client.get(page_of(reply.session))
    offered = picker.tries(reply, catalogue.offers(), available=10_500).go_on
    assert offered is not None
    assert f"Continue at most {offered.at_most} tokens" in words(page, "main")
    answer = client.post(address, filled(page, action=address), headers={**HTMX, "HX-Target": reply.pk})
    rest = Message.objects.get(parent=reply)
    assert rest.held_tokens == offered.at_most
    html = answer.content.decode()
    assert f'<article class="message message--reply" id="{rest.pk}"' in html
    assert reply.content.strip() in words(answer), "what was written stands there while it goes on"
    assert f'data-fetches="receipt-{reply.pk}"' in html, "and what it cost"

    answered(turns.Turn(reply.session, reply, rest))
    page = client.get(page_of(reply.session))
    whole = reply.content + fresh(rest).content
    assert whole.strip() in words(page, "main")
    assert client.get(f"/chat/replies/{rest.pk}/text").content.decode() == whole
    assert f"Continued: {fresh(rest).model}" in words(page, "main")
    assert f"/chat/replies/{reply.pk}/continuations" not in page.content.decode()


def test_without_javascript_a_reply_goes_on_too(alice: User, client: Client) -> None:
    reply = told(alice, script=LENGTH)
    address = f"/chat/replies/{reply.pk}/continuations"
    form = filled(client.get(page_of(reply.session)), action=address)
    for _click in range(2):
        answer = client.post(address, form)
        assert (answer.status_code, answer.headers["Location"]) == (303, page_of(reply.session))
    assert Message.objects.filter(parent=reply).count() == 1


def test_a_reply_that_the_balance_ended_offers_tokens_and_its_rest(alice: User, client: Client) -> None:
    reply = told(alice, script=LENGTH)
    Message.objects.filter(pk=reply.pk).update(is_limited_by_balance=True)
    page = words(client.get(page_of(reply.session)), "main")
    assert re.search(r"Your balance ended here .* Buy tokens Continue at most \d+ tokens", page)


def test_what_was_said_after_it_leaves_no_rest_to_ask_for(alice: User, client: Client) -> None:
    reply = told(alice, script=LENGTH)
    answered(said_to(alice, reply, "Never mind"))
    page = client.get(page_of(reply.session))
    assert f"/chat/replies/{reply.pk}/continuations" not in page.content.decode()


def test_code_that_was_cut_in_the_middle_is_drawn_as_one_block(alice: User, client: Client) -> None:
    reply = told(alice, "```python\none = 1", script="sim-echo-length")
    Message.objects.filter(pk=reply.pk).update(content="```python\none = 1\n")
    rest = answered(gone_on(alice, reply))
    Message.objects.filter(pk=rest.pk).update(content="two = 2\n```\n\nThat is all.")
    html = client.get(page_of(reply.session)).content.decode()
    assert html.count('<figure class="code">') == 1
    assert "<p>That is all.</p>" in html


# Both


@both_ways
def test_a_double_click_is_one_click(htmx: bool, alice: User, client: Client, reply: Message) -> None:
    headers = IN_THREAD if htmx else {}
    edit = {**filled(client.get(edits_of(reply)), action=edits_of(reply)), "text": "Otherwise"}
    menu = filled(client.get(retries_of(reply)), action=retries_of(reply))
    for number, (address, form) in enumerate([(edits_of(reply), edit), (retries_of(reply), menu)]):
        answers = [client.post(address, form, headers=headers) for _click in range(2)]
        assert {answer.status_code for answer in answers} == {200 if htmx else 303}
        made = Message.objects.filter(user=alice, role="assistant")
        assert made.count() == 2 + number
        turns.stop(user=alice, reply_id=made.get(state="queued").pk)


def test_a_page_asks_no_more_of_the_database_the_more_it_branches(alice: User, client: Client) -> None:
    reply = told(alice, script=LENGTH)
    counts: list[dict[str, int]] = []
    for _round in range(2):
        addresses: dict[str, Any] = {
            "newest": page_of(reply.session),
            "another": f"{page_of(reply.session)}?at={reply.pk}",
            "before": f"{page_of(reply.session)}?before={reply.pk}",
        }
        found = {}
        for name, address in addresses.items():
            with statements() as sent:
                assert client.get(address).status_code == 200
            found[name] = len(sent)
        counts.append(found)
        for _more in range(3):
            reply_to = again(alice, reply)
            answered(gone_on(alice, answered(gone_on(alice, reply_to))))
            answered(said_to(alice, reply, "Another question"))
    assert counts[0]["newest"] <= 11, counts
    assert all(number <= 11 for found in counts for number in found.values()), counts


def test_the_end_of_a_continuation_comes_with_all_that_it_goes_on_from(alice: User, client: Client) -> None:
    reply = told(alice, "Count", script=LENGTH)
    rest = answered(gone_on(alice, reply))
    answer = client.get(f"/chat/replies/{rest.pk}/stream")
    events = async_to_sync(all_of)(answer)
    assert reply.content.strip() in events
    assert f'data-fetches="receipt-{reply.pk}"' in events
    assert f'name="parent" value="{rest.pk}"' in events


def test_the_composer_of_an_answered_message_goes_on_from_its_reply(alice: User, client: Client) -> None:
    turn = ask(alice)
    page = client.get(page_of(turn.session))
    assert filled(page, id="composer")["parent"] == turn.reply.pk
    turns.stop(user=alice, reply_id=turn.reply.pk)
    form = {**filled(client.get(page_of(turn.session)), id="composer"), "text": "Further"}
    answer = client.post(f"{page_of(turn.session)}/turns", form, headers=HTMX)
    made = Message.objects.get(session=turn.session, state="queued")
    assert f'name="parent" value="{made.pk}"' in answer.content.decode()


def test_two_tabs_that_go_on_from_the_same_reply_are_two_branches(
    alice: User, client: Client, reply: Message
) -> None:
    """Whoever writes answers what he has read, and not what another tab has added since."""
    forms = [filled(client.get(page_of(reply.session)), id="composer") for _tab in range(2)]
    for text, form in zip(("One", "Two"), forms, strict=True):
        client.post(f"{page_of(reply.session)}/turns", {**form, "text": text}, headers=HTMX)
        answered(turns.Turn(reply.session, reply, Message.objects.get(session=reply.session, state="queued")))
    assert versions(client.get(page_of(reply.session))) == ["2 / 2"]


# A chat that was deleted in another tab


@pytest.mark.parametrize("verb", ["retries", "continuations", "stops"])
def test_what_is_asked_for_in_a_deleted_chat_is_answered_by_saying_so(
    verb: str, alice: User, client: Client, reply: Message
) -> None:
    address = f"/chat/replies/{reply.pk}/{verb}"
    form = {"turn": ids.new("trn")}
    sessions.delete(reply.session)
    answer = client.post(address, form, headers=HTMX)
    assert (answer.status_code, answer.headers["HX-Retarget"]) == (404, "#composer-notice")
    assert "This chat was deleted." in words(answer)
    assert "Send it as a new chat" not in words(answer)
    plain = client.post(address, form)
    assert plain.status_code == 404
    assert "This chat was deleted." in words(plain)
    assert 'id="composer"' in plain.content.decode()


@pytest.mark.parametrize(
    "what", ["replies/{reply}/retries", "replies/{reply}/receipt", "messages/{message}/edits"]
)
def test_what_is_looked_at_in_a_deleted_chat_is_answered_by_saying_so(
    what: str, client: Client, reply: Message
) -> None:
    address = "/chat/" + what.format(reply=reply.pk, message=reply.parent_id)
    sessions.delete(reply.session)
    answer = client.get(address, headers=HTMX)
    assert (answer.status_code, answer.headers["HX-Retarget"]) == (404, "#composer-notice")
    assert "This chat was deleted." in words(answer)
    assert client.get(address).status_code == 404


def test_whoever_watches_a_reply_learns_that_its_chat_was_deleted(alice: User, client: Client) -> None:
    reply = ask(alice).reply
    sessions.delete(reply.session)
    page = live._Page(reply, RequestFactory().get("/"), ())
    done = page.done(None)
    assert "This chat was deleted." in done
    assert 'id="composer-notice" hx-swap-oob' in done
    assert "data-send" in done
    assert "data-stop" not in done


def test_without_enough_tokens_another_reply_leads_to_tokens() -> None:
    bob = people.bob()
    client, reply = signed_in(bob), told(bob, rate=0)
    dear = special_model(ids.new("dear").lower(), input_rate=2000, output_rate=2000).slug
    form = {"turn": ids.new("trn"), "model": dear}
    for headers in (IN_THREAD, HTMX, {}):
        answer = client.post(retries_of(reply), form, headers=headers)
        assert answer.status_code == 402
        assert "Not enough tokens." in words(answer)
        assert "Buy tokens" in words(answer)


def test_what_a_retired_model_left_unfinished_is_finished_by_another(alice: User, client: Client) -> None:
    model = special_model(ids.new("old").lower(), script=LENGTH, name="Old")
    heir = special_model(ids.new("young").lower(), script=LENGTH, name="Young")
    turn = turns.start(user=alice, session=None, text="Count", model_slug=model.slug, turn=ids.new("trn"))
    reply = answered(turn)
    ChatModel.objects.filter(pk=model.pk).update(retires_on=date(2020, 1, 1), successor=heir)
    page = client.get(page_of(reply.session))
    assert "Continue with Young at most" in words(page)
    form = filled(page, action=f"/chat/replies/{reply.pk}/continuations")
    answer = client.post(f"/chat/replies/{reply.pk}/continuations", form | {"model": heir.slug}, headers=HTMX)
    assert answer.status_code == 200
    rest = Message.objects.get(parent=reply)
    assert rest.model == heir
    turns.stop(user=alice, reply_id=rest.pk)

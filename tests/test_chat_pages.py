"""The pages of the chat: every form works by htmx and without it, and nothing that somebody typed is lost."""

import re
from datetime import UTC, date, datetime, timedelta
from html import unescape
from typing import Any

import pytest
from asgiref.sync import async_to_sync
from django.db import transaction
from django.template.loader import render_to_string
from django.test import Client
from django.utils import timezone, translation
from pytest_django import DjangoAssertNumQueries

from aleph import ids, rates
from aleph.accounts.models import User
from billing import ledger
from billing.models import Package, PromoCode, Purchase
from chat import catalogue, context, picker, replies, search, sessions, turns
from chat.models import ChatModel, Message, Session
from chat.views import greeting
from tests import people
from tests.forms import Answer, filled
from tests.product import simulated_model
from tests.stories_of_chat import answered, ask, orphaned, special_model, statements, told

pytestmark = pytest.mark.usefixtures("committed")

HTMX = {"HX-Request": "true"}


def signed_in(person: User, **options: Any) -> Client:
    client = Client(headers={"accept-language": "en"}, **options)
    client.force_login(person)
    return client


def words(answer: Answer, part: str = "body") -> str:
    """What a part of the answer says, without its markup."""
    text = answer.content.decode()
    found = re.search(rf"<{part}.*?</{part}>", text, re.DOTALL)
    return " ".join(unescape(re.sub(r"<[^>]+>", " ", found[0] if found else text)).split())


def chat_of(answer: Answer) -> Session:
    """The chat that an answer leads to."""
    address = answer.headers.get("HX-Redirect") or answer.headers["Location"]
    return Session.objects.get(pk=address.removeprefix("/chat/"))


def page_of(chat: Session) -> str:
    return f"/chat/{chat.pk}"


def say(client: Client, text: str, *, to: Session | None = None, htmx: bool = False, **more: str) -> Answer:
    """Fill the composer as a browser would, and send it."""
    page = page_of(to) if to else "/"
    address = f"{page}/turns" if to else "/chat/turns"
    form = {**filled(client.get(page), id="composer"), "text": text, **more}
    return client.post(address, form, headers=HTMX if htmx else {})


# Sending


def test_a_first_message_without_javascript_leads_to_its_chat() -> None:
    client = signed_in(people.alice())
    answer = say(client, "Halo, apa kabar?")
    assert answer.status_code == 303
    page = client.get(answer.headers["Location"])
    assert "Halo, apa kabar?" in words(page, "main")
    assert f'action="{page_of(chat_of(answer))}/turns"' in page.content.decode()


def test_a_first_message_by_htmx_leads_the_whole_page_to_its_chat() -> None:
    answer = say(signed_in(people.alice()), "Halo", htmx=True)
    assert answer.status_code == 200
    assert chat_of(answer).title == "Halo"


def test_without_javascript_one_looks_again_and_keeps_what_is_typed(simulator: object) -> None:
    alice = people.alice()
    client = signed_in(alice)
    turn = ask(alice)
    chat = turn.session
    page = client.get(page_of(chat))
    assert 'http-equiv="refresh"' not in page.content.decode(), "it would take away what is being typed"
    assert f'formaction="{page_of(chat)}#{turn.reply.pk}"' in page.content.decode()
    form = {**filled(page, id="composer"), "text": "The next thing"}
    for is_open in (True, False):
        again = client.post(page_of(chat), form)
        assert again.status_code == 200
        assert filled(again, id="composer")["text"].strip() == "The next thing"
        assert ("Look again" in words(again)) is is_open
        answered(turn)
    assert Message.objects.filter(session=chat).count() == 2


def test_looking_again_at_a_chat_that_was_deleted_keeps_what_is_typed() -> None:
    alice = people.alice()
    chat = sessions.create(user=alice)
    address = deleted(chat).removesuffix("/turns")
    answer = signed_in(alice).post(address, {"text": "Not lost"})
    assert answer.status_code == 404
    assert filled(answer, id="composer")["text"].strip() == "Not lost"


def test_a_further_message_by_htmx_changes_everything_that_it_must(simulator: object) -> None:
    alice = people.alice()
    chat = told(alice).session
    model = simulated_model("sim-words-5")
    answer = say(signed_in(alice), "And then?", to=chat, htmx=True, model=model)
    reply = Message.objects.get(session=chat, state=Message.State.QUEUED)
    html = answer.content.decode()
    assert f'id="{reply.parent_id}"' in html
    assert "And then?" in words(answer)
    assert f'sse-connect="/chat/replies/{reply.pk}/stream"' in html
    assert f'formaction="/chat/replies/{reply.pk}/stops"' in html
    assert f"{reply.held_tokens} of these are held" in words(answer)
    assert f'id="chat-{chat.pk}" hx-swap-oob="true"' in html
    assert "being written" in words(answer)


def test_the_same_form_sent_twice_is_one_message() -> None:
    alice = people.alice()
    client = signed_in(alice)
    form = {**filled(client.get("/"), id="composer"), "text": "Once"}
    first, second = (client.post("/chat/turns", form) for _ in range(2))
    assert first.headers["Location"] == second.headers["Location"]
    assert Message.objects.filter(user=alice).count() == 2


def test_the_model_that_was_chosen_answers_and_is_remembered(simulator: object) -> None:
    client = signed_in(people.alice())
    model = simulated_model("sim-words-5")
    chat = chat_of(say(client, "Halo", model=model))
    assert chat.model is not None
    assert chat.model.slug == model
    chosen = re.compile(rf'value="{model}" checked')
    assert chosen.search(client.get("/").content.decode())
    assert chosen.search(client.get(page_of(chat)).content.decode())


@pytest.mark.parametrize("htmx", [True, False])
def test_nothing_to_send_is_said_by_the_composer(htmx: bool) -> None:
    answer = say(signed_in(people.alice()), "  \n ", htmx=htmx)
    assert answer.status_code == 400
    assert "There is nothing to send yet." in words(answer)
    assert answer.headers.get("HX-Retarget") == ("#composer-notice" if htmx else None)


def test_a_second_message_while_the_first_is_answered_is_kept() -> None:
    alice = people.alice()
    client = signed_in(alice)
    chat = chat_of(say(client, "First"))
    typed = "Second </textarea><script>alert(1)</script>"
    answer = say(client, typed, to=chat)
    assert answer.status_code == 409
    assert "still being written" in words(answer)
    assert filled(answer, id="composer")["text"].strip() == typed
    assert "<script>alert" not in answer.content.decode()


def test_a_model_that_is_not_connected_is_said_with_its_reason() -> None:
    answer = say(signed_in(people.alice()), "Halo", htmx=True, model="deepseek-chat")
    assert answer.status_code == 503
    assert "DEEPSEEK_API_KEY" in words(answer)
    assert answer.headers["HX-Retarget"] == "#composer-notice"


def test_a_turn_that_went_out_with_other_words_gets_a_fresh_turn() -> None:
    client = signed_in(people.alice())
    chat = chat_of(say(client, "Zero"))
    turns.stop(user=chat.user, reply_id=Message.objects.get(session=chat, role="assistant").pk)
    form = {**filled(client.get(page_of(chat)), id="composer"), "text": "One"}
    client.post(f"{page_of(chat)}/turns", form, headers=HTMX)
    answer = client.post(f"{page_of(chat)}/turns", {**form, "text": "Two"}, headers=HTMX)
    assert answer.status_code == 422
    fresh = re.search(r'name="turn" value="(trn_\w+)"', answer.content.decode())
    assert fresh is not None
    assert fresh[1] != form["turn"]


def deleted(chat: Session) -> str:
    address = f"{page_of(chat)}/turns"
    sessions.delete(chat)
    return address


def test_a_message_to_a_chat_that_was_deleted_is_kept_and_can_begin_another() -> None:
    alice = people.alice()
    client = signed_in(alice)
    chat = long_chat(alice, exchanges=1)
    form = {**filled(client.get(page_of(chat)), id="composer"), "text": "Not lost"}
    answer = client.post(deleted(chat), form, headers=HTMX)
    assert answer.status_code == 404
    assert answer.headers["HX-Retarget"] == "#composer-notice"
    assert "This chat was deleted. Your text is kept. Send it as a new chat" in words(answer)
    assert chat_of(client.post("/chat/turns", form, headers=HTMX)).title == "Not lost"


def test_without_javascript_a_message_to_a_deleted_chat_stands_in_a_new_one(simulator: object) -> None:
    alice = people.alice()
    client = signed_in(alice)
    chat = sessions.create(user=alice)
    model = simulated_model("sim-words-5")
    form = {**filled(client.get(page_of(chat)), id="composer"), "text": "Not lost", "model": model}
    answer = client.post(deleted(chat), form)
    assert answer.status_code == 404
    assert "This chat was deleted. Your text is kept." in words(answer)
    again = filled(answer, id="composer")
    assert again["text"].strip() == "Not lost"
    assert f'value="{model}" checked' in answer.content.decode()
    assert chat_of(client.post("/chat/turns", again)).title == "Not lost"


def test_the_estimate_says_that_a_chat_is_not_there() -> None:
    alice = people.alice()
    form = {"text": "Halo", "session": sessions.create(user=people.carol()).pk}
    assert words(signed_in(alice).post("/chat/estimates", form, headers=HTMX)) == "This chat was deleted."


# Too few tokens


def test_bob_is_offered_packages_and_his_text_is_kept(simulator: object) -> None:
    bob = people.bob()
    people.give_rupiah(bob, 275_000)
    typed = "A long question about a home loan " * 30
    model = simulated_model("sim-words-5")
    answer = say(signed_in(bob), typed, htmx=True, model=model)
    assert answer.status_code == 402
    assert answer.headers["HX-Retarget"] == "#dialogs"
    form = filled(answer, action="/chat/purchases")
    assert form["text"] == typed
    assert form["model"] == model
    assert form["package"] == "starter"
    assert "Buy for Rp 50.000 and send" in words(answer)
    assert "24% less" in words(answer)
    assert re.search(r'value="business"\s+disabled', answer.content.decode()), "600.000 is more than he has"


def test_without_javascript_the_packages_come_with_the_page_and_the_text(simulator: object) -> None:
    bob = people.bob()
    people.give_rupiah(bob, 275_000)
    typed = "A long question about a home loan " * 30
    answer = say(signed_in(bob), typed, model=simulated_model("sim-words-5"))
    assert answer.status_code == 402
    assert filled(answer, id="composer")["text"].strip() == typed.strip()
    assert filled(answer, action="/chat/purchases")["text"] == typed


@pytest.mark.parametrize("htmx", [True, False])
def test_what_waited_is_sent_once_the_tokens_are_bought(htmx: bool, simulator: object) -> None:
    carol = people.carol()
    people.give_rupiah(carol, 100_000)
    client = signed_in(carol)
    refused = say(client, "It waits", htmx=True, model=simulated_model("sim-words-5"))
    form = filled(refused, action="/chat/purchases")
    for _ in range(2):
        answer = client.post("/chat/purchases", form, headers=HTMX if htmx else {})
    chat = chat_of(answer)
    assert list(Message.objects.filter(session=chat, role="user").values_list("content", flat=True)) == [
        "It waits"
    ]
    assert Purchase.objects.filter(user=carol).count() == 1
    assert ledger.balance_of(carol).wallet_idr == 50_000
    assert "Bought 10,500 tokens." in words(client.get(page_of(chat)))


def test_a_wallet_that_is_too_small_leads_to_a_top_up_of_what_is_missing(simulator: object) -> None:
    answer = say(signed_in(people.carol()), "Halo", htmx=True, model=simulated_model("sim-words-5"))
    assert "That is too little for any of these." in words(answer)
    assert 'href="/billing/top-up?amount=50000&amp;next=%2F"' in answer.content.decode()
    assert "and send" not in words(answer)
    assert re.search("Send with [^,]+, free", words(answer))


def test_a_wallet_that_was_emptied_meanwhile_keeps_the_text() -> None:
    carol = people.carol()
    form = {"text": "It waits", "turn": ids.new("trn"), "package": "pro", "key": ids.new("buy")}
    answer = signed_in(carol).post("/chat/purchases", form, headers=HTMX)
    assert answer.status_code == 402
    assert "Not enough money in the wallet" in words(answer)
    assert filled(answer, action="/chat/purchases")["text"] == "It waits"


def test_what_was_bought_in_another_tab_sends_the_message_that_waits(simulator: object) -> None:
    carol = people.carol()
    people.give_rupiah(carol, 50_000)
    client = signed_in(carol)
    here = filled(
        say(client, "Here", htmx=True, model=simulated_model("sim-words-5")), action="/chat/purchases"
    )
    there = filled(
        say(client, "There", htmx=True, model=simulated_model("sim-words-5")), action="/chat/purchases"
    )
    client.post("/chat/purchases", there, headers=HTMX)

    refused = client.post("/chat/purchases", here, headers=HTMX)

    assert refused.status_code == 402
    assert "you have enough tokens for it by now" in words(refused)
    assert re.search(r'formaction="/chat/turns" formnovalidate>Send<', refused.content.decode())
    sent = client.post("/chat/turns", filled(refused, action="/chat/purchases"), headers=HTMX)
    assert Message.objects.filter(session=chat_of(sent), content="Here").exists()
    assert Purchase.objects.get(user=carol).price_idr == 50_000


@pytest.mark.parametrize("htmx", [True, False])
def test_a_package_that_changed_meanwhile_is_shown_anew_beside_the_kept_text(
    htmx: bool, simulator: object
) -> None:
    carol = people.carol()
    people.give_rupiah(carol, 275_000)
    client = signed_in(carol)
    refused = say(client, "It waits", htmx=True, model=simulated_model("sim-words-5"))
    form = {**filled(refused, action="/chat/purchases"), "package": "pro", "terms-pro": "pro:1:0:1"}

    answer = client.post("/chat/purchases", form, headers=HTMX if htmx else {})

    assert answer.status_code == 409
    assert answer.headers.get("HX-Retarget") == ("#dialogs" if htmx else None)
    assert "This package has changed meanwhile." in words(answer)
    assert not Purchase.objects.filter(user=carol).exists()
    again = filled(answer, action="/chat/purchases")
    assert (again["package"], again["text"], again["turn"]) == ("pro", "It waits", form["turn"])
    assert again["terms-pro"] == Package.objects.get(slug="pro").terms
    assert htmx or filled(answer, id="composer")["text"].strip() == "It waits"
    assert client.post("/chat/purchases", again).status_code == 303
    assert Purchase.objects.get(user=carol).price_idr == 200_000


@pytest.mark.parametrize("htmx", [True, False])
def test_nothing_is_bought_for_a_message_to_a_chat_that_was_deleted(htmx: bool, simulator: object) -> None:
    carol = people.carol()
    people.give_rupiah(carol, 275_000)
    client = signed_in(carol)
    chat = sessions.create(user=carol)
    refused = say(client, "It waits", to=chat, htmx=True, model=simulated_model("sim-words-5"))
    form = filled(refused, action="/chat/purchases")
    deleted(chat)
    answer = client.post("/chat/purchases", form, headers=HTMX if htmx else {})
    assert answer.status_code == 404
    assert "This chat was deleted. Your text is kept." in words(answer)
    assert htmx or filled(answer, id="composer")["text"].strip() == "It waits"
    assert not Purchase.objects.filter(user=carol).exists()


@pytest.mark.parametrize("htmx", [True, False])
def test_several_and_a_promo_code_are_shown_before_they_are_bought(htmx: bool, simulator: object) -> None:
    carol = people.carol()
    people.give_rupiah(carol, 275_000)
    code = PromoCode.objects.create(code=ids.new("CUT").upper(), kind="percent", amount=10).code
    client, headers = signed_in(carol), HTMX if htmx else {}
    refused = say(client, "It waits", htmx=True, model=simulated_model("sim-words-5"))
    waiting = filled(refused, action="/chat/checkouts")

    order = {**waiting, "quantity": "3", "promo": f" {code.lower()} ", "package": "starter"}
    answer = client.post("/chat/checkouts", order, headers=headers)

    assert answer.status_code == 200
    assert answer.headers.get("HX-Retarget") == ("#dialogs" if htmx else None)
    assert "31,500 tokens" in words(answer)
    assert "Buy for Rp 135.000 and send" in words(answer)
    assert not Purchase.objects.filter(user=carol).exists()
    form = filled(answer, action="/chat/purchases")
    assert (form["package"], form["text"], form["turn"]) == ("starter", "It waits", waiting["turn"])
    sent = client.post("/chat/purchases", form, headers=headers)
    bought = Purchase.objects.get(user=carol)
    assert (bought.quantity, bought.promo_code, bought.price_idr) == (3, code, 135_000)
    assert Message.objects.filter(session=chat_of(sent), content="It waits").exists()


def test_a_promo_code_waits_for_a_top_up_and_is_forgotten_with_its_purchase(simulator: object) -> None:
    carol = people.carol()
    code = PromoCode.objects.create(code=ids.new("CUT").upper(), kind="percent", amount=10).code
    client = signed_in(carol)
    model = simulated_model("sim-words-5")
    refused = say(client, "It waits", htmx=True, model=model)
    order = {**filled(refused, action="/chat/checkouts"), "quantity": "1", "promo": code}
    assert client.post("/chat/checkouts", order, headers=HTMX).status_code == 200
    people.give_rupiah(carol, 275_000)

    back = say(client, "It waits", htmx=True, model=model)

    assert "Rp 45.000" in words(back)
    form = {**filled(back, action="/chat/purchases"), "package": "starter"}
    assert form["promo"] == code
    client.post("/chat/purchases", form, headers=HTMX)
    assert Purchase.objects.get(user=carol).promo_code == code
    dear = special_model(ids.new("dear").lower(), input_rate=900_000, output_rate=900_000)
    assert filled(say(client, "Halo", htmx=True, model=dear.slug), action="/chat/purchases")["promo"] == ""


def test_a_remembered_promo_code_that_counts_no_more_is_left_out_without_a_word(simulator: object) -> None:
    carol = people.carol()
    people.give_rupiah(carol, 275_000)
    code = PromoCode.objects.create(code=ids.new("CUT").upper(), kind="percent", amount=10)
    client = signed_in(carol)
    model = simulated_model("sim-words-5")
    refused = say(client, "It waits", htmx=True, model=model)
    order = {**filled(refused, action="/chat/checkouts"), "quantity": "1", "promo": code.code}
    client.post("/chat/checkouts", order, headers=HTMX)
    PromoCode.objects.filter(pk=code.pk).delete()
    back = say(client, "It waits", htmx=True, model=model)
    assert filled(back, action="/chat/purchases")["promo"] == ""
    assert "checkout-problem" not in back.content.decode()


@pytest.mark.parametrize("htmx", [True, False])
def test_what_has_to_wait_for_a_reply_that_is_not_shown_leads_to_it(htmx: bool, simulator: object) -> None:
    """In another tab a reply was asked for; this one shows neither that nor a way to stop it."""
    alice = people.alice()
    reply = told(alice, script="sim-words-5")
    client = signed_in(alice)
    form = {**filled(client.get(page_of(reply.session)), id="composer"), "text": "And then?"}
    ask(alice, "From another tab", session=reply.session)
    answer = client.post(f"{page_of(reply.session)}/turns", form, headers=HTMX if htmx else {})
    assert answer.status_code == 409
    assert "A reply is still being written in this chat." in words(answer)
    assert re.search(rf'href="{page_of(reply.session)}"[^>]*>Show it', answer.content.decode())


def test_a_code_counts_only_for_the_packages_that_it_is_for(simulator: object) -> None:
    carol = people.carol()
    people.give_rupiah(carol, 275_000)
    code = PromoCode.objects.create(code=ids.new("PRO").upper(), kind="rupiah", amount=50_000)
    code.packages.add(Package.objects.get(slug="pro"))
    client = signed_in(carol)
    waiting = filled(
        say(client, "It waits", htmx=True, model=simulated_model("sim-words-5")), action="/chat/checkouts"
    )
    answer = client.post("/chat/checkouts", {**waiting, "promo": code.code, "package": "pro"}, headers=HTMX)
    assert words(answer).count(code.code) == 1
    assert "Buy for Rp 150.000 and send" in words(answer)
    assert "Buy for Rp 50.000 and send" in words(answer), "without the code, the others cost what they did"
    form = filled(answer, action="/chat/purchases")
    refused = client.post("/chat/purchases", {**form, "package": "starter"}, headers=HTMX)
    assert (refused.status_code, Purchase.objects.filter(user=carol).count()) == (400, 0)
    client.post("/chat/purchases", form, headers=HTMX)
    assert Purchase.objects.get(user=carol).price_idr == 150_000


@pytest.mark.parametrize(
    ("order", "said"),
    [
        ({"promo": "NOTHING"}, "There is no such promo code."),
        ({"quantity": "0"}, "Between 1 and 100 can be bought at once."),
        ({"quantity": "many"}, "Between 1 and 100 can be bought at once."),
        ({"quantity": "101", "promo": "\0"}, "Between 1 and 100 can be bought at once."),
    ],
)
def test_an_order_that_does_not_hold_is_named_and_left_out(
    order: dict[str, str], said: str, simulator: object
) -> None:
    carol = people.carol()
    people.give_rupiah(carol, 275_000)
    client = signed_in(carol)
    waiting = filled(
        say(client, "It waits", htmx=True, model=simulated_model("sim-words-5")), action="/chat/checkouts"
    )
    answer = client.post("/chat/checkouts", {**waiting, **order}, headers=HTMX)
    assert said in words(answer)
    assert "Buy for Rp 50.000 and send" in words(answer)
    form = filled(answer, action="/chat/purchases")
    assert (form["quantity"], form["promo"], form["text"]) == ("1", "", "It waits")


def test_as_many_are_chosen_as_let_the_message_go_out(simulator: object) -> None:
    carol = people.carol()
    people.give_rupiah(carol, 120_000)
    client, model = signed_in(carol), simulated_model("sim-words-5", rate=7_000)
    refused = say(client, "It waits", htmx=True, model=model)
    needed = int(filled(refused, action="/chat/purchases")["needed"])
    assert 10_500 < needed <= 21_000, "the story wants two packages of the smallest"
    form = filled(refused, action="/chat/purchases")
    assert (form["package"], form["quantity"]) == ("starter", "2")
    assert "Buy for Rp 100.000 and send" in words(refused)
    client.post("/chat/purchases", form, headers=HTMX)
    assert Message.objects.filter(user=carol, role="user", content="It waits").exists()


def test_guessing_codes_in_the_dialog_is_counted(simulator: object, settings: Any) -> None:
    settings.RATE_LIMITS = {**settings.RATE_LIMITS, "promo": rates.parsed("2/h/user")}
    carol = people.carol()
    people.give_rupiah(carol, 275_000)
    client = signed_in(carol)
    waiting = filled(
        say(client, "It waits", htmx=True, model=simulated_model("sim-words-5")), action="/chat/checkouts"
    )
    answers = [
        client.post("/chat/checkouts", {**waiting, "promo": f"GUESS{n}"}, headers=HTMX) for n in range(3)
    ]
    assert [answer.status_code for answer in answers] == [200, 200, 429]
    assert "no such promo code" not in words(answers[2])
    assert filled(answers[2], action="/chat/purchases")["text"] == "It waits"


def test_the_packages_are_not_drawn_for_the_chats_of_others(simulator: object) -> None:
    theirs = sessions.create(user=people.alice())
    form = {"text": "It waits", "session": theirs.pk, "quantity": "2"}
    assert signed_in(people.carol()).post("/chat/checkouts", form, headers=HTMX).status_code == 404


def test_a_package_that_was_withdrawn_meanwhile_leaves_the_others(simulator: object) -> None:
    carol = people.carol()
    people.give_rupiah(carol, 275_000)
    client = signed_in(carol)
    refused = say(client, "It waits", htmx=True, model=simulated_model("sim-words-5"))
    form = filled(refused, action="/chat/purchases")
    with transaction.atomic():
        Package.objects.filter(slug="starter").update(is_offered=False)
        answer = client.post("/chat/purchases", {**form, "package": "starter"}, headers=HTMX)
        transaction.set_rollback(True)
    assert answer.status_code == 404
    assert "This package is not offered." in words(answer)
    assert filled(answer, action="/chat/purchases")["package"] == "pro"


@pytest.mark.parametrize(
    ("who", "text", "expected"),
    [
        (people.alice, "Halo", r"^about \d+–\d+, at most \d+ tokens$"),
        (people.carol, "Halo", r"^at most \d+ tokens, you have 0$"),
        (people.alice, "   ", r"^$"),
        (people.alice, "word " * 20_000, r"^This message is too long"),
    ],
)
def test_the_estimate_says_what_a_message_can_cost(
    who: Any, text: str, expected: str, simulator: object
) -> None:
    form = {"text": text, "model": simulated_model("sim-words-5")}
    answer = signed_in(who()).post("/chat/estimates", form, headers=HTMX)
    assert answer.status_code == 200
    assert re.search(expected, words(answer))


def test_the_estimate_tells_a_range_below_the_most_that_it_can_cost(simulator: object) -> None:
    form = {"text": "Halo", "model": simulated_model("sim-words-5")}
    said = words(signed_in(people.alice()).post("/chat/estimates", form, headers=HTMX))
    short, long, most = (int(number.replace(",", "")) for number in re.findall(r"[\d,]*\d", said))
    assert 0 < short < long < most


def test_the_estimate_of_a_free_model_is_free() -> None:
    answer = signed_in(people.carol()).post("/chat/estimates", {"text": "Halo"}, headers=HTMX)
    assert words(answer) == "free"


# Replies


def test_a_finished_reply_shows_what_it_cost_and_its_receipt(simulator: object) -> None:
    alice = people.alice()
    reply = told(alice, rate=100)
    client = signed_in(alice)
    page = client.get(page_of(reply.session))
    assert f"{reply.tokens_used} token" in words(page, "main")
    receipt = client.get(f"/chat/replies/{reply.pk}/receipt", headers=HTMX)
    assert "What this reply cost" in words(receipt)
    assert f"10,500 → {10_500 - reply.tokens_used:,}" in words(receipt)
    assert "<html" not in receipt.content.decode()
    assert "<html" in client.get(f"/chat/replies/{reply.pk}/receipt").content.decode()
    assert reply.model is not None
    assert reply.model.name in words(client.get("/usage"), "main")


def test_a_reply_can_be_had_as_its_model_wrote_it(simulator: object) -> None:
    alice = people.alice()
    reply = told(alice, "**bold** <b>words</b>", script="sim-echo")
    answer = signed_in(alice).get(f"/chat/replies/{reply.pk}/text")
    assert answer.headers["Content-Type"] == "text/plain; charset=utf-8"
    assert answer.content.decode() == reply.content == "**bold** <b>words</b>"


def test_a_failed_reply_offers_another_try_and_another_model(simulator: object) -> None:
    alice = people.alice()
    other = simulated_model("sim-words-5")
    reply = told(alice, script="sim-error-503")
    client = signed_in(alice)
    assert "Your message is kept, and nothing was charged." in words(client.get(page_of(reply.session)))
    form = {**filled(client.get(page_of(reply.session)), action=f"/chat/replies/{reply.pk}/retries")}
    answer = client.post(f"/chat/replies/{reply.pk}/retries", {**form, "model": other}, headers=HTMX)
    tried = Message.objects.get(parent=reply.parent, state=Message.State.QUEUED)
    assert f'id="{tried.pk}"' in answer.content.decode()
    assert "message--user" not in answer.content.decode(), "the question stands there already"
    assert tried.model is not None
    assert tried.model.slug == other


def test_a_chat_that_is_too_long_offers_what_takes_more(simulator: object) -> None:
    alice = people.alice()
    alike = special_model("of-the-same-window")
    special_model("of-a-larger-window", context_tokens=1_000_000, position=alike.position + 1)
    reply = told(alice, "Halo & apa kabar?", script="sim-context")
    offered = picker.tries(reply, catalogue.offers(), available=10_500).again
    assert [quote.offer.model.context_tokens > 8192 for quote in offered] == [True]
    page = signed_in(alice).get(page_of(reply.session))
    assert "This chat is too long for" in words(page, "main")
    assert "Retry" not in words(page, "main")
    assert "New chat" in words(page, "main")
    small = [offer for offer in catalogue.offers() if offer.model.context_tokens <= 8192]
    assert picker.tries(reply, small, available=10_500).again == []


def test_another_try_says_before_the_click_what_it_costs_at_most(simulator: object) -> None:
    alice = people.alice()
    simulated_model("sim-words-5")
    reply = told(alice, script="sim-error-503")
    again, instead = picker.tries(reply, catalogue.offers(), available=10_500).again
    page = words(signed_in(alice).get(page_of(reply.session)), "main")
    assert f"Retry at most {again.at_most:,} tokens" in page
    assert f"Use {instead.offer.model.name} at most {instead.at_most:,} tokens" in page
    held = turns.retry(user=alice, reply_id=reply.pk, turn=ids.new("trn")).reply.held_tokens
    assert held == again.at_most


def test_another_try_says_what_it_can_cost_him_who_has_less(simulator: object) -> None:
    reply = told(people.alice(), script="sim-error-503")
    again = picker.tries(reply, catalogue.offers(), available=10_500).again[0]
    less = again.minimum + 1
    for available, shown in ((less, less), (again.minimum - 1, again.at_most)):
        quote = picker.tries(reply, catalogue.offers(), available=available).again[0]
        assert (quote.ceiling, quote.is_enough) == (shown, available == less)


def test_another_try_by_a_free_model_is_free(simulator: object) -> None:
    alice = people.alice()
    reply = told(alice, script="sim-error-503", rate=0)
    assert "Retry free" in words(signed_in(alice).get(page_of(reply.session)), "main")


def test_a_stopped_reply_offers_its_own_model_alone() -> None:
    alice = people.alice()
    client = signed_in(alice)
    chat = chat_of(say(client, "Halo"))
    reply = Message.objects.get(session=chat, role="assistant")
    turns.stop(user=alice, reply_id=reply.pk)
    page = words(client.get(page_of(chat)), "main")
    assert "Retry free" in page
    assert "Use " not in page


@pytest.mark.parametrize("htmx", [True, False])
def test_a_retry_at_another_price_than_was_shown_is_refused_and_shown_anew(
    htmx: bool, simulator: object
) -> None:
    alice = people.alice()
    model = special_model(f"of-retries-{htmx}".lower())
    turn = turns.start(user=alice, session=None, text="Halo", model_slug=model.slug, turn=ids.new("trn"))
    reply = turns.stop(user=alice, reply_id=turn.reply.pk)
    client = signed_in(alice)
    address = f"/chat/replies/{reply.pk}/retries"
    form = filled(client.get(page_of(reply.session)), action=address)
    ChatModel.objects.filter(pk=model.pk).update(input_rate=900, output_rate=900)

    answer = client.post(address, form, headers=HTMX if htmx else {})

    assert answer.status_code == 409
    assert "The price of this model has just changed." in words(answer)
    assert not Message.objects.filter(session=reply.session, state__in=Message.OPEN).exists()
    assert ledger.balance_of(alice).held == 0
    again = filled(answer, action=address)
    assert again["terms"].startswith(f"{model.slug}:900:900@")
    assert again["turn"] != form["turn"]
    assert (
        f"Retry at most {picker.tries(reply, catalogue.offers(), available=10_500).again[0].ceiling:,} tokens"
        in words(answer)
    )
    assert (f'id="{reply.pk}-tries" hx-swap-oob="true"' in answer.content.decode()) is htmx
    assert client.post(address, again).status_code == 303


def test_a_free_model_that_became_dear_is_refused_at_its_first_price(simulator: object) -> None:
    alice = people.alice()
    client = signed_in(alice)
    model = special_model("free-yesterday", is_free=True, input_rate=0, output_rate=0)
    estimate = client.post("/chat/estimates", {"text": "Halo", "model": model.slug}, headers=HTMX)
    shown = re.search(r'name="terms" value="([^"]+)"', estimate.content.decode())
    assert shown is not None
    ChatModel.objects.filter(pk=model.pk).update(is_free=False, input_rate=900, output_rate=900)
    answer = say(client, "Halo", htmx=True, model=model.slug, terms=shown[1])
    assert answer.status_code == 409
    assert "The price of this model has just changed." in words(answer)


def test_only_where_the_conversation_ends_another_try_is_offered(simulator: object) -> None:
    alice = people.alice()
    reply = told(alice, script="sim-error-503")
    further = answered(ask(alice, "And now?", session=reply.session, script="sim-error-503"))
    page = signed_in(alice).get(page_of(reply.session)).content.decode()
    assert f"/chat/replies/{further.pk}/retries" in page
    assert f"/chat/replies/{reply.pk}/retries" not in page


def test_failed_replies_ask_no_more_of_the_database_the_more_they_are(simulator: object) -> None:
    alice = people.alice()
    first = told(alice, script="sim-error-503")
    client = signed_in(alice)
    counts = []
    for _ in range(2):
        with statements() as sent:
            assert client.get(page_of(first.session)).status_code == 200
        counts.append(len(sent))
        for _more in range(3):
            answered(ask(alice, "Again", session=first.session, script="sim-error-503"))
    assert counts[0] == counts[1] <= 11, counts


def test_a_failed_reply_of_a_free_model_leads_to_none_that_costs(simulator: object) -> None:
    failed = ChatModel.objects.get(slug=simulated_model("sim-words-5", rate=0))
    simulated_model("sim-words-5")
    with transaction.atomic():
        ChatModel.objects.filter(is_free=True).exclude(pk=failed.pk).update(is_offered=False)
        assert picker.instead_of(failed, catalogue.offers()) is None
        transaction.set_rollback(True)


def test_stop_without_javascript_leads_back_to_the_chat() -> None:
    alice = people.alice()
    client = signed_in(alice)
    chat = chat_of(say(client, "Halo"))
    reply = Message.objects.get(session=chat, role="assistant")
    answer = client.post(f"/chat/replies/{reply.pk}/stops")
    assert (answer.status_code, answer.headers["Location"]) == (303, page_of(chat))
    assert "You stopped this reply" in words(client.get(page_of(chat)))


def test_stop_without_javascript_keeps_what_is_typed() -> None:
    alice = people.alice()
    client = signed_in(alice)
    chat = chat_of(say(client, "Halo"))
    reply = Message.objects.get(session=chat, role="assistant")
    form = {**filled(client.get(page_of(chat)), id="composer"), "text": "The next thing"}
    answer = client.post(f"/chat/replies/{reply.pk}/stops", form)
    assert "You stopped this reply" in words(answer)
    assert filled(answer, id="composer")["text"].strip() == "The next thing"


def test_stop_by_htmx_leaves_the_page_to_the_stream() -> None:
    alice = people.alice()
    client = signed_in(alice)
    chat = chat_of(say(client, "Halo"))
    reply = Message.objects.get(session=chat, role="assistant")
    answer = client.post(f"/chat/replies/{reply.pk}/stops", headers=HTMX)
    assert (answer.status_code, answer.content) == (204, b"")


def test_stop_is_said_at_once_where_no_worker_hears_it(simulator: object) -> None:
    alice = people.alice()
    client = signed_in(alice)
    reply = orphaned(alice)
    answer = client.post(f"/chat/replies/{reply.pk}/stops", headers=HTMX)
    assert words(answer) == "Stopping…"
    assert f'id="{reply.pk}-live"' in answer.content.decode()
    assert "Stopping…" in words(client.get(page_of(reply.session)), "main")
    Message.objects.filter(pk=reply.pk).update(lease_until=timezone.now() - timedelta(seconds=1))
    replies.sweep()
    page = words(client.get(page_of(reply.session)), "main")
    assert "You stopped this reply Nothing was charged." in page
    assert "Stopping" not in page


def test_the_stream_of_a_finished_reply_ends_at_once_with_all_that_changed(simulator: object) -> None:
    alice = people.alice()
    reply = told(alice)
    answer = signed_in(alice).get(f"/chat/replies/{reply.pk}/stream")
    assert answer.headers["Content-Type"] == "text/event-stream"
    assert (answer.headers["Cache-Control"], answer.headers["X-Accel-Buffering"]) == ("no-cache", "no")
    events = async_to_sync(all_of)(answer)
    assert re.findall(r"^event: (\w+)$", events, re.MULTILINE) == ["done"]
    assert f'id="{reply.pk}" data-state="complete"' in events
    assert f"Used {reply.tokens_used} token" in events
    assert re.search(r'id="composer-send" hx-swap-oob="true"', events)
    assert re.search(r'id="balance"[^>]* hx-swap-oob="true"', events)


async def all_of(answer: Answer) -> str:
    return b"".join([part async for part in answer.streaming_content]).decode()


def test_a_stream_is_for_its_owners_page_alone(simulator: object) -> None:
    alice = people.alice()
    address = f"/chat/replies/{told(alice).pk}/stream"
    assert signed_in(people.carol()).get(address).status_code == 404
    assert Client().get(address).status_code == 404
    assert signed_in(alice).post(address).status_code == 405
    cross_site = {"Sec-Fetch-Site": "cross-site"}
    assert signed_in(alice).get(address, headers=cross_site).status_code == 403


def test_earlier_messages_are_fetched_as_a_fragment() -> None:
    alice = people.alice()
    chat = long_chat(alice, exchanges=30)
    client = signed_in(alice)
    page = client.get(page_of(chat)).content.decode()
    address = re.search(r'hx-get="([^"]*\?before=[^"]*)"', page)
    assert address is not None
    older = client.get(unescape(address[1]), headers=HTMX)
    assert "Question 0" in words(older)
    assert "Question 29" not in words(older)
    assert "<html" not in older.content.decode()
    assert "To the latest messages" in words(client.get(unescape(address[1])))


def long_chat(person: User, *, exchanges: int) -> Session:
    chat = sessions.create(user=person, title="Long")
    fresh = iter(sorted(ids.new("msg") for _ in range(2 * exchanges)))
    said: list[Message] = []
    for number in range(exchanges):
        before = said[-1] if said else None
        question = Message(
            id=next(fresh),
            session=chat,
            user=person,
            parent=before,
            role="user",
            content=f"Question {number}",
        )
        answer = Message(
            id=next(fresh),
            session=chat,
            user=person,
            parent=question,
            role="assistant",
            state="complete",
            turn=ids.new("trn"),
            content="Answer",
        )
        said += [question, answer]
    Message.objects.bulk_create(said)
    return chat


# Chats


def test_a_chat_is_renamed_where_it_is_shown() -> None:
    alice = people.alice()
    chat = sessions.create(user=alice, title="Old")
    client = signed_in(alice)
    assert filled(client.get(f"{page_of(chat)}/title", headers=HTMX), action=f"{page_of(chat)}/title")[
        "title"
    ] == ("Old")
    answer = client.post(f"{page_of(chat)}/title", {"title": " A  new <b>name</b> "}, headers=HTMX)
    assert 'hx-swap-oob="true"' in answer.content.decode()
    assert "A new &lt;b&gt;name&lt;/b&gt;" in answer.content.decode()
    assert client.post(f"{page_of(chat)}/title", {"title": "Third"}).status_code == 303
    chat.refresh_from_db()
    assert chat.title == "Third"


def test_a_chat_without_a_title_is_refused_in_its_dialog() -> None:
    alice = people.alice()
    chat = sessions.create(user=alice, title="Old")
    answer = signed_in(alice).post(f"{page_of(chat)}/title", {"title": "  "}, headers=HTMX)
    assert answer.status_code == 400
    assert answer.headers["HX-Retarget"] == "#dialogs"
    assert "A chat needs a title." in words(answer)


def test_deleting_asks_first_and_then_leads_away_from_what_is_gone() -> None:
    alice = people.alice()
    client = signed_in(alice)
    here, other = (sessions.create(user=alice, title=title) for title in ("Here", "Other"))
    assert "“Here” and all its messages" in words(client.get(f"{page_of(here)}/deletions"))
    at_here = {**HTMX, "HX-Current-URL": f"http://testserver{page_of(here)}"}
    stays = client.post(f"{page_of(other)}/deletions", headers=at_here)
    assert f'id="chat-{other.pk}" hx-swap-oob="delete"' in stays.content.decode()
    leaves = client.post(f"{page_of(here)}/deletions", headers=at_here)
    assert leaves.headers["HX-Redirect"] == "/"
    assert not Session.objects.filter(user=alice).exists()


def test_a_strangers_chat_is_not_there() -> None:
    chat = sessions.create(user=people.alice(), title="Private matters")
    carol = signed_in(people.carol())
    for method, address in [
        ("get", ""),
        ("post", "/turns"),
        ("get", "/title"),
        ("post", "/title"),
        ("get", "/deletions"),
        ("post", "/deletions"),
    ]:
        for headers in ({}, HTMX):
            answer = getattr(carol, method)(page_of(chat) + address, headers=headers)
            assert answer.status_code == 404
            assert "Private" not in answer.content.decode()
    assert Session.objects.filter(pk=chat.pk, title="Private matters").exists()


def test_chats_stand_under_the_days_that_people_speak_of() -> None:
    alice = people.alice()
    today = datetime(2026, 11, 22, 12, tzinfo=timezone.get_default_timezone())
    ages = {"a": 0, "b": 1, "c": 2, "d": 7, "e": 8, "f": 30, "g": 400}
    chats = [
        Session(id=name, user=alice, last_message_at=today - timedelta(days=age))
        for name, age in ages.items()
    ]
    groups = context.grouped(chats, today=date(2026, 11, 22))
    assert [(str(group.label), [chat.pk for chat in group.chats]) for group in groups] == [
        ("Today", ["a"]),
        ("Yesterday", ["b"]),
        ("Previous 7 days", ["c", "d"]),
        ("November", ["e"]),
        ("October", ["f"]),
        ("October 2025", ["g"]),
    ]


def test_search_finds_titles_and_words_of_ones_own() -> None:
    alice = people.alice()
    for owner in (alice, people.carol()):
        named = sessions.create(user=owner, title="Loans and banks")
        spoken = sessions.create(user=owner, title="Other things")
        Message.objects.create(
            id=ids.new("msg"),
            session=spoken,
            user=owner,
            role="user",
            content="What does a LOAN <b>cost</b>?",
        )
        assert named.pk != spoken.pk
    client = signed_in(alice)
    page = client.get("/chat/search?q=loan")
    assert words(page, "main").count("Loans and banks") == 1
    assert "Other things" in words(page, "main")
    assert "<mark>LOAN</mark> &lt;b&gt;cost" in page.content.decode()
    assert "Nothing was found for “loans of gold”." in words(client.get("/chat/search?q=loans of gold"))
    assert "<html" not in client.get("/chat/search?q=loan", headers=HTMX).content.decode()


def test_search_without_words_lists_all_chats_page_by_page() -> None:
    alice = people.alice()
    for number in range(30):
        sessions.create(user=alice, title=f"Chat {number:02}")
    client = signed_in(alice)
    first, second = (words(client.get(f"/chat/search?page={number}"), "main") for number in (1, 2))
    shown = re.findall(r"Chat \d\d", first), re.findall(r"Chat \d\d", second)
    assert [len(found) for found in shown] == [25, 5]
    assert not set(shown[0]) & set(shown[1])
    for odd in ("page=nonsense", f"page={10**22}", "q=%00", "q=a%00b"):
        assert client.get(f"/chat/search?{odd}").status_code == 200


@pytest.mark.parametrize("language", ["en", "id"])
def test_the_thousandth_page_is_a_number_and_leads_to_its_neighbours(language: str) -> None:
    chat = sessions.create(user=people.carol(), title="Found")
    found = search.Page([search.Hit(chat, None)], 1001, has_more=True)
    with translation.override(language):
        shown = render_to_string("chat/_hits.html", {"page": found, "words": "found"})
    assert re.findall(r"page=([^\"]+)", shown) == ["1000", "1002"]
    assert re.search(r"(Page|Halaman) 1001<", shown)


# The frame


@pytest.mark.parametrize(
    ("hour", "name", "expected"),
    [
        (6, "Alice Wijaya", "Good morning, Alice"),
        (13, "Alice", "Good afternoon, Alice"),
        (17, "  ", "Good afternoon"),
        (23, "", "Good evening"),
        (2, "Alice", "Good evening, Alice"),
    ],
)
def test_the_greeting_fits_the_time_of_day(hour: int, name: str, expected: str) -> None:
    assert greeting(name, datetime(2026, 11, 22, hour, tzinfo=UTC)) == expected


def test_the_welcome_page_says_what_is_free_and_what_models_cost() -> None:
    page = words(signed_in(people.alice()).get("/"), "main")
    assert "Aleph Demo is free" in page
    # Other stories may have left dearer models behind.
    assert re.search(r"\d+ to [\d,]+ tokens per 1K", page)


def test_the_theme_is_drawn_by_the_server_and_leads_nobody_away() -> None:
    client = signed_in(people.alice())
    answer = client.post("/theme", {"theme": "dark", "next": "https://evil.example/"})
    assert (answer.status_code, answer.headers["Location"]) == (303, "/")
    assert 'data-theme="dark"' in client.get("/").content.decode()
    client.post("/theme", {"theme": "system", "next": "/"})
    assert "data-theme=" not in client.get("/").content.decode()
    client.cookies["theme"] = '"><script>'
    assert "data-theme=" not in client.get("/").content.decode()


def test_a_guest_in_the_middle_of_a_page_is_sent_to_sign_in_as_a_whole() -> None:
    headers = {**HTMX, "HX-Current-URL": "http://testserver/chat/cht_1"}
    answer = Client().post("/chat/cht_1/turns", headers=headers)
    assert answer.headers["HX-Redirect"] == "/accounts/login/?next=/chat/cht_1"
    assert Client().get("/chat/cht_1").headers["Location"] == "/accounts/login/?next=/chat/cht_1"


def test_nobody_keeps_a_copy_of_a_page() -> None:
    answer = signed_in(people.alice()).get("/")
    assert answer.headers["Cache-Control"] == "no-store"
    assert {"HX-Request", "Cookie"} <= {name.strip() for name in answer.headers["Vary"].split(",")}


def test_a_page_of_the_chat_takes_at_most_ten_queries(
    django_assert_max_num_queries: DjangoAssertNumQueries,
) -> None:
    alice = people.alice()
    chat = long_chat(alice, exchanges=40)
    for number in range(50):
        sessions.create(user=alice, title=f"Chat {number}")
    client = signed_in(alice)
    with django_assert_max_num_queries(10):
        assert client.get(page_of(chat)).status_code == 200


def test_a_chat_older_than_those_in_the_sidebar_has_its_place_there_while_it_is_open() -> None:
    """Where nothing stood, what is said in it would find no place to be told."""
    alice = people.alice()
    chat = long_chat(alice, exchanges=1)
    Session.objects.filter(pk=chat.pk).update(last_message_at=timezone.now() - timedelta(days=60))
    for number in range(context.SHOWN):
        sessions.create(user=alice, title=f"Chat {number}")
    client = signed_in(alice)
    place = f'<li class="chat-link" id="chat-{chat.pk}">'
    assert client.get(page_of(chat)).content.decode().count(place) == 1
    assert place not in client.get("/").content.decode()
    Session.objects.filter(pk=chat.pk).update(last_message_at=timezone.now())
    assert client.get(page_of(chat)).content.decode().count(place) == 1

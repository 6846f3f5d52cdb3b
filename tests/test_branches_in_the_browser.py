"""Versions, edits and continuations as people meet them: with htmx, and without any script."""

import re

from playwright.sync_api import Page, expect

from aleph import ids
from aleph.accounts.models import User
from chat import turns
from chat.models import Message
from chat.turns import Turn
from tests import people
from tests.browser import Browser
from tests.product import simulated_model
from tests.stories_of_chat import ask, fresh, until
from tests.test_branches import LENGTH, said_to

NUMBERED = "sim-numbered-words-3"
"""No two replies are the same."""
SLOW = "sim-slow-600x50ms"
"""Thirty seconds: nobody waits for its end."""


def written(turn: Turn) -> Message:
    """The reply, after a worker of the product has written it."""
    until(lambda: not fresh(turn.reply).is_open)
    return fresh(turn.reply)


def told(person: User, text: str = "Tell me a story", *, script: str) -> Message:
    return written(ask(person, text, script=script))


def again(person: User, reply: Message) -> Message:
    return written(turns.retry(user=person, reply_id=reply.pk, turn=ids.new("trn")))


def chat_of(browser: Browser, reply: Message, **options: object) -> Page:
    page = browser.page(user=reply.user, **options)
    page.goto(f"/chat/{reply.session_id}")
    return page


def regenerate(page: Page, model: str = "") -> None:
    last = page.locator(".message--reply").last
    last.hover()
    last.locator("[data-fetches^=regenerate]").click()
    menu = page.locator(".regenerate:popover-open")
    item = menu.get_by_role("button", name=model) if model else menu.get_by_role("button").first
    expect(item).to_contain_text(re.compile("at most|free"))
    item.click()


def pager(page: Page, text: str) -> None:
    expect(page.locator(".message--reply .message__branches").first).to_contain_text(text)


def turn_to(page: Page, which: str) -> None:
    page.locator(".message--reply").first.get_by_role("link", name=which).click()


def test_versions_of_a_reply_are_paged_through_and_gone_on_from(browser: Browser, simulator: object) -> None:
    reply = told(people.alice(), script=NUMBERED)
    page = chat_of(browser, reply)
    for number in (2, 3):
        regenerate(page)
        pager(page, f"{number} / {number}")
        expect(page.locator("article[data-state=complete]")).to_have_count(1)
    turn_to(page, "Previous version")
    pager(page, "2 / 3")
    expect(page.locator(":focus")).to_have_attribute("id", f"{reply.parent_id}-previous")
    page.keyboard.press("Enter")
    pager(page, "1 / 3")
    expect(page.locator(".prose")).to_contain_text(reply.content.strip())
    page.reload()
    pager(page, "1 / 3")
    expect(page.locator(".prose")).to_contain_text(reply.content.strip())

    page.fill("#text", "And then?")
    page.keyboard.press("Enter")
    expect(page.locator("article[data-state=complete]")).to_have_count(2)
    assert Message.objects.get(session=reply.session, content="And then?").parent_id == reply.pk
    expect(page).to_have_url(re.compile(rf"/chat/{reply.session_id}$"))
    page.reload()
    pager(page, "1 / 3")
    expect(page.locator(".message--user").last).to_contain_text("And then?")
    turn_to(page, "Next version")
    pager(page, "2 / 3")
    expect(page.locator(".message--user")).to_have_count(1)


def test_another_reply_in_the_middle_is_written_where_the_branch_begins(
    browser: Browser, simulator: object
) -> None:
    alice = people.alice()
    first = told(alice, "The question", script="sim-words-5")
    written(said_to(alice, first, "Further"))
    slow = simulated_model(SLOW)
    page = chat_of(browser, first)
    page.locator(f"[data-fetches=regenerate-{first.pk}]").click()
    page.locator(".regenerate:popover-open").get_by_role("button", name=slow).click()
    expect(page.locator(".message--user")).to_have_count(1)
    pager(page, "2 / 2")
    expect(page.locator(".message__live")).to_contain_text("so far")

    turn_to(page, "Previous version")
    expect(page.locator(".conversation__elsewhere")).to_be_visible()
    expect(page.locator(".message--user")).to_have_count(2)
    page.click("text=Show it")
    expect(page.locator(".message__live")).to_contain_text("so far")
    page.click("[data-stop]")
    expect(page.locator("article[data-state=stopped]")).to_contain_text("You stopped this reply")
    expect(page.locator("[data-send]")).to_be_visible()


def test_a_double_click_asks_for_one_reply(browser: Browser, simulator: object) -> None:
    reply = told(people.alice(), script=NUMBERED)
    page = chat_of(browser, reply)
    page.locator("[data-fetches^=regenerate]").click()
    page.locator(".regenerate:popover-open").get_by_role("button").first.dblclick()
    pager(page, "2 / 2")
    expect(page.locator("article[data-state=complete]")).to_have_count(1)
    assert Message.objects.filter(session=reply.session, role="assistant").count() == 2


def test_a_menu_says_why_nothing_began(browser: Browser, simulator: object) -> None:
    browser.expected_statuses.add(409)
    alice = people.alice()
    reply = told(alice, script="sim-words-5")
    page = chat_of(browser, reply)
    page.locator("[data-fetches^=regenerate]").click()
    menu = page.locator(".regenerate:popover-open")
    expect(menu.get_by_role("button").first).to_be_visible()
    turn = turns.retry(user=alice, reply_id=reply.pk, turn=ids.new("trn"), model_slug=simulated_model(SLOW))
    menu.get_by_role("button").first.click()
    expect(menu).to_contain_text("A reply is still being written in this chat.")
    turns.stop(user=alice, reply_id=turn.reply.pk)


def edit(page: Page, place: int = 0) -> None:
    message = page.locator(".message--user").nth(place)
    message.hover()
    message.get_by_role("link", name="Edit and send again").click()
    expect(page.locator(".edit__text")).to_be_focused()


def test_a_message_is_edited_where_it_stands(browser: Browser, simulator: object) -> None:
    alice = people.alice()
    first = told(alice, "The question", script="sim-echo")
    written(said_to(alice, first, "Further"))
    page = chat_of(browser, first)
    edit(page)
    expect(page.locator(".edit__text")).to_have_value("The question")
    expect(page.locator(".edit__estimate")).to_contain_text("at most")
    page.keyboard.type(" in other words")
    page.keyboard.press("Enter")
    expect(page.locator(".message--user")).to_have_count(1)
    expect(page.locator(".message--user .message__body")).to_have_text("The question in other words")
    expect(page.locator(".message--user .message__branches")).to_contain_text("2 / 2")
    expect(page.locator("article[data-state=complete]")).to_contain_text("in other words")
    page.locator(".message--user").get_by_role("link", name="Previous version").click()
    expect(page.locator(".message--user")).to_have_count(2)
    expect(page.locator(".message--user .message__body").first).to_have_text("The question")


def test_what_is_typed_into_an_edit_survives_all_but_giving_it_up(
    browser: Browser, simulator: object
) -> None:
    browser.expected_statuses.add(409)
    alice = people.alice()
    reply = told(alice, "The question", script="sim-words-5")
    page = chat_of(browser, reply)
    edit(page)
    page.keyboard.type(", please")
    page.reload()
    edit(page)
    expect(page.locator(".edit__text")).to_have_value("The question, please")
    turn = turns.retry(user=alice, reply_id=reply.pk, turn=ids.new("trn"), model_slug=simulated_model(SLOW))
    page.keyboard.press("Enter")
    expect(page.locator(".edit__notice")).to_contain_text("A reply is still being written in this chat.")
    expect(page.locator(".edit__text")).to_have_value("The question, please")
    turns.stop(user=alice, reply_id=turn.reply.pk)
    page.keyboard.press("Escape")
    expect(page.locator(".edit__text")).to_be_hidden()
    expect(page.locator(".message__body")).to_be_visible()
    edit(page)
    expect(page.locator(".edit__text")).to_have_value("The question")
    page.locator(".edit__bar").get_by_text("Send").focus()
    page.keyboard.press("Escape")
    expect(page.locator(".message__body")).to_be_visible()
    edit(page)
    page.click("text=Cancel")
    expect(page.locator(".message__body")).to_be_visible()
    assert Message.objects.filter(session=reply.session, role="user").count() == 1


def test_a_reply_that_was_cut_off_goes_on_beneath_itself(browser: Browser, simulator: object) -> None:
    reply = told(people.alice(), "Count", script=LENGTH)
    page = chat_of(browser, reply)
    button = page.get_by_role("button", name="Continue")
    expect(button).to_contain_text("at most")
    button.dblclick()
    last = page.locator(".message--reply")
    expect(last.locator(".message__cost")).to_have_count(2)
    expect(last).to_have_count(1)
    expect(last).to_have_attribute("data-state", "complete")
    expect(last.locator(".prose")).to_have_text(re.compile(r"(word1 word2 word3 word4 word5 ?){2}"))
    page.reload()
    expect(last).to_have_attribute("data-state", "complete")
    expect(last.locator(".prose")).to_have_text(re.compile(r"(word1 word2 word3 word4 word5 ?){2}"))
    last.locator(".message__cost").last.click()
    expect(page.locator(".receipt-pop:popover-open")).to_contain_text("Charged, rounded up")
    assert Message.objects.filter(session=reply.session).count() == 3


def test_while_it_goes_on_the_first_part_stands_there_and_stop_keeps_both(
    browser: Browser, simulator: object
) -> None:
    alice = people.alice()
    reply = told(alice, "Count", script=LENGTH)
    turns.go_on(user=alice, reply_id=reply.pk, turn=ids.new("trn"), model_slug=simulated_model(SLOW))
    page = chat_of(browser, reply)
    expect(page.locator(".message__prose")).to_contain_text("word4 word5 word1 word2")
    page.click("[data-stop]")
    expect(page.locator("article[data-state=stopped] .prose")).to_contain_text("word4 word5 word1 word2")
    expect(page.get_by_role("button", name="Continue")).to_be_visible()


def test_everything_works_without_javascript(browser: Browser, simulator: object) -> None:
    alice = people.alice()
    reply = told(alice, "The question", script=LENGTH)
    again(alice, reply)
    page = chat_of(browser, reply, java_script_enabled=False)
    page.get_by_role("link", name="Previous version").click()
    pager(page, "1 / 2")
    page.get_by_role("button", name="Continue").click()
    until_written(page)
    expect(page.locator(".message__cost")).to_have_count(2)

    page.get_by_role("link", name="Edit and send again").click()
    page.fill(".edit__text", "In other words")
    page.click(".edit >> text=Send")
    until_written(page)
    expect(page.locator(".message--user .message__branches")).to_contain_text("2 / 2")

    page.get_by_role("link", name="Regenerate").click()
    page.get_by_role("button", name=re.compile("at most")).first.click()
    until_written(page)
    pager(page, "2 / 2")


def until_written(page: Page) -> None:
    """Look again until the reply is there, as somebody without JavaScript does."""
    expect(page.locator(".conversation")).to_be_visible()
    for _look in range(100):
        if page.locator("article[aria-busy]").count() == 0:
            return
        page.wait_for_timeout(100)
        page.locator("noscript button").click()  # Look again
    raise AssertionError("the reply was never there")


def test_nothing_of_it_is_wider_than_the_narrowest_phone(browser: Browser, simulator: object) -> None:
    alice: User = people.alice()
    reply = told(alice, "A question with-a-word-that-is-much-too-long-for-any-line " * 3, script=LENGTH)
    other = again(alice, reply)
    turns.edit(user=alice, message_id=reply.parent_id or "", text="Otherwise", turn=ids.new("trn"))
    page = chat_of(
        browser, other, viewport={"width": 320, "height": 640}, has_touch=True, is_mobile=True, locale="id-ID"
    )
    for address in (
        f"/chat/{reply.session_id}?at={other.pk}",
        f"/chat/messages/{reply.parent_id}/edits",
        f"/chat/replies/{reply.pk}/retries",
    ):
        page.goto(address)
        assert page.evaluate("document.documentElement.scrollWidth") <= 320, address
    page.goto(f"/chat/{reply.session_id}?at={other.pk}")
    page.locator(".message__body").tap()
    page.locator("[hx-get$=edits]").tap()
    expect(page.locator(".edit__text")).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth") <= 320
    page.locator("[data-fetches^=regenerate]").tap()
    menu = page.locator(".regenerate:popover-open")
    expect(menu).to_be_visible()
    box = menu.bounding_box()
    assert box is not None
    assert box["x"] >= 0
    assert box["x"] + box["width"] <= 320
    assert box["y"] >= 0
    assert box["y"] + box["height"] <= 640

"""What the scripts add to the chat: keys, drafts, following, dialogs, and calm where an answer does not come."""

import re
from datetime import timedelta

from django.utils import timezone
from playwright.sync_api import Page, expect
from playwright.sync_api import TimeoutError as WaitedInVain

from chat import sessions
from chat.models import Message, Session
from tests import people
from tests.browser import PATIENCE_MS, Browser
from tests.product import simulated_model
from tests.stories_of_chat import orphaned

LONG = "sim-slow-600x50ms"
"""Thirty seconds: nobody waits for its end."""


def choose(page: Page, name: str) -> None:
    page.click(".composer__model")
    expect(page.locator("#filter")).to_be_focused()
    page.keyboard.type(name)
    page.keyboard.press("Enter")
    expect(page.locator("[data-chosen]")).to_have_text(name)


def sent(page: Page, text: str) -> None:
    page.fill("#text", text)
    page.keyboard.press("Enter")
    expect(page.locator(".message--user").last).to_contain_text(text)
    expect(page.locator("#text")).to_be_focused()


def until(page: Page, condition: str) -> None:
    """Wait for it from outside: the page's own policy forbids what Playwright would evaluate within."""
    for _ in range(PATIENCE_MS // 100):
        if page.evaluate(condition):
            return
        page.wait_for_timeout(100)
    raise WaitedInVain(condition)


def chat_with(browser: Browser, script: str) -> Page:
    """Alice in a chat whose first reply has just begun."""
    model = simulated_model(script)
    page = browser.page(user=people.alice())
    page.goto("/")
    choose(page, model)
    sent(page, "Tell me")
    return page


def test_a_model_is_found_by_typing_and_a_message_sent_by_enter(browser: Browser) -> None:
    page = chat_with(browser, "sim-slow-30x50ms")
    expect(page.locator("article[data-state=complete]")).to_contain_text("word30")
    expect(page.locator(".toast")).to_contain_text(re.compile(r"Used \d+ tokens?"))
    expect(page.locator("#text")).to_have_value("")
    expect(page.locator("#text")).to_be_focused()


def test_shift_enter_breaks_the_line_and_a_draft_survives_a_reload(browser: Browser) -> None:
    page = chat_with(browser, "sim-words-5")
    page.keyboard.type("one")
    page.keyboard.press("Shift+Enter")
    page.keyboard.type("two")
    page.reload()
    expect(page.locator("#text")).to_have_value("one\ntwo")
    expect(page.locator("#composer-estimate")).to_contain_text("at most")
    expect(page.locator(".message--user")).to_have_count(1)


def test_escape_closes_what_is_open_and_only_then_stops_the_reply(browser: Browser) -> None:
    page = chat_with(browser, LONG)
    page.click(".composer__model")
    page.keyboard.press("Escape")
    expect(page.locator("#picker")).to_be_hidden()
    expect(page.locator("[data-stop]")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.locator("article[data-state=stopped]")).to_contain_text("You stopped this reply")
    expect(page.locator("[data-send]")).to_be_visible()


def test_stop_is_answered_though_the_worker_is_dead(browser: Browser, simulator: object) -> None:
    alice = people.alice()
    reply = orphaned(alice)
    page = browser.page(user=alice)
    page.goto(f"/chat/{reply.session_id}")
    page.click("[data-stop]")
    expect(page.locator(".message__live")).to_have_text("Stopping…")
    Message.objects.filter(pk=reply.pk).update(lease_until=timezone.now() - timedelta(seconds=1))
    expect(page.locator("article[data-state=stopped]")).to_contain_text("You stopped this reply")
    expect(page.locator("[data-send]")).to_be_visible()


def test_typing_goes_on_while_a_reply_is_written(browser: Browser) -> None:
    page = chat_with(browser, LONG)
    page.keyboard.type("the next thing")
    page.keyboard.press("Enter")
    page.click("[data-stop]")
    expect(page.locator("article[data-state=stopped]")).to_be_visible()
    expect(page.locator("#text")).to_have_value("the next thing")
    expect(page.locator(".message--user")).to_have_count(1)


def test_whoever_reads_further_up_is_left_there(browser: Browser) -> None:
    model = simulated_model("sim-slow-600x5ms")
    page = browser.page(user=people.alice(), viewport={"width": 900, "height": 400})
    page.goto("/")
    choose(page, model)
    sent(page, "Tell me")
    until(page, "scrollY > 100")
    page.mouse.move(450, 150)
    page.mouse.wheel(0, -2000)
    until(page, "scrollY < 20")
    page.wait_for_timeout(400)
    assert page.evaluate("scrollY") < 20
    page.click("[data-latest]")
    until(page, "innerHeight + scrollY >= document.documentElement.scrollHeight - 80")


def test_a_receipt_opens_beside_its_line_and_closes_by_the_same_press(browser: Browser) -> None:
    page = chat_with(browser, "sim-words-5")
    page.click(".message__cost")
    expect(page.locator(".receipt-pop")).to_contain_text("Charged, rounded up")
    page.click(".message__cost")
    expect(page.locator(".receipt-pop")).to_be_hidden()
    page.click(".message__cost")
    expect(page.locator(".receipt-pop")).to_be_visible()


def test_what_waits_for_tokens_is_kept_and_sent_after_the_purchase(browser: Browser) -> None:
    browser.expected_statuses.add(402)
    model = simulated_model("sim-words-5")
    carol = people.carol()
    people.give_rupiah(carol, 275_000)
    page = browser.page(user=carol)
    page.goto("/")
    choose(page, model)
    page.fill("#text", "It waits")
    page.keyboard.press("Enter")
    page.click("#not-enough [data-close]")
    expect(page.locator("#text")).to_have_value("It waits")
    page.click("[data-send]")
    page.fill("#checkout-quantity", "2")
    page.fill("#checkout-promo", "no-such-code")
    page.click("#not-enough >> text=Apply")
    expect(page.locator("#not-enough")).to_contain_text("There is no such promo code.")
    expect(page.locator("#checkout-promo")).to_be_focused()
    page.fill("#checkout-promo", "")
    page.keyboard.press("Enter")
    expect(page.locator("#not-enough")).to_contain_text("Buy for Rp 100.000 and send")
    expect(page.locator("#not-enough").get_by_text("Apply")).to_be_focused()
    page.fill("#checkout-quantity", "1")
    expect(page.locator("#checkout-quantity")).to_have_value("1")
    page.click("#not-enough >> text=Apply")
    expect(page.locator("#not-enough")).to_contain_text("Buy for Rp 50.000 and send")
    page.click("#not-enough label:has-text('Pro')")
    expect(page.locator("#not-enough")).to_contain_text("after this Rp 75.000")
    page.click("text=Buy for Rp 200.000 and send")
    expect(page.locator(".message--user")).to_contain_text("It waits")
    expect(page.locator("article[data-state=complete]")).to_be_visible()
    expect(page.locator("#text")).to_have_value("")


def test_what_was_for_a_deleted_chat_goes_out_as_a_new_one(browser: Browser) -> None:
    browser.expected_statuses.add(404)
    page = chat_with(browser, "sim-words-5")
    expect(page.locator("article[data-state=complete]")).to_be_visible()
    first = page.url
    sessions.delete(Session.objects.get(pk=first.rpartition("/")[2]))
    page.fill("#text", "Not lost")
    page.keyboard.press("Enter")
    expect(page.locator("#composer-notice")).to_contain_text("This chat was deleted.")
    expect(page.locator("#text")).to_have_value("Not lost")
    page.fill("#text", "Not lost, and more")
    page.click("text=Send it as a new chat")
    page.wait_for_url(lambda address: address != first)
    expect(page.locator(".message--user")).to_have_text(re.compile("Not lost, and more"))
    expect(page.locator("article[data-state=complete]")).to_be_visible()
    expect(page.locator("#text")).to_have_value("")


def test_what_was_typed_while_a_reply_came_outlives_its_chat(browser: Browser) -> None:
    page = chat_with(browser, "sim-slow-600x50ms")
    first = page.url
    expect(page.locator("article.message--reply")).to_contain_text("word2")
    page.fill("#text", "Not lost")
    chat = first.rpartition("/")[2]
    sessions.delete(Session.objects.get(pk=chat))
    expect(page.locator("#composer-notice")).to_contain_text("This chat was deleted.")
    expect(page.locator(f"#chat-{chat}")).to_have_count(0)
    again = page.get_by_role("button", name="Send it as a new chat")
    page.fill("#text", "")
    expect(again).to_be_hidden()
    page.fill("#text", "Not lost")
    again.click()
    page.wait_for_url(lambda address: address != first)
    expect(page.locator(".message--user")).to_have_text(re.compile("Not lost"))


def test_without_a_connection_the_text_stays_and_goes_out_later(browser: Browser) -> None:
    page = chat_with(browser, "sim-words-5")
    expect(page.locator("article[data-state=complete]")).to_be_visible()
    page.fill("#text", "Are you there?")
    expect(page.locator("#composer-estimate")).to_contain_text("at most")
    page.context.set_offline(True)
    page.keyboard.press("Enter")
    expect(page.locator("#composer-notice")).to_contain_text("The connection was lost.")
    expect(page.locator("#text")).to_have_value("Are you there?")
    page.context.set_offline(False)
    browser.complaints.clear()
    page.keyboard.press("Enter")
    expect(page.locator(".message--user")).to_have_count(2)
    expect(page.locator("#composer-notice")).to_be_empty()


def test_keys_lead_to_places(browser: Browser) -> None:
    page = chat_with(browser, "sim-words-5")
    page.keyboard.press("Control+/")
    expect(page.locator("#keys")).to_contain_text("Stop the reply")
    page.keyboard.press("Escape")
    page.keyboard.press("Control+k")
    page.wait_for_url("**/chat/search")
    expect(page.locator("#q")).to_be_focused()  # keys go nowhere before
    page.keyboard.type("Tell")
    expect(page.locator("#hits mark")).to_have_text("Tell")
    page.keyboard.press("Control+Shift+o")
    page.wait_for_url(lambda address: address.endswith("/"))


def test_a_chat_is_renamed_and_deleted_by_its_menu(browser: Browser) -> None:
    page = chat_with(browser, "sim-words-5")
    page.click(".topbar__title")
    page.click("#chat-menu >> text=Rename")
    page.fill("#title", "A name of its own")
    page.keyboard.press("Enter")
    expect(page.locator(".topbar__title")).to_contain_text("A name of its own")
    expect(page.locator(".chat-link__title")).to_have_text("A name of its own")
    page.click(".topbar__title")
    page.click("#chat-menu >> text=Delete")
    page.click("#dialogs >> text=Delete >> nth=-1")
    page.wait_for_url(lambda address: address.endswith("/"))
    expect(page.locator(".chat-link")).to_have_count(0)


def test_the_theme_changes_at_once_and_stays(browser: Browser) -> None:
    page = browser.page(user=people.alice())
    page.goto("/")
    page.click(".user-button")
    page.click(".menu__theme >> text=Dark")
    expect(page.locator("html")).to_have_attribute("data-theme", "dark")
    page.reload()
    expect(page.locator("html")).to_have_attribute("data-theme", "dark")


def test_the_first_load_takes_at_most_twelve_requests_and_100_kb(browser: Browser) -> None:
    address = chat_with(browser, "sim-words-5").url
    cookies = browser.contexts[-1].cookies()
    page = browser.page()
    page.context.add_cookies([cookie for cookie in cookies if "session" in cookie["name"]])  # type: ignore[misc]
    page.goto(address, wait_until="networkidle")
    entries = "[...performance.getEntriesByType('navigation'), ...performance.getEntriesByType('resource')]"
    sizes = page.evaluate(f"{entries}.map(entry => entry.transferSize)")
    assert len(sizes) <= 12
    assert sum(sizes) <= 100_000


def test_nothing_is_wider_than_a_phone(browser: Browser) -> None:
    model = simulated_model("sim-echo")
    page = browser.page(
        user=people.alice(), viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True
    )
    page.goto("/")
    choose(page, model)
    page.fill("#text", "Donaudampfschifffahrtsgesellschaft" * 20)
    page.tap("[data-send]")
    expect(page.locator("article[data-state=complete]")).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    page.tap("header >> [popovertarget=sidebar]")
    expect(page.locator(".sidebar__nav")).to_be_visible()

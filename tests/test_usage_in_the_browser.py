"""The usage page in a browser: counters that move while a reply is written, charts by keyboard and on paper, and what the
page does when nobody answers."""

import re

from playwright.sync_api import Page, expect

from aleph.accounts.models import User
from chat.models import Message
from tests import people
from tests.browser import Browser
from tests.product import simulated_model
from tests.stories_of_chat import until
from tests.stories_of_usage import call_of
from tests.test_chat_in_the_browser import choose, sent
from tests.test_usage_page import days_ago

SLOW = "sim-slow-200x60ms"


def tokens_today(page: Page) -> int:
    return int(page.locator("[data-figure=tokens-today]").inner_text().replace(",", ""))


def used(person: User, days: int = 3) -> None:
    for nth in range(days):
        call_of(person, at=days_ago(nth), label="GPT-4o")


def test_the_counters_move_while_a_reply_is_written_and_its_call_comes_by_itself(browser: Browser) -> None:
    alice = people.alice()
    used(alice)
    model = simulated_model(SLOW)
    usage = browser.page(user=alice)
    usage.goto("/usage")
    calls = usage.locator("#calls tbody tr")
    expect(calls).to_have_count(3)
    before = tokens_today(usage)
    chat = usage.context.new_page()
    chat.goto("/")
    choose(chat, model)
    sent(chat, "Tell me")
    expect(usage.locator("#figures")).to_contain_text("of the reply being written")
    first = tokens_today(usage)
    assert first > before
    until(lambda: tokens_today(usage) > first)
    expect(calls).to_have_count(4)
    expect(usage.locator("#figures")).not_to_contain_text("being written")
    reply = Message.objects.get(user=alice, role="assistant")
    expect(calls.first).to_contain_text(reply.model.name if reply.model else "")
    expect(usage.locator("[data-figure=tokens-today]")).to_have_text(re.compile(r"^[\d,]+$"))
    assert usage.url.endswith("/usage")


def test_a_chart_is_one_stop_of_the_tab_key_and_arrows_walk_through_it(browser: Browser) -> None:
    alice = people.alice()
    used(alice)
    page = browser.page(user=alice)
    page.goto("/usage?days=7")
    page.get_by_role("navigation", name="Grain").get_by_role("link", name="Month").focus()
    page.keyboard.press("Tab")
    columns = page.locator("#over-time-panel .chart__column")
    expect(columns).to_have_count(7)
    expect(columns.nth(6)).to_be_focused()
    expect(columns.nth(6).locator(".chart__tip")).to_have_css("visibility", "visible")
    page.keyboard.press("ArrowRight")
    expect(columns.nth(6)).to_be_focused()
    page.keyboard.press("ArrowLeft")
    expect(columns.nth(5)).to_be_focused()
    page.keyboard.press("Home")
    expect(columns.nth(0)).to_be_focused()
    page.keyboard.press("Tab")
    expect(page.locator("#over-time-panel summary")).to_be_focused()
    page.keyboard.press("Shift+Tab")
    expect(columns.nth(0)).to_be_focused()
    page.keyboard.press("End")
    page.keyboard.press("Enter")
    page.wait_for_url("**/usage?from=*")
    expect(page.locator("#over-time-panel .chart__column")).to_have_count(1)


def test_on_paper_the_numbers_stand_beneath_the_chart(browser: Browser) -> None:
    alice = people.alice()
    used(alice)
    page = browser.page(user=alice)
    page.goto("/usage?days=7")
    numbers = page.locator("#over-time-panel .numbers table")
    expect(numbers).to_be_hidden()
    page.emulate_media(media="print")
    expect(numbers).to_be_visible()
    expect(page.locator("#wish")).to_be_hidden()


def test_figures_that_nobody_brings_up_to_date_say_so(browser: Browser) -> None:
    alice = people.alice()
    used(alice)
    page = browser.page(user=alice)
    browser.expected_statuses.add(503)
    page.route("**/usage/figures*", lambda route: route.fulfill(status=503, body=""))
    page.goto("/usage")
    expect(page.locator("#stale")).to_be_visible()
    page.unroute("**/usage/figures*")
    expect(page.locator("#stale")).to_be_hidden(timeout=10_000)


def test_whoever_is_signed_out_meanwhile_is_led_to_sign_in(browser: Browser) -> None:
    alice = people.alice()
    used(alice)
    page = browser.page(user=alice)
    page.goto("/usage")
    page.context.clear_cookies()
    page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
    page.wait_for_url("**/accounts/login/?next=/usage")


def test_without_javascript_the_page_says_the_same(browser: Browser) -> None:
    alice = people.alice()
    used(alice)
    page = browser.page(user=alice, java_script_enabled=False)
    page.goto("/usage?days=7")
    expect(page.locator("#over-time-panel .chart__column")).to_have_count(7)
    page.get_by_label("Model", exact=True).select_option("GPT-4o")
    page.get_by_role("button", name="Show").click()
    expect(page.locator("#calls tbody tr")).to_have_count(3)


def test_ten_digits_of_rupiah_fit_into_the_cards_of_staff(browser: Browser) -> None:
    used(people.alice())
    page = browser.page(user=people.dewi(), viewport={"width": 1280, "height": 800})
    for width in (1280, 390):
        page.set_viewport_size({"width": width, "height": 800})
        page.goto("/admin/dashboard/")
        values = page.locator(".figure__value, .bars__fold")
        assert (
            values.evaluate_all(
                """values => values.map(value => {
                value.textContent = 'Rp 9.888.888.888'
                const box = value.closest('td, .figure')
                return box.scrollWidth - box.clientWidth
            })"""
            )
            == [0] * values.count()
        )

"""The whole way of somebody new, in a browser: sign up, buy, ask, watch, reload, stop, run dry, buy again, see usage."""

import re

import pytest
from playwright.sync_api import Locator, Page, expect

from aleph import ids
from aleph.accounts.models import User
from billing import ledger
from chat.models import Message
from tests import people
from tests.browser import Browser
from tests.product import Product, simulated_model
from tests.stories_of_chat import assert_books_are_right, available, held, until

SLOW = "sim-slow-160x100ms"


def sign_up(page: Page, product: Product, email: str) -> User:
    page.goto("/accounts/signup/")
    page.get_by_label("Name").fill("Sri Wahyuni")
    page.get_by_label("Email").fill(email)
    page.get_by_label("Password", exact=True).fill(people.PASSWORD)
    page.get_by_role("button", name="Create the account").click()
    page.wait_for_url("**/confirm-email/")
    until(lambda: product.mail(email))
    link = re.search(r"http://\S+/accounts/confirm-email/\S+", product.mail(email)[-1].get_content())
    assert link, "no link in the mail"
    page.goto(link[0])
    page.get_by_role("button", name="Yes, confirm it").click()
    expect(page.locator("#composer")).to_be_visible()
    return User.objects.get(email=email)


def buy(page: Page, package: str) -> None:
    page.goto("/billing")
    page.get_by_role("link", name=re.compile(package)).first.click()
    page.get_by_role("button", name=f"Buy {package}").click()
    page.wait_for_url("**/billing/purchases/buy_*")


def choose(page: Page, model: str) -> None:
    page.click(".composer__model")
    expect(page.locator("#filter")).to_be_focused()
    page.keyboard.type(model)
    page.keyboard.press("Enter")
    expect(page.locator("[data-chosen]")).to_have_text(model)


def say(page: Page, text: str) -> None:
    page.fill("#text", text)
    page.click("[data-send]")
    expect(page.locator(".message--user").last).to_contain_text(text)


def last_reply(page: Page) -> Locator:
    return page.locator("article.message--reply").last


def words(page: Page) -> int:
    return len(re.findall(r"word\d+", last_reply(page).inner_text()))


def last_of(user: User) -> Message:
    found = Message.objects.filter(user=user, role="assistant").order_by("-id").first()
    assert found is not None
    return found


@pytest.mark.slow
def test_somebody_new_signs_up_buys_asks_watches_stops_runs_dry_and_sees_what_was_used(
    browser: Browser, product: Product
) -> None:
    model = simulated_model(SLOW)
    page = browser.page()
    person = sign_up(page, product, f"{ids.new('sri')}@example.test".lower())

    people.give_rupiah(person, 100_000)
    buy(page, "Starter")
    expect(page.locator("#balance")).to_contain_text("10,500")
    assert (available(person), ledger.balance_of(person).wallet_idr) == (10_500, 50_000)

    page.goto("/")
    choose(page, model)
    say(page, "Tell me a story")
    page.wait_for_url("**/chat/cht_*")
    expect(last_reply(page)).to_contain_text("word10")
    first_look = words(page)
    expect(last_reply(page)).to_contain_text(f"word{first_look + 10}")
    expect(last_reply(page)).to_have_attribute("aria-busy", "true")
    expect(last_reply(page)).to_contain_text("so far, at most")
    assert held(person) > 0

    page.reload()
    expect(last_reply(page)).to_contain_text(f"word{first_look + 10}")
    expect(last_reply(page)).to_have_attribute("aria-busy", "true")
    second_tab = page.context.new_page()
    second_tab.goto(page.url)
    expect(last_reply(second_tab)).to_have_attribute("aria-busy", "true")
    for tab in (page, second_tab):
        expect(last_reply(tab)).to_have_attribute("data-state", "complete")
        assert re.findall(r"word\d+", last_reply(tab).inner_text()) == [f"word{n}" for n in range(1, 161)]
        expect(tab.locator(".toast")).to_contain_text(f"Used {last_of(person).tokens_used} tokens")
        expect(tab.locator("#balance")).to_contain_text(f"{available(person):,}")
    second_tab.close()

    before = available(person)
    say(page, "And another one")
    expect(last_reply(page)).to_contain_text("word5")
    page.click("[data-stop]")
    expect(last_reply(page)).to_have_attribute("data-state", "stopped")
    expect(last_reply(page)).to_contain_text("You stopped this reply")
    stopped = last_of(person)
    assert 5 <= len(stopped.content.split()) < 160
    assert available(person) == before - stopped.tokens_used < before
    expect(page.locator("#balance")).to_contain_text(f"{available(person):,}")

    browser.expected_statuses.add(402)
    spend_all(person)
    page.fill("#text", "A last one")
    page.click("[data-send]")
    expect(page.locator("#not-enough")).to_contain_text("Not enough tokens")
    expect(page.locator("#text")).to_have_value("A last one")
    page.get_by_role("button", name="Buy for Rp 50.000 and send").click()
    expect(page.locator(".message--user").last).to_contain_text("A last one")
    expect(last_reply(page)).to_have_attribute("data-state", "complete")
    assert ledger.balance_of(person).wallet_idr == 0
    assert available(person) == 10_500 - last_of(person).tokens_used

    page.goto("/usage")
    expect(page.locator("#main")).to_contain_text(SLOW)
    page.goto("/billing")
    expect(page.locator("#main")).to_contain_text("Starter")
    assert held(person) == 0
    assert_books_are_right()


def spend_all(person: User) -> None:
    ledger.spend(
        user=person,
        account=ledger.TOKENS,
        amount=available(person),
        to="corrections_token",
        kind="adjustment",
        reference="test",
        key=ids.new("dry"),
    )


def test_on_a_phone_in_indonesian_one_asks_and_watches_as_well(browser: Browser) -> None:
    alice = people.alice()
    alice.language = "id"
    alice.save()
    model = simulated_model("sim-slow-40x150ms")
    page = browser.page(
        user=alice,
        viewport={"width": 390, "height": 844},
        has_touch=True,
        is_mobile=True,
        locale="id-ID",
        color_scheme="dark",
    )
    page.goto("/")
    page.tap(".composer__model")
    page.get_by_role("searchbox").or_(page.locator("#picker input[type=search]")).first.fill(model)
    page.locator("#picker").get_by_text(model).first.tap()
    page.fill("#text", "Ceritakan sebuah kisah")
    page.tap("[data-send]")
    expect(last_reply(page)).to_contain_text("word5")
    expect(last_reply(page)).to_have_attribute("aria-busy", "true")
    expect(last_reply(page)).to_have_attribute("data-state", "complete")
    assert words(page) == 40
    assert page.locator("html").get_attribute("lang") == "id"
    assert page.evaluate("document.documentElement.scrollWidth") == 390

"""Money in a real browser: a top-up that arrives while somebody looks on, and a refund that its owner sees."""

from playwright.sync_api import expect

from aleph import ids
from billing import corrections, ledger, notices, purchases
from tests import people
from tests.browser import Browser
from tests.stories_of_chat import assert_books_are_right


def test_what_was_paid_in_the_sandbox_is_on_the_page_without_a_reload(browser: Browser) -> None:
    carol = people.carol()
    page = browser.page(user=carol)
    page.goto("/billing")
    page.get_by_role("link", name="Top up").first.click()
    page.get_by_text("Rp 200.000").click()
    page.get_by_text("No money moves.").click()
    page.get_by_role("button", name="Continue to payment").click()
    page.wait_for_url("**/sandbox-gateway/top_*")
    expect(page.locator("main")).to_contain_text("Rp 200.000")

    looking_on = page.context.new_page()
    looking_on.goto(page.url.replace("/sandbox-gateway/", "/billing/topups/"))
    expect(looking_on.locator("#topup")).to_have_attribute("data-state", "pending")
    looking_on.evaluate("window.neverReloaded = true")
    assert ledger.balance_of(carol).wallet_idr == 0, "opening it has paid nothing"

    page.get_by_role("button", name="Pay", exact=True).click()
    for tab in (page, looking_on):
        expect(tab.locator("#topup")).to_have_attribute("data-state", "paid")
        expect(tab.locator("#topup")).to_contain_text("Rp 200.000 is in your wallet")
    assert looking_on.evaluate("window.neverReloaded") is True
    assert ledger.balance_of(carol).wallet_idr == 200_000

    page.get_by_role("link", name="Buy tokens").click()
    expect(page.locator("main")).to_contain_text("Rp 200.000")
    page.goto("/billing/notices")
    expect(page.locator("main")).to_contain_text("Rp 200.000 is in your wallet")
    assert_books_are_right()


def test_a_statement_is_printed_with_its_title_and_without_the_frame(browser: Browser) -> None:
    """Paper is narrower than a screen, and there is no bar above it that says the title instead."""
    page = browser.page(user=people.alice(), viewport={"width": 600, "height": 800})
    page.goto("/billing/statements")
    page.emulate_media(media="print")
    title = page.locator("h1").bounding_box()
    assert title is not None
    assert title["height"] > 20
    for part in (".topbar", ".skip", ".page__actions"):
        expect(page.locator(part).first).to_be_hidden()


def test_a_refund_is_seen_by_its_owner(browser: Browser) -> None:
    carol = people.carol()
    people.give_rupiah(carol, 50_000)
    purchase = purchases.buy(user=carol, package_slug="starter", key=ids.new("key"))
    page = browser.page(user=carol)
    page.goto(f"/billing/purchases/{purchase.pk}")
    expect(page.locator(".sheet")).not_to_contain_text("Refund")
    notices.read_all(carol, up_to=notices.inbox(carol)[0].pk)

    corrections.refund(
        author=people.dewi(), purchase=purchase, reason="Bought by mistake", key=ids.new("key")
    )

    page.goto("/billing")
    expect(page.locator("#balance")).to_contain_text("0")
    expect(page.locator("main")).to_contain_text("Bought by mistake")
    page.get_by_role("link", name="Notices, 1 unread").click()
    page.get_by_role("link", name="Rp 50.000 refunded").click()
    page.wait_for_url(f"**/billing/purchases/{purchase.pk}")
    expect(page.locator(".sheet__refund")).to_contain_text("Bought by mistake")
    expect(page.locator(".sheet__refund")).to_contain_text("Total after the refund")
    expect(page.locator(".sheet__refund")).to_contain_text("Rp 50.000")
    page.goto("/billing/history?kind=refund")
    expect(page.get_by_role("link", name="Refund").first).to_have_attribute(
        "href", f"/billing/purchases/{purchase.pk}"
    )
    assert_books_are_right()

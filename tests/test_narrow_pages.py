"""Nothing is wider than the narrowest phone, and what belongs on one line of a large screen stands on one."""

import pytest
from playwright.sync_api import Page

from aleph import ids
from aleph.accounts.models import ApiKey, Company, Membership, User
from billing import corrections, hooks, purchases, topups
from billing.models import Correction, PromoCode, TopUp
from tests import images, people
from tests.browser import Browser
from tests.stories_of_chat import told
from tests.stories_of_images import draft_of, seeing_model, show
from tests.stories_of_usage import call_of
from usage import budget_terms
from usage.models import TokenUsage

NARROWEST = 320
WIDE_THINGS = """Here is much that is wide:

| Provider | A long column heading | Another | And another | Last |
|---|---|---|---|---|
| OpenAI | something-that-cannot-be-broken-anywhere-at-all | 1,200,000 | 2 | 3 |

```python
def a_function_with_a_long_name(argument_one, argument_two): return argument_one + argument_two
```

An `identifier_that_has_no_place_to_break_in_it_at_all` and https://example.com/an/address/that/goes/on/and/on/without/end

$$\\frac{a_1 + b_1 + c_1 + d_1 + e_1 + f_1 + g_1 + h_1}{x_1 + x_2 + x_3 + x_4 + x_5 + x_6 + x_7 + x_8}$$
"""


@pytest.fixture
def rich(simulator: object, committed: None) -> User:
    """Somebody with large numbers and long names everywhere."""
    person = people.alice()
    people.give_rupiah(person, 987_654_321_098)
    people.give_tokens(person, 123_456_789_012)
    call_of(
        person, label="A model with a long name " * 3, requested_model="an-id/" + "x" * 60, model="y" * 80
    )
    ApiKey.issue(user=person, name="A program with a long name that runs on a machine")
    return person


def fits(page: Page, address: str) -> None:
    page.goto(address)
    page.evaluate("document.querySelectorAll('main details').forEach(details => { details.open = true })")
    found = page.evaluate(
        "[...document.querySelectorAll('main *')].filter(element => element.getBoundingClientRect().right"
        " > innerWidth + 1).slice(0, 4).map(element => element.outerHTML.slice(0, 80))"
    )
    assert page.evaluate("document.documentElement.scrollWidth") <= NARROWEST, (address, found)


def test_no_page_scrolls_sideways_on_the_narrowest_phone(
    browser: Browser, rich: User, simulator: object
) -> None:
    bought = purchases.buy(user=rich, package_slug="enterprise", key=ids.new("key"))
    reply, failed = told(rich, WIDE_THINGS, script="sim-echo"), told(rich, script="sim-error-503")
    image = draft_of(rich, images.photograph(size=(1600, 900)), "A picture with a long name " * 3)
    shown = show(rich, image, draft_of(rich), draft_of(rich), model=seeing_model())
    hook = hooks.add(rich, url="https://example.com/" + "a-long-path/" * 12, kinds=["refund"])
    hooks.test(rich, hook.pk)
    company = Company.objects.create(name="PT " + "Perusahaan Sangat Panjang " * 4)
    Membership.objects.create(company=company, user=rich, role=Membership.Role.ADMIN)
    budget = budget_terms.create(
        author=rich, unit="usd", every="month", limit=10**18 - 1, action="warn", company=company
    )
    page = browser.page(user=rich, viewport={"width": NARROWEST, "height": 640})
    for address in (
        "/",
        f"/chat/{reply.session_id}",
        f"/chat/{failed.session_id}",
        f"/chat/{shown.session.pk}",
        f"/chat/attachments/{image.pk}/page",
        f"/chat/{reply.session_id}/deletions",
        f"/chat/replies/{reply.pk}/receipt",
        "/chat/search?q=much",
        "/billing",
        "/billing/packages/enterprise",
        f"/billing/purchases/{bought.pk}",
        "/usage?days=90",
        "/usage?by=month&show=cost&sort=cost",
        f"/usage/calls/{TokenUsage.objects.filter(user=rich).latest('created_at').pk}",
        "/usage/budgets",
        "/usage/budgets/add",
        f"/usage/budgets/{budget.pk}",
        "/settings",
        "/settings/keys",
        "/settings/webhooks",
        f"/settings/webhooks/{hook.pk}",
        "/billing/notices",
        "/accounts/email/",
        "/accounts/password/change/",
        "/accounts/logout/",
        "/api/docs/",
    ):
        fits(page, address)


def test_no_page_about_money_scrolls_sideways_on_the_narrowest_phone(browser: Browser, rich: User) -> None:
    code = PromoCode.objects.create(
        code="A-CODE-AS-LONG-AS-ONE-CAN-BE-" + ids.new("x")[-10:], kind="percent", amount=10
    )
    bought = purchases.buy(
        user=rich, package_slug="business", key=ids.new("key"), quantity=3, promo_code=code.code
    )
    corrections.refund(
        author=people.dewi(), purchase=bought, reason="A" + "long reason " * 15, key=ids.new("key")
    )
    (waiting,) = Correction.objects.filter(purchase=bought)
    corrections.approve(correction_id=waiting.pk, by=people.someone("Eka", is_staff=True))
    states = []
    for state in ("pending", "expired", "failed"):
        topup = topups.start(user=rich, amount_idr=10_000_000, gateway="sandbox", key=ids.new("key"))
        TopUp.objects.filter(pk=topup.pk).update(state=state, ask_at=None)
        states.append(topup.pk)
    page = browser.page(user=rich, viewport={"width": NARROWEST, "height": 640})
    for address in (
        "/billing",
        f"/billing/packages/enterprise?quantity=100&promo={code.code}",
        "/billing/packages/starter?quantity=2",
        f"/billing/purchases/{bought.pk}",
        "/billing/top-up",
        "/billing/topups",
        *(f"/billing/topups/{topup}" for topup in states),
        f"/sandbox-gateway/{states[0]}",
        "/billing/history",
        "/billing/history?kind=refund&direction=in",
        "/billing/statements",
        "/billing/notices",
        "/billing/refill",
    ):
        fits(page, address)


def test_no_page_for_guests_scrolls_sideways_on_the_narrowest_phone(browser: Browser) -> None:
    page = browser.page(viewport={"width": NARROWEST, "height": 640})
    for address in ("/accounts/login/", "/accounts/signup/", "/accounts/password/reset/"):
        fits(page, address)


@pytest.mark.parametrize("width", [320, 390, 600, 900, 1280])
def test_the_tokens_of_a_package_stand_on_one_line_within_their_card(
    width: int, browser: Browser, rich: User
) -> None:
    page = browser.page(user=rich, viewport={"width": width, "height": 800})
    page.goto("/billing")
    lines = page.evaluate(
        "[...document.querySelectorAll('.package__tokens')].map(line => ["
        " line.textContent, line.getBoundingClientRect().height / parseFloat(getComputedStyle(line).lineHeight) < 1.9,"
        " line.scrollWidth <= line.clientWidth])"
    )
    assert len(lines) == 4
    assert all(is_one_line and is_within for _text, is_one_line, is_within in lines), lines

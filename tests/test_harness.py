"""The tests' own ground: what would let faults through unseen."""

import os
import socket

import pytest
from django.db import connection

from billing import ledger
from tests import people
from tests.browser import PATIENCE_MS, Browser
from tests.product import Product, simulated_model


def test_the_network_is_shut() -> None:
    with socket.socket() as line, pytest.raises(PermissionError, match=r"192\.0\.2\.1"):
        line.connect(("192.0.2.1", 80))


@pytest.mark.django_db
def test_the_people_own_what_their_stories_say() -> None:
    alice, bob, carol = (
        ledger.balance_of(person) for person in (people.alice(), people.bob(), people.carol())
    )
    assert (alice.available, alice.wallet_idr) == (10_500, 275_000)
    assert (bob.available, bob.wallet_idr) == (50, 0)
    assert (carol.available, carol.wallet_idr) == (0, 0)


@pytest.mark.django_db
def test_the_database_is_the_one_that_was_asked_for() -> None:
    asked = os.environ.get("TEST_DATABASE_URL", "sqlite")
    assert asked.startswith(connection.vendor)


def test_the_product_knows_who_comes_and_asks_the_simulator(product: Product) -> None:
    alice = people.alice()
    simulated = simulated_model("sim-words-5")
    assert product.signed_in(alice).get("/settings", allow_redirects=False).status_code == 200
    assert product.visitor().get("/settings", allow_redirects=False).status_code == 302
    program = product.program(alice)
    session = program.post(
        "/api/v1/chat/sessions", json={"serviceType": "external_llm", "model": simulated}
    ).json()
    answer = program.post(
        f"/api/v1/chat/sessions/{session['data']['id']}/messages", json={"content": "Halo"}
    ).json()
    assert answer["success"], answer
    assert product.simulator.requests[-1].body["model"] == "sim-words-5"


def test_the_browser_shows_a_page_without_a_complaint(browser: Browser) -> None:
    page = browser.page(user=people.alice())
    page.goto("/settings")
    assert page.title()
    assert browser.complaints == []


def test_the_browser_complains_of_errors_and_of_other_hosts(browser: Browser) -> None:
    page = browser.page()
    page.goto("/healthz")
    page.evaluate("() => { console.error('ouch'); fetch('http://192.0.2.1/').catch(() => {}) }")
    page.evaluate("() => { setTimeout(() => { throw new Error('boom') }) }")
    wanted = {"ouch", "boom", "http://192.0.2.1/"}
    for _ in range(PATIENCE_MS // 50):
        found = {part for part in wanted if part in "\n".join(browser.complaints)}
        if found == wanted:
            break
        page.wait_for_timeout(50)
    browser.complaints.clear()
    assert found == wanted

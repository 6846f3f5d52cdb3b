"""What usage notices is told by notices: crossings of budgets once for each, unusual use once a day."""

import json
from datetime import timedelta
from typing import Any

import pytest
from django.core import mail
from django.utils import timezone, translation

from aleph import alerts
from aleph.accounts.models import ApiKey, Company, Membership, User
from billing import hooks, mailing, notices
from billing.models import Notice, WebhookDelivery
from tests import people
from tests.test_billing_pages import signed_in, words
from usage import budget_terms, budgets
from usage.models import USD_UNIT, Budget, BudgetCrossing, UnusualUse

pytestmark = pytest.mark.django_db


def budget_of(person: User, **differences: Any) -> Budget:
    terms: dict[str, Any] = {"unit": "token", "every": "month", "limit": 10_000, "action": "warn"}
    return budget_terms.create(author=person, **terms | differences)


def spends(budget: Budget, before: int, after: int) -> None:
    """What has been spent of its period rises so far, as replies settle it."""
    assert budget.current is not None
    budgets.note_crossings([(budget.current, before, after)], timezone.now())


def told(person: User) -> list[mailing.Words]:
    with translation.override("en"):
        return [mailing.words_of(notice) for notice in notices.inbox(person)]


def test_each_threshold_is_told_once() -> None:
    alice = people.alice()
    budget = budget_of(alice)
    spends(budget, 4_000, 5_000)
    alerts.run()
    alerts.run()
    (words_at_half,) = told(alice)
    assert words_at_half.title == "50% of the monthly budget is used"
    assert words_at_half.text.startswith("5,000 tokens of 10,000 tokens. It begins anew on")
    spends(budget, 5_000, 7_000)
    alerts.run()
    assert len(told(alice)) == 1
    spends(budget, 7_000, 8_000)
    alerts.run()
    assert next(words.title for words in told(alice)) == "80% of the monthly budget is used"


def test_what_is_passed_at_once_is_one_notice() -> None:
    alice = people.alice()
    budget = budget_of(alice, action="block", every="day")
    spends(budget, 0, 10_500)
    assert alerts.run() == 3
    (only,) = told(alice)
    assert only.title == "The daily budget is used up"
    assert "nothing more is answered" in only.text
    assert not BudgetCrossing.objects.filter(told_at=None).exists()


def test_a_budget_in_dollars_is_told_in_dollars() -> None:
    alice = people.alice()
    budget = budget_of(alice, unit="usd", limit=int(2 / USD_UNIT), api_key=_key_of(alice))
    spends(budget, 0, budget.limit // 2)
    alerts.run()
    (only,) = told(alice)
    assert only.text.startswith("$1.00 of $2.00. ")
    assert "It is that of the API key Laptop." in only.text


def test_those_who_look_after_a_company_are_told_of_its_budget() -> None:
    alice, bob = people.alice(), people.bob()
    company = Company.objects.create(name="PT Sagara")
    Membership.objects.create(company=company, user=alice, role=Membership.Role.ADMIN)
    Membership.objects.create(company=company, user=bob)
    spends(budget_of(alice, company=company), 0, 10_000)
    alerts.run()
    assert "PT Sagara" in told(alice)[0].text
    assert told(bob) == []


def test_staff_are_told_of_everyones_budget() -> None:
    alice, dewi = people.alice(), people.dewi()
    budget = Budget(scope="everyone", unit="token", every="day", limit=100, action="warn", thresholds=[100])
    budget_terms.begin(budget, timezone.now())
    spends(budget, 0, 100)
    alerts.run()
    assert len(told(dewi)) == 1
    assert told(alice) == []
    assert signed_in(dewi).get("/billing/notices").status_code == 200


def test_unusual_use_is_told_in_the_page_by_mail_and_by_webhook() -> None:
    alice = people.alice()
    endpoint = hooks.add(alice, url="https://example.com/hook", kinds=["unusual"])
    now = timezone.now()
    _key_of(alice)
    ApiKey.objects.filter(user=alice).update(last_used_at=now)
    ApiKey.issue(user=alice, name="Idle")
    UnusualUse.objects.create(
        user=alice,
        day=now.date(),
        tokens=2_000_000,
        usual_tokens=150_000,
        since=now - timedelta(hours=1),
        model="GPT-4o",
        model_percent=95,
    )
    assert alerts.run() == 1
    assert alerts.run() == 0
    page = signed_in(alice).get("/billing/notices")
    said = words(page)
    for word in (
        "Much more is used than usual",
        "2,000,000 LLM tokens",
        "150,000",
        "95% is GPT-4o",
        "revoke",
    ):
        assert word in said
    assert 'href="/usage"' in page.content.decode()
    mailing.send(Notice.objects.get(user=alice).pk)
    assert "2,000,000" in mail.outbox[-1].body
    message = json.loads(WebhookDelivery.objects.get(endpoint=endpoint).body)
    assert message["type"] == "usage.unusual"
    assert message["data"]["model"] == "GPT-4o"
    assert message["data"]["usual_tokens"] == 150_000


def _key_of(person: User) -> ApiKey:
    ApiKey.issue(user=person, name="Laptop")
    return ApiKey.objects.get(user=person)

"""Budgets on pages, in the API, in the administration, and what a refused message meets."""

import re
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import pytest
from django.conf import settings
from django.core.exceptions import ValidationError
from django.test import Client
from django.urls import reverse
from django.utils import timezone, translation

from aleph import ids
from aleph.accounts.models import ApiKey, Company, Membership, User
from chat.models import Message
from tests import people
from tests.product import Product, simulated_model
from tests.stories_of_chat import ask
from tests.stories_of_usage import call_of
from usage import budget_terms, budgets, limit_field
from usage.limit_field import LimitField
from usage.models import Budget, BudgetPeriod

LIST, ADD = "/usage/budgets", "/usage/budgets/add"
API = "/api/v1/budgets"


@pytest.fixture(autouse=True)
def in_english() -> Iterator[None]:
    with translation.override("en"):
        yield


def signed_in(person: User) -> Client:
    client = Client(headers={"Accept-Language": "en"})
    client.force_login(person)
    return client


def text_of(response: Any) -> str:
    return " ".join(response.content.decode().split())


def budget_of(person: User, limit: int = 900, **terms: Any) -> Budget:
    usual = {"unit": "token", "every": "day", "action": "block"}
    return budget_terms.create(author=person, limit=limit, **{**usual, **terms})


def company_of(admin: User, *members: User) -> Company:
    company = Company.objects.create(name="PT Sagara")
    Membership.objects.create(company=company, user=admin, role=Membership.Role.ADMIN)
    for member in members:
        Membership.objects.create(company=company, user=member)
    return company


TERMS = {
    "scope": "me",
    "unit": "usd",
    "every": "month",
    "limit": "12.5",
    "action": "throttle",
    "thresholds": "90 50%",
}


class TestPages:
    def test_a_budget_is_set_in_dollars_and_shown(self, db: None) -> None:
        alice = people.alice()
        client = signed_in(alice)
        assert "No budget is set" in text_of(client.get(LIST))
        assert client.post(ADD, TERMS).headers["Location"] == LIST
        budget = Budget.objects.get(user=alice)
        assert (budget.limit, budget.action, budget.thresholds) == (12_500_000_000_000, "throttle", [50, 90])
        page = text_of(client.get(LIST))
        assert "$0.00 of $12.50" in page
        assert "two replies a minute" in page

    @pytest.mark.parametrize(
        ("wrong", "said"),
        [
            ({"limit": ""}, "This field is required"),
            ({"limit": "0"}, "A limit is above 0"),
            ({"limit": "0.5", "unit": "token"}, "Tokens are whole"),
            ({"limit": "9" * 15}, "not astronomical"),
            ({"limit": "0,50"}, "Write the number as in 1,234.5."),
            ({"limit": "1,5"}, "Write the number as in 1,234.5."),
            ({"limit": "12,34,567"}, "Write the number as in 1,234.5."),
            ({"thresholds": "half"}, "whole percentages"),
            ({"thresholds": "0"}, "percentages from 1 to 200"),
            ({"scope": "company:1"}, "Select a valid choice"),
        ],
    )
    def test_what_makes_no_sense_is_said_and_the_rest_is_kept(
        self, db: None, wrong: dict[str, str], said: str
    ) -> None:
        alice = people.alice()
        answer = signed_in(alice).post(ADD, TERMS | wrong)
        assert answer.status_code == 422
        assert said in text_of(answer)
        assert 'value="throttle" selected' in text_of(answer)
        assert not Budget.objects.filter(user=alice).exists()

    def test_a_higher_limit_waits_and_a_lower_one_does_not(self, db: None) -> None:
        alice = people.alice()
        budget, client = budget_of(alice), signed_in(alice)
        page = f"{LIST}/{budget.pk}"
        client.post(page, {"limit": "1,800", "action": "block", "thresholds": "50"})
        assert "1,800 tokens" in text_of(client.get(page))
        assert "0 of 900 tokens" in text_of(client.get(page))
        client.post(page, {"limit": "450", "action": "block", "thresholds": "50"})
        assert "0 of 450 tokens" in text_of(client.get(page))
        assert "1,800" not in text_of(client.get(page))

    def test_a_budget_ends_with_the_day_and_can_be_kept(self, db: None) -> None:
        alice = people.alice()
        budget, client = budget_of(alice), signed_in(alice)
        client.post(f"{LIST}/{budget.pk}/end")
        assert "This budget ends on" in text_of(client.get(LIST))
        client.post(f"{LIST}/{budget.pk}/keep")
        assert "This budget ends on" not in text_of(client.get(LIST))
        Budget.objects.filter(pk=budget.pk).update(ended_at=timezone.now())
        assert "No budget is set" in text_of(client.get(LIST))
        assert client.get(f"{LIST}/{budget.pk}").status_code == 200

    def test_what_is_over_can_be_read_period_by_period(self, db: None) -> None:
        alice = people.alice()
        budget = budget_of(alice)
        BudgetPeriod.objects.filter(budget=budget).update(spent=333)
        page = text_of(signed_in(alice).get(f"{LIST}/{budget.pk}"))
        assert "333 tokens" in page
        assert "567 tokens left" in page

    def test_nobody_sees_or_touches_the_budgets_of_others(self, db: None) -> None:
        alice, carol = people.alice(), people.carol()
        budget, client = budget_of(alice), signed_in(carol)
        assert client.get(f"{LIST}/{budget.pk}").status_code == 404
        for act in ("", "/end", "/keep"):
            assert client.post(f"{LIST}/{budget.pk}{act}", TERMS).status_code == 404
        assert "No budget is set" in text_of(client.get(LIST))
        budget.refresh_from_db()
        assert budget.ended_at is None

    def test_a_company_is_limited_by_its_administrator_and_by_no_member(self, db: None) -> None:
        admin, member = people.alice(), people.alice()
        company = company_of(admin, member)
        wish = TERMS | {"scope": f"company:{company.pk}"}
        assert signed_in(member).post(ADD, wish).status_code == 422
        assert signed_in(admin).post(ADD, wish).status_code == 302
        assert "PT Sagara" in text_of(signed_in(admin).get(LIST))
        assert "PT Sagara" not in text_of(signed_in(member).get(LIST))

    def test_the_usage_page_shows_budgets(self, db: None) -> None:
        alice = people.alice()
        budget_of(alice, 4_321)
        call_of(alice)
        assert "0 of 4,321 tokens" in text_of(signed_in(alice).get("/usage"))


@pytest.mark.usefixtures("simulator")
class TestRefusals:
    def test_the_page_says_which_budget_and_keeps_the_text(self, db: None) -> None:
        alice = people.alice()
        budget_of(alice, 2)
        slug = simulated_model("sim-echo")
        said = {"text": "Halo from afar", "model": slug, "turn": ids.new("trn")}
        client = signed_in(alice)
        plain = client.post("/chat/turns", said)
        by_htmx = client.post("/chat/turns", said, headers={"HX-Request": "true"})
        for answer in (plain, by_htmx):
            assert answer.status_code == 429
            assert int(answer.headers["Retry-After"]) > 0
            assert "daily budget of 2 tokens has 2 tokens left" in text_of(answer)
            assert LIST in text_of(answer)
        assert "Halo from afar" in text_of(plain)
        assert not Message.objects.filter(user=alice).exists()

    def test_a_program_gets_its_code_and_when_to_come_again(self, db: None) -> None:
        alice = people.alice()
        key = ApiKey.issue(user=alice, name="laptop")
        budget = budget_of(alice, 2, api_key=ApiKey.objects.get(user=alice))
        session = ask(alice).session
        Message.objects.filter(session=session, role="assistant").update(state="stopped")
        answer = Client().post(
            f"/api/v1/chat/sessions/{session.pk}/messages",
            {"content": "Halo"},
            content_type="application/json",
            headers={"Authorization": f"Bearer {key}", "Accept-Language": "en"},
        )
        body = answer.json()
        assert (answer.status_code, body["code"]) == (429, "BUDGET_EXCEEDED")
        assert int(answer.headers["Retry-After"]) > 0
        assert (body["data"]["budgetId"], body["data"]["scope"], body["data"]["remaining"]) == (
            budget.pk,
            "key",
            "2",
        )


class TestApi:
    def test_a_budget_is_made_read_changed_and_ended(self, db: None) -> None:
        alice = people.alice()
        client = signed_in(alice)
        wish = {"unit": "usd", "period": "week", "limit": "0.000000000001"}
        made = client.post(API, wish, content_type="application/json")
        assert made.status_code == 201
        budget = made.json()["data"]
        assert (budget["limit"], budget["remaining"], budget["action"]) == ("0.000000000001",) * 2 + (
            "block",
        )
        assert client.get(API).json()["data"] == [budget]
        assert client.get(f"{API}/{budget['id']}").json()["data"] == budget
        patched = client.patch(f"{API}/{budget['id']}", {"limit": "2"}, content_type="application/json")
        changed = patched.json()["data"]
        assert (changed["limit"], changed["nextLimit"], changed["nextAction"]) == (
            "0.000000000001",
            "2",
            None,
        )
        assert changed["nextFrom"]
        ended = client.delete(f"{API}/{budget['id']}").json()["data"]
        assert ended["endsAt"]

    @pytest.mark.parametrize(
        "wrong",
        [
            {"limit": "0"},
            {"limit": "1e40"},
            {"limit": "NaN"},
            {"unit": "rupiah"},
            {"period": "year"},
            {"thresholds": [0]},
            {"thresholds": list(range(1, 20))},
            {"action": "shout"},
            {"unit": "token", "limit": "1.5"},
            {"unit": "usd", "limit": "1000001"},
        ],
    )
    def test_what_makes_no_sense_is_refused(self, db: None, wrong: dict[str, Any]) -> None:
        client = signed_in(people.alice())
        wish = {"unit": "token", "period": "week", "limit": "5"} | wrong
        answer = client.post(API, wish, content_type="application/json")
        assert (answer.status_code, answer.json()["code"]) == (400, "INVALID_REQUEST")

    def test_keys_and_companies_of_others_are_not_found(self, db: None) -> None:
        alice, carol = people.alice(), people.carol()
        ApiKey.issue(user=alice, name="laptop")
        company = company_of(alice, carol)
        wish = {"unit": "token", "period": "week", "limit": "5"}
        for whose in ({"apiKeyId": ApiKey.objects.get(user=alice).pk}, {"companyId": company.pk}):
            answer = signed_in(carol).post(API, wish | whose, content_type="application/json")
            assert answer.status_code == 404
        budget = budget_of(alice)
        for method in ("get", "patch", "delete"):
            assert getattr(signed_in(carol), method)(f"{API}/{budget.pk}").status_code == 404

    def test_there_are_so_many_and_no_more(self, db: None) -> None:
        alice = people.alice()
        for _number in range(budget_terms.MOST):
            budget_of(alice)
        wish = {"unit": "token", "period": "week", "limit": "5"}
        answer = signed_in(alice).post(API, wish, content_type="application/json")
        assert (answer.status_code, answer.json()["code"]) == (409, "CONFLICT")

    def test_what_staff_set_is_theirs_to_change(self, db: None) -> None:
        alice = people.alice()
        budget = budget_of(alice)
        Budget.objects.filter(pk=budget.pk).update(is_by_staff=True)
        answer = signed_in(alice).patch(f"{API}/{budget.pk}", {"limit": "1"}, content_type="application/json")
        assert (answer.status_code, answer.json()["code"]) == (403, "FORBIDDEN")


class TestHeaders:
    def test_a_program_is_told_what_is_left(self, product: Product) -> None:
        alice = people.alice()
        key = ApiKey.issue(user=alice, name="laptop")
        budget_of(alice, 50_000)
        slug = simulated_model("sim-words-5")
        program = product.visitor()
        program.headers["Authorization"] = f"Bearer {key}"
        session = program.post("/api/v1/chat/sessions", json={"serviceType": "external_llm", "model": slug})
        place = f"/api/v1/chat/sessions/{session.json()['data']['id']}/messages"
        answer = program.post(place, json={"content": "Halo"})
        assert answer.status_code == 200
        assert (answer.headers["Budget-Unit"], answer.headers["Budget-Limit"]) == ("token", "50000")
        assert 0 < int(answer.headers["Budget-Remaining"]) < 50_000
        assert int(answer.headers["Budget-Reset"]) > 0
        budget = Budget.objects.select_related("current").get(user=alice)
        assert budget.current is not None
        assert (budget.current.spent, budget.current.reserved) == (answer.json()["data"]["tokensUsed"], 0)


class TestLimitsInIndonesian:
    @pytest.fixture(autouse=True)
    def in_indonesian(self, in_english: None) -> Iterator[None]:
        with translation.override("id"):
            yield

    @pytest.mark.parametrize(
        ("said", "meant"),
        [("0,50", "0.5"), ("0.50", "0.5"), ("0,125", "0.125"), ("1.250", "1250"), ("1.250,5", "1250.5")],
    )
    def test_both_separators_are_read_as_they_are_meant(self, said: str, meant: str) -> None:
        assert LimitField().clean(said) == Decimal(meant)

    def test_what_would_become_a_thousandfold_is_refused(self) -> None:
        with pytest.raises(ValidationError, match=r"1\.234,5"):
            LimitField().clean("0.005")

    def test_a_limit_that_is_saved_as_it_is_shown_stays(self, db: None) -> None:
        budget = budget_of(people.alice(), limit=1_125_000_000_000, unit="usd")
        widget = LimitField().widget
        value = widget.format_value(limit_field.shown(budget, budget.limit))
        assert value == "1,125"
        assert LimitField().clean(value) == Decimal("1.125")


class TestAdministration:
    WISH = {
        "scope": "everyone",
        "unit": "token",
        "every": "day",
        "amount": "1000",
        "action": "warn",
        "told_at": "80",
    }

    def test_a_budget_that_staff_save_as_it_is_shown_stays(self, db: None) -> None:
        client = signed_in(people.dewi())
        client.post(reverse("admin:usage_budget_add"), self.WISH | {"unit": "usd", "amount": "1.125"})
        budget = Budget.objects.get(scope="everyone")
        place = reverse("admin:usage_budget_change", args=[budget.pk])
        client.cookies[settings.LANGUAGE_COOKIE_NAME] = "id"
        shown = client.get(place, headers={"accept-language": "id"}).content.decode()
        amount = re.search(r'name="amount" value="([^"]+)"', shown)
        assert amount is not None
        terms = {"amount": amount[1], "action": "warn", "told_at": "80"}
        client.post(place, terms, headers={"accept-language": "id"})
        budget.refresh_from_db()
        assert (amount[1], budget.limit) == ("1,125", 1_125_000_000_000)

    def test_staff_set_change_and_end_a_budget_for_everyone(self, db: None) -> None:
        client = signed_in(people.dewi())
        assert client.post(reverse("admin:usage_budget_add"), self.WISH).status_code == 302
        budget = Budget.objects.get(scope="everyone")
        assert (budget.is_by_staff, budget.limit, budget.thresholds) == (True, 1_000, [80])
        place = reverse("admin:usage_budget_change", args=[budget.pk])
        assert 'name="amount" value="1,000"' in text_of(client.get(place))
        client.post(place, {"amount": "5000", "action": "block", "told_at": "50, 90"})
        budget.refresh_from_db()
        now = timezone.now()
        assert (budgets.limit_at(budget, now), budget.action, budget.thresholds) == (5_000, "block", [50, 90])
        client.post(place, {"amount": "5000", "action": "block", "told_at": "50", "ends_now": "on"})
        budget.refresh_from_db()
        assert budget.ended_at is not None

    @pytest.mark.parametrize(
        "wrong",
        [
            {"amount": "0"},
            {"amount": "1.5"},
            {"told_at": "many"},
            {"told_at": "900"},
            {"scope": "user"},
            {"scope": "company"},
            {"time_zone": "Mars/Olympus"},
        ],
    )
    def test_what_makes_no_sense_is_said(self, db: None, wrong: dict[str, str]) -> None:
        answer = signed_in(people.dewi()).post(reverse("admin:usage_budget_add"), self.WISH | wrong)
        assert answer.status_code == 200
        assert "errorlist" in text_of(answer)
        assert not Budget.objects.filter(is_by_staff=True).exists()

    def test_a_budget_for_a_key_belongs_to_the_keys_owner(self, db: None) -> None:
        alice = people.alice()
        ApiKey.issue(user=alice, name="laptop")
        wish = self.WISH | {"scope": "key", "api_key": str(ApiKey.objects.get(user=alice).pk)}
        assert signed_in(people.dewi()).post(reverse("admin:usage_budget_add"), wish).status_code == 302
        assert Budget.objects.get(user=alice).scope == "key"

    def test_what_people_set_staff_look_at(self, db: None) -> None:
        budget = budget_of(people.alice())
        client = signed_in(people.dewi())
        place = reverse("admin:usage_budget_change", args=[budget.pk])
        assert "900 tokens" in text_of(client.get(place))
        assert client.post(place, {"amount": "1", "action": "warn", "told_at": ""}).status_code == 403
        assert budget.pk in text_of(client.get(reverse("admin:usage_budget_changelist")))

"""Every address of the product, found by asking the resolver, visited by a guest, its owner, a stranger and staff.

A new page is visited as soon as it has an address. One with a parameter that nobody here knows fails until `World` is
taught a sample of it; one that guests may open has to be named in `OPEN`.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from http import HTTPStatus
from typing import Any

import pytest
from django.apps import apps
from django.conf import settings
from django.contrib.auth.models import Group
from django.db import connections
from django.db.models import Model
from django.test import Client
from django.urls import URLPattern, URLResolver, get_resolver, reverse
from django.utils import timezone

from aleph import exports, ids
from aleph.accounts.models import ApiKey, Company, DataExport, Membership, User
from billing import corrections, hooks, ledger, purchases, topups
from billing.models import (
    Account,
    AuditRound,
    FirstPurchaseBonus,
    GatewayEvent,
    PromoCode,
    Purchase,
    Refill,
    SandboxPayment,
    TopUp,
    Transfer,
    WebhookDelivery,
    WebhookEndpoint,
)
from chat.models import Attachment, ChatModel, Message, RateCorrection, Session
from tests import people
from tests.forms import Answer
from tests.stories_of_images import draft_of
from tests.stories_of_usage import call_of, price_of
from usage import budget_terms, events
from usage.models import Calibration, PriceCorrection, PriceProposal, TokenUsage

SECRET = "Seven copper kettles"

OPEN = {
    "account_confirm_email",
    "account_email_verification_sent",
    "account_inactive",
    "account_login",
    "account_logout",
    "account_reset_password",
    "account_reset_password_done",
    "account_reset_password_from_key",
    "account_reset_password_from_key_done",
    "account_signup",
    "admin:logout",
    "api-docs",
    "figures",  # where they are told to sign in
    "healthz",
    "metrics",  # in development, from this machine
    "readyz",
    "schema",
}
"""What guests may open."""

SIGNED = {"billing:webhook", "billing:sandbox_status"}
"""What programs reach without a session, by a signature or a key, which nobody here has."""

INCOMPLETE = {"admin:view_on_site", "admin:autocomplete"}
"""Places that make sense only with more in their address than a walk can know."""

NOTHING_HERE = {HTTPStatus.NOT_FOUND, HTTPStatus.METHOD_NOT_ALLOWED}
NOTHING_TO_SEE = NOTHING_HERE | {HTTPStatus.SEE_OTHER}
"""Whoever merely goes to where a form is sent may be led to the form, which asks again who he is."""
WHO = ("guest", "alice", "carol", "dewi")

PRIVATE = {
    "budget_id",
    "session_id",
    "reply_id",
    "message_id",
    "attachment_id",
    "purchase_id",
    "key_id",
    "topup_id",
    "endpoint_id",
    "call_id",
    "export_id",
}
"""Parameters that name something of one person."""


@dataclass(frozen=True)
class Place:
    """A named address, and the names of its parameters."""

    name: str
    parameters: tuple[str, ...]

    @property
    def is_private(self) -> bool:
        return bool(PRIVATE & {*self.parameters})

    @property
    def is_admin(self) -> bool:
        return self.name.startswith("admin:")

    def __str__(self) -> str:
        return self.name


def places(resolver: URLResolver, namespace: str = "", given: tuple[str, ...] = ()) -> Iterator[Place]:
    for pattern in resolver.url_patterns:
        parameters = (*given, *pattern.pattern.regex.groupindex)
        if isinstance(pattern, URLPattern) and pattern.name:
            yield Place(f"{namespace}{pattern.name}", parameters)
        elif isinstance(pattern, URLResolver):
            inner = f"{namespace}{pattern.namespace}:" if pattern.namespace else namespace
            yield from places(pattern, inner, parameters)


PLACES = sorted(set(places(get_resolver())), key=str)
every_place = pytest.mark.parametrize("place", PLACES, ids=str)


class World:
    """Alice owns one of everything. Carol is a stranger to it, and Dewi is staff."""

    def __init__(self) -> None:
        self.alice, self.carol, self.dewi = people.alice(), people.carol(), people.dewi()
        alice = self.alice
        self.session = Session.objects.create(
            id=ids.new("cht"), user=alice, title=SECRET, message_count=2, last_message_at=timezone.now()
        )
        self.said = Message.objects.create(
            id=ids.new("msg"), session=self.session, user=alice, role="user", content=SECRET
        )
        self.reply = Message.objects.create(
            id=ids.new("msg"),
            session=self.session,
            user=alice,
            parent=self.said,
            role="assistant",
            content=SECRET,
            turn=ids.new("trn"),
            state="complete",
            model=ChatModel.objects.filter(is_free=True).first(),
            finished_at=timezone.now(),
        )
        self.image = draft_of(alice, name=SECRET)
        ApiKey.issue(user=alice, name=SECRET)
        self.key = ApiKey.objects.get(user=alice)
        promo = PromoCode.objects.create(code=ids.new("SAFE").upper(), kind="tokens", amount=1)
        FirstPurchaseBonus.objects.create(name="Welcome", bonus_tokens=1, is_active=False)
        self.purchase = purchases.buy(
            user=alice, package_slug="starter", promo_code=promo.code, key=ids.new("key")
        )
        Refill.objects.create(
            user=alice,
            package=self.purchase.package,
            terms=self.purchase.package.terms,
            below_tokens=1,
            monthly_limit_idr=50_000,
        )
        self.topup = topups.start(user=alice, amount_idr=50_000, gateway="sandbox", key=ids.new("key"))
        GatewayEvent.objects.create(
            id=ids.new("gev"), gateway="sandbox", key=ids.new("key"), topup=self.topup, body=SECRET
        )
        self.endpoint = hooks.add(
            alice, url="https://example.com/" + SECRET.replace(" ", "-"), kinds=["topup"]
        )
        hooks.test(alice, self.endpoint.pk)
        company = Company.objects.create(name="PT Sagara Digital")
        Membership.objects.create(company=company, user=alice)
        Group.objects.get_or_create(name="Support")
        self.call = call_of(alice)
        events.record(user=alice, events=[events.Event("own-1", {}, reason="It says nothing.")])
        AuditRound.objects.create(ended_at=timezone.now())
        Calibration.objects.get_or_create(
            model="safe", kind="prose", defaults={"factor": 1000, "reserve": 1300}
        )
        self.proposal, _ = PriceProposal.objects.get_or_create(
            provider="acme",
            model="safe",
            state="open",
            defaults={"input_usd_per_million": 1, "output_usd_per_million": 2},
        )
        corrections.adjust(
            author=self.dewi, user=alice, account="wallet", amount=200_000, reason=SECRET, key=ids.new("key")
        )
        self.correct_prices()
        self.budget = budget_terms.create(
            author=alice, unit="token", every="day", limit=1_000, action="warn", api_key=self.key
        )
        self.visits: dict[tuple[Place, str], Answer] = {}
        self.samples = {
            "session_id": self.session.pk,
            "reply_id": self.reply.pk,
            "message_id": self.reply.pk,
            "attachment_id": self.image.pk,
            "purchase_id": self.purchase.pk,
            "key_id": self.key.pk,
            "budget_id": self.budget.pk,
            "topup_id": self.topup.pk,
            "endpoint_id": self.endpoint.pk,
            "call_id": self.call.pk,
            "export_id": exports.ask(alice).pk,
            "reference": self.topup.pk,
            "proposal_id": self.proposal.pk,
            "gateway": "sandbox",
            "slug": "starter",
            "timeframe": "week",
            "month": f"{timezone.localdate():%Y-%m}",
            "key": "expired-key",
            "uidb36": "1",
            "app_label": "accounts",
            "content_type_id": "1",
            "id": alice.pk,
        }

    def correct_prices(self) -> None:
        """A price and rates that were wrong, and that nobody was charged at."""
        now = timezone.now()
        wrong, right = (price_of("acme", ids.new("safe"), "1 - - 2", now) for _each in range(2))
        PriceCorrection.objects.create(
            wrong=wrong, right=right, since=now, reason="A slip", author=self.dewi, ended_at=now
        )
        RateCorrection.objects.create(
            correction=corrections.return_tokens(
                author=self.dewi, amount=1, reason="A slip", key=ids.new("key")
            ),
            model=ChatModel.objects.order_by("pk")[0],
            since=now - timedelta(days=1),
            until=now,
            input_rate=1,
            output_rate=1,
            people=1,
            replies=1,
            ended_at=now,
        )

    def url(self, place: Place) -> str:
        return reverse(place.name, kwargs={name: self.sample(place, name) for name in place.parameters})

    def sample(self, place: Place, parameter: str) -> Any:
        if parameter == "object_id":
            row = self.row_of(place)
            return row.pk if row else "1"
        if place.name == "chat:edits":
            return self.said.pk
        assert parameter in self.samples, f"teach World a sample of {parameter!r}, for {place.name}"
        return self.samples[parameter]

    def row_of(self, place: Place) -> Model | None:
        """What an address such as ``admin:accounts_user_change`` is about."""
        found = re.fullmatch(r"admin:([a-z]+)_([a-z]+)_[a-z_]+", place.name)
        if not found or place.name in INCOMPLETE:
            return None
        model = apps.get_model(found[1], found[2])
        row: Model | None = model._default_manager.order_by("-pk").first()
        assert row, f"nothing of {model._meta.label} to look at"
        return row

    def client(self, who: str, **options: Any) -> Client:
        client = Client(headers={"Accept-Language": "en"}, **options)
        if who != "guest":
            client.force_login({"alice": self.alice, "carol": self.carol, "dewi": self.dewi}[who])
        return client

    def visit(self, place: Place, who: str) -> Answer:
        """What somebody gets who opens a place. Asked once for all tests."""
        if (place, who) not in self.visits:
            self.visits[place, who] = self.client(who).get(self.url(place))
        return self.visits[place, who]

    def sent(self, place: Place) -> dict[str, Any]:
        """What would do harm to something of another's, were it let through; arguments of `client.post`."""
        harm = {"content": "Hello", "text": "Hello", "title": "Stolen", "turn": ids.new("trn")}
        as_json = (
            {"content_type": "application/json"}
            if place.name.startswith(("chat_api:", "wallet_api:"))
            else {}
        )
        return {"data": harm if place.is_private else {}, **as_json}

    def belongings(self) -> dict[str, list[Any]]:
        """All that is Alice's, row by row."""
        mine = {
            "session": Session.objects.filter(user=self.alice),
            "message": Message.objects.filter(user=self.alice),
            "attachment": Attachment.objects.filter(user=self.alice),
            "key": ApiKey.objects.filter(user=self.alice),
            "export": DataExport.objects.filter(user=self.alice),
            "account": Account.objects.filter(user=self.alice),
            "purchase": Purchase.objects.filter(user=self.alice),
            "topup": TopUp.objects.filter(user=self.alice),
            "sandbox": SandboxPayment.objects.filter(pk=self.topup.pk),
            "webhook": WebhookEndpoint.objects.filter(user=self.alice),
            "delivery": WebhookDelivery.objects.filter(endpoint__user=self.alice),
            "membership": Membership.objects.filter(user=self.alice),
            "person": User.objects.filter(pk=self.alice.pk).defer("last_login"),
        }
        return {name: list(rows.order_by("pk").values()) for name, rows in mine.items()} | {
            "person": list(
                User.objects.filter(pk=self.alice.pk).values("email", "name", "password", "is_staff")
            ),
        }


@pytest.fixture(scope="module")
def world(django_db_setup: None, django_db_blocker: Any) -> Iterator[World]:
    """One for all tests of this module; what they write stays, as with `committed`."""
    with django_db_blocker.unblock():
        yield World()
        connections.close_all()


def text_of(answer: Answer) -> str:
    """What was answered; a stream is left alone."""
    return "" if answer.streaming else answer.content.decode(errors="replace")


def asks_to_sign_in(answer: Answer) -> bool:
    if answer.status_code == HTTPStatus.UNAUTHORIZED:
        return True
    return answer.status_code == HTTPStatus.FOUND and bool(
        re.match(r"/(accounts|admin)/login/", answer.headers["Location"])
    )


class TestEveryPlace:
    @every_place
    def test_asks_guests_to_sign_in_unless_it_is_open(self, world: World, place: Place) -> None:
        answer = world.visit(place, "guest")

        if place.name in OPEN:
            assert answer.status_code < HTTPStatus.BAD_REQUEST
        else:
            assert asks_to_sign_in(answer) or answer.status_code in NOTHING_TO_SEE
        assert SECRET not in text_of(answer)

    @every_place
    def test_answers_its_owner(self, world: World, place: Place) -> None:
        answer = world.visit(place, "alice")

        fine = {HTTPStatus.OK, HTTPStatus.FOUND, HTTPStatus.SEE_OTHER, HTTPStatus.METHOD_NOT_ALLOWED}
        if place.name in SIGNED:
            fine = {HTTPStatus.UNAUTHORIZED, HTTPStatus.METHOD_NOT_ALLOWED}
        assert answer.status_code in ({HTTPStatus.FOUND, HTTPStatus.FORBIDDEN} if place.is_admin else fine)

    @every_place
    def test_shows_a_stranger_nothing(self, world: World, place: Place) -> None:
        answer = world.visit(place, "carol")

        if place.is_private:
            assert answer.status_code in NOTHING_TO_SEE
        assert answer.status_code < HTTPStatus.INTERNAL_SERVER_ERROR
        assert SECRET not in text_of(answer)

    @every_place
    def test_shows_staff_what_is_for_staff_and_nothing_else(self, world: World, place: Place) -> None:
        answer = world.visit(place, "dewi")

        if place.is_private:
            assert answer.status_code in NOTHING_TO_SEE
            assert SECRET not in text_of(answer)
        elif place.is_admin and place.name not in INCOMPLETE:
            # Some rows are written by nobody.
            refused = {HTTPStatus.FORBIDDEN} if place.name.endswith(("_add", "_delete")) else set()
            answers = {HTTPStatus.OK, HTTPStatus.FOUND, HTTPStatus.METHOD_NOT_ALLOWED}
            assert answer.status_code in answers | refused
        assert answer.status_code < HTTPStatus.INTERNAL_SERVER_ERROR

    @every_place
    def test_carries_the_headers_that_keep_it_safe(self, world: World, place: Place) -> None:
        for who in WHO:
            assert_safe(world.visit(place, who))

    @every_place
    def test_needs_nothing_that_its_policy_blocks(self, world: World, place: Place) -> None:
        for who in WHO:
            page = text_of(world.visit(place, who))
            if page.lstrip().lower().startswith("<!doctype"):
                assert not re.search(r"<script(?![^>]*\bsrc=)(?![^>]*application/json)", page)
                assert not re.search(r"<[a-z][^<>]*\s(style|on[a-z]+)=", page)
                assert "<style" not in page

    @every_place
    def test_takes_no_post_from_another_site(self, world: World, place: Place) -> None:
        before = world.belongings()
        client = world.client("alice", enforce_csrf_checks=True)

        answer = client.post(world.url(place), **world.sent(place))

        refused = {HTTPStatus.FORBIDDEN} | ({HTTPStatus.UNAUTHORIZED} if place.name in SIGNED else set())
        assert answer.status_code in refused | {HTTPStatus.METHOD_NOT_ALLOWED}
        assert world.belongings() == before

    @every_place
    @pytest.mark.parametrize("who", ["guest", "carol", "dewi"])
    def test_lets_nobody_change_what_is_anothers(self, world: World, place: Place, who: str) -> None:
        if who == "dewi" and not place.is_private:
            return  # her own work is told in test_admin
        before = world.belongings()

        for method in (
            ("post", "delete") if place.name.startswith(("chat_api:", "wallet_api:")) else ("post",)
        ):
            answer = getattr(world.client(who), method)(world.url(place), **world.sent(place))
            assert answer.status_code < HTTPStatus.INTERNAL_SERVER_ERROR
            if place.is_private:
                assert answer.status_code in NOTHING_HERE or (who == "guest" and asks_to_sign_in(answer))

        assert world.belongings() == before


def assert_safe(answer: Answer) -> None:
    policy = answer.headers["Content-Security-Policy"]
    if answer.headers.get("Content-Type", "").startswith("image/"):
        assert policy == "default-src 'none'; sandbox"
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert answer.headers["Cross-Origin-Resource-Policy"] == "same-origin"
        assert answer.headers["Cache-Control"] == "private, no-cache"
        return
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    assert rules["default-src"] == "'none'"
    assert rules["script-src"] == rules["style-src"] == rules["form-action"] == "'self'"
    assert rules["object-src"] == rules["base-uri"] == rules["frame-ancestors"] == "'none'"
    assert "unsafe" not in policy
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["X-Frame-Options"] == "DENY"
    assert answer.headers["Referrer-Policy"] == "same-origin"
    assert answer.headers["Cross-Origin-Opener-Policy"] == "same-origin"
    assert answer.headers["X-Request-Id"]
    is_live = answer.headers.get("Content-Type") == "text/event-stream"
    assert ("no-cache" if is_live else "no-store") in answer.headers["Cache-Control"]


def test_looking_changes_nothing(world: World) -> None:
    """No GET writes: whoever opens every page finds all books as they were, and is signed in still."""
    client = world.client("alice")
    before = counted(), world.belongings()

    for place in PLACES:
        client.get(world.url(place))

    assert (counted(), world.belongings()) == before
    assert client.get("/settings").status_code == HTTPStatus.OK


def counted() -> list[int]:
    models: list[type[Model]] = [
        Transfer,
        TopUp,
        GatewayEvent,
        Session,
        Message,
        Purchase,
        ApiKey,
        TokenUsage,
        User,
        Company,
    ]
    return [model._default_manager.count() for model in models]


class TestWhatCannotBeShown:
    def test_is_said_calmly_and_with_a_number(self, world: World) -> None:
        answer = world.client("guest").get("/no/such/page", headers={"X-Request-Id": "req_for_the_test"})

        assert answer.status_code == HTTPStatus.NOT_FOUND
        assert "There is nothing here" in text_of(answer)
        assert "req_for_the_test" in text_of(answer)
        assert_safe(answer)

    @pytest.mark.parametrize("path", ["/chat/cht_nobodys", "/billing/purchases/buy_nobodys", "/nothing"])
    def test_is_the_same_for_what_is_anothers_and_for_what_never_was(self, world: World, path: str) -> None:
        assert world.client("carol").get(path).status_code == HTTPStatus.NOT_FOUND

    def test_is_said_to_programs_in_the_envelope(self, world: World) -> None:
        answer = world.client("guest").get("/api/v1/no/such/thing")

        assert answer.status_code == HTTPStatus.NOT_FOUND
        assert answer.json() == {
            "success": False,
            "error": "There is no such thing here.",
            "code": "NOT_FOUND",
            "data": {},
        }

    def test_of_an_old_form_asks_to_try_again(self, world: World) -> None:
        answer = world.client("guest", enforce_csrf_checks=True).post("/accounts/login/", {"login": "x"})

        assert answer.status_code == HTTPStatus.FORBIDDEN
        assert "Please try again" in text_of(answer)

    def test_of_a_host_that_is_not_ours_needs_no_session(self, world: World) -> None:
        answer = world.client("guest").get("/accounts/login/", headers={"Host": "evil.example"})

        assert answer.status_code == HTTPStatus.BAD_REQUEST
        assert "This request cannot be understood" in text_of(answer)
        assert "evil.example" not in text_of(answer)


class TestOurFaults:
    """A page that breaks on purpose stands beside the product's own."""

    @pytest.fixture(autouse=True)
    def broken_pages(self, settings: Any) -> None:
        settings.ROOT_URLCONF = "tests.broken_urls"

    def visitor(self, world: World) -> Client:
        return world.client("alice", raise_request_exception=False)

    def test_are_owned_up_to_without_asking_the_database(
        self, world: World, django_assert_num_queries: Any
    ) -> None:
        client = world.client("guest", raise_request_exception=False)
        with django_assert_num_queries(0):
            answer = client.get("/broken")

        assert answer.status_code == HTTPStatus.INTERNAL_SERVER_ERROR
        assert "Something went wrong on our side" in text_of(answer)
        assert answer.headers["X-Request-Id"] in text_of(answer)
        assert "kettle" not in text_of(answer)
        assert re.search(r'<link rel="icon" href="[^"]+\.svg"', text_of(answer))
        assert_safe(answer)

    def test_of_a_silent_database_are_worth_another_try(self, world: World) -> None:
        answer = self.visitor(world).get("/silent-database")

        assert answer.status_code == HTTPStatus.SERVICE_UNAVAILABLE
        assert answer.headers["Retry-After"]
        assert "Aleph is busy" in text_of(answer)

    def test_are_told_to_programs_in_the_envelope(self, world: World) -> None:
        answer = self.visitor(world).get("/api/broken")

        assert answer.status_code == HTTPStatus.INTERNAL_SERVER_ERROR
        assert answer.json()["success"] is False
        assert answer.json()["code"] == "INTERNAL_ERROR"
        assert "kettle" not in text_of(answer)

    def test_speak_both_languages(self, world: World) -> None:
        answer = Client(headers={"Accept-Language": "id"}, raise_request_exception=False).get("/broken")

        assert '<html lang="id">' in text_of(answer)


def test_cookies_are_out_of_reach_of_scripts_and_of_other_sites(world: World) -> None:
    answer = Client().post("/accounts/login/", {"login": world.alice.email, "password": people.PASSWORD})

    for name in (settings.SESSION_COOKIE_NAME, settings.LANGUAGE_COOKIE_NAME):
        assert answer.cookies[name]["httponly"]
        assert answer.cookies[name]["samesite"] == "Lax"


def test_balances_are_as_they_were(world: World) -> None:
    """After all these visits Alice has what she bought and was given."""
    assert (
        ledger.balance_of(world.alice).tokens == 10_500 + world.purchase.tokens + world.purchase.bonus_tokens
    )

"""The JSON API as programs know it: shapes, the envelope, every error by its name, replies whole and in pieces."""

import json
import re
from datetime import timedelta
from typing import Any

import pytest
from django.core.management import call_command
from django.test import Client
from django.utils import timezone, translation
from rest_framework.serializers import Serializer

from aleph import ids
from aleph.accounts.models import ApiKey, User
from billing import ledger
from billing.models import Account, Package, PromoCode, QuantityDiscount
from chat import api as chat_api
from chat import sessions, turns
from chat.models import ChatModel, Message, Session
from tests import people
from tests.product import simulated_model
from tests.stories_of_chat import (
    ask,
    available,
    held,
    special_model,
)

ROOT = "/api/v1/chat"
JSON = "application/json"

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("simulator")]


class Program:
    """Speaks JSON for somebody, in this process."""

    def __init__(self, person: User, **headers: str) -> None:
        key = ApiKey.issue(user=person, name="test")
        self.client = Client(headers={"Authorization": f"Bearer {key}", "Accept-Language": "en", **headers})
        self.status = 0

    def __call__(self, method: str, path: str, body: Any = None, **headers: str) -> dict[str, Any]:
        data = body if isinstance(body, str | bytes) else "" if body is None else json.dumps(body)
        response = self.client.generic(method, ROOT + path, data, JSON, headers=headers)
        self.status = response.status_code
        assert response["Content-Type"] == JSON
        assert response["X-Request-Id"]
        answer: dict[str, Any] = response.json()
        assert answer["success"] == (self.status < 400)
        assert set(answer) == (
            {"success", "data"} if answer["success"] else {"success", "error", "code", "data"}
        )
        return answer

    def data(self, method: str, path: str, body: Any = None, **headers: str) -> Any:
        answer = self(method, path, body, **headers)
        assert answer["success"], answer
        return answer["data"]

    def refused(self, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, str]:
        answer = self(method, path, body, **headers)
        assert answer["error"]
        return self.status, answer.get("code", "")


@pytest.mark.parametrize("query", ["", "?format=json", "?format=yaml"])
@pytest.mark.parametrize("accept", ["*/*", "application/json", "text/html,*/*;q=0.8"])
def test_the_openapi_document_is_json(query: str, accept: str) -> None:
    answer = Client().get(f"/api/schema/{query}", headers={"Accept": accept})
    assert answer.status_code == 200
    assert answer["Content-Type"].startswith(JSON)
    assert answer.json()["openapi"].startswith("3.")


def told_of(body: type[Serializer[Any]], language: str) -> list[str]:
    """All that can be wrong with a body and its fields, in a language."""
    with translation.override(language):
        whole = body()
        fields: list[Any] = [whole, *whole.fields.values()]
        said = [words for field in fields for words in field.error_messages.values()]
        said += [check.message for field in fields for check in field.validators if hasattr(check, "message")]
        return [str(words) for words in said]


class TestTokens:
    def test_the_balance_is_what_can_be_spent_and_what_is_held(self) -> None:
        alice = people.alice()
        reply = ask(alice, rate=100).reply
        assert Program(alice).data("GET", "/tokens/balance") == {
            "tokens": 10_500 - reply.held_tokens,
            "balance": 10_500,
            "held": reply.held_tokens,
            "bonus": 0,
            "walletBalance": 275_000,
        }

    def test_the_packages_are_those_on_offer(self) -> None:
        found = Program(people.carol()).data("GET", "/tokens/packages")
        assert found[0] == {
            "id": "starter",
            "name": "Starter",
            "tokens": 10_000,
            "bonus": 500,
            "totalTokens": 10_500,
            "price": 50_000,
            "quantityDiscounts": [],
        }
        assert [package["price"] for package in found] == sorted(package["price"] for package in found)
        assert len(found) == Package.objects.filter(is_offered=True).count() == 4

    def test_a_package_is_bought_from_the_wallet_once_for_each_key(self) -> None:
        alice = people.alice()
        program = Program(alice)
        bought = program.data(
            "POST", "/tokens/purchase", {"packageId": "starter"}, **{"Idempotency-Key": "one"}
        )
        assert bought["purchaseId"].startswith("buy_")
        assert bought == {
            "purchaseId": bought["purchaseId"],
            "receiptNumber": bought["receiptNumber"],
            "tokensAdded": 10_500,
            "balance": 21_000,
            "walletBalance": 225_000,
            "receipt": bought["receipt"],
        }
        again = program.data(
            "POST", "/tokens/purchase", {"packageId": "starter"}, **{"Idempotency-Key": "one"}
        )
        assert again == bought
        assert available(alice) == 21_000

    def test_several_are_bought_with_a_code_and_the_receipt_says_how(self) -> None:
        alice = people.alice()
        program = Program(alice)
        steps = QuantityDiscount.objects.create(
            package=Package.objects.get(slug="starter"), from_quantity=3, percent=10
        )
        code = PromoCode.objects.create(code=ids.new("API").upper(), kind="rupiah", amount=5_000)
        listed = program.data("GET", "/tokens/packages")[0]["quantityDiscounts"]
        assert listed == [{"fromQuantity": 3, "percent": 10}]
        body = {"packageId": "starter", "quantity": 3, "promoCode": code.code.lower(), "maxPrice": 130_000}
        bought = program.data("POST", "/tokens/purchase", body, **{"Idempotency-Key": "three"})
        receipt = bought["receipt"]
        assert {
            name: receipt[name] for name in ("listPrice", "quantityDiscount", "promoDiscount", "price")
        } == {
            "listPrice": 150_000,
            "quantityDiscount": 15_000,
            "promoDiscount": 5_000,
            "price": 130_000,
        }
        assert (receipt["walletBefore"], receipt["walletAfter"]) == (275_000, 145_000)
        assert (receipt["tokensBefore"], receipt["tokensAfter"]) == (10_500, 42_000)
        assert [line["price"] for line in receipt["lines"]] == [150_000, 0, -15_000, -5_000]
        assert sum(line["tokens"] or 0 for line in receipt["lines"]) == bought["tokensAdded"] == 31_500
        assert program.data("GET", "/tokens/balance")["bonus"] == 1_500
        steps.delete()
        assert program.data("POST", "/tokens/purchase", body, **{"Idempotency-Key": "three"}) == bought

    def test_a_code_or_price_that_does_not_hold_buys_nothing(self) -> None:
        alice = Program(people.alice())
        key = {"Idempotency-Key": "one"}
        unknown = alice("POST", "/tokens/purchase", {"packageId": "starter", "promoCode": "NO"}, **key)
        assert (unknown["code"], unknown["data"]) == ("PROMO_REFUSED", {"reason": "unknown"})
        dear = {"packageId": "starter", "maxPrice": 49_999}
        assert alice.refused("POST", "/tokens/purchase", dear, **key) == (409, "CONFLICT")
        for quantity in (0, 101, "many"):
            body = {"packageId": "starter", "quantity": quantity}
            assert alice.refused("POST", "/tokens/purchase", body, **key) == (400, "INVALID_REQUEST")
        assert alice.data("GET", "/tokens/balance")["walletBalance"] == 275_000

    def test_a_purchase_that_cannot_be_is_refused_by_its_name(self) -> None:
        carol, alice = Program(people.carol()), Program(people.alice())
        key = {"Idempotency-Key": "one"}
        body = {"packageId": "starter"}
        assert carol.refused("POST", "/tokens/purchase", body, **key) == (402, "INSUFFICIENT_WALLET")
        assert carol("POST", "/tokens/purchase", body, **key)["data"] == {"walletBalance": 0, "price": 50_000}
        assert alice.refused("POST", "/tokens/purchase", body) == (400, "INVALID_REQUEST")
        assert alice.refused("POST", "/tokens/purchase", {"packageId": "none"}, **key) == (404, "NOT_FOUND")
        assert alice.refused("POST", "/tokens/purchase", {}, **key) == (400, "INVALID_REQUEST")
        alice("POST", "/tokens/purchase", body, **key)
        assert alice.refused("POST", "/tokens/purchase", {"packageId": "pro"}, **key)[1] in (
            "IDEMPOTENCY_MISMATCH",
            "NOT_FOUND",
        )
        other = Package.objects.exclude(slug="starter").order_by("price_idr")[0].slug
        assert alice.refused("POST", "/tokens/purchase", {"packageId": other}, **key) == (
            422,
            "IDEMPOTENCY_MISMATCH",
        )
        long = {"Idempotency-Key": "x" * 65}
        assert alice.refused("POST", "/tokens/purchase", body, **long) == (400, "INVALID_REQUEST")

    def test_a_frozen_account_buys_nothing(self) -> None:
        alice = people.alice()
        Account.objects.filter(user=alice).update(frozen_at=timezone.now())
        refused = Program(alice).refused(
            "POST", "/tokens/purchase", {"packageId": "starter"}, **{"Idempotency-Key": "one"}
        )
        assert refused == (423, "ACCOUNT_FROZEN")


class TestSessions:
    def test_a_session_begins_and_is_found_again(self) -> None:
        alice = people.alice()
        program = Program(alice)
        made = program.data(
            "POST",
            "/sessions",
            {"title": "Diskusi JWT", "serviceType": "external_llm", "model": simulated_model("sim-echo")},
        )
        assert program.status == 201
        assert re.fullmatch(r"cht_[0-9A-Z]{26}", made["id"])
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+Z", made["createdAt"])
        assert made == {
            "id": made["id"],
            "userId": alice.pk,
            "title": "Diskusi JWT",
            "serviceType": "external_llm",
            "model": "sim-echo-at-100",
            "temperature": None,
            "messageCount": 0,
            "totalTokensUsed": 0,
            "lastMessageAt": None,
            "createdAt": made["createdAt"],
        }
        assert program.data("GET", f"/sessions/{made['id']}") == made | {
            "messages": [],
            "earlierCursor": None,
        }
        assert program.data("GET", "/sessions") == {"sessions": [made], "nextCursor": None}

    def test_the_free_tier_needs_no_model(self) -> None:
        program = Program(people.carol())
        for body in ({"title": "New Chat", "serviceType": "huggingface", "model": None}, {}):
            made = program.data("POST", "/sessions", body)
            assert (made["serviceType"], made["model"]) == ("huggingface", None)

    @pytest.mark.parametrize(
        "body",
        [
            {"serviceType": "external_llm"},
            {"serviceType": "external_llm", "model": "nobody-knows-it"},
            {"serviceType": "external_llm", "model": "llama-3.3-70b"},
            {"serviceType": "huggingface", "model": "gpt-4o"},
            {"serviceType": "something"},
            {"title": "x" * 121},
            {"title": None},
            {"title": "zero\x00"},
            {"model": ["gpt-4o"]},
            [],
            "null",
            "not JSON at all",
            b"\xff\xfe",
            "[" * 100_000,
            '{"title": NaN}',
            '{"title": "\\ud800"}',
        ],
    )
    def test_a_session_that_cannot_be_is_an_invalid_request(self, body: Any) -> None:
        person = people.alice()
        assert Program(person).refused("POST", "/sessions", body) == (400, "INVALID_REQUEST")
        assert not Session.objects.filter(user=person).exists()

    def test_a_session_is_read_with_its_messages_oldest_first(self) -> None:
        alice = people.alice()
        turn = ask(alice, "Jelaskan tentang JWT")
        turns.stop(user=alice, reply_id=turn.reply.pk)
        found = Program(alice).data("GET", f"/sessions/{turn.session.pk}")
        said, reply = found["messages"]
        assert said == {
            "id": turn.message.pk,
            "parentId": None,
            "role": "user",
            "content": "Jelaskan tentang JWT",
            "tokensUsed": 0,
            "createdAt": said["createdAt"],
        }
        assert reply == {
            "id": turn.reply.pk,
            "parentId": turn.message.pk,
            "role": "assistant",
            "content": "",
            "tokensUsed": 0,
            "createdAt": reply["createdAt"],
            "state": "stopped",
            "model": "sim-words-5-at-100",
            "temperature": 0.7,
            "reused": False,
        }
        assert (found["messageCount"], found["title"]) == (2, "Jelaskan tentang JWT")
        assert found["lastMessageAt"] is not None

    def test_sessions_come_in_pages_newest_first_and_none_twice(self) -> None:
        alice = people.alice()
        made = [sessions.create(user=alice, title=f"Chat {number}").pk for number in range(7)]
        Session.objects.filter(pk__in=made[2:5]).update(last_message_at=timezone.now())
        program = Program(alice)
        seen: list[str] = []
        cursor = ""
        while True:
            page = program.data("GET", f"/sessions?limit=3&cursor={cursor}")
            seen += [session["id"] for session in page["sessions"]]
            assert len(page["sessions"]) <= 3
            if page["nextCursor"] is None:
                break
            cursor = page["nextCursor"].replace("+", "%2B")
        order = Session.objects.filter(user=alice).order_by("-last_message_at", "-id")
        assert seen == [session.pk for session in order]
        assert len(seen) == 7

    def test_messages_come_in_pages_from_the_end(self) -> None:
        alice = people.alice()
        turn = ask(alice, "One")
        for text in ("Two", "Three"):
            Message.objects.filter(pk=turn.reply.pk).update(state="complete", content="Yes.")
            turn = ask(alice, text, session=sessions.get(alice, turn.session.pk))
        program = Program(alice)
        read: list[dict[str, object]] = []
        page = program.data("GET", f"/sessions/{turn.session.pk}?limit=2")
        while True:
            read = page["messages"] + read
            if page["earlierCursor"] is None:
                break
            page = program.data("GET", f"/sessions/{turn.session.pk}?limit=2&cursor={page['earlierCursor']}")
        assert [message["content"] for message in read] == ["One", "Yes.", "Two", "Yes.", "Three", ""]

    def test_a_message_that_is_not_in_a_session_has_no_branch_there(self) -> None:
        alice = people.alice()
        turn, other, foreign = ask(alice), ask(alice), ask(people.carol(), rate=0)
        turns.stop(user=alice, reply_id=turn.reply.pk)
        program = Program(alice)
        path = f"/sessions/{turn.session.pk}"
        for parent in (other.reply.pk, foreign.reply.pk, ids.new("msg"), turn.message.pk):
            said: dict[str, object] = {"content": "Halo", "parentId": parent}
            assert program.refused("POST", f"{path}/messages", said) == (404, "NOT_FOUND")
            if parent != turn.message.pk:
                assert program.refused("GET", f"{path}?at={parent}") == (404, "NOT_FOUND")
        for odd in ("", None, 7, "x" * 50):
            said = {"content": "Halo", "parentId": odd}
            assert program.refused("POST", f"{path}/messages", said) in [
                (400, "INVALID_REQUEST"),
                (404, "NOT_FOUND"),
            ]
        assert Message.objects.filter(session=turn.session).count() == 2

    @pytest.mark.parametrize(
        "query",
        [
            "limit=0",
            "limit=101",
            "limit=-1",
            "limit=ten",
            "limit=%D9%A3",
            "limit=" + "9" * 5_000,
            "cursor=nonsense",
            "cursor=2026-11-22T10:00:00Z",
            "cursor=2026-11-22T10:00:00Z~cht_",
            "cursor=2026-11-22T10:00:00~cht_01K2H8M3ZZZZZZZZZZZZZZZZZZ",
            "cursor=2026-99-22T10:00:00Z~cht_01K2H8M3ZZZZZZZZZZZZZZZZZZ",
            "cursor=0001-01-01T00:00:00%2B14:00~cht_01K2H8M3ZZZZZZZZZZZZZZZZZZ",
            "cursor=%00",
            "cursor=2026-11-22T10:00:00Z~cht_%00",
        ],
    )
    def test_a_garbled_page_is_an_invalid_request(self, query: str) -> None:
        assert Program(people.carol()).refused("GET", f"/sessions?{query}") == (400, "INVALID_REQUEST")

    def test_a_garbled_page_of_messages_is_refused_too(self) -> None:
        alice = people.alice()
        turn, foreign = ask(alice), ask(people.alice())
        program = Program(alice)
        for cursor in ("nonsense", "msg_%00", "cht_01K2H8M3ZZZZZZZZZZZZZZZZZZ"):
            refused = program.refused("GET", f"/sessions/{turn.session.pk}?cursor={cursor}")
            assert refused == (400, "INVALID_REQUEST")
        for cursor in (foreign.message.pk, ids.new("msg")):
            refused = program.refused("GET", f"/sessions/{turn.session.pk}?cursor={cursor}")
            assert refused == (404, "NOT_FOUND")

    def test_a_deleted_session_is_gone_with_all_that_was_said(self) -> None:
        alice = people.alice()
        turn = ask(alice)
        program = Program(alice)
        assert program.data("DELETE", f"/sessions/{turn.session.pk}") == {"id": turn.session.pk}
        for method, path in (("GET", ""), ("DELETE", ""), ("GET", f"/messages/{turn.reply.pk}")):
            assert program.refused(method, f"/sessions/{turn.session.pk}{path}") == (404, "NOT_FOUND")
        assert not Message.objects.filter(session_id=turn.session.pk).exists()
        assert (available(alice), held(alice)) == (10_500, 0)

    def test_what_belongs_to_others_is_as_good_as_nothing(self) -> None:
        turn = ask(people.alice())
        carol = people.carol()
        own = sessions.create(user=carol)
        stranger = Program(carol)
        path = f"/sessions/{turn.session.pk}"
        for method, address in (
            ("GET", path),
            ("DELETE", path),
            ("GET", f"{path}/messages/{turn.reply.pk}"),
            ("GET", f"/sessions/{own.pk}/messages/{turn.reply.pk}"),
            ("GET", "/sessions/cht_%00"),
            ("GET", f"/sessions/{own.pk}/messages/msg_%00"),
        ):
            assert stranger.refused(method, address) == (404, "NOT_FOUND")
        said = {"content": "Halo"}
        assert stranger.refused("POST", f"{path}/messages", said) == (404, "NOT_FOUND")
        assert [found["id"] for found in stranger.data("GET", "/sessions")["sessions"]] == [own.pk]


class TestWhoAsks:
    def test_without_a_key_nothing_is_answered(self) -> None:
        answer = Client().get(f"{ROOT}/tokens/balance", headers={"Accept-Language": "en"})
        assert (answer.status_code, answer.json()["code"]) == (401, "UNAUTHENTICATED")
        assert answer["WWW-Authenticate"] == "Bearer"
        assert answer.json() == {
            "success": False,
            "error": "Please sign in, or send an API key.",
            "code": "UNAUTHENTICATED",
            "data": {},
        }

    @pytest.mark.parametrize("state", ["wrong", "expired", "revoked", "of somebody who left", "empty"])
    def test_a_key_that_does_not_hold_is_unauthenticated(self, state: str) -> None:
        alice = people.alice()
        key = ApiKey.issue(user=alice, name="test")
        row = ApiKey.objects.filter(user=alice)
        if state == "wrong":
            key = key[:-1] + ("a" if key[-1] != "a" else "b")
        elif state == "expired":
            row.update(expires_at=timezone.now() - timedelta(seconds=1))
        elif state == "revoked":
            row.update(revoked_at=timezone.now())
        elif state == "empty":
            key = ""
        else:
            User.objects.filter(pk=alice.pk).update(is_active=False)
        answer = Client().get(f"{ROOT}/tokens/balance", headers={"Authorization": f"Bearer {key}"})
        assert (answer.status_code, answer.json()["code"]) == (401, "UNAUTHENTICATED")

    def test_a_key_notes_when_it_was_used(self) -> None:
        alice = people.alice()
        Program(alice)("GET", "/tokens/balance")
        used = ApiKey.objects.get(user=alice).last_used_at
        assert used is not None
        assert timezone.now() - used < timedelta(minutes=1)

    def test_a_session_of_the_pages_is_good_for_the_api_but_not_for_other_sites(self) -> None:
        alice = people.alice()
        browser = Client(enforce_csrf_checks=True)
        browser.force_login(alice)
        assert browser.get(f"{ROOT}/tokens/balance").json()["data"]["tokens"] == 10_500
        answer = browser.post(f"{ROOT}/sessions", "{}", JSON)
        assert (answer.status_code, answer.json()["code"]) == (403, "FORBIDDEN")


class TestConventions:
    @pytest.mark.parametrize(
        ("method", "path"),
        [
            ("DELETE", "/tokens/balance"),
            ("OPTIONS", "/tokens/balance"),
            ("POST", "/tokens/packages"),
            ("GET", "/tokens/purchase"),
            ("PUT", "/sessions"),
            ("PATCH", "/sessions/cht_01K2H8M3ZZZZZZZZZZZZZZZZZZ"),
            ("GET", "/sessions/cht_01K2H8M3ZZZZZZZZZZZZZZZZZZ/messages"),
        ],
    )
    def test_a_method_that_an_address_does_not_take(self, method: str, path: str) -> None:
        assert Program(people.carol()).refused(method, path) == (405, "INVALID_REQUEST")

    def test_an_address_that_does_not_exist(self) -> None:
        assert Program(people.carol()).refused("GET", "/nowhere") == (404, "NOT_FOUND")
        assert Client().get("/api/v2/").json()["code"] == "NOT_FOUND"

    def test_a_body_that_is_no_json_is_an_unsupported_media_type(self) -> None:
        program = Program(people.carol())
        answer = program.client.post(f"{ROOT}/sessions", {"title": "A form"})
        assert (answer.status_code, answer.json()["code"]) == (415, "INVALID_REQUEST")

    def test_an_answer_that_is_no_json_cannot_be_had(self) -> None:
        answer = Program(people.carol()).client.get(f"{ROOT}/sessions", headers={"Accept": "text/html"})
        assert (answer.status_code, answer.json()["code"]) == (406, "INVALID_REQUEST")

    def test_a_wrong_field_is_named(self) -> None:
        answer = Program(people.carol())("POST", "/sessions", {"serviceType": "something"})
        assert list(answer["data"]["fields"]) == ["serviceType"]

    def test_what_is_wrong_with_fields_is_said_in_one_language(self) -> None:
        body = {"serviceType": "something", "title": "x" * 200, "model": {}}
        answer = Program(people.carol(), **{"Accept-Language": "id"})("POST", "/sessions", body)
        assert answer["error"] == "Ada isian yang kurang atau salah."
        assert answer["data"]["fields"] == {
            "serviceType": ['"something" bukan pilihan yang sah.'],
            "title": ["Bidang ini paling banyak 120 karakter."],
            "model": ["Bukan teks yang sah."],
        }

    @pytest.mark.parametrize(
        "body",
        [
            chat_api.SessionRequest,
            chat_api.MessageRequest,
            chat_api.EditRequest,
            chat_api.AgainRequest,
            chat_api.PurchaseRequest,
        ],
    )
    def test_all_that_a_body_can_be_told_has_its_indonesian(self, body: type[Serializer[Any]]) -> None:
        assert [text for text in told_of(body, "en") if text in told_of(body, "id")] == []

    def test_without_a_wish_errors_are_indonesian_as_in_the_source(self) -> None:
        carol = people.carol()
        texts = {
            language: Program(carol, **{"Accept-Language": language})("GET", "/nowhere")["error"]
            for language in ("", "id", "en", "en-GB,en;q=0.8,id;q=0.5", "fr")
        }
        assert texts["en"] == texts["en-GB,en;q=0.8,id;q=0.5"] == "There is no such thing here."
        assert texts[""] == texts["id"] == texts["fr"] != texts["en"]

    def test_a_request_keeps_the_id_that_it_came_with(self) -> None:
        program = Program(people.carol())
        own = program.client.get(f"{ROOT}/sessions", headers={"X-Request-Id": "req-0123456789"})
        assert own["X-Request-Id"] == "req-0123456789"
        odd = program.client.get(f"{ROOT}/sessions", headers={"X-Request-Id": "<script>"})
        assert re.fullmatch(r"req_[0-9A-Z]{26}", odd["X-Request-Id"])

    def test_nobody_keeps_an_answer(self) -> None:
        answer = Program(people.carol()).client.get(f"{ROOT}/tokens/balance")
        assert "no-store" in answer["Cache-Control"]


class TestRefusedMessages:
    """Messages that are refused before anybody begins to answer."""

    @pytest.fixture
    def alice(self) -> User:
        return people.alice()

    def _refused(self, person: User, body: Any, *, slug: str = "", **headers: str) -> tuple[int, str]:
        model = ChatModel.objects.get(slug=slug or simulated_model("sim-echo"))
        session = sessions.create(user=person, model=model)
        refused = Program(person).refused("POST", f"/sessions/{session.pk}/messages", body, **headers)
        assert not Message.objects.filter(user=person).exists()
        assert held(person) == 0
        return refused

    @pytest.mark.parametrize(
        "body",
        [
            {},
            {"content": ""},
            {"content": "  \n"},
            {"content": None},
            {"content": ["Halo"]},
            {"content": "zero\x00"},
            {"content": "x" * (turns.MAX_TEXT + 1)},
            {"content": "some words " * 4_000},
            {"content": "Halo", "model": "nobody-knows-it"},
            {"content": "Halo", "model": ""},
            [],
            "nonsense",
        ],
    )
    def test_what_cannot_be_sent_is_an_invalid_request(self, alice: User, body: Any) -> None:
        assert self._refused(alice, body) == (400, "INVALID_REQUEST")

    def test_bob_learns_what_he_has_and_what_he_needs(self) -> None:
        bob = people.bob()
        model = special_model("dear", input_rate=1000, output_rate=1000)
        session = sessions.create(user=bob, model=model)
        answer = Program(bob, **{"Accept-Language": "id"})(
            "POST", f"/sessions/{session.pk}/messages", {"content": "Halo"}
        )
        needed = answer["data"]["estimatedCost"]
        assert answer == {
            "success": False,
            "error": f"Token tidak mencukupi. Saldo: 50, Dibutuhkan: ~{needed}",
            "code": "INSUFFICIENT_TOKENS",
            "data": {"currentBalance": 50, "estimatedCost": needed},
        }
        assert needed > 2_048

    def test_a_refusal_is_json_also_for_who_asked_for_events(self) -> None:
        refused = self._refused(people.carol(), {"content": "Halo"}, Accept="text/event-stream")
        assert refused == (402, "INSUFFICIENT_TOKENS")

    def test_a_model_that_is_not_connected(self, alice: User) -> None:
        refused = self._refused(alice, {"content": "Halo"}, slug="deepseek-chat")
        assert refused == (503, "AI_SERVICE_UNAVAILABLE")

    def test_a_frozen_account(self, alice: User) -> None:
        Account.objects.filter(user=alice, name=ledger.TOKENS).update(frozen_at=timezone.now())
        assert self._refused(alice, {"content": "Halo"}) == (423, "ACCOUNT_FROZEN")

    def test_a_message_while_a_reply_is_open(self, alice: User) -> None:
        turn = ask(alice)
        refused = Program(alice).refused("POST", f"/sessions/{turn.session.pk}/messages", {"content": "And?"})
        assert refused == (409, "CONFLICT")

    def test_a_key_that_was_used_for_other_words(self, alice: User) -> None:
        turn = ask(alice, "Halo", turn="one")
        refused = Program(alice).refused(
            "POST", f"/sessions/{turn.session.pk}/messages", {"content": "Hai"}, **{"Idempotency-Key": "one"}
        )
        assert refused == (422, "IDEMPOTENCY_MISMATCH")


def test_the_command_prints_a_new_key_and_nothing_else(capsys: pytest.CaptureFixture[str]) -> None:
    alice = people.alice()
    call_command("api_key", alice.email)
    key = capsys.readouterr().out.strip()
    assert re.fullmatch(r"alp_[\w-]{43}", key)
    answer = Client().get(f"{ROOT}/tokens/balance", headers={"Authorization": f"Bearer {key}"})
    assert answer.json()["data"]["tokens"] == 10_500
    assert key not in str(list(ApiKey.objects.filter(user=alice).values()))

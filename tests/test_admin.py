"""The administration: who gets in, what staff may change there, and what nobody reads."""

import re
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from http import HTTPStatus
from typing import Any

import pytest
from django.conf import settings
from django.contrib import admin
from django.contrib.auth.models import Permission
from django.db import connection
from django.db.models import Model
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone
from playwright.sync_api import expect

from aleph import ids
from aleph.accounts.models import ApiKey, Company, Membership, User
from billing import ledger
from billing.models import Account, Package, Purchase, Transfer
from chat.models import ChatModel, Message, Route, Session
from tests import people
from tests.browser import Browser
from tests.forms import Answer, filled
from tests.stories_of_usage import call_of, price_of
from usage.models import ModelPrice, TokenUsage

READ_ONLY: list[type[Model]] = [Account, Transfer, TokenUsage, Session, ApiKey]


def office(person: User | None = None, language: str = "en") -> Client:
    """The browser of Dewi, or of somebody else on the staff."""
    client = Client()
    client.force_login(person or people.dewi())
    client.cookies[settings.LANGUAGE_COOKIE_NAME] = language
    return client


def staff_who_may(*permissions: str) -> User:
    """Somebody on the staff who is no superuser."""
    person = people.someone("Eko", is_staff=True)
    person.user_permissions.set(Permission.objects.filter(codename__in=permissions))
    return person


def address(model: type[Model], place: str, *args: Any) -> str:
    return reverse(f"admin:{model._meta.app_label}_{model._meta.model_name}_{place}", args=args)


def save(client: Client, url: str, form_id: str, **changes: Any) -> Answer:
    """Open a form, change some fields and save it, as a browser would."""
    return client.post(url, {**filled(client.get(url), id=form_id), **changes, "_save": "Save"})


def saved(answer: Answer) -> bool:
    return answer.status_code == HTTPStatus.FOUND


def text_of(answer: Answer) -> str:
    return answer.content.decode()


def chat_of(person: User, title: str = "A secret plan", content: str = "Bury it under the oak") -> Session:
    session = Session.objects.create(
        id=ids.new("cht"), user=person, title=title, message_count=1, last_message_at=timezone.now()
    )
    Message.objects.create(id=ids.new("msg"), session=session, user=person, role="user", content=content)
    return session


class TestGettingIn:
    def test_is_the_products_own_sign_in(self, db: None) -> None:
        dewi, client = people.dewi(), Client()

        asked = client.get("/admin/", follow=True)
        assert asked.redirect_chain[-1][0].startswith("/accounts/login/?next=")
        answer = client.post(
            asked.redirect_chain[-1][0], {"login": dewi.email, "password": people.PASSWORD}, follow=True
        )

        assert answer.request["PATH_INFO"] == "/admin/"
        assert answer.status_code == HTTPStatus.OK

    def test_offers_no_other_form_to_guess_passwords_in(self, db: None) -> None:
        dewi = people.dewi()

        answer = Client().post("/admin/login/", {"username": dewi.email, "password": people.PASSWORD})

        assert answer.headers["Location"].startswith("/accounts/login/")

    def test_is_refused_to_people_who_are_no_staff(self, db: None) -> None:
        answer = office(people.alice()).get("/admin/", follow=True)

        assert answer.status_code == HTTPStatus.FORBIDDEN
        assert "This is not for you to see" in text_of(answer)

    def test_shows_staff_only_what_they_may_see(self, db: None) -> None:
        page = text_of(office(staff_who_may("view_modelprice")).get("/admin/"))

        assert address(ModelPrice, "changelist") in page
        assert address(User, "changelist") not in page

    def test_leads_to_the_own_pages_for_password_and_leaving(self, db: None) -> None:
        client = office()

        assert client.get("/admin/password_change/").headers["Location"] == "/accounts/password/change/"
        assert client.post("/admin/logout/").headers["Location"] == "/accounts/logout/"


class TestEveryList:
    @pytest.mark.parametrize("model", admin.site._registry, ids=lambda model: model._meta.label)
    def test_opens_and_can_be_searched(self, db: None, model: type[Model]) -> None:
        client = office()

        assert client.get(address(model, "changelist")).status_code == HTTPStatus.OK
        for term in ("alice", "alice@aleph.test", "trf_01", "%", "9" * 30):
            answer = client.get(address(model, "changelist"), {"q": term})
            assert answer.status_code == HTTPStatus.OK

    @pytest.mark.parametrize("model", [User, Company, ApiKey, TokenUsage, Session, Transfer, Account])
    def test_asks_as_often_for_many_rows_as_for_few(self, db: None, model: type[Model]) -> None:
        client = office()
        one_more_of_everything()
        few = queries(client, address(model, "changelist"))
        for _row in range(5):
            one_more_of_everything()

        assert queries(client, address(model, "changelist")) == few

    def test_of_calls_starts_with_the_last_days_and_counts_no_further(self, db: None) -> None:
        client, alice = office(), people.alice()
        recent = call_of(alice)
        old = call_of(alice)
        TokenUsage.objects.filter(pk=old.pk).update(
            id=ids.first("use", timezone.now() - timedelta(days=45)) + "0" * 16
        )

        shown = listed(client, TokenUsage)
        everything = listed(client, TokenUsage, period="all")
        month = listed(client, TokenUsage, period=f"{timezone.localtime() - timedelta(days=45):%Y-%m}")

        assert (shown, len(everything), recent.pk in month) == ([recent.pk], 2, False)
        assert len(month) == 1

    def test_of_calls_is_searched_by_address_and_by_id(self, db: None) -> None:
        client, alice = office(), people.alice()
        call, _other = call_of(alice), call_of(people.bob())

        assert listed(client, TokenUsage, q=alice.email.upper()) == [call.pk]
        assert listed(client, TokenUsage, q=call.pk) == [call.pk]
        assert listed(client, TokenUsage, q=call.operation_id) == [call.pk]


def one_more_of_everything() -> None:
    alice = people.alice()
    ApiKey.issue(user=alice, name="Laptop")
    company = Company.objects.create(name=f"PT {alice.pk}")
    Membership.objects.create(company=company, user=alice)
    call_of(alice)
    chat_of(alice)


def queries(client: Client, url: str) -> int:
    with CaptureQueriesContext(
        connection,
    ) as asked:
        client.get(url)
    return len(asked)


def listed(client: Client, model: type[Model], **wishes: str) -> list[Any]:
    return [row.pk for row in client.get(address(model, "changelist"), wishes).context["cl"].result_list]


class TestPeople:
    def test_who_are_added_have_accounts_and_can_sign_in(self, db: None) -> None:
        client, email = office(), f"{ids.new('fajar')}@Example.Test"

        answer = save(
            client,
            address(User, "add"),
            "user_form",
            email=email,
            name="Fajar",
            password1="tujuh-kuda-liar",
            password2="tujuh-kuda-liar",
        )

        assert saved(answer)
        fajar = User.objects.get(email=email.lower())
        assert ledger.balance_of(fajar).tokens == 0
        assert fajar.check_password("tujuh-kuda-liar")

    def test_are_not_added_twice(self, db: None) -> None:
        alice = people.alice()

        answer = save(
            office(),
            address(User, "add"),
            "user_form",
            email=alice.email.upper(),
            password1="tujuh-kuda-liar",
            password2="tujuh-kuda-liar",
        )

        assert "Somebody with this address is here already." in text_of(answer)

    def test_are_made_inactive_and_never_deleted(self, db: None) -> None:
        client, bob = office(), people.bob()
        form = filled(client.get(address(User, "change", bob.pk)), id="user_form")
        del form["is_active"]

        assert saved(client.post(address(User, "change", bob.pk), form))
        bob.refresh_from_db()
        assert not bob.is_active
        assert (
            client.post(address(User, "delete", bob.pk), {"post": "yes"}).status_code == HTTPStatus.FORBIDDEN
        )

    def test_keep_their_address_until_they_change_it_themselves(self, db: None) -> None:
        alice = people.alice()
        before = alice.email

        save(office(), address(User, "change", alice.pk), "user_form", email="dewi@example.test")

        alice.refresh_from_db()
        assert alice.email == before

    def test_get_a_password_from_staff(self, db: None) -> None:
        alice = people.alice()
        url = reverse("admin:auth_user_password_change", args=[alice.pk])

        answer = office().post(
            url,
            {"password1": "tujuh-kuda-liar", "password2": "tujuh-kuda-liar", "usable_password": "true"},
        )

        assert saved(answer)
        alice.refresh_from_db()
        assert alice.check_password("tujuh-kuda-liar")

    def test_cannot_give_themselves_power(self, db: None) -> None:
        eko = staff_who_may("change_user", "view_user")
        alice = people.alice()
        client = office(eko)

        save(client, address(User, "change", alice.pk), "user_form", is_superuser="on", is_staff="on")
        own = client.post(address(User, "change", eko.pk), {"is_superuser": "on"})

        alice.refresh_from_db()
        eko.refresh_from_db()
        assert (alice.is_staff, alice.is_superuser, eko.is_superuser) == (False, False, False)
        assert own.status_code == HTTPStatus.FORBIDDEN

    def test_on_the_staff_cannot_set_a_superusers_password(self, db: None) -> None:
        dewi = people.dewi()
        url = reverse("admin:auth_user_password_change", args=[dewi.pk])

        answer = office(staff_who_may("change_user", "view_user")).post(
            url, {"password1": "tujuh-kuda-liar", "password2": "tujuh-kuda-liar", "usable_password": "true"}
        )

        assert answer.status_code == HTTPStatus.FORBIDDEN

    def test_belong_to_companies(self, db: None) -> None:
        client, alice = office(), people.alice()

        answer = save(
            client,
            address(Company, "add"),
            "company_form",
            **{
                "name": "PT Sagara Digital",
                "memberships-TOTAL_FORMS": "1",
                "memberships-0-user": str(alice.pk),
                "memberships-0-role": "admin",
            },
        )

        assert saved(answer)
        assert Membership.objects.get(user=alice).company.name == "PT Sagara Digital"


class TestApiKeys:
    def test_are_revoked_but_never_shown(self, db: None) -> None:
        alice, client = people.alice(), office()
        secret = ApiKey.issue(user=alice, name="Laptop")
        key = ApiKey.objects.get(user=alice)

        pages = [client.get(address(ApiKey, "changelist")), client.get(address(ApiKey, "change", key.pk))]
        for page in pages:
            assert key.hint in text_of(page)
            assert secret not in text_of(page)
            assert key.hash not in text_of(page)
        client.post(address(ApiKey, "changelist"), {"action": "revoke", "_selected_action": [key.pk]})

        key.refresh_from_db()
        assert not key.is_usable

    def test_are_not_revoked_by_staff_who_may_only_look(self, db: None) -> None:
        alice = people.alice()
        ApiKey.issue(user=alice)
        key = ApiKey.objects.get(user=alice)

        office(staff_who_may("view_apikey")).post(
            address(ApiKey, "changelist"), {"action": "revoke", "_selected_action": [key.pk]}
        )

        key.refresh_from_db()
        assert key.is_usable


class TestPackages:
    @pytest.mark.parametrize(
        ("field", "words"),
        [("price_idr", "A package cannot be free."), ("tokens", "A package without tokens is none.")],
    )
    def test_are_neither_free_nor_empty(self, db: None, field: str, words: str) -> None:
        package = Package.objects.get(slug="pro")
        url = address(Package, "change", package.pk)
        assert words in text_of(save(office(), url, "package_form", **{field: "0"}))
        package.refresh_from_db()
        assert getattr(package, field) > 0


class TestPrices:
    def test_of_0_must_be_meant(self, db: None) -> None:
        price = price_of("openai", "test-model", "1 - - 2")
        url = address(ModelPrice, "change", price.pk)
        refused = save(office(), url, "modelprice_form", output_usd_per_million="0")
        assert "0 says that this costs us nothing. Tick “0 is meant” below if that is so." in text_of(refused)
        meant = save(office(), url, "modelprice_form", output_usd_per_million="0", zero_is_meant="on")
        assert saved(meant)
        price.refresh_from_db()
        assert price.output_usd_per_million == 0
        assert saved(save(office(), url, "modelprice_form", source="our own machine")), "it was meant before"

    def test_change_until_a_call_was_charged_at_them(self, db: None) -> None:
        price = price_of("openai", "test-model", "1 - - 2")
        url = address(ModelPrice, "change", price.pk)

        assert saved(save(office(), url, "modelprice_form", output_usd_per_million="2.5"))
        price.refresh_from_db()
        assert price.output_usd_per_million == Decimal("2.5")

    def test_stay_once_a_call_was_charged_at_them(self, db: None) -> None:
        price = price_of("openai", "test-model", "1 - - 2")
        call_of(people.alice(), model="test-model", requested_model="test-model")

        answer = save(
            office(), address(ModelPrice, "change", price.pk), "modelprice_form", output_usd_per_million="3"
        )

        assert "Calls were charged at this price, so its figures stay." in text_of(answer)
        price.refresh_from_db()
        assert price.output_usd_per_million == 2
        deleted = office().post(address(ModelPrice, "delete", price.pk), {"post": "yes"})
        assert not saved(deleted)
        assert ModelPrice.objects.filter(pk=price.pk).exists()

    def test_are_followed_by_others_and_keep_their_calls(self, db: None) -> None:
        client, alice = office(), people.alice()
        price = price_of("openai", "test-model", "1 - - 2")
        call = call_of(alice, model="test-model", requested_model="test-model")
        end = timezone.localtime() + timedelta(hours=1)

        ended = save(
            client,
            address(ModelPrice, "change", price.pk),
            "modelprice_form",
            valid_to_0=f"{end:%Y-%m-%d}",
            valid_to_1=f"{end:%H:%M:%S}",
        )
        added = save(
            client,
            address(ModelPrice, "add"),
            "modelprice_form",
            provider="openai",
            model="test-model",
            input_usd_per_million="0.5",
            output_usd_per_million="1.25",
            valid_from_0=f"{end:%Y-%m-%d}",
            valid_from_1=f"{end:%H:%M:%S}",
        )

        assert saved(ended)
        assert saved(added)
        later = call_of(
            alice, model="test-model", requested_model="test-model", started_at=end + timedelta(hours=1)
        )
        assert later.price is not None
        assert later.price.output_usd_per_million == Decimal("1.25")
        call.refresh_from_db()
        assert call.price == price

    def test_do_not_end_before_the_last_call_that_they_charged(self, db: None) -> None:
        price = price_of("openai", "test-model", "1 - - 2", datetime(2024, 1, 1, tzinfo=UTC))
        call_of(people.alice(), model="test-model", requested_model="test-model")

        answer = save(
            office(),
            address(ModelPrice, "change", price.pk),
            "modelprice_form",
            valid_to_0="2025-01-01",
            valid_to_1="00:00:00",
        )

        assert "Calls were charged at this price after that moment." in text_of(answer)


class TestModels:
    def test_are_priced_and_routed(self, db: None) -> None:
        client = office()
        model = ChatModel.objects.filter(is_free=False).first()
        assert model is not None
        url = address(ChatModel, "change", model.pk)

        answer = save(client, url, "chatmodel_form", input_rate="1500", output_rate="2500")

        assert saved(answer)
        model.refresh_from_db()
        assert (model.input_rate, model.output_rate) == (1500, 2500)

    def test_keep_every_route_when_saved_untouched(self, db: None) -> None:
        """Also one to a provider that this installation has no adapter for."""
        client = office()
        odd = ChatModel.objects.filter(is_free=True).first()
        assert odd is not None
        Route.objects.create(model=odd, provider="retired", upstream_model="old-one", position=9)
        for model in ChatModel.objects.all():
            before = list(Route.objects.filter(model=model).order_by("pk").values())

            assert saved(save(client, address(ChatModel, "change", model.pk), "chatmodel_form"))
            assert list(Route.objects.filter(model=model).order_by("pk").values()) == before

    def test_are_either_free_or_have_both_rates(self, db: None) -> None:
        client = office()
        model = ChatModel.objects.filter(is_free=False).first()
        assert model is not None
        url = address(ChatModel, "change", model.pk)

        assert "A free model has no rates." in text_of(save(client, url, "chatmodel_form", is_free="on"))
        refused = text_of(save(client, url, "chatmodel_form", input_rate="0", output_rate="0"))
        assert refused.count("0 gives this away. If the model is to be free, tick “free”") == 2
        free = save(
            client, url, "chatmodel_form", input_rate="0", output_rate="0", is_free="on", successor=""
        )
        assert saved(free), "free is said"

    def test_keep_the_id_that_programs_know(self, db: None) -> None:
        model = ChatModel.objects.order_by("pk").first()
        assert model is not None
        slug = model.slug

        save(office(), address(ChatModel, "change", model.pk), "chatmodel_form", slug="another")

        model.refresh_from_db()
        assert model.slug == slug


class TestNumbers:
    """In Indonesian 1500 is written 1.500, and no form may take that for one and a half."""

    def test_survive_an_indonesian_form(self, db: None) -> None:
        client = office(language="id")
        model = ChatModel.objects.filter(is_free=False).first()
        assert model is not None
        ChatModel.objects.filter(pk=model.pk).update(input_rate=1500, output_rate=12000)
        url = address(ChatModel, "change", model.pk)

        assert 'value="1500"' in text_of(client.get(url))
        assert saved(save(client, url, "chatmodel_form"))
        model.refresh_from_db()
        assert (model.input_rate, model.output_rate) == (1500, 12000)

    def test_of_prices_and_moments_survive_it_too(self, db: None) -> None:
        client = office(language="id")
        price = price_of("openai", "test-model", "1234.5 0.075 - 2000")
        end = datetime(2027, 3, 1, 9, 30, tzinfo=UTC)
        ModelPrice.objects.filter(pk=price.pk).update(valid_to=end)
        before = ModelPrice.objects.filter(pk=price.pk).values().get()

        assert saved(save(client, address(ModelPrice, "change", price.pk), "modelprice_form"))

        assert ModelPrice.objects.filter(pk=price.pk).values().get() == before

    def test_keep_addresses_of_rows_usable(self, db: None) -> None:
        """A link to row 1234 leads to 1234, not to 1.234."""
        client = office(language="id")
        company = Company.objects.create(pk=1_234_567, name="PT Ribuan")

        page = text_of(client.get(address(Company, "changelist")))

        assert f"/admin/accounts/company/{company.pk}/change/" in page


class TestBooksAndCalls:
    @pytest.mark.parametrize("model", READ_ONLY, ids=lambda model: model._meta.label)
    def test_are_read_and_never_written(self, db: None, model: type[Model]) -> None:
        client, alice = office(), people.alice()
        rows = one_of_each(alice)
        url = address(model, "change", rows[model].pk)

        assert client.get(url).status_code == HTTPStatus.OK
        assert 'name="_save"' not in text_of(client.get(url))
        assert client.post(url, {"amount": "1"}).status_code == HTTPStatus.FORBIDDEN
        assert client.get(address(model, "add")).status_code == HTTPStatus.FORBIDDEN
        deletion = address(model, "delete", rows[model].pk)
        assert client.post(deletion, {"post": "yes"}).status_code == HTTPStatus.FORBIDDEN
        chosen = {"action": "delete_selected", "_selected_action": [rows[model].pk], "post": "yes"}
        client.post(address(model, "changelist"), chosen)
        assert model._default_manager.filter(pk=rows[model].pk).exists()

    def test_a_purchase_keeps_its_figures_and_can_only_be_refunded(self, db: None) -> None:
        client, alice = office(), people.alice()
        purchase = one_of_each(alice)[Purchase]
        before = Purchase.objects.filter(pk=purchase.pk).values().get()

        client.post(address(Purchase, "change", purchase.pk), {"price_idr": "1", "tokens": "9", "_save": ""})

        assert Purchase.objects.filter(pk=purchase.pk).values().get() == before
        assert client.get(address(Purchase, "add")).status_code == HTTPStatus.FORBIDDEN
        deletion = address(Purchase, "delete", purchase.pk)
        assert client.post(deletion, {"post": "yes"}).status_code == HTTPStatus.FORBIDDEN


def one_of_each(person: User) -> dict[type[Model], Model]:
    ApiKey.issue(user=person, name="Laptop")
    account = Account.objects.get(user=person, name=ledger.TOKENS)
    purchase = Purchase(
        id=ids.new("buy"),
        number=ids.new("n")[-24:],
        user=person,
        package_id=1,
        package_name="Starter",
        tokens=10_000,
        bonus_tokens=500,
        price_idr=50_000,
        wallet_before_idr=275_000,
        tokens_before=0,
        key="k",
    )
    purchase.save()
    transfer = Transfer.objects.filter(credit=account).first()
    assert transfer is not None
    return {
        Account: account,
        Transfer: transfer,
        Purchase: purchase,
        TokenUsage: call_of(person),
        Session: chat_of(person),
        ApiKey: ApiKey.objects.get(user=person),
    }


class TestChats:
    def test_show_staff_their_figures_and_neither_titles_nor_words(self, db: None) -> None:
        client, alice = office(), people.alice()
        session = chat_of(alice, title="A secret plan", content="Bury it under the oak")

        pages = [
            client.get(address(Session, "changelist")),
            client.get(address(Session, "changelist"), {"q": alice.email}),
            client.get(address(Session, "change", session.pk)),
            client.get(address(Session, "history", session.pk)),
            client.get(address(User, "change", alice.pk)),
            client.get(address(User, "delete", alice.pk)),
        ]

        assert session.pk in text_of(pages[0])
        for page in pages:
            assert "secret plan" not in text_of(page)
            assert "oak" not in re.sub(r"<[^>]*>", "", text_of(page))

    def test_are_not_found_by_what_was_said(self, db: None) -> None:
        chat_of(people.alice(), title="A secret plan")

        assert listed(office(), Session, q="secret") == []

    @pytest.mark.parametrize(
        ("model", "lookup"),
        [
            (Session, "title__startswith"),
            (Session, "messages__content__startswith"),
            (User, "sessions__title__startswith"),
            (User, "password__startswith"),
            (ApiKey, "hash__startswith"),
        ],
    )
    def test_are_not_told_letter_by_letter(self, db: None, model: type[Model], lookup: str) -> None:
        answer = office().get(address(model, "changelist"), {lookup: "A"})

        assert answer.status_code == HTTPStatus.BAD_REQUEST

    def test_of_others_are_not_there_for_staff_either(self, db: None) -> None:
        session = chat_of(people.alice())

        assert office().get(f"/chat/{session.pk}").status_code == HTTPStatus.NOT_FOUND

    def test_have_no_messages_in_the_administration(self) -> None:
        assert Message not in admin.site._registry


class TestInABrowser:
    """The fixture fails whatever a console complains about, and so every breach of the Content-Security-Policy."""

    def test_pages_and_their_widgets_run_under_the_strict_policy(self, browser: Browser) -> None:
        alice, dewi = people.alice(), people.dewi()
        one_more_of_everything()
        company = Company.objects.latest("pk")
        price = ModelPrice.objects.order_by("pk").first()
        assert price is not None
        page = browser.page(user=dewi)

        page.goto(address(User, "changelist") + f"?q={alice.email}&is_active__exact=1")
        page.click("#result_list tbody th a")
        page.click("text=Save and continue editing")
        expect(page.locator(".messagelist")).to_contain_text("was changed successfully")
        page.goto(address(User, "add"))
        page.goto(address(Company, "delete", company.pk))
        page.click("text=No, take me back")
        page.goto(address(Company, "change", company.pk))
        page.click(".add-row a")
        page.locator(".select2-selection").nth(1).click()
        expect(page.locator(".select2-container--open .select2-search__field")).to_be_focused()
        page.keyboard.type(alice.email)
        page.click(f".select2-results__option:has-text('{alice.email}')")
        page.click("input[name=_save]")
        expect(page.locator(".messagelist")).to_contain_text("was changed successfully")
        assert Membership.objects.filter(company=company, user=alice).exists()

        page.goto(address(ModelPrice, "change", price.pk))
        page.locator(".field-valid_to .datetimeshortcuts a").nth(1).click()
        page.click("#calendarbox1 td a:text-is('28')")
        assert page.input_value("#id_valid_to_0").endswith("-28")
        page.goto(address(TokenUsage, "changelist"))
        page.click("#changelist-filter a:text-is('Last 7 days')")
        page.click("#result_list tbody th a")

    def test_lists_of_models_open_on_a_phone_and_can_be_filtered(self, browser: Browser) -> None:
        page = browser.page(user=people.dewi(), viewport={"width": 390, "height": 844}, color_scheme="dark")
        page.goto("/admin/")

        assert not page.is_visible("#nav-sidebar")
        page.click(".admin__bar .icon-button")
        page.fill("#nav-filter", "pric")

        expect(page.locator("#nav-sidebar >> text=Prices")).to_be_visible()
        expect(page.locator("#nav-sidebar >> text=Packages")).to_be_hidden()
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")

"""Signing up, in and out, passwords and addresses, languages, settings and API keys."""

import io
import re
from collections.abc import Iterator
from http import HTTPStatus

import pytest
from allauth.account.models import EmailAddress
from django.core import mail
from django.core.mail.backends.console import EmailBackend
from django.test import Client

from aleph import ids
from aleph.accounts.models import ApiKey, User, hashed
from billing import ledger
from tests import people
from tests.crowd import at_once
from tests.forms import Answer, filled
from tests.limits import forget_limits

NEW_PASSWORD = "sepuluh-ikan-terbang"


@pytest.fixture(autouse=True)
def fresh_limits() -> Iterator[None]:
    """Limits are counted per address and per machine, and every test comes from the same machine."""
    forget_limits()
    yield
    forget_limits()


def english() -> Client:
    return Client(headers={"Accept-Language": "en"})


def fresh_address(name: str) -> str:
    return f"{ids.new(name)}@example.test".lower()


def sign_up(client: Client, email: str, **changes: str) -> Answer:
    filled_in = {"name": "Carol", "email": email, "password1": people.PASSWORD, "time_zone": "Asia/Makassar"}
    return client.post("/accounts/signup/", {**filled_in, **changes})


def sign_in(client: Client, email: str, password: str = people.PASSWORD, **more: str) -> Answer:
    return client.post("/accounts/login/", {"login": email, "password": password, **more})


def is_signed_in(client: Client) -> bool:
    return client.get("/settings").status_code == HTTPStatus.OK


def link_in_mail(number: int = -1) -> str:
    """The path of the link in a mail."""
    found = re.search(r"http://testserver(/accounts/\S+)", str(mail.outbox[number].body))
    assert found, mail.outbox[number].body
    return found[1]


def signed_in_as(person: User) -> Client:
    client = english()
    client.force_login(person)
    return client


def text_of(response: Answer) -> str:
    return response.content.decode()


class TestSigningUp:
    def test_ends_in_the_chat_once_the_address_is_confirmed(self, db: None) -> None:
        client, email = english(), fresh_address("carol")

        answer = sign_up(client, email)
        assert answer.headers["Location"] == "/accounts/confirm-email/"
        assert not is_signed_in(client)

        link = link_in_mail()
        assert "Confirm your address" in text_of(client.get(link))
        confirmed = client.post(link)

        assert confirmed.headers["Location"] == "/"
        assert is_signed_in(client)

    def test_opens_accounts_and_keeps_language_and_zone(self, db: None) -> None:
        email = fresh_address("carol")
        sign_up(english(), email)

        carol = User.objects.get(email=email)
        assert (carol.name, carol.language, carol.time_zone) == ("Carol", "en", "Asia/Makassar")
        balance = ledger.balance_of(carol)
        assert (balance.tokens, balance.wallet_idr) == (0, 0)

    def test_forgives_a_zone_that_nobody_knows(self, db: None) -> None:
        email = fresh_address("carol")
        sign_up(english(), email, time_zone="Mars/Olympus")

        assert User.objects.get(email=email).time_zone == "Asia/Jakarta"

    def test_is_not_finished_by_opening_the_link_alone(self, db: None) -> None:
        """Mail scanners open every link."""
        client, email = english(), fresh_address("carol")
        sign_up(client, email)

        client.get(link_in_mail())

        assert not EmailAddress.objects.get(email=email).verified

    def test_does_not_sign_in_whoever_found_the_link(self, db: None) -> None:
        sign_up(english(), fresh_address("carol"))
        finder = english()

        finder.post(link_in_mail())

        assert not is_signed_in(finder)

    def test_keeps_what_was_typed_and_says_what_is_wrong(self, db: None) -> None:
        page = text_of(sign_up(english(), "carol@example.test", password1="1234"))

        assert 'value="Carol"' in page
        assert 'value="carol@example.test"' in page
        assert "1234" not in page
        assert "at least 8 characters" in page
        assert 'aria-invalid="true"' in page

    def test_asks_for_a_name_and_offers_managers_what_they_need(self, db: None) -> None:
        page = text_of(english().get("/accounts/signup/"))

        assert 'autocomplete="name"' in page
        assert 'autocomplete="username"' in page
        assert 'autocomplete="new-password"' in page
        assert 'name="time_zone"' in page

    def test_looks_the_same_for_an_address_that_is_known(self, db: None) -> None:
        alice = people.alice()
        stranger, knower = english(), english()

        fresh = sign_up(stranger, fresh_address("carol"))
        known = sign_up(knower, alice.email)

        assert (fresh.status_code, fresh.headers["Location"]) == (
            known.status_code,
            known.headers["Location"],
        )
        assert fresh.cookies.keys() == known.cookies.keys()
        assert without_tokens(stranger.get("/accounts/confirm-email/")) == without_tokens(
            knower.get("/accounts/confirm-email/")
        )
        assert mail.outbox[-1].to == [alice.email]
        assert mail.outbox[-1].subject == "You have an account at Aleph"
        assert "/accounts/password/reset/" in mail.outbox[-1].body

    def test_takes_the_same_letters_in_another_case_for_the_same_person(self, db: None) -> None:
        alice = people.alice()

        sign_up(english(), alice.email.upper())

        assert User.objects.filter(email__iexact=alice.email).count() == 1
        assert mail.outbox[-1].subject == "You have an account at Aleph"

    def test_makes_one_person_of_two_requests_at_once(self, committed: None) -> None:
        email = fresh_address("carol")

        answers = at_once([lambda: sign_up(english(), email).status_code] * 2)

        assert answers == [HTTPStatus.FOUND, HTTPStatus.FOUND]
        assert User.objects.filter(email=email).count() == 1

    def test_writes_to_a_stranger_without_words_of_the_one_who_signs_him_up(self, db: None) -> None:
        sign_up(english(), fresh_address("carol"), name="Win a prize at evil.example")

        assert "evil.example" not in f"{mail.outbox[-1].subject} {mail.outbox[-1].body}"

    def test_shows_the_whole_link_on_a_console(self, db: None) -> None:
        sign_up(english(), fresh_address("carol"))
        console = io.StringIO()

        EmailBackend(stream=console).send_messages(mail.outbox)

        assert f"http://testserver{link_in_mail()}\n" in console.getvalue()


def without_tokens(page: Answer) -> str:
    return re.sub(r'value="[A-Za-z0-9]{64}"', "", text_of(page))


class TestSigningIn:
    def test_leads_to_the_chat_in_the_persons_own_language(self, db: None) -> None:
        alice = people.alice()
        client = Client(headers={"Accept-Language": "id"})

        answer = sign_in(client, alice.email)

        assert answer.headers["Location"] == "/"
        assert answer.cookies["django_language"].value == "en"

    def test_does_not_mind_the_case_of_the_address(self, db: None) -> None:
        client = english()

        sign_in(client, people.alice().email.upper())

        assert is_signed_in(client)

    def test_lasts_as_long_as_the_person_wants(self, db: None) -> None:
        alice = people.alice()

        lasting = sign_in(english(), alice.email, remember="on")
        passing = sign_in(english(), alice.email)

        assert lasting.cookies["sessionid"]["max-age"] == 14 * 24 * 3600
        assert passing.cookies["sessionid"]["max-age"] == ""

    def test_says_the_same_about_a_wrong_password_and_an_unknown_address(self, db: None) -> None:
        alice = people.alice()

        wrong = text_of(sign_in(english(), alice.email, "guessed-wrong"))
        unknown = text_of(sign_in(english(), "nobody@example.test", "guessed-wrong"))

        for page in (wrong, unknown):
            assert "This address and this password do not belong together." in page
        assert f'value="{alice.email}"' in wrong
        assert "guessed-wrong" not in wrong

    def test_is_slowed_down_after_five_wrong_passwords(self, db: None) -> None:
        alice, client = people.alice(), english()
        for guess in range(5):
            sign_in(client, alice.email, f"guess-{guess}")

        page = text_of(sign_in(client, alice.email))

        assert "Too many attempts." in page
        assert not is_signed_in(client)

    def test_waits_for_a_confirmed_address_and_sends_another_link(self, db: None) -> None:
        email = fresh_address("carol")
        sign_up(english(), email)
        forget_limits()
        client = english()

        answer = sign_in(client, email)

        assert answer.headers["Location"] == "/accounts/confirm-email/"
        assert len(mail.outbox) == 2
        client.post(link_in_mail())
        assert is_signed_in(client)

    def test_tells_an_inactive_person_so(self, db: None) -> None:
        bob = people.bob()
        User.objects.filter(pk=bob.pk).update(is_active=False)

        answer = english().post(
            "/accounts/login/", {"login": bob.email, "password": people.PASSWORD}, follow=True
        )

        assert "This account is not active" in text_of(answer)

    def test_ends_for_a_person_who_is_made_inactive(self, db: None) -> None:
        bob = people.bob()
        client = signed_in_as(bob)

        User.objects.filter(pk=bob.pk).update(is_active=False)

        assert not is_signed_in(client)

    def test_goes_on_where_the_person_wanted_to_go(self, db: None) -> None:
        answer = sign_in(english(), people.alice().email, next="/settings/keys")

        assert answer.headers["Location"] == "/settings/keys"

    def test_never_leads_to_another_site(self, db: None) -> None:
        answer = sign_in(english(), people.alice().email, next="https://evil.example/")

        assert answer.headers["Location"] == "/"

    def test_ends_by_a_post_and_not_by_a_link(self, db: None) -> None:
        client = signed_in_as(people.alice())

        client.get("/accounts/logout/")
        assert is_signed_in(client)

        client.post("/accounts/logout/")
        assert not is_signed_in(client)


class TestPasswords:
    def test_are_chosen_anew_by_a_link_that_works_once(self, db: None) -> None:
        alice = people.alice()
        elsewhere = signed_in_as(alice)
        client = english()

        client.post("/accounts/password/reset/", {"email": alice.email})
        link = link_in_mail()
        form = client.get(link, follow=True)
        done = client.post(
            form.redirect_chain[-1][0], {"password1": NEW_PASSWORD, "password2": NEW_PASSWORD}, follow=True
        )

        assert "The new password is kept" in text_of(done)
        assert not is_signed_in(elsewhere)
        assert "do not belong together" in text_of(sign_in(english(), alice.email))
        assert sign_in(english(), alice.email, NEW_PASSWORD).headers["Location"] == "/"
        assert "This link no longer works" in text_of(english().get(link, follow=True))
        assert mail.outbox[-1].subject == "Your password was changed"

    def test_are_reset_alike_for_addresses_that_nobody_has(self, db: None) -> None:
        known, unknown = english(), english()

        a = known.post("/accounts/password/reset/", {"email": people.alice().email}, follow=True)
        b = unknown.post("/accounts/password/reset/", {"email": "nobody@example.test"}, follow=True)

        assert without_tokens(a) == without_tokens(b)
        assert mail.outbox[-1].subject == "No account for this address"

    def test_are_not_reset_without_end(self, db: None) -> None:
        email = people.alice().email
        for _time in range(5):
            english().post("/accounts/password/reset/", {"email": email})

        answer = english().post("/accounts/password/reset/", {"email": email})

        assert answer.status_code == HTTPStatus.TOO_MANY_REQUESTS
        assert answer.headers["Retry-After"]
        assert "Please wait a few minutes" in text_of(answer)
        assert len(mail.outbox) == 5

    def test_are_changed_by_who_knows_the_current_one(self, db: None) -> None:
        alice = people.alice()
        here, elsewhere = signed_in_as(alice), signed_in_as(alice)
        new = {"password1": NEW_PASSWORD, "password2": NEW_PASSWORD}

        refused = here.post("/accounts/password/change/", {"oldpassword": "wrong", **new})
        assert "This is not your current password." in text_of(refused)
        changed = here.post("/accounts/password/change/", {"oldpassword": people.PASSWORD, **new})

        assert changed.headers["Location"] == "/settings"
        assert is_signed_in(here)
        assert not is_signed_in(elsewhere)
        assert mail.outbox[-1].subject == "Your password was changed"


class TestAddresses:
    def test_change_when_the_new_one_is_confirmed_and_the_old_one_is_told(self, db: None) -> None:
        alice = people.alice()
        old, new = alice.email, fresh_address("alice")
        client = reauthenticated(alice)

        client.post("/accounts/email/", {"email": new.upper(), "action_add": ""})
        assert "not confirmed" in text_of(client.get("/accounts/email/"))
        alice.refresh_from_db()
        assert alice.email == old

        client.post(link_in_mail())
        alice.refresh_from_db()
        assert alice.email == new
        assert [address.email for address in EmailAddress.objects.filter(user=alice)] == [new]
        assert (mail.outbox[-1].to, mail.outbox[-1].subject) == ([old], "Your address was changed")

    def test_change_only_after_the_password(self, db: None) -> None:
        answer = signed_in_as(people.alice()).post(
            "/accounts/email/", {"email": fresh_address("alice"), "action_add": ""}
        )

        assert answer.headers["Location"].startswith("/accounts/reauthenticate/")
        assert mail.outbox == []

    def test_of_others_cannot_be_taken(self, db: None) -> None:
        alice, bob = people.alice(), people.bob()
        client = reauthenticated(bob)

        client.post("/accounts/email/", {"email": alice.email, "action_add": ""})

        bob.refresh_from_db()
        assert bob.email != alice.email
        assert not EmailAddress.objects.filter(user=bob, email=alice.email, verified=True).exists()


def reauthenticated(person: User) -> Client:
    client = signed_in_as(person)
    client.post("/accounts/reauthenticate/", {"password": people.PASSWORD})
    return client


class TestLanguages:
    @pytest.mark.parametrize(("wish", "language"), [("", "id"), ("en", "en"), ("id", "id"), ("fr", "id")])
    def test_of_a_guest_follow_his_browser_and_are_indonesian_without_a_wish(
        self, db: None, wish: str, language: str
    ) -> None:
        page = text_of(Client(headers={"Accept-Language": wish}).get("/accounts/login/"))

        assert f'<html lang="{language}"' in page

    def test_are_offered_by_the_name_that_their_speakers_know(self, db: None) -> None:
        assert ">Bahasa Indonesia</button>" in text_of(english().get("/accounts/login/"))
        assert ">English</button>" in text_of(Client().get("/accounts/login/"))

    def test_are_chosen_by_guests_and_lead_back(self, db: None) -> None:
        client = english()

        answer = client.post("/settings/language", {"language": "id", "next": "/accounts/signup/"})

        assert answer.headers["Location"] == "/accounts/signup/"
        assert '<html lang="id"' in text_of(client.get("/accounts/signup/"))

    def test_are_kept_with_the_person(self, db: None) -> None:
        alice = people.alice()

        signed_in_as(alice).post("/settings/language", {"language": "id"})

        alice.refresh_from_db()
        assert alice.language == "id"
        assert sign_in(english(), alice.email).cookies["django_language"].value == "id"

    def test_that_we_do_not_speak_change_nothing(self, db: None) -> None:
        alice = people.alice()

        answer = signed_in_as(alice).post("/settings/language", {"language": "tlh"})

        assert "django_language" not in answer.cookies
        alice.refresh_from_db()
        assert alice.language == "en"

    @pytest.mark.parametrize("place", ["https://evil.example/", "//evil.example/", "javascript:alert(1)", ""])
    def test_never_lead_to_another_site(self, db: None, place: str) -> None:
        answer = english().post("/settings/language", {"language": "id", "next": place})

        assert answer.headers["Location"] == "/"


class TestSettings:
    def test_are_kept_and_change_the_language_at_once(self, db: None) -> None:
        alice = people.alice()
        client = signed_in_as(alice)

        answer = client.post(
            "/settings", {"name": "Alice W.", "language": "id", "time_zone": "Asia/Jayapura"}
        )

        assert answer.headers["Location"] == "/settings"
        alice.refresh_from_db()
        assert (alice.name, alice.language, alice.time_zone) == ("Alice W.", "id", "Asia/Jayapura")
        assert '<html lang="id"' in text_of(client.get("/settings"))

    def test_that_are_wrong_are_named_and_not_kept(self, db: None) -> None:
        alice = people.alice()

        answer = signed_in_as(alice).post(
            "/settings", {"name": "Alice W.", "language": "en", "time_zone": "Mars/Olympus"}
        )

        assert answer.status_code == HTTPStatus.UNPROCESSABLE_ENTITY
        assert "not a known time zone" in text_of(answer)
        assert 'value="Alice W."' in text_of(answer)
        alice.refresh_from_db()
        assert alice.name == "Alice"

    def test_take_no_field_that_is_not_offered(self, db: None) -> None:
        alice = people.alice()
        client = signed_in_as(alice)
        form = filled(client.get("/settings"), action="/settings")

        client.post("/settings", {**form, "is_staff": "on", "is_superuser": "on", "email": "x@example.test"})

        kept = User.objects.get(pk=alice.pk)
        assert (kept.is_staff, kept.is_superuser, kept.email) == (False, False, alice.email)

    def test_stay_as_they_are_when_saved_untouched(self, db: None) -> None:
        alice = people.someone("Alice", time_zone="Europe/Berlin")
        client = signed_in_as(alice)

        client.post("/settings", filled(client.get("/settings"), action="/settings"))

        kept = User.objects.get(pk=alice.pk)
        assert (kept.name, kept.language, kept.time_zone) == ("Alice", "en", "Europe/Berlin")


class TestApiKeys:
    def test_are_made_after_the_password_and_shown_once(self, db: None) -> None:
        alice = people.alice()
        client = signed_in_as(alice)

        asked = client.post("/settings/keys", {"name": "Laptop"})
        assert asked.headers["Location"].startswith("/accounts/reauthenticate/")
        assert not ApiKey.objects.filter(user=alice).exists()
        page = text_of(client.post(asked.headers["Location"], {"password": people.PASSWORD}))

        key = found_key(page)
        stored = ApiKey.objects.get(user=alice)
        assert (stored.name, stored.hash) == ("Laptop", hashed(key))
        assert f"Authorization: Bearer {key}" in page.replace("&quot;", '"')
        later = text_of(client.get("/settings/keys"))
        assert key not in later
        assert stored.hint in later

    def test_open_the_api_until_they_are_revoked(self, db: None) -> None:
        alice = people.alice()
        key = ApiKey.issue(user=alice, name="Laptop")
        program = Client(headers={"Authorization": f"Bearer {key}"})
        assert program.get("/api/v1/chat/tokens/balance").status_code == HTTPStatus.OK

        signed_in_as(alice).post(f"/settings/keys/{ApiKey.objects.get(user=alice).id}/revocations")

        assert program.get("/api/v1/chat/tokens/balance").status_code == HTTPStatus.UNAUTHORIZED
        assert "revoked" in text_of(signed_in_as(alice).get("/settings/keys"))

    def test_of_others_can_neither_be_seen_nor_revoked(self, db: None) -> None:
        alice, carol = people.alice(), people.carol()
        ApiKey.issue(user=alice, name="Alices laptop")
        key = ApiKey.objects.get(user=alice)
        stranger = signed_in_as(carol)

        assert "Alices laptop" not in text_of(stranger.get("/settings/keys"))
        assert stranger.post(f"/settings/keys/{key.id}/revocations").status_code == HTTPStatus.NOT_FOUND
        key.refresh_from_db()
        assert key.is_usable

    def test_have_a_name(self, db: None) -> None:
        answer = reauthenticated(people.alice()).post("/settings/keys", {"name": ""})

        assert answer.status_code == HTTPStatus.UNPROCESSABLE_ENTITY
        assert "This field is required." in text_of(answer)

    def test_are_not_made_without_end(self, db: None) -> None:
        alice = people.alice()
        for number in range(20):
            ApiKey.issue(user=alice, name=str(number))
        client = reauthenticated(alice)

        answer = client.post("/settings/keys", {"name": "one more"})
        assert "You have 20 keys." in text_of(answer)

        ApiKey.objects.filter(user=alice, name="0").update(revoked_at=alice.date_joined)
        assert found_key(text_of(client.post("/settings/keys", {"name": "one more"})))


def found_key(page: str) -> str:
    found = re.search(r"<code>(alp_[\w-]{43})</code>", page)
    assert found, "no key on the page"
    return found[1]

"""The page of a person's API keys: what can be used stands first, and the page does not grow without end."""

import re
from datetime import timedelta

import pytest
from django.test import Client
from django.utils import timezone

from aleph.accounts.models import ApiKey, User
from tests import people

pytestmark = pytest.mark.django_db


@pytest.fixture
def alice() -> User:
    return people.alice()


@pytest.fixture
def browser(alice: User) -> Client:
    browser = Client(headers={"accept-language": "en"})
    browser.force_login(alice)
    return browser


def keys(person: User, *names: str, **fields: object) -> None:
    for name in names:
        ApiKey.issue(user=person, name=name)
    ApiKey.objects.filter(user=person, name__in=names).update(**fields)


def named_on(browser: Client, page: str = "") -> list[str]:
    shown = browser.get(f"/settings/keys{page}").content.decode()
    return re.findall(r'<td class="fold-main">(\S+)', shown)


def test_what_can_be_used_comes_first(browser: Client, alice: User) -> None:
    ago = timezone.now() - timedelta(days=1)
    keys(alice, "usable")
    keys(alice, "in-time", expires_at=timezone.now() + timedelta(days=1))
    keys(alice, "expired", expires_at=ago)
    keys(alice, "revoked", revoked_at=ago)
    assert named_on(browser) == ["in-time", "usable", "revoked", "expired"]
    shown = browser.get("/settings/keys").content.decode()
    assert len(re.findall("/revocations", shown)) == 2
    assert re.search(r">expired<.*", shown)


def test_what_was_ever_revoked_is_shown_page_by_page(browser: Client, alice: User) -> None:
    keys(alice, "usable")
    keys(alice, *(f"gone-{number:02}" for number in range(60)), revoked_at=timezone.now())
    pages = [named_on(browser, f"?page={number}") for number in (1, 2, 3)]
    assert [len(page) for page in pages] == [25, 25, 11]
    assert pages[0][:2] == ["usable", "gone-59"]
    assert len({name for page in pages for name in page}) == 61
    assert '?page=3" rel="next"' in browser.get("/settings/keys?page=2").content.decode()


@pytest.mark.parametrize("page", ["x", "0", "-1", "9" * 5000, "%00", ""])
def test_a_page_that_is_none_shows_one_that_is(browser: Client, alice: User, page: str) -> None:
    keys(alice, "usable")
    assert named_on(browser, f"?page={page}") == ["usable"]


def test_a_long_list_asks_no_more_of_the_database(
    browser: Client, alice: User, django_assert_max_num_queries: object
) -> None:
    keys(alice, *(f"gone-{number:02}" for number in range(60)), revoked_at=timezone.now())
    with django_assert_max_num_queries(8):  # type: ignore[operator]
        browser.get("/settings/keys")

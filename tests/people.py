"""The people of the tests. Each call brings a new person with an address of his own, so that nothing has to be cleaned.

Alice is funded, Bob is broke, Carol is a stranger with empty accounts, Dewi is staff. Their password is `PASSWORD`.
"""

from functools import cache

from allauth.account.models import EmailAddress
from django.contrib.auth.hashers import make_password

from aleph import ids
from aleph.accounts.models import User, open_user
from billing import ledger
from billing.models import Transfer

PASSWORD = "lurik-dan-batik-7"
STARTER_VALUE_IDR_PER_1K = 4762


def alice() -> User:
    """Has 10,500 tokens, worth what Starter's are, and Rp 275.000."""
    person = someone("Alice")
    give_tokens(person, 10_500)
    give_rupiah(person, 275_000)
    return person


def bob() -> User:
    """Has 50 tokens and an empty wallet."""
    person = someone("Bob")
    give_tokens(person, 50)
    return person


def carol() -> User:
    """Has nothing."""
    return someone("Carol")


def dewi() -> User:
    """May do everything in the admin; owns nothing."""
    return someone("Dewi", is_staff=True, is_superuser=True)


def someone(name: str, **fields: object) -> User:
    """A person with empty accounts, a confirmed address and English pages."""
    email = f"{ids.new(name.lower())}@aleph.test".lower()
    user = User(email=email, name=name, password=_password_hash(), language="en", **fields)
    open_user(user)
    EmailAddress.objects.create(user=user, email=email, verified=True, primary=True)
    return user


def give_tokens(person: User, amount: int) -> None:
    ledger.receive(
        user=person,
        account=ledger.TOKENS,
        amount=amount,
        source="corrections_token",
        kind=Transfer.Kind.ADJUSTMENT,
        reference="gift",
        key=ids.new("gift"),
        value_idr_per_1k=STARTER_VALUE_IDR_PER_1K,
    )


def give_rupiah(person: User, amount: int) -> None:
    ledger.receive(
        user=person,
        account=ledger.WALLET,
        amount=amount,
        source="bank",
        kind=Transfer.Kind.TOPUP,
        reference="gift",
        key=ids.new("gift"),
    )


def take_rupiah(person: User, amount: int) -> None:
    """They are spent on something."""
    ledger.spend(
        user=person,
        account=ledger.WALLET,
        amount=amount,
        to="corrections_idr",
        kind=Transfer.Kind.ADJUSTMENT,
        reference="spent",
        key=ids.new("gift"),
    )


@cache
def _password_hash() -> str:
    """Hashed once: it is meant to be slow."""
    return make_password(PASSWORD)

"""The two people that a development installation comes with: Demo, who has bought tokens, and Admin, who is staff.

Their password and Demo's API key are drawn once and kept in the data folder, so that every start prints the same ones.
For `manage.py seed --demo`.
"""

import secrets
from pathlib import Path

from allauth.account.models import EmailAddress
from django.conf import settings
from django.db import transaction

from aleph.accounts.models import ApiKey, User, hashed
from billing import ledger, purchases
from billing.models import Transfer

DEMO = "demo@aleph.test"
ADMIN = "admin@aleph.test"
TOPUP_IDR = 250_000


def move_in() -> None:
    """Make sure that both are there, with what they own. A password that somebody changed stays changed."""
    password, is_fresh = kept_secret("demo_password", secrets.token_urlsafe(9))
    with transaction.atomic():
        if (demo := resident(DEMO, password, is_fresh=is_fresh)) is None:
            demo = newcomer(DEMO, "Demo", password)
            fund(demo)
        keep_api_key(demo)
        if resident(ADMIN, password, is_fresh=is_fresh) is None:
            newcomer(ADMIN, "Admin", password, is_staff=True, is_superuser=True)


def resident(email: str, password: str, *, is_fresh: bool) -> User | None:
    """Who already lives under this address; the password is set where it `is_fresh`, because nobody knows the old one."""
    user = User.objects.filter(email=email).first()
    if user is not None and is_fresh:
        user.set_password(password)
        user.save(update_fields=["password"])
    return user


def newcomer(email: str, name: str, password: str, **fields: bool) -> User:
    user = User.objects.create_user(email, password, name=name, **fields)
    EmailAddress.objects.create(user=user, email=email, verified=True, primary=True)
    return user


def fund(user: User) -> None:
    """Rp 250.000 in the wallet, of which Rp 50.000 go into Starter."""
    ledger.receive(
        user=user,
        account=ledger.WALLET,
        amount=TOPUP_IDR,
        source="bank",
        kind=Transfer.Kind.TOPUP,
        reference="demo",
        key=f"demo:{user.pk}:topup",
        reason="demo",
    )
    purchases.buy(user=user, package_slug="starter", key="demo-starter")


def keep_api_key(user: User) -> None:
    path = settings.DATA_DIR / "demo_api_key"
    known = path.read_text().strip() if path.exists() else ""
    usable = ApiKey.objects.filter(user=user, hash=hashed(known)).first() if known else None
    if usable is None or not usable.is_usable:
        write_secret(path, ApiKey.issue(user=user, name="Demo"))


def kept_secret(name: str, fresh: str) -> tuple[str, bool]:
    """What the data folder keeps under this name, and whether it is the `fresh` one that was written just now."""
    path = settings.DATA_DIR / name
    if path.exists() and (kept := path.read_text().strip()):
        return kept, False
    write_secret(path, fresh)
    return fresh, True


def write_secret(path: Path, text: str) -> None:
    path.touch(mode=0o600)
    path.write_text(text)

"""How long `check_ledger` takes over a million transfers. Fills an empty database and times the audit in it.

    createdb aleph_audit
    DATABASE_URL=postgresql://postgres@127.0.0.1/aleph_audit ALEPH_DATA=/tmp/audit python -m bench.audit --people 1000

Without DATABASE_URL it is SQLite in ALEPH_DATA. Each person has bought Starter and had 500 replies: a hold and a post
each, so a thousand people are a million transfers, as the ledger would have written them.
"""

import argparse
import os
import time

import django

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "aleph.settings")
django.setup()

from django.contrib.auth.hashers import make_password  # noqa: E402
from django.core.management import call_command  # noqa: E402
from django.db import connection, transaction  # noqa: E402
from django.utils import timezone  # noqa: E402

from aleph import ids  # noqa: E402
from aleph.accounts.models import User  # noqa: E402
from billing import audit, ledger  # noqa: E402
from billing.models import Account, Package, Purchase, Transfer  # noqa: E402

REPLIES, COST, HELD = 500, 10, 50
TOKENS, BONUS, PRICE = 10_000, 500, 50_000
BATCH = 20


def main() -> None:
    asked = argparse.ArgumentParser()
    asked.add_argument("--people", type=int, default=1000)
    people = asked.parse_args().people
    call_command("migrate", verbosity=0)
    call_command("seed", verbosity=0)
    began = time.perf_counter()
    fill(people)
    print(f"{Transfer.objects.count()} transfers written in {time.perf_counter() - began:.0f} s")
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE")
        if connection.vendor == "postgresql":
            cursor.execute("SET statement_timeout = 0")
    for _run in range(2):
        began = time.perf_counter()
        drifts = audit.check()
        print(f"{connection.vendor}: check in {time.perf_counter() - began:.1f} s, {len(drifts)} drifts")
    for rule in audit.RULES:
        began = time.perf_counter()
        with connection.cursor() as cursor:
            cursor.execute(rule.sql)
            cursor.fetchall()
        print(f"  {time.perf_counter() - began:6.2f} s  {rule.name}")


def fill(people: int) -> None:
    password, starter = make_password("x"), Package.objects.get(slug="starter")
    is_postgresql = connection.vendor == "postgresql"
    with connection.cursor() as cursor:
        if is_postgresql:
            cursor.execute("ALTER TABLE billing_transfer DISABLE TRIGGER transfer_is_lawful")
    for first in range(0, people, BATCH):
        with transaction.atomic():
            rows: list[Transfer] = []
            for nth in range(first, min(first + BATCH, people)):
                person = User.objects.create(
                    email=f"{nth}-{ids.new('usr').lower()}@aleph.test", password=password
                )
                rows += of_person(person, starter)
            Transfer.objects.bulk_create(rows, batch_size=2_000 if is_postgresql else 50)
    with connection.cursor() as cursor:
        if is_postgresql:
            cursor.execute("ALTER TABLE billing_transfer ENABLE TRIGGER transfer_is_lawful")


def of_person(person: User, starter: Package) -> list[Transfer]:
    used = REPLIES * COST
    tokens, wallet = Account.objects.bulk_create(
        [
            Account(
                user=person,
                name="tokens",
                unit="TOKEN",
                balance=TOKENS + BONUS - used,
                bonus=max(0, BONUS - used),
                moves=2 + 2 * REPLIES,
            ),
            Account(user=person, name="wallet", unit="IDR", balance=0, moves=2),
        ]
    )
    bought = Purchase.objects.create(
        id=ids.new("buy"),
        number=ids.new("n")[-20:],
        user=person,
        package=starter,
        package_name="Starter",
        tokens=TOKENS,
        bonus_tokens=BONUS,
        price_idr=PRICE,
        wallet_before_idr=PRICE,
        tokens_before=0,
        key="a",
    )

    def row(
        unit: str, debit: int, credit: int, amount: int, after: int, bonus: int, place: int, **more: object
    ) -> Transfer:
        given = {"phase": "single", "kind": "reply", "reference": "msg_1", "key": ids.new("key")} | more
        return Transfer(
            id=ids.new("trf"),
            unit=unit,
            debit_id=debit,
            credit_id=credit,
            amount=amount,
            balance_after=after,
            bonus_after=bonus,
            place=place,
            input_hash="",
            created_at=timezone.now(),
            **given,
        )

    house, buy = ledger.house, {"kind": "purchase", "reference": bought.pk}
    rows = [
        row("IDR", house("bank"), wallet.pk, PRICE, PRICE, 0, 1, kind="topup"),
        row("IDR", wallet.pk, house("sales"), PRICE, 0, 0, 2, key=f"{bought.pk}:wallet", **buy),
        row("TOKEN", house("issued"), tokens.pk, TOKENS, TOKENS, 0, 1, key=f"{bought.pk}:tokens", **buy),
        row(
            "TOKEN",
            house("bonus"),
            tokens.pk,
            BONUS,
            TOKENS + BONUS,
            BONUS,
            2,
            kind="bonus",
            reference=bought.pk,
            key=f"{bought.pk}:bonus",
        ),
    ]
    for nth in range(REPLIES):
        before, after = nth * COST, (nth + 1) * COST
        whole, left = TOKENS + BONUS, (max(0, BONUS - before), max(0, BONUS - after))
        hold = row(
            "TOKEN", tokens.pk, house("consumed"), HELD, whole - before, left[0], 3 + 2 * nth, phase="pending"
        )
        post = row(
            "TOKEN", tokens.pk, house("consumed"), COST, whole - after, left[1], 4 + 2 * nth, phase="post"
        )
        post.pending_id = hold.pk
        rows += [hold, post]
    return rows


if __name__ == "__main__":
    main()

"""Holds and settles through the ledger as fast as it goes: what a reply costs the books, many times over.

    python -m bench.pairs --threads 8 --accounts 1000 --seconds 7 [--script FILE]

One pair is one `ledger.hold` and one `ledger.post` of half of it. Prints pairs per second, and whether the books are
right afterwards to the last token. With `--script` it writes for pgbench what the ledger sent for one of them: the very
same statements on the same accounts. Run with the product's own environment.
"""

import argparse
import json
import random
import resource
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import django
from psycopg.sql import Literal

django.setup()

from django.db import connection  # noqa: E402
from django.db.models import Sum  # noqa: E402

from aleph import ids  # noqa: E402
from aleph.accounts.models import User  # noqa: E402
from bench.people import person  # noqa: E402
from billing import ledger  # noqa: E402
from billing.models import Account, Transfer  # noqa: E402


class Pairs:
    def __init__(self, users: list[User], seconds: float) -> None:
        self.users = users
        self.until = time.monotonic() + seconds
        self.latencies_s: list[float] = []
        self.taken = 0
        self.problems: list[str] = []
        self.lock = threading.Lock()

    def work(self) -> None:
        latencies, taken = [], 0
        chance = random.Random()
        try:
            while (began := time.monotonic()) < self.until:
                amount = chance.randint(2, 1000)
                hold = ledger.hold(
                    user=chance.choice(self.users), amount=amount, reference="bench", key=ids.new("hold")
                )
                taken += ledger.post(hold_id=hold.id, amount=amount // 2, key=ids.new("post")).amount
                latencies.append(time.monotonic() - began)
        except Exception as problem:
            self.problems.append(repr(problem)[:300])
        connection.close()
        with self.lock:
            self.latencies_s += latencies
            self.taken += taken


def script(users: list[User]) -> str:
    """A script of pgbench's that does what one pair does, with the statements that the ledger sends for it."""
    amount = 1000
    places = {"user": ":user", "amount": ":amount", "taken": ":amount"}
    places |= {"id": "'h' || :n::text", "key": "'hk' || :n::text"}
    sent: list[str] = []

    def note(execute: Any, sql: str, params: Mapping[str, Any], many: bool, context: Any) -> Any:
        sent.append(
            sql % {name: places.get(name, Literal(value).as_string()) for name, value in params.items()}
        )
        return execute(sql, params, many, context)

    with connection.execute_wrapper(note):
        hold = ledger.hold(user=users[0], amount=amount, reference="bench", key=ids.new("hold"))
        places |= {"hold": places["id"], "id": "'p' || :n::text", "key": "'pk' || :n::text"}
        places |= {"amount": ":amount / 2", "taken": ":amount / 2"}
        ledger.post(hold_id=hold.id, amount=amount // 2, key=ids.new("post"))
    chances = {"user": (users[0].pk, users[-1].pk), "amount": (2, amount), "n": (1, 10**15)}
    lines = [f"\\set {name} random({least}, {most})" for name, (least, most) in chances.items()]
    return "\n".join([*lines, *(f"{statement};" for statement in sent)]) + "\n"


def totals(users: list[User]) -> tuple[int, int]:
    found = Account.objects.filter(user__in=users, name=ledger.TOKENS).aggregate(Sum("balance"), Sum("held"))
    return found["balance__sum"], found["held__sum"]


def main() -> None:
    arguments = argparse.ArgumentParser(description="Holds and settles.")
    arguments.add_argument("--threads", type=int, default=8)
    arguments.add_argument("--accounts", type=int, default=1000)
    arguments.add_argument("--seconds", type=float, default=7)
    arguments.add_argument("--script", type=Path)
    given = arguments.parse_args()
    users = [person(number) for number in range(given.accounts)]
    before = totals(users)
    connection.close()  # the threads have as many as there are of them
    pairs = Pairs(users, given.seconds)
    threads = [threading.Thread(target=pairs.work) for _ in range(given.threads)]
    began = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    wall_s = time.monotonic() - began
    after = totals(users)
    moved = Transfer.objects.filter(phase=Transfer.Phase.POST, debit__user__in=users).aggregate(Sum("amount"))
    latencies = sorted(pairs.latencies_s)
    own = resource.getrusage(resource.RUSAGE_SELF)
    if given.script is not None:
        given.script.write_text(script(users))
    print(
        json.dumps(
            {
                "pairs_per_s": round(len(latencies) / wall_s, 1),
                "p50_ms": round(1000 * latencies[len(latencies) // 2], 2),
                "p99_ms": round(1000 * latencies[len(latencies) * 99 // 100], 2),
                "client_cpu_s": round(own.ru_utime + own.ru_stime, 2),
                "problems": pairs.problems,
                "is_exact": before[0] - after[0] == pairs.taken == moved["amount__sum"] and after[1] == 0,
            }
        )
    )


if __name__ == "__main__":
    main()

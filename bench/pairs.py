"""Holds and settles through the ledger as fast as it goes: what a reply costs the books, many times over.

    python -m bench.pairs --threads 8 --accounts 1000 --seconds 7

One pair is one `ledger.hold` and one `ledger.post` of half of it. Prints pairs per second, and whether the books are
right afterwards to the last token. Run with the product's own environment.
"""

import argparse
import json
import random
import resource
import threading
import time

import django

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


def totals(users: list[User]) -> tuple[int, int]:
    found = Account.objects.filter(user__in=users, name=ledger.TOKENS).aggregate(Sum("balance"), Sum("held"))
    return found["balance__sum"], found["held__sum"]


def main() -> None:
    arguments = argparse.ArgumentParser(description="Holds and settles.")
    arguments.add_argument("--threads", type=int, default=8)
    arguments.add_argument("--accounts", type=int, default=1000)
    arguments.add_argument("--seconds", type=float, default=7)
    given = arguments.parse_args()
    users = [person(number) for number in range(given.accounts)]
    before = totals(users)
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

"""`make bench`: what the product does on one core, beside LiteLLM's proxy and pgbench in the same run.

    python -m bench.run [--levels 50,100,150,200,250] [--without-rival] [--database URL]

Everything is on: authentication by API key, a hold before each call, the charge, the usage row, PostgreSQL. Prints each
figure as it is measured, and at last the goals with their ratios. Absolute figures belong to the machine and the hour;
`other` is the CPU that was spent by processes that have nothing to do with the run: with much of it, repeat.
"""

import argparse
import json
import os
import statistics
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from bench import books
from bench.machine import SERVER_CORE, describe
from bench.product import FOLDER, Product, Surroundings, load, move_in, surroundings, writer
from bench.rival import litellm

SLOW, FAST = "slow-100x50ms", "fast-200"
FAST_REQUESTS = 100
COMPARED = 50
"""Streams at which the time to the first text is compared."""
RIVAL_LEVELS = (10, 15, 20, 25, 35, 50)
LATE_MS = 100
"""A level of streams is held where 99 of 100 pieces come sooner than this, and none is lost."""
SECONDS = 5.0
ROUNDS = 5
THREADS = 8
SAME = 16
"""Threads of ours, and clients of pgbench, that send the very same statements."""
API = "/api/v1/chat/sessions/{session}/messages"
API_REPLY = API + "/{message}"
CHUNKS, RAMP_S = 100, 6.0
OURS = ["authorization: Bearer {key}", "accept: text/event-stream"]
SAY = json.dumps({"content": "hi"})

Figures = dict[str, Any]


def main() -> None:
    given = parsed()
    levels = [int(level) for level in given.levels.split(",")]
    print(json.dumps(describe()))
    with surroundings(given.database) as around:
        ledger = the_ledger(around)
        people = move_in(
            around, users=100, sessions={SLOW: sum(levels) + 2 * COMPARED, FAST: 2 * FAST_REQUESTS}
        )
        ours = the_product(around, levels, {model: str(file) for model, file in people.items()})
        viewers = the_viewers(around, given.viewers)
        rival = None if given.without_rival else the_rival(around)
    for line in goals(ledger, ours, viewers, rival):
        print(line)


def the_ledger(around: Surroundings) -> Figures:
    """Hold-and-settle pairs a second through `billing.ledger`, as a share of what PostgreSQL does by itself: medians over
    rounds in which ours and its own take turns, because its pace changes by half from minute to minute."""
    books.set_up(around, scale=20)
    rounds = [show("ledger", a_round_of_pairs(around)) for _ in range(ROUNDS)]
    return {share: statistics.median(found[share] for found in rounds) for share in ("many", "hot", "same")}


def a_round_of_pairs(around: Surroundings) -> Figures:
    script = FOLDER / "pairs.pgbench"
    found: Figures = {}

    def ours(threads: int, accounts: int) -> float:
        said = around.manage(
            *("-m", "bench.pairs", "--threads", str(threads), "--accounts", str(accounts)),
            *("--seconds", str(SECONDS), "--script", str(script)),
            cores=SERVER_CORE,
            DATABASE_POOL=str(threads),
        )
        measured = json.loads(said.splitlines()[-1])
        assert measured["is_exact"], measured
        assert not measured["problems"], measured
        return float(measured["pairs_per_s"])

    def compare(name: str, pairs: float, own: float) -> None:
        found.update({name: round(pairs / own, 3), f"{name}_pairs_per_s": pairs, f"{name}_own_per_s": own})

    compare("many", ours(THREADS, 1000), books.tpcb_per_s(around, clients=16, seconds=SECONDS))
    compare(
        "hot",
        ours(THREADS, 1),
        books.two_statements_per_s(around, clients=16, accounts=1, seconds=SECONDS),
    )
    compare(
        "same",
        ours(SAME, 1000),
        books.same_statements_per_s(around, clients=SAME, script=script, seconds=SECONDS),
    )
    return found


def the_product(around: Surroundings, levels: list[int], people: dict[str, str]) -> Figures:
    with Product(around) as product:
        streams = {"url": product.url + API, "header": OURS, "data": SAY, "servers": product.pids}
        streams |= {"helpers": around.pids, "end": "event: done"}
        found: Figures = {"levels": {}, "memory_idle_mib": product.memory_mib()}
        slow = {"each": people[SLOW], "expect": 100, "ramp": 4}
        load(**streams, clients=COMPARED, **slow)  # the first of everything
        first = COMPARED
        found["ttft"] = show("ours, first text", load(**streams, clients=COMPARED, first=first, **slow))[
            "ttft"
        ]
        first += COMPARED
        for level in levels:
            found["levels"][level] = show(
                f"ours, {level} streams", load(**streams, clients=level, first=first, **slow)
            )
            first += level
        fast = {"each": people[FAST], "expect": 200, "requests": FAST_REQUESTS, "clients": COMPARED}
        load(**streams, **fast)
        found["fast"] = show("ours, fast", load(**streams, first=FAST_REQUESTS, **fast))["chunks_per_s"]
        found["memory_mib"] = product.memory_mib()
        found["memory_of_web_and_worker_mib"] = product.memory_mib("web", "worker")
    show("memory", {name: value for name, value in found.items() if "memory" in name})
    return found


def the_viewers(around: Surroundings, number: int) -> Figures:
    """The web process by itself: so many streams open at once, and what each of them weighs."""
    with Product(around, only=("web",)) as product, writer(around, number) as (replies, begin):
        streams = {"url": product.url + API_REPLY, "header": OURS, "each": str(replies), "ramp": RAMP_S}
        streams |= {"servers": product.pids, "helpers": around.pids, "end": "event: done", "expect": CHUNKS}
        # The first of everything, so that what is measured is streams.
        load(**streams | {"expect": 0, "end": "", "timeout_s": 30, "timeout": 1}, clients=20, requests=20)
        before = product.memory_mib()
        with ThreadPoolExecutor() as beside:
            running = beside.submit(load, **streams, clients=number)
            time.sleep(RAMP_S + 3)
            opened = product.memory_mib() - before
            begin()
            found = running.result()
    found["open_kib_each"] = opened * 1024 / number
    return show(f"web alone, {number} streams", found)


def the_rival(around: Surroundings) -> Figures:
    with litellm(around, models=[SLOW, FAST]) as rival:
        streams: Figures = {"url": rival.url, "header": [f"authorization: Bearer {rival.key}"]}
        streams |= {"servers": [rival.pid], "helpers": around.pids, "clients": COMPARED}
        slow = {"data": asking(SLOW), "expect": 100, "ramp": 4}
        load(**streams, **slow)
        found: Figures = {"ttft": show("LiteLLM, first text", load(**streams, **slow))["ttft"], "levels": {}}
        for level in RIVAL_LEVELS:
            found["levels"][level] = show(
                f"LiteLLM, {level} streams", load(**streams | {"clients": level}, **slow)
            )
        fast = {"data": asking(FAST), "expect": 200, "requests": FAST_REQUESTS}
        found["fast"] = show("LiteLLM, fast", load(**streams, **fast))["chunks_per_s"]
        found["memory_mib"] = rival.memory_mib
    show("LiteLLM, memory", {"memory_mib": found["memory_mib"]})
    return found


def goals(ledger: Figures, ours: Figures, viewers: Figures, rival: Figures | None) -> list[str]:
    lines = [
        f"streams held with p99 lateness < {LATE_MS} ms, none lost: {held(ours)} (goal 200)",
        f"hold + settle, 1,000 accounts / pgbench tpcb-like: {ledger['many']:.2f} (goal 0.35)",
        f"hold + settle, one hot account / two bare statements: {ledger['hot']:.2f} (goal 0.7)",
        f"hold + settle from {SAME} threads / pgbench with the same statements: {ledger['same']:.2f}",
        f"web alone: {viewers['ok']} of {viewers['clients']} streams held, lateness p99 {viewers['relay']['p99']} ms,"
        f" {viewers['open_kib_each']:.0f} KiB each (goal 1200, 100 ms, 100 KiB)",
    ]
    if rival is not None:
        lines += [
            f"the same / LiteLLM's {held(rival)}: {held(ours) / max(1, held(rival)):.1f} (goal 4)",
            f"first text, median at {COMPARED} streams / LiteLLM: {ours['ttft']['p50'] / rival['ttft']['p50']:.2f}"
            " (goal 0.7)",
            f"fast-200, chunks a second / LiteLLM: {ours['fast'] / rival['fast']:.1f} (goal 6)",
            f"memory of web + worker / LiteLLM: {ours['memory_of_web_and_worker_mib'] / rival['memory_mib']:.2f} (goal 0.8)",
            f"memory of all four processes / LiteLLM: {ours['memory_mib'] / rival['memory_mib']:.2f}",
        ]
    return lines


def held(figures: Figures) -> int:
    """The most streams that were held at once."""
    levels = figures["levels"].items()
    return max(
        (level for level, run in levels if not run["errors"] and run["relay"]["p99"] < LATE_MS), default=0
    )


def asking(model: str) -> str:
    return json.dumps(
        {
            "model": model,
            "stream": True,
            "stream_options": {"include_usage": True},
            "messages": [{"role": "user", "content": "hi"}],
        }
    )


def show(name: str, figures: Figures) -> Figures:
    print(f"{name}: {json.dumps(figures)}", flush=True)
    return figures


def parsed() -> argparse.Namespace:
    arguments = argparse.ArgumentParser(description="Measures the product on one core.")
    arguments.add_argument("--levels", default="50,100,150,200,250")
    arguments.add_argument("--viewers", type=int, default=1200, help="streams of the web process by itself")
    arguments.add_argument("--without-rival", action="store_true")
    arguments.add_argument(
        "--database",
        default=os.environ.get("BENCH_DATABASE_URL", "postgresql://postgres@127.0.0.1:5432/postgres"),
        help="a PostgreSQL on which databases may be created",
    )
    return arguments.parse_args()


if __name__ == "__main__":
    main()

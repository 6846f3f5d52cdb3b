"""What a turn and a chunk cost in CPU, by process: a figure that a busy machine disturbs less than any time.

    python -m bench.cost [--rounds 5] [--turns 200] [--database URL]

A turn is all of it: request, hold, bell, call, stream, charge, usage row. Rounds of turns with one chunk and of turns with a
hundred, 20 a second, take turns, so that whatever else the machine does meets both; the difference is the cost of chunks.
Prints the medians over the rounds, after one to warm up. Everything is on, as in `bench.run`.
"""

import argparse
import json
import os
import statistics

import psutil

from bench.product import Product, load, move_in, surroundings
from bench.run import API, CHUNKS, OURS, SAY, SLOW, Figures

SHORT = "fast-1"
CLIENTS, STREAMS = 8, 40
PROCESSES = ("web", "worker")


def main() -> None:
    given = parsed()
    rounds = range(given.rounds + 1)
    short: list[dict[str, float]] = []
    long: list[dict[str, float]] = []
    with surroundings(given.database) as around:
        people = move_in(
            around, users=100, sessions={SHORT: given.turns * len(rounds), SLOW: STREAMS * len(rounds)}
        )
        with Product(around) as product:
            every: Figures = {"url": product.url + API, "header": OURS, "data": SAY, "end": "event: done"}
            every |= {"servers": product.pids, "helpers": around.pids}

            def cost(model: str, turns: int, round_: int, **how: object) -> dict[str, float]:
                """Milliseconds of CPU a turn, by process."""
                before = {name: cpu_s(product, name) for name in PROCESSES}
                ran = load(**every, each=people[model], first=round_ * turns, requests=turns, **how)
                assert not ran["errors"], ran
                return {name: 1000 * (cpu_s(product, name) - before[name]) / turns for name in PROCESSES}

            for round_ in rounds:
                short.append(cost(SHORT, given.turns, round_, clients=CLIENTS, expect=1))
                long.append(cost(SLOW, STREAMS, round_, clients=STREAMS, expect=CHUNKS, ramp=2))
    for name in PROCESSES:
        a_turn, a_long_one = (
            statistics.median(found[name] for found in figures[1:]) for figures in (short, long)
        )
        a_thousand = 1000 * (a_long_one - a_turn) / CHUNKS
        said = {"process": name, "ms_a_turn": round(a_turn, 1), "ms_a_1000_chunks": round(a_thousand)}
        print(json.dumps(said))


def cpu_s(product: Product, name: str) -> float:
    times = psutil.Process(product.processes[name].pid).cpu_times()
    return float(times.user + times.system)


def parsed() -> argparse.Namespace:
    arguments = argparse.ArgumentParser(description="CPU of a turn and of a chunk.")
    arguments.add_argument("--rounds", type=int, default=5)
    arguments.add_argument("--turns", type=int, default=200)
    arguments.add_argument(
        "--database",
        default=os.environ.get("BENCH_DATABASE_URL", "postgresql://postgres@127.0.0.1:5432/postgres"),
        help="a PostgreSQL on which databases may be created",
    )
    return arguments.parse_args()


if __name__ == "__main__":
    main()

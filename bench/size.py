"""Usage at size: what pages, reports and inserts cost over millions of calls. Fills an empty PostgreSQL database step by
step and measures in it.

    createdb aleph_size
    DATABASE_URL=postgresql://postgres@127.0.0.1/aleph_size ALEPH_DATA=/tmp/size python -m bench.size --rows 0,1000000,10000000

The requests are whole ones, from the address to the last byte, in this process; CSV to its first byte. Reports are held
against the plainest statement that reads the same rows. Each figure is of `--times` requests after a warm one.
"""

import argparse
import logging
import os
import statistics
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import django
import structlog
from asgiref.sync import async_to_sync

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "aleph.settings")
os.environ["DATABASE_STATEMENT_TIMEOUT_MS"] = "0"
django.setup()
logging.getLogger().setLevel(logging.WARNING)
structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))

from django.conf import settings  # noqa: E402
from django.core.management import call_command  # noqa: E402
from django.db import connection  # noqa: E402
from django.test import Client  # noqa: E402

from aleph import ids, insights  # noqa: E402
from aleph.accounts.models import User  # noqa: E402
from usage import currency, meter, overview, rollups  # noqa: E402
from usage.models import TokenUsage  # noqa: E402
from usage.wishes import Wish  # noqa: E402

PAGE_MS, USER_TIMES, STAFF_SHARE = 100, 3, 20
INSERTS = 400
PEOPLE = 2000


def main() -> None:
    asked = argparse.ArgumentParser()
    asked.add_argument("--rows", default="0,1000000,10000000")
    asked.add_argument("--times", type=int, default=20)
    asked.add_argument("--only-inserts", action="store_true")
    options = asked.parse_args()
    settings.ALLOWED_HOSTS.append("testserver")
    call_command("migrate", verbosity=0)
    call_command("seed", verbosity=0)
    call_command("collectstatic", verbosity=0, interactive=False)
    inserts = []
    for rows in map(int, options.rows.split(",")):
        fill(rows)
        inserts.append((rows, *insert_ms()))
    print(f"\n{'calls there':>14}{'insert p50 ms':>16}{'p95':>9}")
    for rows, median, p95 in inserts:
        print(f"{rows:>14,}{median:>16.2f}{p95:>9.2f}")
    if options.only_inserts:
        return
    began = time.perf_counter()
    steps = rollups.run(budget_s=3600)
    print(f"\nadded up in {time.perf_counter() - began:.0f} s, {steps} steps")
    run("VACUUM ANALYZE")
    compare(options.times)
    visit(options.times)


def fill(rows: int) -> None:
    there = TokenUsage.objects.count()
    if there >= rows:
        return
    people = max(0, PEOPLE - User.objects.count())
    call_command("seed_usage", rows=rows - there, people=people)
    run("VACUUM ANALYZE")  # as the server does by itself, only later


def insert_ms() -> tuple[float, float]:
    """Calls are recorded, one transaction each, for people as they come, and taken away again."""
    people: list[int | None] = [*User.objects.order_by("?").values_list("pk", flat=True)[:INSERTS]] or [None]
    made = []
    spent = []
    for nth in range(INSERTS + 50):
        began = time.perf_counter()
        row = meter.record(
            user_id=people[nth % len(people)],
            operation="chat_message",
            operation_id=ids.new("msg"),
            attempt=1,
            provider="openai",
            model="gpt-4o",
            requested_model="gpt-4o",
            counts=meter.Counts(fresh_input=1000, visible_output=200),
            source=meter.Source.REPORTED,
            status=meter.Status.COMPLETE,
            started_at=datetime.now(UTC),
            first_token_ms=420,
            latency_ms=3100,
        )
        spent.append(time.perf_counter() - began)
        made.append(row.pk)
    TokenUsage.objects.filter(pk__in=made).delete()
    return figures(spent[50:])


def compare(times: int) -> None:
    """Reports against the plainest statement over the rows that they tell of."""
    now = datetime.now(UTC)
    month, year = now - timedelta(days=30), now - timedelta(days=365)
    table = TokenUsage._meta.db_table
    sums = "count(*), sum(total_tokens), sum(total_cost_usd)"
    print(f"\n{'report':<44}{'floor ms':>10}{'ours ms':>10}{'ratio':>9}{'goal':>8}")
    for who, person in people_to_ask().items():
        floor = timed(
            lambda person=person: run(
                f"SELECT date_trunc('day', created_at), label, {sums} FROM {table}"
                f" WHERE user_id = {person.pk} AND created_at >= '{now - timedelta(days=60)}' GROUP BY 1, 2"
            ),
            times,
        )
        wish = Wish.read(person, {})
        rates = currency.rates_until(wish.today)
        ours = timed(lambda person=person, wish=wish, rates=rates: overview.of(person, wish, rates), times)
        line(f"30 days and the 30 before, {who}", floor, ours, USER_TIMES)
    staff = insights.Period(30, ZoneInfo("Asia/Jakarta"))
    floor = timed(
        lambda: run(f"SELECT model, {sums} FROM {table} WHERE created_at >= '{month}' GROUP BY 1"), 3
    )
    line(
        "everybody, 30 days by model", floor, timed(lambda: insights.by_model(staff), times), 1 / STAFF_SHARE
    )
    floor = timed(
        lambda: run(
            f"SELECT date_trunc('day', created_at), {sums} FROM {table} WHERE created_at >= '{year}' GROUP BY 1"
        ),
        3,
    )
    ours = timed(
        lambda: rollups.totals(
            since=year, until=now, by=("day",), zone=UTC, only=("calls", "total_tokens", "total_cost_usd")
        ),
        times,
    )
    line("everybody, a year by day", floor, ours, 1 / STAFF_SHARE)


def visit(times: int) -> None:
    print(f"\n{'page or endpoint':<64}{'p50 ms':>9}{'p95':>9}{'':>4}")
    for who, person in people_to_ask().items():
        for place in PLACES:
            visited(f"{place} ({who})", signed_in(person), place, times)
        for place in ENDPOINTS:
            visited(f"{place} ({who})", signed_in(person), place, times)
    staff = User.objects.filter(is_superuser=True).first() or User.objects.create_superuser(
        email="size@aleph.test", password=ids.new("pwd")
    )
    busiest = people_to_ask()["the busiest"]
    some = TokenUsage.objects.order_by("-pk")[1000]
    for pattern in STAFF_PLACES:
        place = pattern.format(email=busiest.email, id=some.pk, operation=some.operation_id)
        visited(pattern, signed_in(staff), place, times)


def people_to_ask() -> dict[str, User]:
    everybody = User.objects.order_by("pk")
    return {"the busiest": everybody[0], "an ordinary one": everybody[everybody.count() // 2]}


PLACES = ("/usage", "/usage?days=7", "/usage?days=90", "/usage/csv?days=90")
ENDPOINTS = (
    "/api/tokens/stats",
    "/api/tokens/history?limit=50",
    "/api/tokens/history?limit=50&operation=title",
    "/api/tokens/usage-by-period?period=month",
    "/api/usage",
    "/api/usage/year",
    "/api/usage/all",
    "/api/usage-logs",
    "/api/usage-logs?type=TRAINING",
)
STAFF_PLACES = (
    "/admin/dashboard/",
    "/admin/usage/tokenusage/",
    "/admin/usage/tokenusage/?p=100",
    "/admin/usage/tokenusage/?period=all",
    "/admin/usage/tokenusage/?status__exact=failed&period=all",
    "/admin/usage/tokenusage/?flagged__exact=1&period=all",
    "/admin/usage/tokenusage/?source__exact=estimated",
    "/admin/usage/tokenusage/?provider=gemini",
    "/admin/usage/tokenusage/?priced=no",
    "/admin/usage/tokenusage/?q={email}",
    "/admin/usage/tokenusage/?q={id}",
    "/admin/usage/tokenusage/?q={operation}",
    "/admin/usage/tokenusage/{id}/change/",
)


def signed_in(person: User) -> Client:
    client = Client()
    client.force_login(person, backend=settings.AUTHENTICATION_BACKENDS[0])
    return client


def visited(name: str, client: Client, place: str, times: int) -> None:
    def once() -> None:
        answer = client.get(place)
        assert answer.status_code == 200, (place, answer.status_code)
        if answer.streaming:
            async_to_sync(first_part)(answer)

    median, p95 = timed_all(once, times)
    print(f"{name:<64}{median:>9.1f}{p95:>9.1f}{'' if p95 <= PAGE_MS else '  !':>4}", flush=True)


async def first_part(answer: Any) -> None:
    async for _part in answer.streaming_content:
        return


def line(name: str, floor_ms: float, ours_ms: float, goal: float) -> None:
    ratio = ours_ms / floor_ms
    said = f"{goal:g}" if goal >= 1 else f"1/{round(1 / goal)}"
    missed = "" if ratio <= goal else "  !"
    print(f"{name:<44}{floor_ms:>10.2f}{ours_ms:>10.2f}{ratio:>9.3f}{said:>8}{missed}", flush=True)


def run(sql: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute(sql)
        if cursor.description:
            cursor.fetchall()


def timed(act: Callable[[], Any], times: int) -> float:
    """Milliseconds, the median."""
    return timed_all(act, times)[0]


def timed_all(act: Callable[[], Any], times: int) -> tuple[float, float]:
    act()
    spent = []
    for _nth in range(times):
        began = time.perf_counter()
        act()
        spent.append(time.perf_counter() - began)
    return figures(spent)


def figures(spent: list[float]) -> tuple[float, float]:
    """Milliseconds: the median, and what 95 of a hundred take at most."""
    ranked = sorted(spent)
    return 1000 * statistics.median(ranked), 1000 * ranked[-(-95 * len(ranked) // 100) - 1]


if __name__ == "__main__":
    main()

"""`/metrics`: what Prometheus reads of this process, and of the state that all processes share.

The state is read from the database when somebody asks, by a few statements of which each has an index and an end, and
is kept for `KEPT_S`; so scraping costs the database next to nothing, however many scrape how many processes. Every web
process says the same of it. Times and sums of calls are those of the last hour: rates for a whole life are a matter
of the database behind the scraper.
"""

import ipaddress
import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import groupby
from math import ceil
from typing import Any

import structlog
from django.conf import settings
from django.db import Error as DatabaseError
from django.db import connection
from django.db.models import Count, Sum
from django.http import Http404, HttpRequest, HttpResponse
from django.utils import timezone
from django.utils.crypto import constant_time_compare
from django.views.decorators.http import require_safe
from prometheus_client import Gauge, Metric
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from aleph import ids
from aleph.metrics import REGISTRY
from billing.models import AuditRound, GatewayEvent, TopUp
from chat import breakers, stream, viewers
from chat.models import Message, Route
from usage import calibration
from usage.models import TokenUsage

log = structlog.get_logger(__name__)

KEPT_S = 5.0
RECENT = timedelta(hours=1)
DAY = timedelta(days=1)
MOST_FLAGGED = 1000
MOST_CALLS = 20_000
"""Of more calls in the last hour the newest are looked at."""
FIRST_TEXT = timedelta(minutes=5)
MOST_FIRST_TEXTS = 2_000
QUANTILES = (0.5, 0.95)
MOST_MODELS = 40
"""Models with an operation, and models with a kind of text, that are told apart: each is a series for the scraper."""
OTHERS = "other"
CLASSES = ("fresh_input", "cache_read", "cache_write", "cache_write_1h", "visible_output", "reasoning")
MOST_ROUTES = 500
BREAKER = {"closed": 0, "half-open": 1, "open": 2}


@require_safe
def metrics(request: HttpRequest) -> HttpResponse:
    """What there is to know, in the format that the scraper asks for. Who may not read it finds nothing here."""
    if not may_scrape(request):
        raise Http404
    encode, content_type = choose_encoder(request.headers.get("Accept", ""))
    return HttpResponse(encode(REGISTRY), content_type=content_type, headers={"Cache-Control": "no-store"})


def may_scrape(request: HttpRequest) -> bool:
    """Whoever has the token; in development also whoever sits at this machine."""
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    if token:
        is_known = constant_time_compare(token.strip(), settings.METRICS_TOKEN)
        return bool(settings.METRICS_TOKEN) and scheme.lower() == "bearer" and is_known
    return settings.DEVELOPMENT and _is_this_machine(request.META.get("REMOTE_ADDR", ""))


def _is_this_machine(address: str) -> bool:
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return False


class SharedState(Collector):
    """What the database and Redis say, at most `kept_s` seconds old."""

    def __init__(self, *, kept_s: float = KEPT_S) -> None:
        self.kept_s = kept_s
        self._reading = threading.Lock()
        self._read_at = 0.0
        self._known: list[Metric] = []

    def collect(self) -> Iterable[Metric]:
        with self._reading:
            if not self._known or time.monotonic() - self._read_at > self.kept_s:
                self._known = [*_redis(), *_database()]
                self._read_at = time.monotonic()
            return self._known

    def describe(self) -> Iterable[Metric]:
        """Nothing is read to be registered."""
        return []


def _redis() -> Iterator[Metric]:
    is_up = stream.ping()
    yield _one("aleph_redis_up", "1 if Redis answers.", is_up)
    if is_up and (swept_at := stream.last_sweep()) is not None:
        yield _one("aleph_sweep_timestamp_seconds", "When a sweep last ran to its end.", swept_at)


def _database() -> Iterator[Metric]:
    """One after the other, so that a database that goes away takes no more than what was still to come."""
    try:
        for read in (_replies, _books, _topups, _calls, _estimates, _first_texts, _routes):
            yield from read()
    except DatabaseError as error:
        log.warning("the state cannot be read", error=str(error))
        yield _one("aleph_database_up", "1 if the database answers.", False)
    else:
        yield _one("aleph_database_up", "1 if the database answers.", True)


# States stand in the text, because SQLite finds a partial index only for what it reads there.
REPLIES = """
SELECT state, COUNT(*), MIN(COALESCE(lease_until, created_at)),
    COUNT(CASE WHEN hold_id <> '' THEN 1 END), SUM(held_tokens), MIN(CASE WHEN hold_id <> '' THEN created_at END),
    COUNT(CASE WHEN hold_id <> '' AND state = 'streaming' AND lease_until < %s THEN 1 END)
FROM chat_message WHERE state IN ('queued', 'streaming') GROUP BY state
"""


def _replies() -> Iterator[Metric]:
    now = timezone.now()
    found = {state: figures for state, *figures in _rows(REPLIES, [_stored(now)])}
    count = GaugeMetricFamily("aleph_open_replies", "Replies that are not over.", labels=["state"])
    for state in Message.OPEN:
        count.add_metric([state], found[state][0] if state in found else 0)
    yield count
    waiting = found[Message.State.QUEUED][1] if Message.State.QUEUED in found else None
    yield _age("aleph_oldest_queued_seconds", "How long the first reply in the queue waits.", waiting, now)
    replies = found.values()
    yield _one("aleph_open_holds", "Holds of open replies.", sum(row[2] for row in replies))
    yield _one("aleph_open_hold_tokens", "Tokens that open replies hold.", sum(row[3] for row in replies))
    oldest = min((row[4] for row in replies if row[4] is not None), default=None)
    yield _age("aleph_oldest_hold_seconds", "Age of the oldest hold of an open reply.", oldest, now)
    lost = sum(row[5] for row in replies)
    yield _one("aleph_holds_without_lease", "Holds of replies whose worker let its lease run out.", lost)


def _books() -> Iterator[Metric]:
    """What the last two rounds of the audit say: one is over, and one may be under way."""
    rounds = list(AuditRound.objects.order_by("-pk")[:2])
    drifted = max((found.drifted for found in rounds), default=0)
    yield _one(
        "aleph_drifted_accounts", "Accounts that the audit found to disagree with their transfers.", drifted
    )
    done = next((found for found in rounds if found.ended_at), None)
    if done is None or done.ended_at is None:
        return
    yield _one("aleph_audit_timestamp_seconds", "When the audit was last through.", done.ended_at.timestamp())
    yield _one(
        "aleph_audited_open_holds", "Holds that the books had open then, of all kinds.", done.open_holds
    )
    oldest = ids.moment_of(done.oldest_hold) if done.oldest_hold else None
    about = "Age of the oldest of these holds."
    yield _age("aleph_audited_oldest_hold_seconds", about, oldest, timezone.now())


def _topups() -> Iterator[Metric]:
    """Money on its way in: top-ups of the last day, what staff must look at, and notices that wait."""
    now = timezone.now()
    number = GaugeMetricFamily(
        "aleph_recent_topups", "Top-ups begun in the last 24 hours.", labels=["gateway", "state"]
    )
    rupiah = GaugeMetricFamily("aleph_recent_topup_rupiah", "Their amounts.", labels=["gateway", "state"])
    recent = TopUp.objects.filter(pk__gte=ids.first("top", now - DAY)).values("gateway", "state")
    for row in recent.annotate(number=Count("pk"), rupiah=Sum("amount_idr")).order_by("gateway", "state"):
        number.add_metric([row["gateway"], row["state"]], row["number"])
        rupiah.add_metric([row["gateway"], row["state"]], row["rupiah"])
    yield from (number, rupiah)
    flagged = TopUp.objects.exclude(flag="")[:MOST_FLAGGED].count()
    yield _one("aleph_flagged_topups", "Top-ups that need a person.", flagged)
    waiting = (
        GatewayEvent.objects.filter(handled_at=None).order_by("pk").values_list("received_at", flat=True)
    )
    about = "How long the first notice of a gateway waits for its answer."
    yield _age("aleph_oldest_gateway_event_seconds", about, waiting.first(), now)


# SQLite knows the arrow since 3.38 only.
ABSORBED = {
    "postgresql": "CAST(metadata ->> 'absorbed_tokens' AS bigint)",
    "sqlite": "json_extract(metadata, '$.absorbed_tokens')",
}
CALLS = f"""
SELECT provider, requested_model, operation, status, COUNT(*),
    COUNT(CASE WHEN source IN ('partial', 'estimated') THEN 1 END), COUNT(CASE WHEN flagged THEN 1 END),
    COUNT(CASE WHEN price_id IS NULL AND total_tokens > 0 THEN 1 END), SUM(total_cost_usd), SUM({{absorbed}}),
    SUM(fresh_input_tokens), SUM(cache_read_tokens), SUM(cache_write_tokens), SUM(cache_write_1h_tokens),
    SUM(visible_output_tokens), SUM(reasoning_tokens), SUM(latency_ms), COUNT(latency_ms),
    COUNT(CASE WHEN attempt > 1 THEN 1 END)
FROM (
    SELECT * FROM usage_tokenusage WHERE id >= %s ORDER BY id DESC LIMIT {MOST_CALLS}
) recent GROUP BY provider, requested_model, operation, status ORDER BY provider, requested_model, operation, status
"""  # noqa: S608


@dataclass(slots=True)
class Calls:
    """Calls of one provider, model, operation and status, added up."""

    provider: str
    model: str
    operation: str
    status: str
    number: int
    estimated: int
    flagged: int
    unpriced: int
    cost_usd: Decimal | float | None
    absorbed_tokens: int | None
    fresh_input: int | None
    cache_read: int | None
    cache_write: int | None
    cache_write_1h: int | None
    visible_output: int | None
    reasoning: int | None
    latency_ms: int | None
    timed: int
    second: int

    @property
    def of_model(self) -> tuple[str, str, str]:
        return self.provider, self.model, self.operation


def _calls() -> Iterator[Metric]:
    sql = CALLS.format(absorbed=ABSORBED[connection.vendor])
    rows = [Calls(*row) for row in _rows(sql, [ids.first("use", timezone.now() - RECENT)])]
    yield from _calls_by_provider(rows)
    yield from _calls_by_model(rows)


def _calls_by_provider(rows: list[Calls]) -> Iterator[Metric]:
    calls = GaugeMetricFamily(
        "aleph_recent_calls", "Calls to providers in the last hour.", labels=["provider", "status"]
    )
    estimated = GaugeMetricFamily(
        "aleph_estimated_ratio", "Part of these calls that nobody counted for us.", labels=["provider"]
    )
    flagged = GaugeMetricFamily(
        "aleph_flagged_calls", "Those of them whose counts contradict each other.", labels=["provider"]
    )
    unpriced = GaugeMetricFamily(
        "aleph_unpriced_calls", "Those of them that nobody could price.", labels=["provider"]
    )
    usd = GaugeMetricFamily(
        "aleph_absorbed_usd", "Cost of these calls that nobody pays.", labels=["provider", "status"]
    )
    tokens = GaugeMetricFamily(
        "aleph_absorbed_tokens", "Tokens that these calls cost above what was held.", labels=["provider"]
    )
    second = GaugeMetricFamily(
        "aleph_recent_second_calls", "Those of them that followed one that had failed.", labels=["provider"]
    )
    for provider, of_provider in groupby(rows, lambda row: row.provider):
        mine = list(of_provider)
        for status in sorted({row.status for row in mine}):
            alike = [row for row in mine if row.status == status]
            calls.add_metric([provider, status], sum(row.number for row in alike))
            if status in (TokenUsage.Status.FAILED, TokenUsage.Status.INTERRUPTED):
                usd.add_metric([provider, status], sum(float(row.cost_usd or 0) for row in alike))
        number = sum(row.number for row in mine)
        estimated.add_metric([provider], sum(row.estimated for row in mine) / number)
        flagged.add_metric([provider], sum(row.flagged for row in mine))
        unpriced.add_metric([provider], sum(row.unpriced for row in mine))
        tokens.add_metric([provider], sum(int(row.absorbed_tokens or 0) for row in mine))
        second.add_metric([provider], sum(row.second for row in mine))
    yield from (calls, estimated, flagged, unpriced, usd, tokens, second)


def _calls_by_model(rows: list[Calls]) -> Iterator[Metric]:
    """By provider, model and operation: those called most; the others of a provider are one, so that labels are few."""
    labels = ["provider", "model", "operation"]
    calls = GaugeMetricFamily(
        "aleph_recent_model_calls", "Calls in the last hour, by model.", labels=[*labels, "status"]
    )
    tokens = GaugeMetricFamily(
        "aleph_recent_llm_tokens", "LLM tokens of these calls, by class.", labels=[*labels, "class"]
    )
    usd = GaugeMetricFamily("aleph_recent_cost_usd", "What these calls cost us.", labels=labels)
    seconds = GaugeMetricFamily("aleph_recent_call_seconds", "How long they took on average.", labels=labels)
    numbers: Counter[tuple[str, str, str]] = Counter()
    for row in rows:
        numbers[row.of_model] += row.number
    told_apart = {name for name, _number in numbers.most_common(MOST_MODELS)}
    groups: dict[tuple[str, str, str], list[Calls]] = {}
    for row in rows:
        name = row.of_model if row.of_model in told_apart else (row.provider, OTHERS, OTHERS)
        groups.setdefault(name, []).append(row)
    for name, mine in groups.items():
        for status in sorted({row.status for row in mine}):
            calls.add_metric([*name, status], sum(row.number for row in mine if row.status == status))
        for each in CLASSES:
            tokens.add_metric([*name, each], sum(getattr(row, each) or 0 for row in mine))
        usd.add_metric([*name], sum(float(row.cost_usd or 0) for row in mine))
        if timed := sum(row.timed for row in mine):
            seconds.add_metric([*name], sum(row.latency_ms or 0 for row in mine) / timed / 1000)
    yield from (calls, tokens, usd, seconds)


def _estimates() -> Iterator[Metric]:
    labels = ["model", "kind"]
    errors = GaugeMetricFamily(
        "aleph_estimate_error_ratio",
        "How far estimates are off, of the newest observations of a model and kind of text.",
        labels=[*labels, "quantile"],
    )
    exceeded = GaugeMetricFamily(
        "aleph_estimate_exceeded_ratio",
        "Part of all observations that were above what a reservation takes.",
        labels=labels,
    )
    for found in calibration.accuracies(most=MOST_MODELS):
        errors.add_metric([found.model, found.kind, "0.5"], found.median / 1000)
        errors.add_metric([found.model, found.kind, "0.95"], found.p95 / 1000)
        exceeded.add_metric([found.model, found.kind], found.exceeded / max(1, found.observations))
    yield from (errors, exceeded)


def _routes() -> Iterator[Metric]:
    """By the names of the providers' models: one of few, as staff have entered them."""
    family = GaugeMetricFamily(
        "aleph_route_breaker",
        "0 where calls go by this route, 1 where one may try it, 2 where it is left alone.",
        labels=["provider", "model"],
    )
    ways = Route.objects.filter(is_enabled=True).values_list("provider", "upstream_model").distinct()
    found = list(ways.order_by("provider", "upstream_model")[:MOST_ROUTES])
    names = [f"{provider}/{model}" for provider, model in found]
    for labels, health in zip(found, breakers.health(names), strict=True):
        family.add_metric(labels, BREAKER[health.state])
    yield family


def _first_texts() -> Iterator[Metric]:
    rows = (
        TokenUsage.objects.filter(pk__gte=ids.first("use", timezone.now() - FIRST_TEXT))
        .exclude(first_token_ms=None)
        .order_by("-pk")
        .values_list("provider", "first_token_ms")[:MOST_FIRST_TEXTS]
    )
    family = GaugeMetricFamily(
        "aleph_first_text_seconds",
        "How long providers took to the first text, of the calls of the last five minutes.",
        labels=["provider", "quantile"],
    )
    for provider, of_provider in groupby(sorted(rows), lambda row: row[0]):
        waits_ms = [wait_ms or 0 for _, wait_ms in of_provider]
        for quantile in QUANTILES:
            nearest = waits_ms[ceil(quantile * len(waits_ms)) - 1]
            family.add_metric([provider, str(quantile)], nearest / 1000)
    yield family


def _one(name: str, about: str, value: float) -> Metric:
    return GaugeMetricFamily(name, about, value=float(value))


def _age(name: str, about: str, since: datetime | str | None, now: datetime) -> Metric:
    """Seconds since a moment; 0 where there is none."""
    if isinstance(since, str):
        since = datetime.fromisoformat(since).replace(tzinfo=UTC)
    return _one(name, about, max(0.0, (now - since).total_seconds()) if since else 0.0)


def _stored(moment: datetime) -> Any:
    """A moment as statements of our own compare it with what Django has stored."""
    return connection.ops.adapt_datetimefield_value(moment)


def _rows(sql: str, params: list[Any]) -> list[tuple[Any, ...]]:
    with connection.cursor() as cursor:
        cursor.execute(sql, params)
        return cursor.fetchall()


Gauge("aleph_open_streams", "Live streams that this process sends.", registry=REGISTRY).set_function(
    viewers.count_all
)
REGISTRY.register(SharedState())

"""How often somebody may do what costs something, and how much of it at once. Counted in Redis, for all processes.

A rate such as ``20/m/user`` allows twenty within any minute, to an account; ``60/m/ip`` to an address, and a guest's
account is his address. It is exact: the moments of the last twenty are kept, by the clock of Redis. What is refused is
not counted, so whoever waits as long as he was told gets through. However many rates an action has, it costs one round
trip.

A *slot* is one of the few things of a kind that an account may have open at once. It lasts `SLOT_S` and is renewed, so
that a process that was killed holds none for long.

Where Redis does not answer, what only costs work goes on uncounted, and what moves money waits (`CLOSED`).
"""

import ipaddress
import re
import secrets
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import redis
import structlog
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured, PermissionDenied
from django.http import HttpRequest
from django.utils.translation import ngettext
from redis.commands.core import Script

from aleph.problems import Busy, RateLimited, Response

log = structlog.get_logger(__name__)

CLOSED = frozenset({"promo", "purchase", "topup"})
"""Actions that are refused while nobody can count them."""
PATIENCE_S = 1.0
AWAY_S = 2.0
"""After a fault Redis is left alone for this long, so that a hanging one does not slow down every request."""
SLOT_S = 90.0
FULL_WAIT_S = 5
"""When to try again for a slot; nobody knows when one becomes free."""
FAULTS = (redis.RedisError, OSError)
CannotCount = redis.RedisError
"""What Django's cache raises to those who count in it, allauth that is, where Redis does not answer."""

WINDOWS_S = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_RATE = re.compile(r"([1-9]\d{0,8})/(\d{0,5})([smhd])/(user|ip)")

# KEYS: one list for each rate, of the moments that count, newest first; then the sorted set of slots, where one is taken.
# ARGV: the slot's id or nothing; for each key how many and for how long (ms).
# Answers: 1 if allowed; which key refused, or is the nearest to refusing; how many are left there; ms until it has one
# more.
_TAKE = """
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local slot = ARGV[1]
local rates = #KEYS
if slot ~= '' then rates = rates - 1 end
local refused, wait = 0, -1
local tightest, left, free_in = 0, 0, 0
for i = 1, rates do
  local most, window = tonumber(ARGV[2 * i]), tonumber(ARGV[2 * i + 1])
  local oldest = redis.call('LINDEX', KEYS[i], -1)
  while oldest and now - oldest >= window do
    redis.call('RPOP', KEYS[i])
    oldest = redis.call('LINDEX', KEYS[i], -1)
  end
  local remaining = most - redis.call('LLEN', KEYS[i])
  local until_free = window
  if oldest then until_free = oldest + window - now end
  if remaining <= 0 and until_free > wait then refused, wait = i, until_free end
  if tightest == 0 or remaining < left then tightest, left, free_in = i, remaining, until_free end
end
if slot ~= '' then
  local i = #KEYS
  redis.call('ZREMRANGEBYSCORE', KEYS[i], '-inf', now)
  if redis.call('ZCARD', KEYS[i]) >= tonumber(ARGV[2 * i]) and wait < 0 then refused, wait = i, 0 end
end
if refused > 0 then return {0, refused, 0, wait} end
for i = 1, rates do
  redis.call('LPUSH', KEYS[i], now)
  redis.call('PEXPIRE', KEYS[i], ARGV[2 * i + 1])
end
if slot ~= '' then
  local i = #KEYS
  redis.call('ZADD', KEYS[i], now + ARGV[2 * i + 1], slot)
  redis.call('PEXPIRE', KEYS[i], ARGV[2 * i + 1])
end
return {1, tightest, left - 1, free_in}
"""

# KEYS: sorted sets of slots. ARGV: for how long (ms), then the id of a slot for each key.
_RENEW = """
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
for i, key in ipairs(KEYS) do
  redis.call('ZADD', key, 'XX', now + ARGV[1], ARGV[i + 1])
  redis.call('PEXPIRE', key, ARGV[1])
end
"""

_FREE = "redis.call('ZREM', KEYS[1], ARGV[1])"


@dataclass(frozen=True, slots=True)
class Rate:
    """`most` within `window_s` seconds, `per` user or ip."""

    most: int
    window_s: int
    per: str

    def __str__(self) -> str:
        return f"{self.most}/{self.window_s}s/{self.per}"


@dataclass(frozen=True, slots=True)
class Allowance:
    """What is left of the rate that is nearest to its end: how many, and seconds until there is one more."""

    most: int
    remaining: int
    more_in_s: int


@dataclass(frozen=True, slots=True)
class Slot:
    """One of the `most` things of a `kind` that an account may have open."""

    kind: str
    user_id: int
    most: int
    id: str = field(default_factory=lambda: secrets.token_hex(8))

    @property
    def key(self) -> str:
        return f"{settings.REDIS_PREFIX}slots:{self.kind}:{self.user_id}"


def parsed(text: str) -> tuple[Rate, ...]:
    """The rates of a setting: ``20/m/user, 60/m/ip``; windows are ``s``, ``m``, ``h``, ``d``, also ``10m``. None for an
    empty one. Raises `ImproperlyConfigured`."""
    rates = []
    for part in filter(None, (part.strip() for part in text.split(","))):
        found = _RATE.fullmatch(part)
        if found is None or found[2].startswith("0"):
            raise ImproperlyConfigured(f"{part!r} is no rate; write it like 20/m/user or 60/10m/ip.")
        rates.append(Rate(int(found[1]), int(found[2] or 1) * WINDOWS_S[found[3]], found[4]))
    return tuple(rates)


def take(request: HttpRequest, *actions: str, slot: Slot | None = None) -> Allowance | None:
    """Count one more of each of `actions` (names in ``RATE_LIMITS``) for whoever asks, and take `slot`: all or nothing.

    Raises `RateLimited`; `Busy` where nobody can count and an action is `CLOSED`. None where nothing was counted.
    """
    keys: list[str] = []
    amounts: list[int] = []
    limits: list[tuple[str, Rate | None]] = []
    for action in actions:
        for rate in settings.RATE_LIMITS[action]:
            who = _subject(request, rate.per)
            if who:
                keys.append(f"{settings.REDIS_PREFIX}rate:{action}:{rate.window_s}:{who}")
                amounts += [rate.most, rate.window_s * 1000]
                limits.append((action, rate))
    if slot is not None:
        keys.append(slot.key)
        amounts += [slot.most, int(SLOT_S * 1000)]
        limits.append((slot.kind, None))
    if not keys:
        return None
    must = not CLOSED.isdisjoint(actions)
    answer = _ask(_TAKE, keys, [slot.id if slot else "", *amounts], must=must)
    if answer is None:
        if must:
            raise Busy(retry_after_s=int(AWAY_S))
        return None
    is_allowed, at, left, wait_ms = answer
    action, nearest = limits[at - 1] if at else ("", None)
    wait_s = max(1, -(-wait_ms // 1000)) if nearest else FULL_WAIT_S
    if not is_allowed:
        raise _refused(request, action, nearest, wait_s=wait_s)
    return Allowance(nearest.most, left, wait_s) if nearest else None


def noted(response: Response, left: Allowance | None) -> Response:
    """`response` with what is left in the headers that programs know."""
    if left is not None:
        response["RateLimit-Limit"] = str(left.most)
        response["RateLimit-Remaining"] = str(left.remaining)
        response["RateLimit-Reset"] = str(left.more_in_s)
    return response


def renew(slots: Iterable[Slot]) -> None:
    """Keep slots for another `SLOT_S`. One that was given back meanwhile stays so."""
    kept = list(slots)
    if kept:
        _ask(_RENEW, [slot.key for slot in kept], [int(SLOT_S * 1000), *(slot.id for slot in kept)])


def free(slot: Slot) -> None:
    """Give a slot back. Where Redis does not answer, it runs out by itself."""
    _ask(_FREE, [slot.key], [slot.id])


def address_of(request: HttpRequest) -> str:
    """The address that a request comes from, of IPv6 the network that one customer has; "" where nobody can tell."""
    # The settings read this module before there are apps.
    from allauth.account.adapter import get_adapter

    try:
        address = ipaddress.ip_address(get_adapter().get_client_ip(getattr(request, "_request", request)))
    except (PermissionDenied, ValueError):
        return ""
    if isinstance(address, ipaddress.IPv6Address):
        return str(ipaddress.ip_network((address, 64), strict=False).network_address)
    return str(address)


def note_refusal(request: HttpRequest, limit: str, **more: Any) -> None:
    """A limit that was reached is a matter of security, and is logged as such."""
    user = getattr(request, "user", None)
    log.warning(
        "a limit was reached",
        limit=limit,
        user_id=user.pk if user is not None else None,
        ip=address_of(request),
        **more,
    )


def _subject(request: HttpRequest, per: str) -> str:
    if per == "user" and request.user.is_authenticated:
        return f"user:{request.user.pk}"
    address = address_of(request)
    return address and f"ip:{address}"


def _refused(request: HttpRequest, action: str, rate: Rate | None, *, wait_s: int) -> RateLimited:
    note_refusal(request, action, rate=str(rate) if rate else "at once")
    return RateLimited(_words(wait_s), data={"limit": action}, retry_after_s=wait_s)


def _words(wait_s: int) -> str:
    if wait_s < 100:
        text = ngettext(
            "Too many requests. Please try again in %(count)s second.",
            "Too many requests. Please try again in %(count)s seconds.",
            wait_s,
        )
        return text % {"count": wait_s}
    minutes = -(-wait_s // 60)
    if minutes < 100:
        text = ngettext(
            "Too many requests. Please try again in %(count)s minute.",
            "Too many requests. Please try again in %(count)s minutes.",
            minutes,
        )
        return text % {"count": minutes}
    hours = -(-minutes // 60)
    text = ngettext(
        "Too many requests. Please try again in %(count)s hour.",
        "Too many requests. Please try again in %(count)s hours.",
        hours,
    )
    return text % {"count": hours}


@cache
def _client(url: str) -> redis.Redis:
    return redis.Redis.from_url(url, socket_timeout=PATIENCE_S, socket_connect_timeout=PATIENCE_S)


@cache
def _script(url: str, source: str) -> Script:
    return _client(url).register_script(source)


_away_until = 0.0


def _ask(source: str, keys: list[str], arguments: list[Any], *, must: bool = False) -> Any:
    """What a script answers; None where Redis does not. Unless it `must` be asked, a Redis that has just failed is not."""
    global _away_until
    if not must and time.monotonic() < _away_until:
        return None
    try:
        return _script(settings.REDIS_URL, source)(keys=keys, args=arguments)
    except FAULTS as error:
        _away_until = time.monotonic() + AWAY_S
        log.warning("limits cannot be counted", error=str(error), closed=must)
        return None

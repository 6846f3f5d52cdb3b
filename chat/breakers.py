"""Circuit breakers of routes: one that keeps failing is left alone for a while, by all workers together.

    closed → (FAILURES in a row) → open → (the wait is over: one call may try) half-open → closed, or open for longer

The state stands in Redis, one hash for each route by its name (`Route.__str__`), so that two models which share a way
share what is known of it; it is forgotten `FORGET_S` after the last failure, or after the wait. Redis is asked through
`chat.stream`. Where it does not answer, every breaker is closed: a reply is tried, as if there were none.

`chat.replies` asks and tells; the administration and the metrics look.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import structlog
from django.conf import settings

from chat import stream
from chat.providers.base import Kind

log = structlog.get_logger(__name__)

OPEN_S, LONGEST_OPEN_S = 15, 240
"""The first wait, and what it grows to by doubling while its probes fail."""
PROBE_S = 30
"""For so long one call probes alone. Then another may, lest a probe that was lost closes a route for ever."""
FORGET_S = 120
AWAY_S = 5.0
"""After a fault Redis is left alone for this long, so that a hanging one does not slow down every reply."""

# KEYS: the breakers of the routes, in the order in which they are to be asked. ARGV: how long a probe lasts, and until
# it is forgotten (ms).
# Answers: which one may be asked (0: none), its failures so far, and if none, ms until one may.
_ADMIT = """
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local soonest = -1
for i, key in ipairs(KEYS) do
  local found = redis.call('HMGET', key, 'failures', 'open_until', 'probe_until')
  local wait = 0
  if found[2] then
    wait = math.max(tonumber(found[2]), tonumber(found[3] or '0')) - now
  end
  if wait <= 0 then
    if found[2] then
      redis.call('HSET', key, 'probe_until', now + ARGV[1])
      redis.call('PEXPIRE', key, ARGV[1] + ARGV[2])
    end
    return {i, tonumber(found[1] or '0'), 0}
  end
  if soonest < 0 or wait < soonest then soonest = wait end
end
return {0, 0, soonest}
"""

# KEYS: a breaker. ARGV: how many failures open it; the first wait, the longest, and until it is forgotten (ms); the kind of
# this failure.
# Answers for how many ms it was opened by this failure; 0 if it was not.
_FAILED = """
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local failures = redis.call('HINCRBY', KEYS[1], 'failures', 1)
redis.call('HSET', KEYS[1], 'kind', ARGV[5])
local open_until = tonumber(redis.call('HGET', KEYS[1], 'open_until') or '0')
if now < open_until then return 0 end
if open_until == 0 and failures < tonumber(ARGV[1]) then
  redis.call('PEXPIRE', KEYS[1], ARGV[4])
  return 0
end
local opened = tonumber(redis.call('HGET', KEYS[1], 'opened') or '0')
local wait = math.min(ARGV[2] * 2 ^ opened, tonumber(ARGV[3]))
redis.call('HSET', KEYS[1], 'open_until', now + wait, 'opened', opened + 1)
redis.call('HDEL', KEYS[1], 'probe_until')
redis.call('PEXPIRE', KEYS[1], wait + ARGV[4])
return wait
"""

# KEYS: breakers. Answers for each its failures, ms until it may be tried (-1 where it is closed), and the last kind.
_LOOK = """
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local answer = {}
for i, key in ipairs(KEYS) do
  local found = redis.call('HMGET', key, 'failures', 'open_until', 'kind')
  local wait = -1
  if found[2] then wait = math.max(0, tonumber(found[2]) - now) end
  answer[i] = {tonumber(found[1] or '0'), wait, found[3] or ''}
end
return answer
"""

_WORKED = "redis.call('DEL', KEYS[1])"


@dataclass(frozen=True, slots=True)
class Admission:
    """Which of the routes may be asked (`at`), with the failures that it has behind it; or, where all are left alone,
    None and for how many seconds."""

    at: int | None
    failures: int = 0
    wait_s: int = 0


@dataclass(frozen=True, slots=True)
class Health:
    """What is known of a route. `open_s`: for how much longer it is left alone; `kind`: of its last failure, "" for none."""

    state: Literal["closed", "half-open", "open"]
    failures: int = 0
    open_s: int = 0
    kind: str = ""


def admit(routes: Sequence[str]) -> Admission:
    """The first of these routes that may be asked now. Where its breaker is half-open, this call is the probe."""
    answer = _ask(_ADMIT, routes, PROBE_S * 1000, FORGET_S * 1000)
    if answer is None:
        return Admission(0)
    at, failures, wait_ms = answer
    return Admission(at - 1, failures) if at else Admission(None, wait_s=max(1, -(-wait_ms // 1000)))


def worked(route: str, *, failures: int) -> None:
    """A call has brought some text. `failures`: those that it was admitted with; without any there is nothing to forget."""
    if failures:
        _ask(_WORKED, [route])


def failed(route: str, *, kind: Kind, at_once: bool = False) -> None:
    """A call failed by a fault of the route's, not of the question's. `at_once`: it is left alone from this failure on."""
    waits_ms = (OPEN_S * 1000, LONGEST_OPEN_S * 1000, FORGET_S * 1000)
    opened_ms = _ask(_FAILED, [route], 1 if at_once else settings.ROUTE_FAILURES, *waits_ms, kind)
    if opened_ms:
        log.warning("a route is left alone", route=route, seconds=opened_ms // 1000, kind=kind)


def health(routes: Sequence[str]) -> list[Health]:
    """How the routes are. All of them well where Redis does not answer."""
    answer = _ask(_LOOK, routes) if routes else []
    if answer is None:
        return [Health("closed") for _route in routes]
    return [_health(failures, wait_ms, kind) for failures, wait_ms, kind in answer]


def _health(failures: int, wait_ms: int, kind: bytes) -> Health:
    if wait_ms < 0:
        return Health("closed", failures, kind=kind.decode())
    return Health("open" if wait_ms else "half-open", failures, -(-wait_ms // 1000), kind.decode())


_away_until = 0.0


def _ask(source: str, routes: Sequence[str], *arguments: int | str) -> Any:
    """What a script answers; None where Redis does not, which then is not asked for a moment."""
    global _away_until
    if time.monotonic() < _away_until:
        return None
    try:
        keys = [f"{settings.REDIS_PREFIX}breaker:{route}" for route in routes]
        return stream.script(source)(keys=keys, args=arguments)
    except stream.FAULTS as error:
        _away_until = time.monotonic() + AWAY_S
        log.warning("breakers cannot be asked", error=str(error))
        return None

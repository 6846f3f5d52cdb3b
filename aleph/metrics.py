"""What this process counts for Prometheus. `aleph.scrape` gives it out, together with the state that all processes share.

Knows no models, so that the web process may read it before Django is set up.
"""

from django.conf import settings
from django.http import HttpRequest
from django.http.response import HttpResponseBase
from prometheus_client import CollectorRegistry, Counter, Histogram, ProcessCollector

REGISTRY = CollectorRegistry()
ProcessCollector(registry=REGISTRY)

ANSWERS = Counter(
    "aleph_http_requests",
    "HTTP requests that this process has answered, by route and class of status.",
    ["route", "status"],
    registry=REGISTRY,
)
SECONDS = Histogram(
    "aleph_http_request_seconds",
    "Time until a request was answered; of a stream, until it began.",
    ["route"],
    buckets=(0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10, 60),
    registry=REGISTRY,
)


def note(request: HttpRequest, response: HttpResponseBase, seconds: float) -> None:
    """Count an answered request. A few microseconds; in any thread."""
    route = route_of(request)
    ANSWERS.labels(route, f"{response.status_code // 100}xx").inc()
    SECONDS.labels(route).observe(seconds)


def route_of(request: HttpRequest) -> str:
    """The name of the address that a request found: one of few, whatever people type."""
    match = request.resolver_match
    if match is None:
        return "static" if request.path.startswith(settings.STATIC_URL) else "unknown"
    return "admin" if match.namespaces[:1] == ["admin"] else match.view_name

"""Where gateways tell us that something happened. Each has an address of its own, ``/webhooks/<gateway>``.

A notice is believed by its signature alone, kept, and answered at once; what it leads to is `billing.topups`' work. A
wrong signature is 401, what cannot be read 400, what is too long 413; what we do not know is 200, so that nobody sends
it for ever. Only our own failures are 5xx.
"""

import structlog
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.views.decorators.cache import never_cache
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_POST

from aleph import rates
from aleph.problems import RateLimited, noting_delay
from billing import topups
from billing.gateways.base import Forged, Unreadable

log = structlog.get_logger(__name__)

LONGEST = 64 * 1024


@csrf_exempt
@require_POST
@never_cache
def notices(request: HttpRequest, gateway: str) -> HttpResponse:
    found = topups.connected().all.get(gateway)
    if found is None:
        return _refused("unknown", 404)
    try:
        rates.take(request, "webhook")
    except RateLimited as problem:
        return noting_delay(_refused("slow down", 429), problem)
    body = request.read(LONGEST + 1)
    if len(body) > LONGEST:
        return _refused("too long", 413)
    try:
        event = found.parse_webhook(request.headers, body)
    except Forged:
        log.warning("a notice was not signed by its gateway", gateway=gateway, ip=rates.address_of(request))
        return _refused("wrong signature", 401)
    except Unreadable:
        log.warning("a notice cannot be read", gateway=gateway, ip=rates.address_of(request))
        return _refused("unreadable", 400)
    topups.note(gateway=gateway, event=event)
    return JsonResponse({"received": True})


def _refused(why: str, status: int) -> HttpResponse:
    return JsonResponse({"received": False, "error": why}, status=status)

"""Each signed-in person sees times in his own time zone."""

import zoneinfo

from django.http import HttpRequest
from django.utils import timezone
from django.utils.deprecation import MiddlewareMixin


class TimeZoneMiddleware(MiddlewareMixin):
    """Activates the user's time zone where a session exists; programs and guests get the default."""

    def process_request(self, request: HttpRequest) -> None:
        user = request.user if request.session.session_key else None
        if user is not None and user.is_authenticated:
            timezone.activate(zoneinfo.ZoneInfo(user.time_zone))
        else:
            timezone.deactivate()

"""The product's addresses, and some whose views break, so that tests can see what people are told then."""

from django.db import OperationalError
from django.http import HttpRequest, HttpResponse
from django.urls import path

from aleph import urls

handler400 = urls.handler400
handler403 = urls.handler403
handler404 = urls.handler404
handler429 = urls.handler429
handler500 = urls.handler500


def broken(request: HttpRequest) -> HttpResponse:
    raise RuntimeError("the kettle boiled over")


def silent_database(request: HttpRequest) -> HttpResponse:
    raise OperationalError("the kettle does not answer")


urlpatterns = [
    path("broken", broken),
    path("api/broken", broken),
    path("silent-database", silent_database),
    *urls.urlpatterns,
]

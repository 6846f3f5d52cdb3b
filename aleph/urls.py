"""Every address of the product."""

from django.contrib import admin
from django.urls import URLPattern, URLResolver, include, path, re_path
from drf_spectacular.renderers import OpenApiJsonRenderer, OpenApiJsonRenderer2
from drf_spectacular.views import SpectacularJSONAPIView
from rest_framework.permissions import AllowAny

from aleph import api, docs, health, scrape

urlpatterns: list[URLPattern | URLResolver] = [
    path("healthz", health.healthz, name="healthz"),
    path("readyz", health.readyz, name="readyz"),
    path("metrics", scrape.metrics, name="metrics"),
    path("api/v1/chat/", include("chat.api_urls")),
    path(
        "api/schema/",
        SpectacularJSONAPIView.as_view(
            renderer_classes=[OpenApiJsonRenderer2, OpenApiJsonRenderer],
            permission_classes=[AllowAny],
            authentication_classes=[],
        ),
        name="schema",
    ),
    path("api/docs/", docs.api_docs, name="api-docs"),
    re_path(r"^api/", api.not_found),
    path("admin/", admin.site.urls),
    path("accounts/", include("allauth.urls")),
    path("", include("aleph.accounts.urls")),
    path("", include("billing.urls")),
    path("", include("usage.urls")),
    path("", include("chat.urls")),
]

handler400 = "aleph.views.bad_request"
handler403 = "aleph.views.forbidden"
handler404 = "aleph.views.not_found"
handler429 = "aleph.views.too_many"
handler500 = "aleph.views.fault"

"""Every address of the product."""

from django.contrib import admin
from django.urls import URLPattern, URLResolver, include, path, re_path
from drf_spectacular.renderers import OpenApiJsonRenderer, OpenApiJsonRenderer2
from drf_spectacular.views import SpectacularJSONAPIView
from rest_framework.permissions import AllowAny

from aleph import api, docs, health, live_figures, monthly, personal_pages, scrape, suggestions, usage_events
from billing import office, transactions_api
from chat import token_api

urlpatterns: list[URLPattern | URLResolver] = [
    path("healthz", health.healthz, name="healthz"),
    path("readyz", health.readyz, name="readyz"),
    path("metrics", scrape.metrics, name="metrics"),
    path("api/v1/chat/", include("chat.api_urls")),
    path("api/v1/wallet/", include("billing.api_urls")),
    path("api/v1/usage/events", usage_events.EventsView.as_view(), name="usage-events"),
    path("api/", include("usage.api_urls")),
    path("api/v1/estimate-tokens", token_api.EstimateView.as_view(), name="estimate-tokens"),
    path("api/v1/token-info", token_api.InfoView.as_view(), name="token-info"),
    # Where source S1 has them; the OpenAPI document names them once.
    path("estimate-tokens", token_api.EstimateView.as_view(schema=None)),
    path("token-info", token_api.InfoView.as_view(schema=None)),
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
    path("api/v1/billing/transactions", transactions_api.TransactionsView.as_view(), name="transactions"),
    re_path(r"^api/", api.not_found),
    path("admin/money/", office.overview, name="money_figures"),
    path("admin/money/search/", office.search, name="money_search"),
    path("admin/", admin.site.urls),
    path("accounts/", include("allauth.urls")),
    path("settings/data", personal_pages.home, name="personal_data"),
    path("settings/data/exports", personal_pages.ask, name="exports"),
    path("settings/data/exports/<str:export_id>", personal_pages.fetch, name="export"),
    path("settings/data/erasure", personal_pages.erase, name="erasure"),
    path("", include("aleph.accounts.urls")),
    path("billing/statements", monthly.page, name="statement"),
    path("billing/statements/<str:month>", monthly.page, name="statement_of"),
    path("billing/statements/<str:month>/csv", monthly.as_csv, name="statement_csv"),
    path("billing/statements/<str:month>/pdf", monthly.as_pdf, name="statement_pdf"),
    path("", include("billing.urls")),
    path("usage/figures", live_figures.stream, name="figures"),
    path("usage/suggestions", suggestions.page, name="suggestions"),
    path("usage/suggestions/unwanted", suggestions.unwanted, name="unwanted"),
    path("", include("usage.urls")),
    path("", include("chat.urls")),
]

handler400 = "aleph.views.bad_request"
handler403 = "aleph.views.forbidden"
handler404 = "aleph.views.not_found"
handler429 = "aleph.views.too_many"
handler500 = "aleph.views.fault"

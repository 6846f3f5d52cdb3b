"""The addresses of the billing pages."""

from django.urls import path

from billing import history, hook_pages, inbox, refill_pages, sandbox, topup_pages, views, webhooks

app_name = "billing"
urlpatterns = [
    path("billing", views.home, name="home"),
    path("billing/history", history.page, name="history"),
    path("billing/history.csv", history.as_csv, name="history-csv"),
    path("billing/notices", inbox.page, name="notices"),
    path("billing/notices/readings", inbox.readings, name="readings"),
    path("billing/notices/wishes", inbox.wishes, name="wishes"),
    path("billing/packages/<slug:slug>", views.confirm, name="confirm"),
    path("billing/refill", refill_pages.page, name="refill"),
    path("billing/refill/settings", refill_pages.settings, name="refill-settings"),
    path("billing/refill/stops", refill_pages.stops, name="refill-stops"),
    path("billing/purchases", views.purchases, name="purchases"),
    path("billing/purchases/<str:purchase_id>.pdf", views.receipt_as_pdf, name="receipt-pdf"),
    path("billing/purchases/<str:purchase_id>", views.receipt, name="receipt"),
    path("billing/top-up", topup_pages.form, name="topup_form"),
    path("billing/topups", topup_pages.topup_list, name="topups"),
    path("billing/topups/<str:topup_id>", topup_pages.topup, name="topup"),
    path("billing/topups/<str:topup_id>/pay", topup_pages.way_out, name="topup_pay"),
    path("billing/topups/<str:topup_id>/state", topup_pages.state, name="topup_state"),
    path("billing/topups/<str:topup_id>/checks", topup_pages.checks, name="topup_checks"),
    path("settings/webhooks", hook_pages.endpoints, name="endpoints"),
    path("settings/webhooks/<str:endpoint_id>", hook_pages.endpoint, name="endpoint"),
    path("settings/webhooks/<str:endpoint_id>/choices", hook_pages.choose, name="endpoint-choices"),
    path("settings/webhooks/<str:endpoint_id>/secrets", hook_pages.rotate, name="endpoint-secrets"),
    path("settings/webhooks/<str:endpoint_id>/tests", hook_pages.test, name="endpoint-tests"),
    path("settings/webhooks/<str:endpoint_id>/resends", hook_pages.resend, name="endpoint-resends"),
    path("settings/webhooks/<str:endpoint_id>/removals", hook_pages.remove, name="endpoint-removals"),
    path("webhooks/<slug:gateway>", webhooks.notices, name="webhook"),
    path("sandbox-gateway/payments/<str:reference>", sandbox.status, name="sandbox_status"),
    path("sandbox-gateway/<str:topup_id>", sandbox.payment, name="sandbox"),
]

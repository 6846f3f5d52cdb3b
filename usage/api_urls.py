"""Addresses of usage below /api/, as its sources have them."""

from django.urls import path

from usage import api, budgets_api

app_name = "usage_api"
urlpatterns = [
    path("tokens/stats", api.StatsView.as_view(), name="stats"),
    path("tokens/history", api.HistoryView.as_view(), name="history"),
    path("tokens/usage-by-period", api.PeriodsView.as_view(), name="periods"),
    path("usage", api.UsageView.as_view(), name="usage"),
    path("usage/<str:timeframe>", api.TimeframeView.as_view(), name="timeframe"),
    path("usage-logs", api.UsageLogsView.as_view(), name="logs"),
    path("v1/budgets", budgets_api.BudgetsView.as_view(), name="budgets"),
    path("v1/budgets/<str:budget_id>", budgets_api.BudgetView.as_view(), name="budget"),
]

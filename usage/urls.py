"""Addresses of the usage pages."""

from django.urls import path

from usage import budget_pages, views

app_name = "usage"
urlpatterns = [
    path("usage", views.home, name="home"),
    path("usage/csv", views.as_csv, name="csv"),
    path("usage/calls/<str:call_id>", views.call, name="call"),
    path("usage/budgets", budget_pages.home, name="budgets"),
    path("usage/budgets/add", budget_pages.add, name="budget-add"),
    path("usage/budgets/<str:budget_id>", budget_pages.budget, name="budget"),
    path("usage/budgets/<str:budget_id>/end", budget_pages.end, name="budget-end"),
    path("usage/budgets/<str:budget_id>/keep", budget_pages.keep, name="budget-keep"),
]

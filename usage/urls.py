"""Addresses of the usage pages."""

from django.urls import path

from usage import views

app_name = "usage"
urlpatterns = [
    path("usage", views.home, name="home"),
    path("usage/figures", views.live, name="figures"),
    path("usage/csv", views.as_csv, name="csv"),
    path("usage/calls/<str:call_id>", views.call, name="call"),
]

"""Addresses below /api/v1/wallet/."""

from django.urls import path

from billing import api

app_name = "wallet_api"
urlpatterns = [
    path("topups", api.TopUpsView.as_view(), name="topups"),
    path("topups/<str:topup_id>", api.TopUpView.as_view(), name="topup"),
]

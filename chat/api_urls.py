"""Addresses below /api/v1/chat/."""

from django.urls import path

from aleph.api import continued
from chat import api

app_name = "chat_api"
urlpatterns = [
    path("tokens/balance", api.BalanceView.as_view(), name="balance"),
    path("tokens/packages", api.PackagesView.as_view(), name="packages"),
    path("tokens/purchase", api.PurchaseView.as_view(), name="purchase"),
    path("sessions", api.SessionsView.as_view(), name="sessions"),
    path("sessions/<str:session_id>", api.SessionView.as_view(), name="session"),
    path(
        "sessions/<str:session_id>/messages",
        continued(api.MessagesView.as_view(), by=api.answer),
        name="messages",
    ),
    path(
        "sessions/<str:session_id>/messages/<str:message_id>",
        continued(api.MessageView.as_view(), by=api.answer),
        name="message",
    ),
]

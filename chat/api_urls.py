"""Addresses below /api/v1/chat/."""

from django.urls import path

from aleph.api import continued
from chat import api

app_name = "chat_api"
urlpatterns = [
    path("tokens/balance", api.BalanceView.as_view(), name="balance"),
    path("tokens/packages", api.PackagesView.as_view(), name="packages"),
    path("tokens/purchase", api.PurchaseView.as_view(), name="purchase"),
    path("attachments", api.AttachmentsView.as_view(), name="attachments"),
    path("attachments/<str:attachment_id>", api.AttachmentView.as_view(), name="attachment"),
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
    path(
        "sessions/<str:session_id>/messages/<str:message_id>/edits",
        continued(api.EditsView.as_view(), by=api.answer),
        name="edits",
    ),
    path(
        "sessions/<str:session_id>/messages/<str:message_id>/retries",
        continued(api.RetriesView.as_view(), by=api.answer),
        name="retries",
    ),
    path(
        "sessions/<str:session_id>/messages/<str:message_id>/continuations",
        continued(api.ContinuationsView.as_view(), by=api.answer),
        name="continuations",
    ),
    path("sessions/<str:session_id>/messages/<str:message_id>/stops", api.StopsView.as_view(), name="stops"),
]

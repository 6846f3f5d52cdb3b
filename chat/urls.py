"""Addresses of the chat's pages."""

from django.urls import path

from chat import image_pages, views

app_name = "chat"
urlpatterns = [
    path("", views.home, name="home"),
    path("theme", views.theme, name="theme"),
    path("chat/search", views.search_page, name="search"),
    path("chat/turns", views.turns_of_new_chat, name="turns"),
    path("chat/estimates", views.estimates, name="estimates"),
    path("chat/checkouts", views.checkouts, name="checkouts"),
    path("chat/purchases", views.purchases, name="purchases"),
    path("chat/attachments", image_pages.drafts, name="drafts"),
    path("chat/attachments/<str:attachment_id>", image_pages.image, name="image"),
    path("chat/attachments/<str:attachment_id>/page", image_pages.image_page, name="image_page"),
    path("chat/<str:session_id>", views.session, name="session"),
    path("chat/<str:session_id>/turns", views.session_turns, name="session_turns"),
    path("chat/<str:session_id>/title", views.title, name="title"),
    path("chat/<str:session_id>/deletions", views.deletions, name="deletions"),
    path("chat/messages/<str:message_id>/edits", views.edits, name="edits"),
    path("chat/replies/<str:reply_id>/stops", views.stops, name="stops"),
    path("chat/replies/<str:reply_id>/retries", views.retries, name="retries"),
    path("chat/replies/<str:reply_id>/continuations", views.continuations, name="continuations"),
    path("chat/replies/<str:reply_id>/stream", views.stream, name="stream"),
    path("chat/replies/<str:reply_id>/receipt", views.receipt, name="receipt"),
    path("chat/replies/<str:reply_id>/text", views.text, name="text"),
]

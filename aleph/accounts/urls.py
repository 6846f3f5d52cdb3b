"""Addresses under /settings."""

from django.urls import path

from aleph.accounts import views

app_name = "accounts"
urlpatterns = [
    path("settings", views.profile, name="settings"),
    path("settings/language", views.choose_language, name="language"),
    path("settings/keys", views.keys, name="keys"),
    path("settings/keys/<int:key_id>/revocations", views.revoke_key, name="revocations"),
]

"""The administration: Django's own, entered through the product's sign-in and dressed in its look."""

from typing import Any

from allauth.account.decorators import secure_admin_login
from django.contrib.admin import AdminSite
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.urls import path
from django.utils.translation import gettext_lazy as _

from aleph.dashboard import dashboard
from aleph.recharging_pages import RateCorrectionAdmin
from chat.models import RateCorrection


class StaffSite(AdminSite):
    site_title = "Aleph"
    site_header = _("Administration")
    index_title = _("Administration")

    def __init__(self, *args: Any, **how: Any) -> None:
        """What needs usage and billing and chat stands at the roof, and no app can register it."""
        super().__init__(*args, **how)
        self.register(RateCorrection, RateCorrectionAdmin)

    def login(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        """Guests sign in where everybody does, under the same limits; who is no staff learns that he may not."""
        enter = secure_admin_login(lambda request: redirect("admin:index"))
        response: HttpResponse = enter(request)
        return response

    def logout(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> Any:
        return redirect("account_logout")

    def password_change(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> Any:
        return redirect("account_change_password")

    def get_urls(self) -> list[Any]:
        return [path("dashboard/", self.admin_view(dashboard), name="dashboard"), *super().get_urls()]

"""The administration as this product configures it."""

from django.contrib import admin
from django.contrib.admin import apps as admin_apps


class StaffConfig(admin_apps.AdminConfig):
    """Django's admin with our site, found in INSTALLED_APPS under this name."""

    default = False
    default_site = "aleph.admin.StaffSite"

    def ready(self) -> None:
        """Also takes away what allauth registers: an address is confirmed by its owner, not ticked by staff."""
        super().ready()
        address = self.apps.get_model("account", "EmailAddress")  # type: ignore[union-attr]
        admin.site.unregister(address)

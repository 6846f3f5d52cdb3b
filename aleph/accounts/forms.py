"""What people fill in about themselves, and what staff fill in about them."""

import zoneinfo
from functools import cache
from typing import Any, ClassVar

from allauth.account.forms import LoginForm as AllauthLoginForm
from allauth.account.forms import SignupForm as AllauthSignupForm
from django import forms
from django.conf import settings
from django.contrib.auth.forms import AdminUserCreationForm
from django.db import IntegrityError
from django.http import HttpRequest, HttpResponse
from django.utils.translation import get_language
from django.utils.translation import gettext_lazy as _

from aleph.accounts.models import ApiKey, User

NEAR = ["Asia/Jakarta", "Asia/Pontianak", "Asia/Makassar", "Asia/Jayapura"]
"""Indonesia's zones stand first in the list."""


@cache
def time_zones() -> list[tuple[str, list[tuple[str, str]]]]:
    """Every place that names a time zone, grouped for a select. Reading them costs a walk through the system's files."""
    groups: dict[str, list[tuple[str, str]]] = {}
    for name in sorted(zoneinfo.available_timezones()):
        region, slash, place = name.partition("/")
        if slash and region not in ("Etc", "SystemV", "posix", "right"):
            groups.setdefault(region, []).append((name, place.replace("_", " ")))
    near = [(name, name.partition("/")[2]) for name in NEAR]
    return [("Indonesia", near), *groups.items(), ("UTC", [("UTC", "UTC")])]


class LoginForm(AllauthLoginForm):
    """People stay signed in unless they say otherwise; on a shared machine they untick the box."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["remember"].label = _("Stay signed in on this device")
        self.fields["remember"].initial = True


class SignupForm(AllauthSignupForm):
    """Sign-up asks for a name as well; the time zone is filled in by the browser where it can."""

    name = forms.CharField(
        label=_("Name"), max_length=120, widget=forms.TextInput(attrs={"autocomplete": "name"})
    )
    time_zone = forms.CharField(required=False, max_length=64, widget=forms.HiddenInput)
    field_order: ClassVar[list[str]] = ["name", "email", "password1"]
    account_already_exists: bool

    def clean_time_zone(self) -> str:
        """A browser's unknown zone is no reason to refuse a person."""
        name = str(self.cleaned_data["time_zone"])
        return name if name in zoneinfo.available_timezones() else settings.TIME_ZONE

    def try_save(self, request: HttpRequest) -> tuple[User | None, HttpResponse | None]:
        """A known address gets the same answer as a fresh one; only its mailbox learns the difference."""
        if not self.account_already_exists:
            try:
                return super().try_save(request)
            except IntegrityError:
                # The same address was signed up at the same moment, so here it is a known one.
                self.account_already_exists = True
        # Hashing is what takes time when somebody signs up; without it the clock would tell.
        User().set_password(self.cleaned_data["password1"])
        return super().try_save(request)


class SettingsForm(forms.ModelForm):
    class Meta:
        model = User
        fields = ("name", "language", "time_zone", "shows_costs", "reuses_replies")
        widgets: ClassVar[dict[str, forms.Widget]] = {
            "name": forms.TextInput(attrs={"autocomplete": "name"}),
        }

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["language"] = forms.ChoiceField(label=_("Language"), choices=settings.LANGUAGES)
        self.initial["language"] = self.instance.language or get_language()
        self.fields["time_zone"].widget = forms.Select(choices=self.zones())

    def zones(self) -> list[tuple[str, list[tuple[str, str]]]]:
        """Every zone; and the person's own, should his system know one that ours does not list."""
        own = self.instance.time_zone
        listed = any(own == name for _region, places in time_zones() for name, _place in places)
        return time_zones() if listed else [(own, [(own, own)]), *time_zones()]


class LanguageForm(forms.Form):
    language = forms.ChoiceField(choices=settings.LANGUAGES)


class KeyForm(forms.ModelForm):
    """The name of a fresh API key."""

    class Meta:
        model = ApiKey
        fields = ("name",)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["name"].required = True
        self.fields["name"].label = _("What is it for?")


class NewUserForm(AdminUserCreationForm):
    """Staff add a person. The address is kept in lower case, so that nobody exists twice."""

    def clean_email(self) -> str:
        email = str(self.cleaned_data["email"]).lower()
        if User.objects.filter(email__iexact=email).exists():
            raise forms.ValidationError(_("Somebody with this address is here already."), code="unique")
        return email

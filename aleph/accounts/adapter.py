"""How allauth makes a person of ours, and what it says to him."""

from typing import Any, ClassVar

from allauth.account.adapter import DefaultAccountAdapter
from allauth.account.utils import user_email
from django.core.exceptions import ValidationError
from django.http import HttpRequest, HttpResponse
from django.utils.functional import Promise
from django.utils.translation import get_language
from django.utils.translation import gettext_lazy as _

from aleph import rates
from aleph.accounts import language
from aleph.accounts.models import User, open_user


class AccountAdapter(DefaultAccountAdapter):
    error_messages: ClassVar[dict[str, str | Promise]] = {
        **DefaultAccountAdapter.error_messages,
        "email_password_mismatch": _("This address and this password do not belong together."),
        "enter_current_password": _("This is not your current password."),
        "incorrect_password": _("This is not your password."),
        "too_many_login_attempts": _("Too many attempts. Please wait five minutes, or reset your password."),
        "duplicate_email": _("This is your address already."),
        "email_taken": _("This address belongs to another account."),
    }

    def save_user(self, request: HttpRequest, user: User, form: Any, commit: bool = True) -> User:
        """Store the person that the sign-up form describes, with his accounts, in one transaction."""
        data = form.cleaned_data
        user_email(user, data["email"])
        user.name = data.get("name", "")
        user.time_zone = data.get("time_zone") or user.time_zone
        user.language = get_language() or ""
        user.set_password(data["password1"])
        if commit:
            open_user(user)
        return user

    def pre_authenticate(self, request: HttpRequest, **credentials: Any) -> None:
        """Somebody who guesses passwords is seen in the log, too."""
        try:
            super().pre_authenticate(request, **credentials)
        except ValidationError:
            rates.note_refusal(request, "login_failed")
            raise

    def post_login(self, request: HttpRequest, user: User, **hooks: Any) -> HttpResponse:
        """From here on the pages speak the person's own language."""
        response: HttpResponse = super().post_login(request, user, **hooks)
        language.remember(response, user.language)
        return response

    def get_password_change_redirect_url(self, request: HttpRequest) -> str:
        return "/settings"

"""A person's own pages: who he is, his language, his API keys. Signing in and out are allauth's views."""

from typing import cast

from allauth.account.decorators import reauthentication_required
from django.contrib import messages
from django.core.paginator import Paginator
from django.db.models import Case, Q, When
from django.db.models.functions import Now
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.utils import timezone
from django.utils.translation import gettext as _
from django.utils.translation import override
from django.views.decorators.http import require_http_methods, require_POST

from aleph.accounts import language
from aleph.accounts.entrance import of_ours, page_before, signed_in
from aleph.accounts.forms import KeyForm, LanguageForm, SettingsForm
from aleph.accounts.models import ApiKey, User

MOST_KEYS = 20
"""How many usable keys one person may have."""
KEYS_SHOWN = 25
"""Keys on a page of the list."""
IS_OVER = Q(revoked_at__isnull=False) | Q(expires_at__lte=Now())


@signed_in
@require_http_methods(["GET", "HEAD", "POST"])
def profile(request: HttpRequest) -> HttpResponse:
    # A copy of the person, because a form writes what was typed into its instance even where it refuses it.
    form = SettingsForm(request.POST or None, instance=User.objects.get(pk=person(request).pk))
    if request.method != "POST" or not form.is_valid():
        return render(request, "accounts/settings.html", {"form": form}, status=form_status(form))
    user = form.save()
    with override(user.language):
        messages.success(request, _("Saved."))
    response = redirect("accounts:settings")
    language.remember(response, user.language)
    return response


@require_POST
def choose_language(request: HttpRequest) -> HttpResponse:
    """For guests, too. Goes back to where the wish was made, never to another site."""
    response = redirect(way_back(request))
    form = LanguageForm(request.POST)
    if form.is_valid():
        chosen = form.cleaned_data["language"]
        if request.user.is_authenticated:
            request.user.language = chosen
            request.user.save(update_fields=["language"])
        language.remember(response, chosen)
    return response


@signed_in
@require_http_methods(["GET", "HEAD", "POST"])
def keys(request: HttpRequest) -> HttpResponse:
    return issue_key(request) if request.method == "POST" else key_page(request, KeyForm())


@reauthentication_required
def issue_key(request: HttpRequest) -> HttpResponse:
    """The answer shows the key itself. It is no redirect, because the key is stored nowhere to be shown later."""
    form = KeyForm(request.POST)
    if form.is_valid() and usable_keys(request) >= MOST_KEYS:
        form.add_error(
            None, _("You have %(most)s keys. Revoke one that you do not use.") % {"most": MOST_KEYS}
        )
    if not form.is_valid():
        return key_page(request, form)
    key = ApiKey.issue(user=person(request), name=form.cleaned_data["name"])
    return key_page(request, KeyForm(), fresh_key=key)


@signed_in
@require_POST
def revoke_key(request: HttpRequest, key_id: int) -> HttpResponse:
    key = get_object_or_404(ApiKey, user=person(request), id=key_id)
    ApiKey.objects.filter(id=key.id, revoked_at=None).update(revoked_at=timezone.now())
    messages.success(request, _("The key is revoked. Programs that use it are refused from now on."))
    return redirect("accounts:keys")


def key_page(request: HttpRequest, form: KeyForm, *, fresh_key: str = "") -> HttpResponse:
    """Usable keys come first; what was ever revoked follows, page by page."""
    mine = ApiKey.objects.filter(user=person(request))
    listed = Paginator(mine.order_by(Case(When(IS_OVER, then=1), default=0), "-id"), KEYS_SHOWN)
    context = {
        # After the password was asked for, the page is drawn under that address.
        "place": "accounts:keys",
        "form": form,
        "keys": listed.get_page(request.GET.get("page")),
        "fresh_key": fresh_key,
        "address": request.build_absolute_uri("/"),
    }
    return render(request, "accounts/keys.html", context, status=form_status(form))


def usable_keys(request: HttpRequest) -> int:
    return ApiKey.objects.filter(user=person(request)).exclude(IS_OVER).count()


def person(request: HttpRequest) -> User:
    """Whoever is signed in; for views behind `signed_in`."""
    return cast(User, request.user)


def form_status(form: SettingsForm | KeyForm) -> int:
    return 422 if form.errors else 200


def way_back(request: HttpRequest) -> str:
    """Where the form says that its reader was, else where the request says so."""
    return of_ours(request, request.POST.get("next", "")) or page_before(request)

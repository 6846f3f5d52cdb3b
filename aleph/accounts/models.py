"""The ground: people, companies, and the keys by which programs act for a person."""

import hashlib
import secrets
import zoneinfo
from datetime import timedelta
from typing import ClassVar

from django.conf import settings
from django.contrib.auth.models import AbstractBaseUser, BaseUserManager, PermissionsMixin
from django.core.exceptions import ValidationError
from django.db import models, transaction
from django.db.models.functions import Lower
from django.utils import timezone
from django.utils.module_loading import import_string
from django.utils.translation import gettext_lazy as _

from aleph import ids
from aleph.sealed import SealedTextField


class UserManager(BaseUserManager["User"]):
    def create_user(self, email: str, password: str | None = None, **fields: object) -> "User":
        """A person with everything a person has, or nobody at all."""
        user = self.model(email=self.normalize_email(email).lower(), **fields)
        user.set_password(password)
        open_user(user)
        return user

    def create_superuser(self, email: str, password: str | None = None, **fields: object) -> "User":
        return self.create_user(email, password, is_staff=True, is_superuser=True, **fields)

    def get_by_natural_key(self, username: str | None) -> "User":
        return self.get(email__iexact=username)


def open_user(user: "User") -> None:
    """Save a user who is not yet stored, together with what other apps open for him (`USER_OPENERS`)."""
    with transaction.atomic():
        user.save(force_insert=True)
        for path in settings.USER_OPENERS:
            import_string(path)(user)


def validate_time_zone(name: str) -> None:
    if name not in zoneinfo.available_timezones():
        raise ValidationError(_("%(name)s is not a known time zone."), params={"name": name})


class User(AbstractBaseUser, PermissionsMixin):
    email = models.EmailField(_("email"), unique=True)
    name = models.CharField(_("name"), max_length=120, blank=True)
    language = models.CharField(_("language"), max_length=8, choices=settings.LANGUAGES, blank=True)
    time_zone = models.CharField(
        _("time zone"), max_length=64, default=settings.TIME_ZONE, validators=[validate_time_zone]
    )
    shows_costs = models.BooleanField(
        _("Show in the chat what replies cost"),
        default=True,
        db_default=True,  # while one process after the other is replaced, the old ones know no such column
        help_text=_("Tokens and rupiah, of each reply and of the whole chat. Receipts stay within reach."),
    )
    reuses_replies = models.BooleanField(
        _("Reuse my own answers"),
        default=False,
        db_default=False,
        help_text=_(
            "The same question in the same conversation at temperature 0 is answered from what the model said before, at no"
            " cost. Nobody else’s answers are ever used."
        ),
    )
    is_staff = models.BooleanField(_("staff"), default=False)
    is_active = models.BooleanField(_("active"), default=True)
    date_joined = models.DateTimeField(_("joined"), default=timezone.now)

    objects = UserManager()

    USERNAME_FIELD = "email"
    REQUIRED_FIELDS: ClassVar[list[str]] = []

    class Meta:
        verbose_name = _("user")
        verbose_name_plural = _("users")
        constraints = [models.UniqueConstraint(Lower("email"), name="user_email_in_any_case")]

    def __str__(self) -> str:
        return self.email

    def get_full_name(self) -> str:
        return self.name or self.email

    def get_short_name(self) -> str:
        return self.name.split(" ")[0] if self.name else self.email.split("@")[0]

    @property
    def initials(self) -> str:
        words = (self.name or self.email).replace("@", " ").split()
        return "".join(word[0] for word in words[:2]).upper()


class Company(models.Model):
    name = models.CharField(_("name"), max_length=120)
    created_at = models.DateTimeField(_("created"), default=timezone.now)

    class Meta:
        verbose_name = _("company")
        verbose_name_plural = _("companies")

    def __str__(self) -> str:
        return self.name


class Membership(models.Model):
    class Role(models.TextChoices):
        MEMBER = "member", _("member")
        ADMIN = "admin", _("administrator")

    company = models.ForeignKey(
        Company, on_delete=models.CASCADE, related_name="memberships", verbose_name=_("company")
    )
    user = models.ForeignKey(
        User, on_delete=models.CASCADE, related_name="memberships", verbose_name=_("user")
    )
    role = models.CharField(_("role"), max_length=10, choices=Role, default=Role.MEMBER)

    class Meta:
        verbose_name = _("membership")
        verbose_name_plural = _("memberships")
        constraints = [models.UniqueConstraint(fields=["company", "user"], name="membership_once")]

    def __str__(self) -> str:
        return f"{self.user} · {self.company}"


def hashed(secret: str) -> str:
    """SHA-256 of an API key. A plain hash is enough above 112 bits of entropy (ASVS 6.5.2); a key has 256."""
    return hashlib.sha256(secret.encode()).hexdigest()


class ApiKey(models.Model):
    """A key by which a program acts for its user. Only its hash is stored; the key is shown once."""

    PREFIX: ClassVar[str] = "alp_"
    USED_RESOLUTION: ClassVar[timedelta] = timedelta(minutes=5)

    user = models.ForeignKey(User, on_delete=models.CASCADE, related_name="api_keys", verbose_name=_("user"))
    name = models.CharField(_("name"), max_length=80, blank=True)
    hint = models.CharField(_("begins with"), max_length=12)
    hash = models.CharField(max_length=64, unique=True)
    created_at = models.DateTimeField(_("created"), default=timezone.now)
    last_used_at = models.DateTimeField(_("last used"), null=True, blank=True)
    expires_at = models.DateTimeField(_("expires"), null=True, blank=True)
    revoked_at = models.DateTimeField(_("revoked"), null=True, blank=True)

    class Meta:
        verbose_name = _("API key")
        verbose_name_plural = _("API keys")

    def __str__(self) -> str:
        return f"{self.hint}…"

    @classmethod
    def issue(cls, *, user: User, name: str = "", expires_at: object = None) -> str:
        """Store a fresh key for `user` and return the key itself, for the only time."""
        key = cls.PREFIX + secrets.token_urlsafe(32)
        cls.objects.create(user=user, name=name, hint=key[:8], hash=hashed(key), expires_at=expires_at)
        return key

    @property
    def is_usable(self) -> bool:
        now = timezone.now()
        return self.revoked_at is None and (self.expires_at is None or self.expires_at > now)


class DataExport(models.Model):
    """A copy of all that is kept about a person, made for him by a worker (`aleph.exports`) and fetched once.

    `path` is its place in the storage "exports". Whoever makes it has until `making_until`; then another one may.
    """

    class State(models.TextChoices):
        ASKED = "asked", _("being prepared")
        READY = "ready", _("ready")
        FETCHED = "fetched", _("fetched")
        EXPIRED = "expired", _("expired")
        FAILED = "failed", _("failed")

    id = models.CharField(primary_key=True, max_length=ids.LENGTH)
    user = models.ForeignKey(User, on_delete=models.CASCADE, related_name="+", verbose_name=_("user"))
    state = models.CharField(_("state"), max_length=8, choices=State, default=State.ASKED)
    path = models.CharField(_("place in the storage"), max_length=80, blank=True)
    size_bytes = models.PositiveBigIntegerField(_("size in bytes"), default=0)
    tries = models.PositiveSmallIntegerField(_("tries"), default=0)
    making_until = models.DateTimeField(_("being made until"), null=True)
    asked_at = models.DateTimeField(_("asked for"), default=timezone.now)
    expires_at = models.DateTimeField(_("expires"), null=True)

    class Meta:
        verbose_name = _("data export")
        verbose_name_plural = _("data exports")
        constraints = [
            models.UniqueConstraint(
                fields=["user"], condition=models.Q(state="asked"), name="export_one_at_a_time"
            )
        ]

    def __str__(self) -> str:
        return self.id


class Erasure(models.Model):
    """Somebody who had his account erased. In the books he is a number; who he was stands here alone, sealed, until
    `keep_until`, as the law on accounts wants it. `done_at` is set when all that can go is gone."""

    subject = models.CharField(_("subject"), max_length=ids.LENGTH, primary_key=True)
    user = models.OneToOneField(User, on_delete=models.PROTECT, related_name="+", verbose_name=_("user"))
    identity = SealedTextField(_("who it was"), blank=True)
    erased_at = models.DateTimeField(_("erased"), default=timezone.now)
    keep_until = models.DateTimeField(_("identity is kept until"))
    done_at = models.DateTimeField(_("done"), null=True)

    class Meta:
        verbose_name = _("erasure")
        verbose_name_plural = _("erasures")

    def __str__(self) -> str:
        return self.subject


class Dismissal(models.Model):
    """A suggestion that somebody does not want to read for a while; `key` says which (`aleph.suggestions`)."""

    KEY_LENGTH: ClassVar[int] = 120

    user = models.ForeignKey(User, on_delete=models.CASCADE, related_name="+", verbose_name=_("user"))
    key = models.CharField(_("suggestion"), max_length=KEY_LENGTH)
    at = models.DateTimeField(_("dismissed"), default=timezone.now)

    class Meta:
        verbose_name = _("dismissed suggestion")
        verbose_name_plural = _("dismissed suggestions")
        constraints = [models.UniqueConstraint(fields=["user", "key"], name="dismissed_once")]

    def __str__(self) -> str:
        return self.key

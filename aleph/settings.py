"""Settings of Aleph. Everything that differs between machines comes from the environment (README, "Configuration")."""

import hashlib
import secrets
import tempfile
from pathlib import Path
from urllib.parse import quote

import environ
from csp.constants import NONE, SELF
from django.core.exceptions import ImproperlyConfigured

from aleph import failpoints, rates, sealed
from aleph.postgresql import PooledConnection

env = environ.Env()
BASE_DIR = Path(__file__).resolve().parent.parent

DEVELOPMENT = env("ALEPH_ENV", default="development") != "production"
DATA_DIR = Path(env("ALEPH_DATA", default=str(BASE_DIR / "var"))).resolve()
DATA_DIR.mkdir(parents=True, exist_ok=True)


def generated_secret(name: str) -> str:
    """A secret that the first start writes into the data folder, readable by its owner only."""
    path = DATA_DIR / name
    if not path.exists():
        path.touch(mode=0o600)
        path.write_text(secrets.token_urlsafe(64))
    return path.read_text().strip()


if DEVELOPMENT:
    SECRET_KEY = env("SECRET_KEY", default="") or generated_secret("secret_key")
else:
    SECRET_KEY = env("SECRET_KEY")
SECRET_KEY_FALLBACKS = env.list("SECRET_KEY_FALLBACKS", default=[])
# What encrypts columns at rest (aleph.sealed): of its own, so that signing keys can change without it.
if DEVELOPMENT:
    FIELD_KEYS = env("FIELD_KEYS", default="") or sealed.named_key("1", generated_secret("field_key"))
else:
    FIELD_KEYS = env("FIELD_KEYS")
sealed.parsed_keys(FIELD_KEYS)
# Whether what people and models say is encrypted in the database, too (`manage.py reseal` brings what is there to it).
ENCRYPT_MESSAGES = env.bool("ENCRYPT_MESSAGES", default=False)
DEBUG = False
PORT = env.int("PORT", default=8000)
ALLOWED_HOSTS = env.list("ALLOWED_HOSTS", default=["localhost", "127.0.0.1", "[::1]"] if DEVELOPMENT else [])
if not DEVELOPMENT and not ALLOWED_HOSTS:
    raise ImproperlyConfigured("ALLOWED_HOSTS must name the host that people use.")
if not DEVELOPMENT and failpoints.ARMED:
    raise ImproperlyConfigured("ALEPH_FAILPOINT makes processes die; production never does that on purpose.")
CSRF_TRUSTED_ORIGINS = env.list("CSRF_TRUSTED_ORIGINS", default=[])

INSTALLED_APPS = [
    "aleph",
    "aleph.accounts",
    "usage",
    "billing",
    "chat",
    "allauth",
    "allauth.account",
    "django_htmx",
    "csp",
    "aleph.apps.StaffConfig",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
]

MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "aleph.requests.RequestIdMiddleware",
    "aleph.requests.private_by_default",
    # Before whatever may fail, so that the page of a failure carries the policy, too.
    "csp.middleware.CSPMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.locale.LocaleMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "aleph.accounts.middleware.TimeZoneMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "allauth.account.middleware.AccountMiddleware",
    "django_htmx.middleware.HtmxMiddleware",
]

ROOT_URLCONF = "aleph.urls"
ASGI_APPLICATION = "aleph.asgi.application"

TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [BASE_DIR / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.template.context_processors.i18n",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
                "billing.context.balance",
                "billing.context.unread",
                "chat.context.sidebar",
            ],
            "builtins": [
                "django.templatetags.i18n",
                "django.templatetags.static",
                "aleph.templatetags.aleph",
            ],
        },
    }
]

# Databases. SQLite is the embedded default; IMMEDIATE makes writers queue instead of failing half-way.
STATEMENT_TIMEOUT_MS = env.int("DATABASE_STATEMENT_TIMEOUT_MS", default=5000)
DATABASES = {"default": env.db("DATABASE_URL", default=f"sqlite:///{quote(str(DATA_DIR / 'aleph.sqlite3'))}")}
DATABASE = DATABASES["default"]
if DATABASE["ENGINE"].endswith("sqlite3"):
    DATABASE["OPTIONS"] = {
        "transaction_mode": "IMMEDIATE",
        "timeout": 10,
        "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL; PRAGMA temp_store=MEMORY;",
    }
else:
    # Web threads live as long as a request and worker threads wait for providers, so connections come from a pool.
    DATABASE["CONN_MAX_AGE"] = 0
    DATABASE["CONN_HEALTH_CHECKS"] = True
    DATABASE["OPTIONS"] = {
        "pool": {
            "connection_class": PooledConnection,
            "min_size": 1,
            "max_size": env.int("DATABASE_POOL", default=12),
            "timeout": 5,
        },
        "connect_timeout": 5,
        # PostgreSQL keeps the plans of statements: planning is half of what ours cost. Behind a pooler that cannot keep
        # prepared statements, take both out.
        "server_side_binding": True,
        "prepare_threshold": 2,
        # To sum up a person's calls is no reason to compile code, which takes longer than the sum. By day and model they are
        # counted in memory; the planner, who takes each for a day and model of its own, is told that there is enough.
        "options": (
            "-c jit=off -c work_mem=16MB -c hash_mem_multiplier=6"
            f" -c statement_timeout={STATEMENT_TIMEOUT_MS} -c lock_timeout={min(STATEMENT_TIMEOUT_MS, 5000)}"
            " -c idle_in_transaction_session_timeout=15000"
        ),
    }
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"


def embedded_redis_socket() -> Path:
    """Where the embedded Redis listens. A unix socket's path may have about 100 bytes, so long ones move to /tmp."""
    path = DATA_DIR / "redis.sock"
    if len(str(path).encode()) < 100:
        return path
    return Path(tempfile.gettempdir()) / f"aleph-{hashlib.sha256(str(path).encode()).hexdigest()[:16]}.sock"


REDIS_SOCKET = embedded_redis_socket()
REDIS_URL = env("REDIS_URL", default="") or f"unix://{quote(str(REDIS_SOCKET))}"
REDIS_EMBEDDED = not env("REDIS_URL", default="")

# How long a worker that is asked to go lets its replies be written. Whoever types Ctrl-C waits for it.
SHUTDOWN_GRACE_SECONDS = env.int("SHUTDOWN_GRACE_SECONDS", default=5 if DEVELOPMENT else 25)

CELERY_BROKER_URL = f"redis+socket://{quote(str(REDIS_SOCKET))}" if REDIS_EMBEDDED else REDIS_URL
CELERY_BROKER_CONNECTION_RETRY_ON_STARTUP = True
CELERY_BROKER_CONNECTION_MAX_RETRIES = None  # a worker waits for Redis as long as it takes
CELERY_BROKER_TRANSPORT_OPTIONS = {
    "socket_connect_timeout": 2,
    "socket_timeout": 10,
    "global_keyprefix": env("REDIS_PREFIX", default="aleph:"),
    # Whoever sends a message does not wait for a Redis that is gone: kombu would try for six seconds to ring the bell.
    "max_retries": 1,
    "interval_start": 0,
    # With early acknowledgement nothing is ever delivered again, so nothing has to be remembered for it.
    "ack_emulation": False,
}
REDIS_PREFIX = env("REDIS_PREFIX", default="aleph:")

# What allauth counts its limits in, so that all processes count together. Without it nobody signs in, but pages are drawn.
CACHES = {
    "default": {
        "BACKEND": "django.core.cache.backends.redis.RedisCache",
        "LOCATION": REDIS_URL,
        "KEY_PREFIX": f"{REDIS_PREFIX}cache",
        "OPTIONS": {"socket_connect_timeout": 1, "socket_timeout": 2},
    }
}

# How often one account (or, of guests, one address) may do what costs something; an empty one is no limit.
RATE_LIMITS = {
    "message": rates.parsed(env("RATE_LIMIT_MESSAGE", default="20/m/user, 300/h/user, 60/m/ip")),
    "purchase": rates.parsed(env("RATE_LIMIT_PURCHASE", default="5/m/user, 30/d/user, 20/m/ip")),
    "topup": rates.parsed(env("RATE_LIMIT_TOPUP", default="5/m/user, 30/d/user, 20/m/ip")),
    "topup-check": rates.parsed(env("RATE_LIMIT_TOPUP_CHECK", default="6/m/user, 30/m/ip")),
    "webhook": rates.parsed(env("RATE_LIMIT_WEBHOOK", default="50/s/ip")),
    "promo": rates.parsed(env("RATE_LIMIT_PROMO", default="10/h/user, 30/h/ip")),
    "stream": rates.parsed(env("RATE_LIMIT_STREAM", default="30/m/user, 120/m/ip")),
    "export": rates.parsed(env("RATE_LIMIT_EXPORT", default="30/h/user, 60/h/ip")),
    "personal": rates.parsed(env("RATE_LIMIT_PERSONAL", default="6/d/user, 10/d/ip")),
    "event": rates.parsed(env("RATE_LIMIT_EVENT", default="120/m/user, 240/m/ip")),
    "webhook-test": rates.parsed(env("RATE_LIMIT_WEBHOOK_TEST", default="10/m/user, 60/h/user, 30/m/ip")),
    "upload": rates.parsed(env("RATE_LIMIT_UPLOAD", default="20/m/user, 200/d/user, 60/m/ip")),
}
MAX_ATTACHED_MB = env.int("MAX_ATTACHED_MB", default=200)
# Above these a correction by staff waits for a second person: rupiah of a wallet, and tokens.
CORRECTION_LIMITS = {
    "wallet": env.int("CORRECTION_LIMIT_IDR", default=100_000),
    "tokens": env.int("CORRECTION_LIMIT_TOKENS", default=25_000),
}
MAX_OPEN_STREAMS = env.int("MAX_OPEN_STREAMS", default=5)
MAX_OPEN_REPLIES = env.int("MAX_OPEN_REPLIES", default=12)
# After so many failures in a row a route to a provider is left alone for a while.
ROUTE_FAILURES = env.int("ROUTE_FAILURES", default=5)
CELERY_TASK_IGNORE_RESULT = True
CELERY_TASK_DEFAULT_QUEUE = "house"
CELERY_TASK_ROUTES = {"chat.tasks.generate": {"queue": "replies"}}
# Early ack and one message at a time: recovery is the lease's work, never the broker's redelivery (R44).
CELERY_TASK_ACKS_LATE = False
CELERY_WORKER_PREFETCH_MULTIPLIER = 1
CELERY_WORKER_HIJACK_ROOT_LOGGER = False
CELERY_WORKER_SEND_TASK_EVENTS = False
CELERY_WORKER_CANCEL_LONG_RUNNING_TASKS_ON_CONNECTION_LOSS = False
CELERY_BEAT_SCHEDULE = {
    "sweep": {"task": "chat.tasks.sweep", "schedule": 3.0, "options": {"expires": 3}},
    "add-up": {"task": "usage.tasks.add_up", "schedule": 300.0, "options": {"expires": 300}},
    "correct-costs": {"task": "usage.tasks.correct_costs", "schedule": 60.0, "options": {"expires": 60}},
    "give-back": {"task": "aleph.tasks.give_back", "schedule": 60.0, "options": {"expires": 60}},
    "unusual use": {
        "task": "usage.tasks.look_for_unusual_use",
        "schedule": 600.0,
        "options": {"expires": 600},
    },
    "alerts": {"task": "aleph.tasks.tell_of_use", "schedule": 10.0, "options": {"expires": 10}},
    "keep-months": {"task": "usage.tasks.keep_months", "schedule": 3600.0, "options": {"expires": 3600}},
    "learn": {"task": "usage.tasks.learn", "schedule": 60.0, "options": {"expires": 60}},
    "local models": {
        "task": "chat.tasks.look_for_local_models",
        "schedule": 30.0,
        "options": {"expires": 30},
    },
    "topups": {"task": "billing.tasks.sweep_topups", "schedule": 5.0, "options": {"expires": 5}},
    "audit": {"task": "billing.tasks.audit", "schedule": 600.0, "options": {"expires": 600}},
    "refills": {"task": "billing.tasks.refills", "schedule": 20.0, "options": {"expires": 20}},
    "webhooks": {"task": "billing.tasks.deliver", "schedule": 3.0, "options": {"expires": 3}},
    "webhook log": {
        "task": "billing.tasks.clean_webhooks",
        "schedule": 600.0,
        "options": {"expires": 600},
    },
    "watch": {"task": "billing.tasks.watch", "schedule": 60.0, "options": {"expires": 60}},
    "personal": {"task": "aleph.tasks.sweep_personal", "schedule": 20.0, "options": {"expires": 20}},
    "attachments": {"task": "chat.tasks.sweep_attachments", "schedule": 600.0, "options": {"expires": 600}},
}
CELERY_BEAT_SCHEDULE_FILENAME = str(DATA_DIR / "celerybeat-schedule")

# Midnight as a default hour is meant (`usage.models.MIDNIGHT`); Django asks so whenever it happens to be midnight.
# SQLite leaves out what an index of PostgreSQL's carries along.
SILENCED_SYSTEM_CHECKS = ["fields.W161", "models.W040"]

# People
AUTH_USER_MODEL = "accounts.User"
AUTHENTICATION_BACKENDS = ["allauth.account.auth_backends.AuthenticationBackend"]
PASSWORD_HASHERS = [
    "django.contrib.auth.hashers.Argon2PasswordHasher",
    "django.contrib.auth.hashers.PBKDF2PasswordHasher",
]
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": "django.contrib.auth.password_validation.MinimumLengthValidator", "OPTIONS": {"min_length": 8}},
    {"NAME": "django.contrib.auth.password_validation.UserAttributeSimilarityValidator"},
    {"NAME": "django.contrib.auth.password_validation.CommonPasswordValidator"},
]
LOGIN_URL = "account_login"
LOGIN_REDIRECT_URL = "/"
ACCOUNT_ADAPTER = "aleph.accounts.adapter.AccountAdapter"
ACCOUNT_USER_MODEL_USERNAME_FIELD = None
ACCOUNT_LOGIN_METHODS = {"email"}
ACCOUNT_SIGNUP_FIELDS = ["email*", "password1*"]
ACCOUNT_FORMS = {"login": "aleph.accounts.forms.LoginForm", "signup": "aleph.accounts.forms.SignupForm"}
# One address a person: a change holds once the new address is confirmed, and the old one is told.
ACCOUNT_CHANGE_EMAIL = True
ACCOUNT_EMAIL_NOTIFICATIONS = True
ACCOUNT_EMAIL_VERIFICATION = "mandatory"
ACCOUNT_PREVENT_ENUMERATION = True
ACCOUNT_UNIQUE_EMAIL = True
ACCOUNT_CONFIRM_EMAIL_ON_GET = False
ACCOUNT_LOGIN_ON_EMAIL_CONFIRMATION = True
ACCOUNT_SESSION_REMEMBER = None
ACCOUNT_LOGOUT_ON_GET = False
ACCOUNT_EMAIL_SUBJECT_PREFIX = ""
ACCOUNT_REAUTHENTICATION_REQUIRED = True
SESSION_COOKIE_AGE = 14 * 24 * 3600
# Called in the transaction that creates a user, so that nobody exists without accounts in the ledger (R18).
USER_OPENERS = ["billing.ledger.open_accounts"]
# What each app keeps about a person, for his export and his erasure (aleph.personal).
PERSONAL_DATA = ["aleph.accounts.personal", "chat.personal", "usage.personal", "billing.personal"]
EXPORT_HOURS = env.int("EXPORT_HOURS", default=24)
# How long the books must be able to say whose they are. Ask somebody who knows the law where you are.
IDENTITY_KEPT_YEARS = env.int("IDENTITY_KEPT_YEARS", default=10)
# What the history of balances calls replies by, which billing knows only by their ids.
REPLY_SUBJECTS = "chat.receipts.subjects"
# What billing and chat tell the usage pages (usage.neighbours).
USAGE_NEIGHBOURS = "aleph.usage_neighbours"

EMAIL_BACKEND = "django.core.mail.backends.console.EmailBackend"
DEFAULT_FROM_EMAIL = env("DEFAULT_FROM_EMAIL", default="Aleph <aleph@localhost>")
if env("EMAIL_URL", default=""):
    vars().update(env.email("EMAIL_URL"))
# Who is told when something needs a person.
ADMINS = [("", address) for address in env.list("STAFF_EMAIL", default=[])]
SERVER_EMAIL = DEFAULT_FROM_EMAIL
# A mail server that hangs must not hold up those who keep house for ever.
EMAIL_TIMEOUT = 15
EMAIL_SUBJECT_PREFIX = "[Aleph] "

# How many days single calls are kept after the end of their month; what they add up to is kept for ever. 0: all of them.
USAGE_RETENTION_DAYS = env.int("USAGE_RETENTION_DAYS", default=365)

# Languages. With no wish of the reader it is Indonesian, as in the product's sources.
LANGUAGE_CODE = "id"
LANGUAGES = [("id", "Bahasa Indonesia"), ("en", "English")]
LOCALE_PATHS = [BASE_DIR / "locale"]
USE_I18N = True
USE_TZ = True
TIME_ZONE = "Asia/Jakarta"
USE_THOUSAND_SEPARATOR = True
LANGUAGE_COOKIE_SAMESITE = "Lax"
LANGUAGE_COOKIE_AGE = 365 * 24 * 3600

# Static files: one hashed stylesheet and a few hashed modules, compressed once, served by the web process.
STATIC_URL = "/static/"
STATIC_ROOT = Path(env("STATIC_ROOT", default=str(DATA_DIR / "static")))
STATICFILES_DIRS = [BASE_DIR / "static"]
STORAGES = {
    "default": {"BACKEND": "django.core.files.storage.FileSystemStorage"},
    # What people attach. Never under an address of its own: a view looks whose it is (chat.attachments).
    "attachments": {
        "BACKEND": env("ATTACHMENT_STORAGE", default="django.core.files.storage.FileSystemStorage"),
        "OPTIONS": env.json(
            "ATTACHMENT_STORAGE_OPTIONS",
            default={
                "location": str(DATA_DIR / "attachments"),
                "file_permissions_mode": 0o600,
                "directory_permissions_mode": 0o700,
            },
        ),
    },
    # Copies of what is kept about people, until they are fetched or expire (aleph.exports).
    "exports": {
        "BACKEND": env("EXPORT_STORAGE", default="django.core.files.storage.FileSystemStorage"),
        "OPTIONS": env.json(
            "EXPORT_STORAGE_OPTIONS",
            default={
                "location": str(DATA_DIR / "exports"),
                "file_permissions_mode": 0o600,
                "directory_permissions_mode": 0o700,
            },
        ),
    },
    "staticfiles": {"BACKEND": "aleph.assets.BundledStaticFilesStorage"},
}
WHITENOISE_KEEP_ONLY_HASHED_FILES = True

# Safety
SECURE = not DEVELOPMENT
SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = LANGUAGE_COOKIE_SECURE = SECURE
SESSION_COOKIE_NAME = "__Host-sessionid" if SECURE else "sessionid"
CSRF_COOKIE_NAME = "__Host-csrftoken" if SECURE else "csrftoken"
SESSION_COOKIE_SAMESITE = CSRF_COOKIE_SAMESITE = "Lax"
CSRF_COOKIE_HTTPONLY = True
CSRF_FAILURE_VIEW = "aleph.views.csrf_failure"
SECURE_SSL_REDIRECT = SECURE and env.bool("SECURE_SSL_REDIRECT", default=True)
SECURE_REDIRECT_EXEMPT = [r"^healthz$", r"^readyz$", r"^metrics$"]
SECURE_HSTS_SECONDS = 365 * 24 * 3600 if SECURE else 0
SECURE_HSTS_INCLUDE_SUBDOMAINS = SECURE_HSTS_PRELOAD = SECURE
SECURE_REFERRER_POLICY = "same-origin"
if env.bool("BEHIND_PROXY", default=False):
    SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")
    ALLAUTH_TRUSTED_PROXY_COUNT = 1
X_FRAME_OPTIONS = "DENY"
# Who has it may read /metrics; in development whoever sits at this machine may, too.
METRICS_TOKEN = env("METRICS_TOKEN", default="")
DATA_UPLOAD_MAX_MEMORY_SIZE = 4 * 1024 * 1024
CONTENT_SECURITY_POLICY = {
    "DIRECTIVES": {
        "default-src": [NONE],
        "script-src": [SELF],
        "style-src": [SELF],
        "img-src": [SELF, "data:"],
        "font-src": [SELF],
        "connect-src": [SELF],
        "form-action": [SELF],
        "frame-ancestors": [NONE],
        "base-uri": [NONE],
        "object-src": [NONE],
        "manifest-src": [SELF],
    }
}

REST_FRAMEWORK = {
    "DEFAULT_AUTHENTICATION_CLASSES": [
        "aleph.api.ApiKeyAuthentication",
        "rest_framework.authentication.SessionAuthentication",
    ],
    "DEFAULT_PERMISSION_CLASSES": ["rest_framework.permissions.IsAuthenticated"],
    "DEFAULT_RENDERER_CLASSES": ["rest_framework.renderers.JSONRenderer"],
    "DEFAULT_PARSER_CLASSES": ["aleph.api.JSONParser"],
    "DEFAULT_SCHEMA_CLASS": "drf_spectacular.openapi.AutoSchema",
    "EXCEPTION_HANDLER": "aleph.api.envelope_errors",
    "DEFAULT_METADATA_CLASS": None,  # OPTIONS would answer without the envelope
    "URL_FORMAT_OVERRIDE": None,
    "COERCE_DECIMAL_TO_STRING": True,
}
SPECTACULAR_SETTINGS = {
    "TITLE": "Aleph",
    "DESCRIPTION": "Chat with many models, paid with prepaid tokens.",
    "VERSION": "1",
    "SERVE_INCLUDE_SCHEMA": False,
}

# Providers and gateways read their keys and base URLs from here (chat.providers.configure, billing.gateways.configure).
PROVIDER_ENV = GATEWAY_ENV = dict(env.ENVIRON)

# Top-ups. Whoever has paid comes back to PUBLIC_URL; it is not read from a request, which may name any host.
PUBLIC_URL = env(
    "PUBLIC_URL",
    default=f"http://127.0.0.1:{PORT}" if DEVELOPMENT else f"https://{ALLOWED_HOSTS[0].lstrip('.')}",
).rstrip("/")
TOPUP_MIN_IDR = env.int("TOPUP_MIN_IDR", default=10_000)
TOPUP_MAX_IDR = env.int("TOPUP_MAX_IDR", default=10_000_000)
# A gateway in which no money moves, and yet wallets fill: for development only.
SANDBOX_GATEWAY = env.bool("SANDBOX_GATEWAY", default=DEVELOPMENT)
SANDBOX_GATEWAY_URL = f"http://127.0.0.1:{PORT}"
if SANDBOX_GATEWAY and not DEVELOPMENT:
    raise ImproperlyConfigured("SANDBOX_GATEWAY gives money away; production never has it.")

LOGGING_CONFIG = "aleph.logs.configure"
LOG_LEVEL = env("LOG_LEVEL", default="INFO")
LOG_JSON = env.bool("LOG_JSON", default=not DEVELOPMENT)
LOGGING = {"version": 1}  # never empty: Django would not call LOGGING_CONFIG then

"""The product's own settings, in a data folder of this test session.

SQLite and the embedded Redis by default; the servers that `TEST_DATABASE_URL` and `TEST_REDIS_URL` name where they are
set. Keys and addresses of real providers never get in.
"""

import atexit
import os
import shutil
import tempfile
from pathlib import Path

SESSION_DIR = Path(tempfile.mkdtemp(prefix="aleph-test-"))
(SESSION_DIR / "static").mkdir()
atexit.register(shutil.rmtree, SESSION_DIR, ignore_errors=True)

for name in [*os.environ]:
    if (
        name.endswith(("_API_KEY", "_BASE_URL"))
        or name.startswith(("MIDTRANS_", "XENDIT_", "STRIPE_"))
        or name
        in {
            "DATABASE_URL",
            "REDIS_URL",
            "EMAIL_URL",
            "METRICS_TOKEN",
            "STAFF_EMAIL",
            "STATIC_ROOT",
            "HF_TOKEN",
            "N8N_WEBHOOK_URL",
            "N8N_WEBHOOK_TOKEN",
        }
    ):
        del os.environ[name]
os.environ |= {
    "ALEPH_ENV": "development",
    "ALEPH_DATA": str(SESSION_DIR),
    "ALEPH_FORBID_NETWORK": "1",
    "ALEPH_DEMO_WORDS_PER_SECOND": "2000",
    "OLLAMA_BASE_URL": "off",  # whoever runs the tests may have one
    "DATABASE_URL": os.environ.get("TEST_DATABASE_URL") or f"sqlite:///{SESSION_DIR}/aleph.sqlite3",
    "REDIS_URL": os.environ.get("TEST_REDIS_URL", ""),
    # Several sessions may share one server.
    "REDIS_PREFIX": f"aleph-test-{os.getpid()}:",
    # Counted as in the product, and so high that only the tests of limits (test_rates, test_viewers, test_failover) ever reach them.
    **dict.fromkeys(
        (
            "RATE_LIMIT_EXPORT",
            "RATE_LIMIT_MESSAGE",
            "RATE_LIMIT_PROMO",
            "RATE_LIMIT_PURCHASE",
            "RATE_LIMIT_STREAM",
            "RATE_LIMIT_TOPUP",
            "RATE_LIMIT_TOPUP_CHECK",
            "RATE_LIMIT_UPLOAD",
            "RATE_LIMIT_EVENT",
            "RATE_LIMIT_WEBHOOK",
            "RATE_LIMIT_WEBHOOK_TEST",
        ),
        "1000000/m/user, 1000000/m/ip",
    ),
    "MAX_OPEN_STREAMS": "1000",
    "MAX_OPEN_REPLIES": "1000",
    "ROUTE_FAILURES": "1000000",
}

from aleph.settings import *  # noqa: E402, F403
from aleph.settings import DATABASES, STORAGES  # noqa: E402

if DATABASES["default"]["ENGINE"].endswith("sqlite3"):
    # A file and not memory: threads and processes share it.
    DATABASES["default"]["TEST"] = {"NAME": str(SESSION_DIR / "test.sqlite3")}
else:
    DATABASES["default"]["TEST"] = {"NAME": f"test_aleph_{os.getpid()}"}
# Tests in this process read static files where they lie; the product's processes collect and hash them.
STORAGES["staticfiles"] = {"BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"}

"""What machines ask about this process: `/healthz`, does it answer; `/readyz`, can it do its work."""

import time
from concurrent.futures import Future, ThreadPoolExecutor

from django.db import DatabaseError, connection
from django.db.migrations.executor import MigrationExecutor
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.views.decorators.cache import never_cache

from chat import stream

TIMEOUT_SECONDS = 1.0

# Threads of its own: a check that hangs must not keep others from theirs.
_threads = ThreadPoolExecutor(max_workers=4, thread_name_prefix="readyz")
_migrated = False


@never_cache
def healthz(request: HttpRequest) -> HttpResponse:
    """The process answers."""
    return HttpResponse("ok", content_type="text/plain")


def readyz(request: HttpRequest) -> JsonResponse:
    """200 when the database has all migrations and Redis answers, each within a second; else 503 and what is wrong."""
    checks = [_threads.submit(check) for check in (check_database, check_redis)]
    began = time.monotonic()
    database, redis = (_within(check, began + TIMEOUT_SECONDS) for check in checks)
    status = 200 if database == redis == "ok" else 503
    return JsonResponse(
        {"database": database, "redis": redis}, status=status, headers={"Cache-Control": "no-store"}
    )


def _within(check: Future[str], deadline: float) -> str:
    try:
        return check.result(max(0, deadline - time.monotonic()))
    except TimeoutError:
        return "does not answer in time"


def check_database() -> str:
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")
        return "ok" if is_migrated() else "migrations are missing"
    except DatabaseError:
        return "does not answer"
    finally:
        connection.close()


def is_migrated() -> bool:
    """Whether the database has every migration of this code. Asked again only until the answer is yes."""
    global _migrated
    if not _migrated:
        executor = MigrationExecutor(connection)
        _migrated = not executor.migration_plan(executor.loader.graph.leaf_nodes())
    return _migrated


def check_redis() -> str:
    return "ok" if stream.ping() else "does not answer"

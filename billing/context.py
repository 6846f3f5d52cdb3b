"""What the frame of every page shows of the balance and of the notices."""

from typing import Any

from django.http import HttpRequest
from django.utils.functional import SimpleLazyObject

from billing import ledger, notices


def balance(request: HttpRequest) -> dict[str, Any]:
    """`balance` is a `ledger.Balance`, read when a template asks for it; nothing for guests."""
    user = getattr(request, "user", None)
    if user is None or not user.is_authenticated:
        return {}
    return {"balance": SimpleLazyObject(lambda: ledger.balance_of(user))}


def unread(request: HttpRequest) -> dict[str, Any]:
    """`unread_notices` is their number, read when a template asks for it; nothing for guests."""
    user = getattr(request, "user", None)
    if user is None or not user.is_authenticated:
        return {}
    return {"unread_notices": SimpleLazyObject(lambda: notices.unread(user))}

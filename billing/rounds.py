"""The audit that never ends: the accounts of all people against their transfers, in slices, round after round.

`billing.audit` proves everything at one moment and takes as long as the books are long. This looks only at the two
figures that an account caches, a few accounts at a time; where a run stops, the next one goes on. An account that
disagrees is frozen (`billing.freezing`).
"""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta

from django.db import connection
from django.db.models.functions import Now

from billing import audit, freezing
from billing.models import AuditRound

SLICE = 100
BUDGET_S = 20.0
"""How long a run may take. It pauses as long as it works, so that it costs half of one connection at most."""
KEPT = timedelta(days=90)


def run(*, budget_s: float = BUDGET_S) -> AuditRound:
    """Go on with the round that is open, or begin one, for `budget_s` seconds and at least a slice; what it found so far.

    Freezes whatever disagrees and tells the staff. Two runs at once do no harm: the one that comes second stops.
    """
    until = time.monotonic() + budget_s
    running = AuditRound.objects.filter(ended_at=None).order_by("pk").first() or AuditRound.objects.create()
    with freezing.telling_staff() as freeze:
        while running.ended_at is None:
            began = time.monotonic()
            looked_at = compare(after=running.done_to, limit=SLICE)
            for account in looked_at:
                if not account.agrees:
                    freeze(account)
            now = time.monotonic()
            if not _advance(running, looked_at) or now >= until:
                break
            time.sleep(min(now - began, until - now))
    return running


def everybody() -> Iterator["Compared"]:
    """The accounts of all people, one after the other, whatever rounds there are."""
    after, is_more = 0, True
    while is_more:
        looked_at = compare(after=after, limit=SLICE)
        yield from looked_at
        is_more = len(looked_at) == SLICE
        after = looked_at[-1].account_id if is_more else after


@dataclass(frozen=True, slots=True)
class Compared:
    """What an account says and what its transfers say, in its unit: `moved` is its balance by them, `pending` what is held,
    `given` what is left of its bonuses. `oldest_hold` is the id of a transfer, or ""."""

    oldest_hold: str
    account_id: int
    balance: int
    held: int
    bonus: int
    moved: int
    pending: int
    given: int
    open_holds: int

    @property
    def agrees(self) -> bool:
        return (self.balance, self.held, self.bonus) == (self.moved, self.pending, self.given)

    def __str__(self) -> str:
        return (
            f"the account says balance {self.balance}, held {self.held}, bonus {self.bonus};"
            f" its transfers {self.moved}, its open holds {self.pending}, what is left of its bonuses {self.given}"
        )


def compare(*, after: int, limit: int) -> list[Compared]:
    """The next accounts of people behind the account `after`, at most `limit`, each at one moment."""
    # The numbers stand in the text, or PostgreSQL would plan for any number of accounts.
    statement = COMPARE.format(after=int(after), limit=int(limit))
    with audit.one_moment(), connection.cursor() as cursor:
        if connection.vendor == "postgresql":
            cursor.execute("SET LOCAL jit = off")  # compiling would take ten times as long as running
        cursor.execute(statement)
        rows = cursor.fetchall()
    return [Compared(oldest or "", *(int(figure) for figure in figures)) for *figures, oldest in rows]


def compare_one(account_id: int) -> Compared | None:
    """One account of somebody; None for the house's, which cache nothing."""
    found = compare(after=account_id - 1, limit=1)
    return found[0] if found and found[0].account_id == account_id else None


# Subqueries for each account, which the indexes answer. In a join a planner may read all transfers instead: it expects
# everybody to have as many as the house has.
OPEN = """
FROM billing_transfer hold WHERE hold.debit_id = a.id AND hold.phase = 'pending'
    AND (SELECT resolution.id FROM billing_transfer resolution WHERE resolution.pending_id = hold.id) IS NULL
"""
# A walk that stops at zero, as in `billing.audit`.
BONUS = """
SELECT COALESCE(SUM(step) - MIN(CASE WHEN so_far < 0 THEN so_far ELSE 0 END), 0) FROM (
    SELECT step, SUM(step) OVER (ORDER BY COALESCE(place, 0), created_at, id) AS so_far FROM (
        SELECT t.place, t.created_at, t.id, CASE WHEN t.kind = 'bonus' THEN t.amount ELSE 0 END AS step
        FROM billing_transfer t WHERE t.credit_id = a.id AND t.phase IN ('single', 'post')
        UNION ALL
        SELECT t.place, t.created_at, t.id, -t.amount
        FROM billing_transfer t WHERE t.debit_id = a.id AND t.phase IN ('single', 'post')
    ) steps
) walk
"""
COMPARE = f"""
SELECT a.id, a.balance, a.held, a.bonus,
    (SELECT COALESCE(SUM(t.amount), 0) FROM billing_transfer t WHERE t.credit_id = a.id AND t.phase IN ('single', 'post'))
    - (SELECT COALESCE(SUM(t.amount), 0) FROM billing_transfer t WHERE t.debit_id = a.id AND t.phase IN ('single', 'post')),
    (SELECT COALESCE(SUM(hold.amount), 0) {OPEN}),
    CASE WHEN a.unit = 'TOKEN' THEN ({BONUS}) ELSE 0 END,
    CASE WHEN a.held = 0 THEN 0 ELSE (SELECT COUNT(*) {OPEN}) END,
    CASE WHEN a.held = 0 THEN NULL ELSE (SELECT MIN(hold.id) {OPEN}) END
FROM billing_account a WHERE a.user_id IS NOT NULL AND a.id > {{after}} ORDER BY a.id LIMIT {{limit}}
"""  # noqa: S608


def _advance(running: AuditRound, looked_at: list[Compared]) -> bool:
    """Add a slice to a round, and end it behind the last account. False if another run was quicker."""
    oldest = [account.oldest_hold for account in looked_at if account.oldest_hold]
    is_last = len(looked_at) < SLICE
    advanced = AuditRound.objects.filter(pk=running.pk, done_to=running.done_to, ended_at=None).update(
        done_to=looked_at[-1].account_id if looked_at else running.done_to,
        accounts=running.accounts + len(looked_at),
        drifted=running.drifted + sum(not account.agrees for account in looked_at),
        open_holds=running.open_holds + sum(account.open_holds for account in looked_at),
        # Wallets hold nothing, so this is tokens only.
        held_tokens=running.held_tokens + sum(account.pending for account in looked_at),
        oldest_hold=min([running.oldest_hold, *oldest] if running.oldest_hold else oldest, default=""),
        ended_at=Now() if is_last else None,
    )
    if advanced:
        running.refresh_from_db()
        if is_last:
            AuditRound.objects.filter(ended_at__lt=Now() - KEPT).delete()
    return bool(advanced)

"""The proof that the books are right: every cached figure computed again from the transfers. For `manage.py check_ledger`.

Each rule is one statement over whole tables that finds what breaks it, so a million transfers take seconds. All of them
read one moment of the database, while people go on buying and asking.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple

from django.db import connection, transaction

from billing.models import Account, Purchase, Transfer


@dataclass(frozen=True, slots=True)
class Drift:
    """Something that is not as it must be: which rule, whose account or which row, and how."""

    rule: str
    subject: str
    detail: str

    def __str__(self) -> str:
        return f"{self.rule}: {self.subject}: {self.detail}"


class Counts(NamedTuple):
    accounts: int
    transfers: int
    open_holds: int
    purchases: int


class Rule(NamedTuple):
    """`sql` gives the subject and then the values of `detail`, for everything that breaks the rule."""

    name: str
    detail: str
    sql: str


RULES = [
    Rule(
        "balance",
        "the account says {}, its transfers {}",
        """
        WITH moved AS (
            SELECT account, SUM(amount) AS total FROM (
                SELECT credit_id AS account, amount FROM billing_transfer WHERE phase IN ('single', 'post')
                UNION ALL
                SELECT debit_id, -amount FROM billing_transfer WHERE phase IN ('single', 'post')
            ) sides GROUP BY account
        )
        SELECT COALESCE(u.email, 'house') || '/' || a.name, a.balance, COALESCE(moved.total, 0)
        FROM billing_account a LEFT JOIN accounts_user u ON u.id = a.user_id LEFT JOIN moved ON moved.account = a.id
        WHERE a.user_id IS NOT NULL AND a.balance <> COALESCE(moved.total, 0)
        """,
    ),
    Rule(
        "held",
        "the account says {}, its open holds {}",
        """
        WITH open AS (
            SELECT hold.debit_id AS account, SUM(hold.amount) AS total
            FROM billing_transfer hold LEFT JOIN billing_transfer resolution ON resolution.pending_id = hold.id
            WHERE hold.phase = 'pending' AND resolution.id IS NULL GROUP BY hold.debit_id
        )
        SELECT COALESCE(u.email, 'house') || '/' || a.name, a.held, COALESCE(open.total, 0)
        FROM billing_account a LEFT JOIN accounts_user u ON u.id = a.user_id LEFT JOIN open ON open.account = a.id
        WHERE a.user_id IS NOT NULL AND a.held <> COALESCE(open.total, 0)
        """,
    ),
    Rule(
        "bonus",
        "it says {}, its transfers {}",
        """
        WITH steps AS (
            SELECT credit_id AS account, id, place, created_at, bonus_after,
                CASE WHEN kind = 'bonus' AND phase IN ('single', 'post') THEN amount ELSE 0 END AS step
            FROM billing_transfer WHERE unit = 'TOKEN'
            UNION ALL
            SELECT debit_id, id, place, created_at, bonus_after,
                CASE WHEN phase IN ('single', 'post') THEN -amount ELSE 0 END
            FROM billing_transfer WHERE unit = 'TOKEN'
        ), walk AS (
            SELECT account, steps.id, place, steps.created_at, bonus_after,
                SUM(step) OVER (PARTITION BY account ORDER BY COALESCE(place, 0), steps.created_at, steps.id) AS so_far
            FROM steps JOIN billing_account a ON a.id = account AND a.user_id IS NOT NULL
        ), walked AS (
            SELECT account, id, bonus_after, so_far - MIN(CASE WHEN so_far < 0 THEN so_far ELSE 0 END) OVER up_to AS bonus,
                ROW_NUMBER() OVER (PARTITION BY account ORDER BY COALESCE(place, 0) DESC, created_at DESC, id DESC) AS last
            FROM walk WINDOW up_to AS (PARTITION BY account ORDER BY COALESCE(place, 0), created_at, id)
        )
        SELECT COALESCE(u.email, 'house') || '/' || a.name, a.bonus, COALESCE(walked.bonus, 0)
        FROM billing_account a LEFT JOIN accounts_user u ON u.id = a.user_id
        LEFT JOIN walked ON walked.account = a.id AND walked.last = 1
        WHERE a.bonus <> COALESCE(walked.bonus, 0)
        UNION ALL
        SELECT id, bonus_after, bonus FROM walked WHERE bonus_after <> bonus
        """,
    ),
    Rule(
        "places",
        "the account counts {} transfers, there are {}, the last at {}",
        """
        WITH placed AS (
            SELECT account, COUNT(DISTINCT place) AS many, MAX(place) AS last FROM (
                SELECT credit_id AS account, place FROM billing_transfer UNION ALL
                SELECT debit_id, place FROM billing_transfer
            ) sides GROUP BY account
        )
        SELECT COALESCE(u.email, 'house') || '/' || a.name, a.moves, COALESCE(many, 0), COALESCE(last, 0)
        FROM billing_account a LEFT JOIN accounts_user u ON u.id = a.user_id LEFT JOIN placed ON placed.account = a.id
        WHERE a.user_id IS NOT NULL AND (a.moves <> COALESCE(many, 0) OR a.moves <> COALESCE(last, 0))
        """,
    ),
    Rule(
        "never negative",
        "balance {}, held {}, bonus {}",
        """
        SELECT COALESCE(u.email, 'house') || '/' || a.name, a.balance, a.held, a.bonus
        FROM billing_account a LEFT JOIN accounts_user u ON u.id = a.user_id
        WHERE a.held < 0 OR a.balance < a.held OR a.bonus < 0 OR a.balance < a.bonus
        """,
    ),
    Rule(
        "the house caches nothing",
        "balance {}, held {}",
        "SELECT 'house/' || name, balance, held FROM billing_account WHERE user_id IS NULL AND (balance <> 0 OR held <> 0)",
    ),
    Rule(
        "two accounts each",
        "has {}",
        """
        SELECT u.email, COUNT(a.id) FROM accounts_user u LEFT JOIN billing_account a ON a.user_id = u.id
            AND ((a.name = 'tokens' AND a.unit = 'TOKEN') OR (a.name = 'wallet' AND a.unit = 'IDR'))
        GROUP BY u.id, u.email HAVING COUNT(a.id) <> 2
        """,
    ),
    Rule(
        "one unit",
        "{} moves from {} to {}",
        """
        SELECT t.id, t.unit, COALESCE(d.unit, 'nowhere'), COALESCE(c.unit, 'nowhere') FROM billing_transfer t
        LEFT JOIN billing_account d ON d.id = t.debit_id LEFT JOIN billing_account c ON c.id = t.credit_id
        WHERE d.id IS NULL OR c.id IS NULL OR d.id = c.id OR d.unit <> t.unit OR c.unit <> t.unit
        """,
    ),
    Rule(
        "amounts are positive",
        "{}",
        "SELECT id, amount FROM billing_transfer WHERE amount <= 0",
    ),
    Rule(
        "a resolution fits its hold",
        "{} of {} for the hold {} of {}",
        """
        SELECT r.id, r.phase, r.amount, COALESCE(hold.id, 'that is missing'), COALESCE(hold.amount, 0)
        FROM billing_transfer r LEFT JOIN billing_transfer hold ON hold.id = r.pending_id
        WHERE (r.pending_id IS NULL AND r.phase NOT IN ('single', 'pending'))
            OR (r.pending_id IS NOT NULL AND (
                hold.id IS NULL OR hold.phase <> 'pending' OR r.phase NOT IN ('post', 'void', 'expire')
                OR r.debit_id <> hold.debit_id OR r.credit_id <> hold.credit_id
                OR r.unit <> hold.unit OR r.kind <> hold.kind
                OR r.amount > hold.amount OR (r.phase <> 'post' AND r.amount <> hold.amount)
            ))
        """,
    ),
    Rule(
        "one resolution",
        "was resolved {} times",
        """
        SELECT pending_id, COUNT(*) FROM billing_transfer WHERE pending_id IS NOT NULL
        GROUP BY pending_id HAVING COUNT(*) > 1
        """,
    ),
    Rule(
        "a purchase has its transfers",
        "wallet {}, tokens {}, bonus {}",
        """
        SELECT p.number, COALESCE(paid.id, 'missing'), COALESCE(bought.id, 'missing'),
            COALESCE(bonus.id, CASE WHEN p.bonus_tokens = 0 THEN 'none' ELSE 'missing' END)
        FROM billing_purchase p
        LEFT JOIN billing_account wallet ON wallet.user_id = p.user_id AND wallet.name = 'wallet'
        LEFT JOIN billing_account tokens ON tokens.user_id = p.user_id AND tokens.name = 'tokens'
        LEFT JOIN billing_account sales ON sales.user_id IS NULL AND sales.name = 'sales'
        LEFT JOIN billing_account issued ON issued.user_id IS NULL AND issued.name = 'issued'
        LEFT JOIN billing_account given ON given.user_id IS NULL AND given.name = 'bonus'
        LEFT JOIN billing_transfer paid ON paid.key = p.id || ':wallet'
            AND paid.phase = 'single' AND paid.kind = 'purchase' AND paid.amount = p.price_idr
            AND paid.debit_id = wallet.id AND paid.credit_id = sales.id
            AND paid.balance_after = p.wallet_before_idr - p.price_idr
        LEFT JOIN billing_transfer bought ON bought.key = p.id || ':tokens'
            AND bought.phase = 'single' AND bought.kind = 'purchase' AND bought.amount = p.tokens
            AND bought.debit_id = issued.id AND bought.credit_id = tokens.id
            AND bought.balance_after = p.tokens_before + p.tokens
        LEFT JOIN billing_transfer bonus ON bonus.key = p.id || ':bonus'
            AND bonus.phase = 'single' AND bonus.kind = 'bonus' AND bonus.amount = p.bonus_tokens
            AND bonus.debit_id = given.id AND bonus.credit_id = tokens.id
        WHERE paid.id IS NULL OR bought.id IS NULL OR (bonus.id IS NULL) <> (p.bonus_tokens = 0)
        """,
    ),
    Rule(
        "a sale has its purchase",
        "{} with the key {}",
        """
        SELECT t.id, t.kind, t.key FROM billing_transfer t LEFT JOIN billing_purchase p ON p.id = t.reference
        WHERE (t.kind = 'purchase' AND (p.id IS NULL OR t.key NOT IN (p.id || ':wallet', p.id || ':tokens')))
            OR (t.kind = 'bonus' AND p.id IS NOT NULL AND t.key <> p.id || ':bonus')
        """,
    ),
    Rule(
        "a correction has its transfers",
        "{} of {}: its transfers moved {} rupiah and {} tokens",
        """
        WITH moved AS (
            SELECT t.reference,
                SUM(CASE WHEN t.unit <> 'IDR' THEN 0 WHEN d.user_id IS NULL THEN t.amount ELSE -t.amount END) AS idr,
                SUM(CASE WHEN t.unit = 'IDR' THEN 0 WHEN d.user_id IS NULL THEN t.amount ELSE -t.amount END) AS tokens
            FROM billing_correction c JOIN billing_transfer t
                ON t.key IN (c.id || ':wallet', c.id || ':tokens', c.id || ':bonus', c.id || ':kept') AND t.reference = c.id
            JOIN billing_account d ON d.id = t.debit_id GROUP BY t.reference
        )
        SELECT c.id, c.state, c.amount, COALESCE(idr, 0), COALESCE(tokens, 0)
        FROM billing_correction c LEFT JOIN moved ON moved.reference = c.id
        WHERE c.kind <> 'return' AND (COALESCE(idr, 0) <> CASE WHEN c.state = 'applied' AND c.account = 'wallet' THEN c.amount ELSE 0 END
            OR COALESCE(tokens, 0) <> CASE WHEN c.state <> 'applied' THEN 0
                WHEN c.account = 'tokens' THEN c.amount ELSE -c.tokens_taken END)
        """,
    ),
    Rule(
        "what staff moved has its correction",
        "{} with the key {}",
        """
        SELECT t.id, t.kind, t.key FROM billing_transfer t LEFT JOIN billing_correction c ON c.id = t.reference
        WHERE t.kind IN ('adjustment', 'refund', 'bonus') AND t.reference LIKE 'cor#_%' ESCAPE '#' AND (c.id IS NULL
            OR t.key NOT IN (c.id || ':wallet', c.id || ':tokens', c.id || ':bonus', c.id || ':kept'))
        """,
    ),
    Rule(
        "a promo code is redeemed",
        "the purchase names {}, its use {}",
        """
        SELECT p.number, COALESCE(NULLIF(p.promo_code, ''), 'no code'), COALESCE(c.code, 'no code')
        FROM billing_purchase p LEFT JOIN billing_redemption r ON r.purchase_id = p.id AND r.user_id = p.user_id
        LEFT JOIN billing_promocode c ON c.id = r.promo_id WHERE (p.promo_code <> '') <> (r.id IS NOT NULL)
        """,
    ),
    Rule(
        "a top-up has its transfers",
        "is {}, yet Rp {} of Rp {} came in and Rp {} of Rp {} went back",
        """
        WITH moved AS (
            SELECT t.reference AS topup,
                SUM(CASE WHEN t.key = t.reference || ':credit' THEN t.amount ELSE 0 END) AS came,
                SUM(CASE WHEN c.name = 'bank' THEN t.amount ELSE 0 END) AS back
            FROM billing_transfer t JOIN billing_account c ON c.id = t.credit_id
            WHERE t.kind IN ('topup', 'refund') AND substr(t.reference, 1, 4) = 'top_' GROUP BY t.reference
        )
        SELECT p.id, p.state, COALESCE(came, 0), CASE WHEN p.paid_at IS NULL THEN 0 ELSE p.amount_idr END,
            COALESCE(back, 0), p.refunded_idr
        FROM billing_topup p LEFT JOIN moved ON moved.topup = p.id
        WHERE COALESCE(came, 0) <> CASE WHEN p.paid_at IS NULL THEN 0 ELSE p.amount_idr END
            OR COALESCE(back, 0) <> p.refunded_idr
        """,
    ),
    Rule(
        "nothing comes from nowhere",
        "the house gave {} and took {}, so people must have {}, yet they have {}",
        """
        WITH house AS (
            SELECT t.unit,
                SUM(CASE WHEN d.user_id IS NULL THEN t.amount ELSE 0 END) AS gave,
                SUM(CASE WHEN c.user_id IS NULL THEN t.amount ELSE 0 END) AS took
            FROM billing_transfer t
            JOIN billing_account d ON d.id = t.debit_id JOIN billing_account c ON c.id = t.credit_id
            WHERE t.phase IN ('single', 'post') GROUP BY t.unit
        ), people AS (SELECT unit, SUM(balance) AS have FROM billing_account WHERE user_id IS NOT NULL GROUP BY unit)
        SELECT people.unit, COALESCE(gave, 0), COALESCE(took, 0), COALESCE(gave - took, 0), have
        FROM people LEFT JOIN house ON house.unit = people.unit WHERE have <> COALESCE(gave - took, 0)
        """,
    ),
]

TRIGGERS = {
    "postgresql": {
        "transfer_is_never_changed",
        "transfer_is_never_truncated",
        "transfer_is_lawful",
        "purchase_is_never_changed",
        "purchase_is_never_truncated",
        "account_is_never_deleted",
        "account_keeps_its_identity",
    },
    "sqlite": {
        "transfer_is_never_changed",
        "transfer_is_never_deleted",
        "transfer_is_lawful",
        "purchase_is_never_changed",
        "purchase_is_never_deleted",
        "account_is_never_deleted",
        "account_keeps_its_identity",
    },
}
PRESENT_TRIGGERS = {
    "postgresql": (
        "SELECT tgname FROM pg_trigger WHERE tgenabled IN ('O', 'A') AND tgrelid IN ("
        "'billing_transfer'::regclass, 'billing_purchase'::regclass, 'billing_account'::regclass)"
    ),
    "sqlite": "SELECT name FROM sqlite_master WHERE type = 'trigger'",
}


def check() -> list[Drift]:
    """Everything in the books that is not as it must be; empty when all is well."""
    with one_moment():
        return [*_broken_rules(), *_missing_triggers()]


def counts() -> Counts:
    return Counts(
        accounts=Account.objects.count(),
        transfers=Transfer.objects.count(),
        open_holds=Transfer.objects.filter(phase=Transfer.Phase.PENDING, resolution=None).count(),
        purchases=Purchase.objects.count(),
    )


def _broken_rules() -> Iterator[Drift]:
    for rule in RULES:
        for subject, *values in _rows(rule.sql):
            yield Drift(rule.name, str(subject), rule.detail.format(*values))


def _missing_triggers() -> Iterator[Drift]:
    present = {name for (name,) in _rows(PRESENT_TRIGGERS[connection.vendor])}
    for name in sorted(TRIGGERS[connection.vendor] - present):
        yield Drift("guarded by the database", name, "this trigger is missing or switched off")


def _rows(sql: str) -> list[tuple[object, ...]]:
    with connection.cursor() as cursor:
        cursor.execute(sql)
        return cursor.fetchall()


@contextmanager
def one_moment() -> Iterator[None]:
    """Let all statements inside see the same state, without holding up anybody who writes, however long they take."""
    if connection.in_atomic_block:
        yield
    elif connection.vendor == "postgresql":
        with transaction.atomic(), connection.cursor() as cursor:
            cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
            cursor.execute("SET LOCAL statement_timeout = 0")
            yield
    else:
        # Not `atomic`, which would begin as a writer and lock the others out.
        with connection.cursor() as cursor:
            cursor.execute("BEGIN DEFERRED")
            try:
                yield
            finally:
                cursor.execute("ROLLBACK")

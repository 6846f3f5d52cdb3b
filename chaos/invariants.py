"""The invariants I1 to I14, each a small function with its SQL beside it. They know the database and what people saw,
and nothing of the product's code.

Each returns the rows that break it, so that all is well when it returns nothing. All of them read one snapshot
(`Look`), in SQL that PostgreSQL and SQLite both understand.

A balance includes what is held; an account's `available` is the difference.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from chaos.memory import Memory

Row = tuple[Any, ...]
OVER = "('complete', 'stopped', 'failed', 'interrupted')"
FINGERPRINT = (
    "md5(id || '|' || phase || '|' || kind || '|' || unit || '|' || debit_id || '|' || credit_id || '|' || amount"
    " || '|' || COALESCE(pending_id, '') || '|' || reference || '|' || key || '|' || reason || '|'"
    " || COALESCE(balance_after, 0) || '|' || COALESCE(bonus_after, 0) || '|' || COALESCE(place, 0) || '|' || created_at)"
)


@dataclass(slots=True)
class Known:
    """What earlier snapshots of a run have shown: these things may never change."""

    transfers: dict[str, str] = field(default_factory=dict)
    """Id and fingerprint."""
    ends: dict[str, Row] = field(default_factory=dict)
    """Id of a reply, and: its session, its state, its charge, the fingerprint of its text."""
    shown: int = 0
    """How many of the texts that people saw have been compared. What is stored of them does not change any more."""


@dataclass(slots=True)
class Look:
    """One snapshot. `ask` runs a query in it; of what people remember, only what was there before it counts."""

    ask: Callable[[str], list[Row]]
    is_postgresql: bool
    memory: Memory
    known: Known
    acknowledged: int = 0
    shown: int = 0
    bought: int = 0

    def __post_init__(self) -> None:
        self.acknowledged = len(self.memory.acknowledged)
        self.shown = len(self.memory.shown)
        self.bought = len(self.memory.bought)

    def seconds_since(self, moment: str) -> str:
        """SQL for the age of a column, on the database's clock."""
        if self.is_postgresql:
            return f"EXTRACT(EPOCH FROM (clock_timestamp() - {moment}))"
        return f"((julianday('now') - julianday({moment})) * 86400)"

    @property
    def order_of_transfers(self) -> str:
        """The order in which transfers of one account were written. On PostgreSQL their moment is taken while the
        account is locked; SQLite counts its rows."""
        return "t.created_at, t.id" if self.is_postgresql else "t.rowid"


def tokens_are_conserved(look: Look) -> Iterable[Row]:
    """I1: purchased + bonus + adjustments = spent + balance, for each account and in total."""
    return look.ask(
        """
        WITH moved AS (
            SELECT credit_id AS account, kind, amount FROM billing_transfer WHERE phase IN ('single', 'post')
            UNION ALL
            SELECT debit_id, kind, -amount FROM billing_transfer WHERE phase IN ('single', 'post')
        ), sums AS (
            SELECT account, SUM(CASE WHEN kind IN ('purchase', 'bonus', 'adjustment', 'refund') THEN amount ELSE 0 END) AS came,
                SUM(CASE WHEN kind = 'reply' THEN -amount ELSE 0 END) AS spent, SUM(amount) AS every
            FROM moved GROUP BY account
        )
        SELECT 'account of user ' || a.user_id, came, spent, a.balance
        FROM billing_account a LEFT JOIN sums ON sums.account = a.id
        WHERE a.unit = 'TOKEN' AND a.user_id IS NOT NULL
            AND (COALESCE(came, 0) - COALESCE(spent, 0) <> a.balance OR COALESCE(every, 0) <> a.balance)
        UNION ALL
        SELECT 'in total', SUM(CASE WHEN a.user_id IS NULL THEN -every ELSE 0 END), 0, SUM(a.balance)
        FROM billing_account a LEFT JOIN sums ON sums.account = a.id WHERE a.unit = 'TOKEN'
        HAVING SUM(CASE WHEN a.user_id IS NULL THEN COALESCE(-every, 0) ELSE 0 END) <> SUM(a.balance)
        """
    )


def holds_agree(look: Look) -> Iterable[Row]:
    """I2: what an account holds is the sum of its open holds, which is the sum of what its open replies hold."""
    return look.ask(
        """
        WITH open AS (
            SELECT hold.debit_id AS account, SUM(hold.amount) AS total FROM billing_transfer hold
            LEFT JOIN billing_transfer resolution ON resolution.pending_id = hold.id
            WHERE hold.phase = 'pending' AND resolution.id IS NULL GROUP BY hold.debit_id
        ), writing AS (
            SELECT user_id, SUM(held_tokens) AS total FROM chat_message
            WHERE state IN ('queued', 'streaming') AND hold_id <> '' GROUP BY user_id
        )
        SELECT a.user_id, a.name, a.held, COALESCE(open.total, 0), COALESCE(writing.total, 0) FROM billing_account a
        LEFT JOIN open ON open.account = a.id LEFT JOIN writing ON writing.user_id = a.user_id AND a.name = 'tokens'
        WHERE a.user_id IS NOT NULL
            AND (a.held <> COALESCE(open.total, 0) OR a.held <> COALESCE(writing.total, 0))
        """
    )


def nothing_is_negative(look: Look) -> Iterable[Row]:
    """I3: no balance, no hold, no bonus and no amount is below zero, and nobody holds or was given more than he has."""
    yield from look.ask(
        """
        SELECT 'account', user_id, name, balance, held, bonus FROM billing_account
        WHERE held < 0 OR balance < held OR bonus < 0 OR balance < bonus
        """
    )
    yield from look.ask("SELECT 'transfer', id, phase, amount FROM billing_transfer WHERE amount <= 0")
    yield from look.ask("SELECT 'reply', id, tokens_used FROM chat_message WHERE tokens_used < 0")


def each_reply_closes_once(look: Look) -> Iterable[Row]:
    """I4: a paid reply has one hold, and once it is over one closing, unless it is an earlier one used again; no hold is open
    without its open reply."""
    yield from look.ask(
        f"""
        SELECT m.id, m.state, COUNT(DISTINCT hold.id), COUNT(closing.id), MIN(closing.key) FROM chat_message m
        LEFT JOIN billing_transfer hold ON hold.key = 'hold:' || m.id AND hold.phase = 'pending'
            AND hold.id = m.hold_id AND hold.amount = m.held_tokens
        LEFT JOIN billing_transfer closing ON closing.pending_id = hold.id
        WHERE m.role = 'assistant' AND (m.input_rate > 0 OR m.output_rate > 0 OR m.hold_id <> '')
            AND (m.reused_from = '' OR m.hold_id <> '')
        GROUP BY m.id, m.state
        HAVING COUNT(DISTINCT hold.id) <> 1
            OR COUNT(closing.id) <> CASE WHEN m.state IN {OVER} THEN 1 ELSE 0 END
            OR MIN(closing.key) <> 'close:' || m.id
        """
    )
    yield from look.ask(
        f"""
        SELECT 'a hold of nobody', hold.id, hold.reference, hold.amount FROM billing_transfer hold
        LEFT JOIN billing_transfer closing ON closing.pending_id = hold.id
        LEFT JOIN chat_message m ON m.hold_id = hold.id
        WHERE hold.phase = 'pending' AND closing.id IS NULL AND (m.id IS NULL OR m.state IN {OVER})
        """
    )


def the_bill_follows_the_outcome(look: Look) -> Iterable[Row]:
    """I5: what is complete or stopped with a text is billed once and within its hold; everything else costs nothing. An
    earlier reply that is used again counts and costs nothing, and its usage row says so."""
    yield from look.ask(
        f"""
        SELECT m.id, m.state, m.tokens_used, r.phase, r.amount, hold.amount FROM chat_message m
        JOIN billing_transfer hold ON hold.id = m.hold_id LEFT JOIN billing_transfer r ON r.pending_id = hold.id
        WHERE m.state IN {OVER} AND (
            (m.state IN ('complete', 'stopped') AND m.content <> '' AND r.phase = 'post'
                AND r.amount = m.tokens_used AND r.amount <= hold.amount)
            OR (m.state = 'stopped' AND m.content = '' AND r.phase = 'void' AND m.tokens_used = 0)
            OR (m.state IN ('failed', 'interrupted') AND r.phase = 'void' AND m.tokens_used = 0)
        ) IS NOT TRUE
        """
    )
    yield from look.ask(
        """
        SELECT m.id, m.state, m.reused_from, m.tokens_used, u.source, u.total_tokens, u.charged_tokens FROM chat_message m
        JOIN usage_tokenusage u ON u.operation_id = m.id
        WHERE (m.reused_from <> '' OR u.source = 'reused') AND (
            m.reused_from <> '' AND m.state = 'complete' AND m.content <> '' AND m.tokens_used = 0 AND m.hold_id = ''
            AND u.source = 'reused' AND u.total_tokens = 0 AND u.charged_tokens = 0 AND u.transfer_id = ''
        ) IS NOT TRUE
        """
    )


def nobody_is_admitted_beyond_his_balance(look: Look) -> Iterable[Row]:
    """I6: replayed in its order, no account was ever asked for more than it had left; and it said so at each step."""
    return look.ask(
        f"""
        WITH steps AS (
            SELECT t.id, a.id AS account, t.balance_after,
                CASE WHEN t.phase = 'pending' OR t.phase IN ('void', 'expire') THEN 0
                    WHEN t.credit_id = a.id THEN t.amount ELSE -t.amount END AS balance,
                CASE WHEN t.phase = 'pending' THEN t.amount WHEN t.pending_id IS NOT NULL THEN -hold.amount
                    ELSE 0 END AS held,
                ROW_NUMBER() OVER (ORDER BY {look.order_of_transfers}) AS place
            FROM billing_transfer t
            JOIN billing_account a ON a.id IN (t.debit_id, t.credit_id) AND a.user_id IS NOT NULL
            LEFT JOIN billing_transfer hold ON hold.id = t.pending_id
        ), replayed AS (
            SELECT id, account, balance_after, SUM(balance) OVER so_far AS balance, SUM(held) OVER so_far AS held
            FROM steps WINDOW so_far AS (PARTITION BY account ORDER BY place)
        )
        SELECT id, account, balance, held, balance_after FROM replayed
        WHERE balance - held < 0 OR held < 0 OR balance_after <> balance
        """
    )


def no_message_is_lost(look: Look) -> Iterable[Row]:
    """I7: what was acknowledged is stored, once and word for word; what was refused is not."""
    stored = {
        turn: (user, session, reply, text)
        for turn, user, session, reply, text in look.ask(
            """
            SELECT reply.turn, reply.user_id, reply.session_id, reply.id, said.content FROM chat_message reply
            JOIN chat_message said ON said.id = reply.parent_id WHERE reply.role = 'assistant'
            """
        )
    }
    for told in look.memory.acknowledged[: look.acknowledged]:
        found = stored.get(told.turn)
        if (
            found != (told.user, told.session, told.reply, told.text)
            and told.session not in look.memory.deleted
        ):
            yield told.turn, told.session, told.reply, "is stored as", found
    for turn in stored.keys() & set(look.memory.refused):
        yield turn, "was refused", look.memory.refused[turn], "and is stored", stored[turn][2]
    yield from look.ask(
        """
        SELECT MIN(id), user_id, COUNT(*), 'times the same words' FROM chat_message WHERE role = 'user'
        GROUP BY user_id, content HAVING COUNT(*) > 1
        """
    )


def bonus_burns_first(look: Look) -> Iterable[Row]:
    """I14: replayed in its order, what was given away goes first, down to zero and never below; and each step said so."""
    return look.ask(
        """
        WITH steps AS (
            SELECT t.id, a.id AS account, t.bonus_after, t.place,
                CASE WHEN t.phase NOT IN ('single', 'post') THEN 0 WHEN t.debit_id = a.id THEN -t.amount
                    WHEN t.kind = 'bonus' THEN t.amount ELSE 0 END AS step
            FROM billing_transfer t
            JOIN billing_account a ON a.id IN (t.debit_id, t.credit_id) AND a.user_id IS NOT NULL AND a.unit = 'TOKEN'
        ), replayed AS (
            SELECT id, account, bonus_after, place, SUM(step) OVER (PARTITION BY account ORDER BY place) AS total
            FROM steps
        ), said AS (
            SELECT id, account, place, bonus_after,
                total - MIN(CASE WHEN total < 0 THEN total ELSE 0 END) OVER (PARTITION BY account ORDER BY place) AS bonus
            FROM replayed
        )
        SELECT id, account, bonus_after, bonus FROM said WHERE bonus_after <> bonus OR place IS NULL
        UNION ALL
        SELECT said.id, a.id, a.bonus, said.bonus FROM said
        JOIN billing_account a ON a.id = said.account AND a.moves = said.place WHERE a.bonus <> said.bonus
        """
    )


def rupiah_are_conserved(look: Look) -> Iterable[Row]:
    """I8: top-ups + adjustments = purchases + wallet, for each wallet and in total."""
    return look.ask(
        """
        WITH moved AS (
            SELECT credit_id AS account, kind, phase, amount FROM billing_transfer WHERE unit = 'IDR'
            UNION ALL
            SELECT debit_id, kind, phase, -amount FROM billing_transfer WHERE unit = 'IDR'
        ), sums AS (
            SELECT account, SUM(CASE WHEN kind IN ('topup', 'adjustment', 'refund') THEN amount ELSE 0 END) AS came,
                SUM(CASE WHEN kind = 'purchase' THEN -amount ELSE 0 END) AS spent, SUM(amount) AS every
            FROM moved WHERE phase IN ('single', 'post') GROUP BY account
        ), bought AS (SELECT user_id, SUM(price_idr) AS total FROM billing_purchase GROUP BY user_id)
        SELECT 'wallet of user ' || a.user_id, came, spent, bought.total, a.balance FROM billing_account a
        LEFT JOIN sums ON sums.account = a.id LEFT JOIN bought ON bought.user_id = a.user_id
        WHERE a.unit = 'IDR' AND a.user_id IS NOT NULL
            AND (COALESCE(came, 0) - COALESCE(spent, 0) <> a.balance OR COALESCE(every, 0) <> a.balance
                OR COALESCE(spent, 0) <> COALESCE(bought.total, 0))
        UNION ALL
        SELECT 'in total', SUM(CASE WHEN a.user_id IS NULL THEN -every ELSE 0 END), 0, 0, SUM(a.balance)
        FROM billing_account a LEFT JOIN sums ON sums.account = a.id WHERE a.unit = 'IDR'
        HAVING SUM(CASE WHEN a.user_id IS NULL THEN COALESCE(-every, 0) ELSE 0 END) <> SUM(a.balance)
        """
    )


def purchases_are_whole(look: Look) -> Iterable[Row]:
    """I9: a purchase took its price once and brought its tokens once; what was acknowledged is there, and no more."""
    yield from look.ask(
        """
        SELECT p.id, COUNT(t.id), SUM(CASE WHEN t.debit_id = wallet.id THEN t.amount ELSE 0 END),
            SUM(CASE WHEN t.credit_id = tokens.id THEN t.amount ELSE 0 END) FROM billing_purchase p
        LEFT JOIN billing_transfer t ON t.reference = p.id AND t.phase = 'single'
        LEFT JOIN billing_account wallet ON wallet.user_id = p.user_id AND wallet.name = 'wallet'
        LEFT JOIN billing_account tokens ON tokens.user_id = p.user_id AND tokens.name = 'tokens'
        GROUP BY p.id, p.price_idr, p.tokens, p.bonus_tokens
        HAVING COUNT(t.id) <> CASE WHEN p.bonus_tokens > 0 THEN 3 ELSE 2 END
            OR SUM(CASE WHEN t.debit_id = wallet.id AND t.kind = 'purchase' THEN t.amount ELSE 0 END) <> p.price_idr
            OR SUM(CASE WHEN t.credit_id = tokens.id AND t.kind = 'purchase' THEN t.amount ELSE 0 END) <> p.tokens
            OR SUM(CASE WHEN t.credit_id = tokens.id AND t.kind = 'bonus' THEN t.amount ELSE 0 END) <> p.bonus_tokens
        """
    )
    yield from look.ask(
        """
        SELECT t.id, t.kind, t.amount, 'without a purchase' FROM billing_transfer t
        LEFT JOIN billing_purchase p ON p.id = t.reference WHERE t.kind IN ('purchase', 'bonus') AND p.id IS NULL
        """
    )
    stored = {
        (user, key): purchase
        for purchase, user, key in look.ask("SELECT id, user_id, key FROM billing_purchase")
    }
    for told in look.memory.bought[: look.bought]:
        if stored.get((told.user, told.key)) != told.purchase:
            yield told.key, told.user, told.purchase, "is stored as", stored.get((told.user, told.key))
    for (user, key), purchase in stored.items():
        if key not in look.memory.purchase_keys:
            yield key, user, purchase, "was asked for by nobody"


def every_call_is_in_the_log(look: Look) -> Iterable[Row]:
    """I10: each attempt has one usage row; each charge has one, and none names a charge that is not there.

    An attempt that broke down on our side before the provider was asked has none, nor has one whose routes were all left
    alone because they had kept failing.
    """
    yield from look.ask(
        """
        SELECT m.id, m.state, m.error_kind, m.attempts, COUNT(u.id), MAX(u.attempt) FROM chat_message m
        LEFT JOIN usage_tokenusage u ON u.operation_id = m.id WHERE m.role = 'assistant'
        GROUP BY m.id, m.state, m.error_kind, m.attempts
        HAVING COALESCE(MAX(u.attempt), 0) > m.attempts OR (
            COUNT(u.id) <> m.attempts - CASE WHEN m.state = 'streaming' THEN 1 ELSE 0 END
            AND NOT (m.error_kind IN ('internal', 'resting') AND COUNT(u.id) = m.attempts - 1))
        """
    )
    yield from look.ask(
        """
        SELECT t.id, t.reference, t.amount, COUNT(u.id) FROM billing_transfer t
        LEFT JOIN usage_tokenusage u ON u.transfer_id = t.id AND u.operation_id = t.reference
        WHERE t.kind = 'reply' AND t.phase = 'post' GROUP BY t.id, t.reference, t.amount HAVING COUNT(u.id) <> 1
        """
    )
    yield from look.ask(
        """
        SELECT u.id, u.operation_id, u.status, u.transfer_id, t.phase FROM usage_tokenusage u
        LEFT JOIN billing_transfer t ON t.id = u.transfer_id
        WHERE (u.transfer_id <> '' AND (t.id IS NULL OR t.phase <> 'post' OR u.status NOT IN ('complete', 'stopped')))
        """
    )


def the_ledger_only_grows(look: Look) -> Iterable[Row]:
    """I11: no transfer that was ever seen has changed or gone."""
    now: dict[str, str] = dict(look.ask(f"SELECT id, {FINGERPRINT} FROM billing_transfer"))
    for transfer, fingerprint in look.known.transfers.items():
        if now.get(transfer) != fingerprint:
            yield transfer, "has changed" if transfer in now else "is gone"
    look.known.transfers.update(now)


def everything_has_one_owner(look: Look) -> Iterable[Row]:
    """I12: a message, its chat, its hold and its usage row are one person's, and no text holds words of another."""
    yield from look.ask(
        """
        SELECT m.id, m.user_id, s.user_id, a.user_id, u.user_id FROM chat_message m
        JOIN chat_session s ON s.id = m.session_id
        LEFT JOIN billing_transfer hold ON hold.id = m.hold_id LEFT JOIN billing_account a ON a.id = hold.debit_id
        LEFT JOIN usage_tokenusage u ON u.operation_id = m.id
        WHERE m.user_id <> s.user_id OR a.user_id <> m.user_id OR u.user_id <> m.user_id
        """
    )
    yield from look.ask(
        """
        SELECT id, user_id, content FROM chat_message
        WHERE content LIKE '%who-%' AND content NOT LIKE '%who-' || user_id || '-%'
        """
    )


def the_end_is_final(look: Look) -> Iterable[Row]:
    """I13: a reply that is over never changes; what people saw of it, at its end and piece by piece, is what is stored."""
    now = {
        reply: (session, state, charge, text)
        for reply, session, state, charge, text in look.ask(
            f"SELECT id, session_id, state, tokens_used, md5(content) FROM chat_message WHERE state IN {OVER}"
        )
    }
    for reply, end in look.known.ends.items():
        if now.get(reply) != end and not (reply not in now and end[0] in look.memory.deleted):
            yield reply, "ended as", end, "and is now", now.get(reply)
    look.known.ends.update(now)
    fresh = look.memory.shown[look.known.shown : look.shown]
    look.known.shown = look.shown
    named = ", ".join(f"'{reply}'" for reply in {seen.reply for seen in fresh})
    texts = {
        reply: (state, text)
        for reply, state, text in look.ask(
            f"SELECT id, state, content FROM chat_message WHERE id IN ({named or 'NULL'})"
        )
    }
    for seen in fresh:
        stored = texts.get(seen.reply)
        if stored is None:
            if seen.session not in look.memory.deleted:
                yield seen.reply, "was shown", seen.state, "and is not stored"
        elif (seen.state, seen.text) != stored:
            yield seen.reply, "was shown", seen.state, seen.text, "and is stored", *stored
        elif seen.streamed is not None and seen.streamed != seen.text:
            yield seen.reply, seen.state, "was streamed as", seen.streamed, "and shown as", seen.text


INVARIANTS: dict[str, Callable[[Look], Iterable[Row]]] = {
    "I1": tokens_are_conserved,
    "I2": holds_agree,
    "I3": nothing_is_negative,
    "I4": each_reply_closes_once,
    "I5": the_bill_follows_the_outcome,
    "I6": nobody_is_admitted_beyond_his_balance,
    "I7": no_message_is_lost,
    "I8": rupiah_are_conserved,
    "I9": purchases_are_whole,
    "I10": every_call_is_in_the_log,
    "I11": the_ledger_only_grows,
    "I12": everything_has_one_owner,
    "I13": the_end_is_final,
    "I14": bonus_burns_first,
}

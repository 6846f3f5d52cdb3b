"""What the books keep about a person. They stay for as long as the law wants them to, and tell of a number then."""

from types import MappingProxyType

from aleph.accounts.models import User
from aleph.personal import Kept
from billing import refills
from billing.models import (
    Account,
    Correction,
    GatewayEvent,
    Notice,
    NoticeWishes,
    Purchase,
    Redemption,
    Refill,
    TopUp,
    Transfer,
    WebhookAttempt,
    WebhookDelivery,
    WebhookEndpoint,
)

INSIDE = frozenset({"key", "input_hash", "author", "decided_by"})
"""What keeps things from being done twice, and who of the staff did them."""

TABLES = [
    Kept("accounts", Account),
    Kept("transfers", Transfer, by=("debit__user", "credit__user"), without=INSIDE),
    Kept("purchases", Purchase, without=INSIDE),
    Kept("promo_codes", Redemption),
    Kept("automatic_purchases", Refill),
    Kept("top_ups", TopUp, without=INSIDE | {"pay_url", "calling_until"}),
    # A gateway's notice names the payer: his address, and the last digits of his card.
    Kept(
        "gateway_notices",
        GatewayEvent,
        by=("topup__user",),
        without=INSIDE,
        blanked=MappingProxyType({"body": ""}),
    ),
    Kept("corrections", Correction, without=INSIDE),
    Kept("notices", Notice, without=frozenset({"key"}), erased="deleted"),
    Kept("wishes", NoticeWishes, erased="deleted"),
    Kept("webhooks", WebhookEndpoint, without=frozenset({"secret", "previous_secret"}), erased="deleted"),
    Kept("webhook_deliveries", WebhookDelivery, by=("endpoint__user",), erased="deleted"),
    Kept("webhook_attempts", WebhookAttempt, by=("delivery__endpoint__user",), erased="deleted"),
]


def erase(user: User) -> None:
    refills.turn_off(user=user)

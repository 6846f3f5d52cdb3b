"""`manage.py credit_wallet EMAIL AMOUNT --reason TEXT` adds rupiah to a wallet, as the staff would."""

from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from aleph import ids
from aleph.accounts.models import User
from aleph.problems import Problem
from billing import ledger


class Command(BaseCommand):
    help = "Add rupiah to somebody's wallet, from the bank. With the same --key it is added once."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("email")
        parser.add_argument("amount", type=int, help="Whole rupiah.")
        parser.add_argument("--reason", required=True, help="Stands in the history of the wallet.")
        parser.add_argument("--key", default="", help="Makes a repetition harmless.")
        parser.add_argument(
            "--correction", action="store_true", help="An adjustment of ours, for which no money came in."
        )

    def handle(
        self, *args: Any, email: str, amount: int, reason: str, key: str, correction: bool, **options: Any
    ) -> None:
        user = User.objects.filter(email__iexact=email).first()
        if user is None:
            raise CommandError(f"Nobody here has the address {email}.")
        try:
            moved = ledger.receive(
                user=user,
                account=ledger.WALLET,
                amount=amount,
                source="corrections_idr" if correction else "bank",
                kind=ledger.Kind.ADJUSTMENT if correction else ledger.Kind.TOPUP,
                reference="credit_wallet",
                key=f"credit_wallet:{key}" if key else ids.new("credit"),
                reason=reason,
            )
        except (ValueError, Problem) as error:
            raise CommandError(str(error)) from error
        self.stdout.write(
            f"{moved.id}: {user.email} now has Rp {moved.balance:,} in the wallet.".replace(",", ".")
        )

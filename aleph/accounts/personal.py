"""What the ground keeps about a person."""

from allauth.account.models import EmailAddress
from django.contrib.admin.models import LogEntry

from aleph.accounts.models import ApiKey, DataExport, Dismissal, Membership, User
from aleph.personal import Kept

TABLES = [
    Kept("profile", User, by=("pk",), without=frozenset({"password"})),
    Kept("email_addresses", EmailAddress, erased="deleted"),
    Kept("api_keys", ApiKey, without=frozenset({"hash"}), erased="deleted"),
    Kept("memberships", Membership, erased="deleted"),
    Kept("data_exports", DataExport, without=frozenset({"path"})),
    Kept("dismissed_suggestions", Dismissal, erased="deleted"),
    Kept("administration", LogEntry),
]

"""What usage keeps about a person: counts, prices and times, never a word."""

from aleph.personal import Kept
from usage.models import ReportedCall, TokenUsage, UsageDay

TABLES = [
    Kept("calls", TokenUsage),
    Kept("days", UsageDay),
    Kept("reported_calls", ReportedCall),
]

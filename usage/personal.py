"""What usage keeps about a person: counts, prices and times, never a word."""

from aleph.personal import Kept
from usage.models import (
    Budget,
    BudgetEntry,
    BudgetPeriod,
    CostCorrection,
    ReportedCall,
    TokenUsage,
    UnusualUse,
    UsageDay,
    UsageMonth,
)

TABLES = [
    Kept("calls", TokenUsage),
    Kept("corrections_of_costs", CostCorrection, by=("usage__user",)),
    Kept("days", UsageDay),
    Kept("months", UsageMonth),
    Kept("reported_calls", ReportedCall),
    Kept("unusual_days", UnusualUse),
    Kept("budgets", Budget, erased="deleted"),
    Kept("periods_of_budgets", BudgetPeriod, by=("budget__user",), erased="deleted"),
    Kept("entries_of_budgets", BudgetEntry, by=("period__budget__user",), erased="deleted"),
]

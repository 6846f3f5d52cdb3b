"""Two workers that record one attempt at the same moment."""

from functools import partial

import pytest
from django.db import transaction

from tests import people
from tests.crowd import at_once
from tests.stories_of_usage import call_of
from usage import meter
from usage.models import TokenUsage


@pytest.mark.usefixtures("committed")
def test_many_who_record_one_attempt_at_once_all_get_the_same_row() -> None:
    alice = people.someone("Alice")
    operation_id = f"crowd-{alice.pk}"

    def record(tokens: int) -> TokenUsage:
        with transaction.atomic():
            return call_of(alice, operation_id=operation_id, counts=meter.Counts(fresh_input=tokens))

    rows = at_once([partial(record, tokens) for tokens in range(1, 9)])
    assert len({row.pk if isinstance(row, TokenUsage) else row for row in rows}) == 1
    assert len({row.input_tokens for row in rows if isinstance(row, TokenUsage)}) == 1
    assert TokenUsage.objects.filter(operation_id=operation_id).count() == 1

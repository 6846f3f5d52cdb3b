"""How far the searching tests search. By default they take seconds, which is what a change has to pass.

`TEST_DEPTH=20` has every state machine and property try twenty times as many examples; `TEST_RACES=1000` runs each race
a thousand times.
"""

import os

from hypothesis import HealthCheck, settings

DEPTH = int(os.environ.get("TEST_DEPTH", "1"))
RACES = int(os.environ.get("TEST_RACES", "24"))


def search(examples: int, *, steps: int = 50) -> settings:
    """Settings for a search that talks to a database, where the first example of a session is always slow."""
    return settings(
        max_examples=examples * DEPTH,
        stateful_step_count=steps,
        deadline=None,
        suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    )

"""Limits of time, as tight as the product promises them.

A busy machine may pause a test longer than that. So whoever is late gets one more try, as `tests.conftest` arranges, and the
summary names it; what is really too slow is late twice.
"""


class Late(AssertionError):
    """It took longer than it may."""


def in_time(took_s: float, limit_s: float) -> None:
    if took_s >= limit_s:
        raise Late(f"took {took_s:.3f} s, and may take {limit_s:g} s")

"""Python's garbage collector, told about long-lived processes."""

import gc


def settle() -> None:
    """Call once a process has imported everything: what exists now will live as long as the process.

    Full collections of a big heap stop all streams for 100 ms and more; frozen objects are not looked at again.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(100_000, 50, 1000)

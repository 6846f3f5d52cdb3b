"""Measures the product against its goals: `make bench`, or `python -m bench.run --help`. Method: docs/performance.md.

Nothing of the product imports this. `bench.run` is the way in; it starts the other modules as processes of their own,
so that each can be pinned to a core.
"""

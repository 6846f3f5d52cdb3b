"""Kills the product at random while people use it, and checks that nobody loses a message or a token: `make chaos`.

Nothing of the product imports this. `chaos.run` is the way in; method and results: docs/chaos.md.
"""

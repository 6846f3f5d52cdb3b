"""Fills the database of a run with models of the simulated provider and with people: `python -m chaos.people 12 4`.

The first number are people who can pay, the second those who soon cannot. Prints one JSON object. Run with the
product's own environment.
"""

import argparse
import json
from typing import Any

import django

django.setup()

from aleph.accounts.models import ApiKey  # noqa: E402
from tests import people  # noqa: E402
from tests.product import session_cookie, simulated_model  # noqa: E402

RATE = 100
WELL_BEHAVED = ("sim-echo-numbered-pace-60", "sim-words-90-numbered-pace-50", "sim-words-8-numbered")
ODD = (
    "sim-words-40-pace-40-numbered-nousage",
    "sim-words-30-pace-40-numbered-zero-usage",
    "sim-words-30-pace-40-numbered-cached-close",
    "sim-delay-2500-words-30-pace-30-numbered",
    "sim-words-25-numbered-pace-60-length",
    "sim-words-12-numbered-json",
)
FAULTY = (
    "sim-cut-12-pace-60-numbered",
    "sim-cut-clean-9-pace-60-numbered",
    "sim-words-12-pace-40-numbered-cut-finish",
    "sim-midstream-error-pace-60-numbered",
    "sim-garbage-pace-60-numbered",
    "sim-error-500",
    "sim-error-429",
    "sim-html-502",
    "sim-empty",
)
SILENT = ("sim-stall-5-pace-60-numbered", "sim-timeout", "sim-words-9-numbered-stall-finish")
"""These never end by themselves: whoever asks them has to press Stop."""


def main() -> None:
    arguments = argparse.ArgumentParser(description="People and models for a run of chaos.")
    arguments.add_argument("rich", type=int)
    arguments.add_argument("poor", type=int)
    given = arguments.parse_args()
    found = {
        "models": {
            "good": [simulated_model(script, rate=RATE) for script in (*WELL_BEHAVED, *ODD)],
            "free": [simulated_model(WELL_BEHAVED[0], rate=0)],
            "faulty": [simulated_model(script, rate=RATE) for script in FAULTY],
            "silent": [simulated_model(script, rate=RATE) for script in SILENT],
        },
        "rich": [person(tokens=300_000, rupiah=3_000_000) for _ in range(given.rich)],
        "poor": [person(tokens=700, rupiah=120_000) for _ in range(given.poor)],
        "prober": person(tokens=3_000_000, rupiah=1),
    }
    print(json.dumps(found))


def person(*, tokens: int, rupiah: int) -> dict[str, Any]:
    someone = people.someone("Chaos")
    people.give_tokens(someone, tokens)
    people.give_rupiah(someone, rupiah)
    key = ApiKey.issue(user=someone, name="chaos")
    return {"id": someone.pk, "cookie": session_cookie(someone), "key": key}


if __name__ == "__main__":
    main()

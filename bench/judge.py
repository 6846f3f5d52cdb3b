"""Has OpenAI's o200k vocabulary count texts of five kinds, and keeps some with their counts for the tests.

    python -m venv var/judge && var/judge/bin/pip install -r bench/requirements-estimates.txt
    var/judge/bin/python -m bench.judge

Writes `tests/judged_texts.json`: of each kind 50 to learn from and 40 to be judged by.
"""

import json
from pathlib import Path

from rs_bpe.bpe import openai

from bench.texts import KINDS, texts

LEARNT, JUDGED = 50, 40
FILE = Path(__file__).resolve().parent.parent / "tests" / "judged_texts.json"
LONGEST = 520


def main() -> None:
    vocabulary = openai.o200k_base()
    kept: dict[str, dict[str, list[list[object]]]] = {"learn": {}, "judge": {}}
    for part, number, seed in (("learn", LEARNT, 1), ("judge", JUDGED, 2)):
        for kind in KINDS:
            cut = [text[:LONGEST] for text in texts(kind, number=number, seed=seed)]
            kept[part][kind] = [[vocabulary.count(text), text] for text in cut]
    FILE.write_text(json.dumps(kept, ensure_ascii=False, indent=0) + "\n")


if __name__ == "__main__":
    main()

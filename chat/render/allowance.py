"""What one message may cost, so that no reply can hold a processor. Only the renderer uses this.

Costs are counted in characters and not in milliseconds, so that the same text always gives the same HTML.
"""

import re
from dataclasses import dataclass

# Effort of reading a text as Markdown. A plain character costs 2, so that the longest text is of 256 kB; a line and a
# character that may be markup cost the parser as much as this many more.
MOST_EFFORT = 512 * 1024
_LINE = 30
_MARK = 10
_MARKS = re.compile(r"[][|*_`~<&\\$!]")


def affordable(text: str, effort: int) -> tuple[str, int]:
    """The beginning of `text` that may be read as Markdown for this effort, and the effort then left.

    Cutting `text` into pieces and asking piece by piece gives the same beginning.
    """
    whole = _effort(text)
    if whole <= effort:
        return text, effort - whole
    for index, character in enumerate(text):
        cost = _effort(character)
        if cost > effort:
            return text[:index], 0
        effort -= cost
    raise AssertionError("the parts cost as much as the whole")


def _effort(text: str) -> int:
    return 2 * len(text) + _LINE * text.count("\n") + _MARK * len(_MARKS.findall(text))


@dataclass(slots=True)
class Allowance:
    """What is left for decoration, spent from a message's first character to its last.

    Highlighting and formulas cost far more than Markdown does. What comes after the allowance is shown as plain source.
    """

    code_characters: int = 48_000
    formula_characters: int = 40_000

    def grant_code(self, characters: int) -> bool:
        """Whether a code block of this length may be highlighted; spends it if so."""
        if characters > self.code_characters:
            return False
        self.code_characters -= characters
        return True

    def grant_formula(self, characters: int) -> bool:
        """Whether a formula of this length may be converted; spends it if so."""
        cost = characters + 16  # even the shortest formula has to be set up
        if cost > self.formula_characters:
            return False
        self.formula_characters -= cost
        return True

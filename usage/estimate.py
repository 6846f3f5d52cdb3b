"""How many LLM tokens a text has, without the provider's tokenizer. A door of this app; knows no database.

For reservations, for the estimate beside Send, for the live count, and for calls whose provider does not count. What a
provider reports always wins. Weights were measured against OpenAI's o200k vocabulary on English, Indonesian, Javanese,
Chinese, Japanese and Arabic text, code, JSON, tables and digits: -30 % to +28 %, where a quarter of the characters is
off by up to -68 %. Other vocabularies differ by the factor of their family.
"""

import re
from collections.abc import Callable, Sequence
from decimal import ROUND_CEILING, Decimal

RESERVE = Decimal("1.3")
"""What a reservation multiplies an estimated prompt by, so that few prompts turn out longer than was held."""

PER_MESSAGE = 4
PER_REQUEST = 3
"""LLM tokens that the chat format itself adds (OpenAI's; the others are between 5 and 15 in all)."""

FACTORS = {
    "openai": Decimal("1.0"),
    "gemini": Decimal("1.0"),
    "demo": Decimal("1.0"),
    "deepseek": Decimal("1.15"),
    "llama": Decimal("1.25"),
    "claude": Decimal("1.4"),
}
CAUTIOUS = Decimal("1.25")
"""For families that nobody has measured."""

FAMILIES = (
    # A distillation keeps the vocabulary of what it was distilled into, so llama comes before deepseek.
    ("claude", re.compile(r"claude")),
    ("gemini", re.compile(r"gemini|gemma")),
    ("llama", re.compile(r"llama")),
    ("deepseek", re.compile(r"deepseek")),
    ("demo", re.compile(r"demo")),
    ("openai", re.compile(r"gpt|\bo[134]\b|text-embedding")),
)

# A text falls into runs of one script or kind. Single spaces belong to the word behind them and weigh nothing.
PIECE = re.compile(
    r"[\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\uac00-\ud7af]+"
    r"|[A-Za-z]+|[0-9]+|[^\W\d_]+|[^\w\s]+|_+|[^\S\n]{2,}|\n+|[^ ]",
    re.DOTALL,
)
LINE = re.compile(r"\n+|[^\n]+")
"""No piece reaches over the end of a line."""

TOKEN = 1260
"""Weights are whole numbers of 1/1260 token (the least that divides by 18, 14, 5, 4 and 3), so that sums are exact."""


def tokens(text: str) -> int:
    """LLM tokens of a text in OpenAI's vocabulary, rounded up. 0 for an empty text."""
    return -(-_weight(text) // TOKEN)


def prompt_tokens(messages: Sequence[tuple[str, str]], *, factor: Decimal) -> int:
    """LLM tokens of a prompt made of (role, content) pairs, the chat format's own included, rounded up."""
    weight = sum(_weight(content) for _role, content in messages)
    text = (weight * factor / TOKEN).to_integral_value(rounding=ROUND_CEILING)
    return int(text) + PER_MESSAGE * len(messages) + PER_REQUEST


def factor_of(family: str) -> Decimal:
    """How many tokens a family's vocabulary needs for one of OpenAI's. A cautious figure for an unknown family."""
    return FACTORS.get(family, CAUTIOUS)


def family_of(model: str) -> str:
    """The family of a model by its slug or any provider's id of it; "other" if there is no telling."""
    name = model.lower()
    return next((family for family, pattern in FAMILIES if pattern.search(name)), "other")


class _Remembered(dict[str, int]):
    """Weights of texts that were weighed before, for they come again: words in every text, and all lines but the last
    of a reply that is weighed while it grows. Long texts are not kept and the number is bounded, so that nobody's text
    can fill the memory."""

    def __init__(self, weigh: Callable[[str], int], *, longest: int, most: int) -> None:
        super().__init__()
        self.weigh, self.longest, self.most = weigh, longest, most

    def __missing__(self, text: str) -> int:
        weight = self.weigh(text)
        if len(text) <= self.longest:
            if len(self) >= self.most:
                self.clear()
            self[text] = weight
        return weight


def _weight(text: str) -> int:
    return sum(map(_lines.__getitem__, LINE.findall(text)))


def _weight_of_line(line: str) -> int:
    return sum(map(_pieces.__getitem__, PIECE.findall(line)))


def _weight_of_piece(piece: str) -> int:
    first, length = piece[0], len(piece)
    if first.isascii() and first.isalpha():
        return TOKEN if length <= 5 else TOKEN + (length - 5) * TOKEN * 5 // 18
    if "0" <= first <= "9":
        return -(-length // 3) * TOKEN
    if first.isspace():
        return TOKEN if length > 1 or first == "\n" else 0
    if first.isalpha():
        if 0x3040 <= ord(first) <= 0x9FFF or 0xAC00 <= ord(first) <= 0xD7AF:
            return length * TOKEN * 3 // 4
        return max(TOKEN, length * TOKEN * 5 // 14)
    if piece.isascii():
        return max(TOKEN, length * TOKEN // 3)
    return sum(max(TOKEN, len(char.encode(errors="surrogatepass")) * TOKEN * 2 // 5) for char in piece)


_lines = _Remembered(_weight_of_line, longest=400, most=4_000)
_pieces = _Remembered(_weight_of_piece, longest=16, most=20_000)

"""How many LLM tokens a text has, without the provider's tokenizer. A door of this app; knows no database.

For reservations, for the estimate beside Send, for the live count, and for calls whose provider does not count. What a
provider reports always wins. Weights were measured against OpenAI's o200k vocabulary on English, Indonesian, Javanese,
Chinese, Japanese and Arabic text, code, JSON, tables and digits: -30 % to +28 %, where a quarter of the characters is
off by up to -68 %. Other vocabularies differ by the factor of their family.

A text is weighed by kind, block by block, because a vocabulary errs in one way on prose and in another on code. What a
provider has counted teaches how much to make of each kind: `usage.calibration`.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Generic, TypeVar

Sizes = dict[str, int]
"""The weight of a text by kind, in `TOKEN`s."""

KINDS = ("prose", "indonesian", "code", "data", "cjk", "other")
"""`prose` is in Latin letters and not Indonesian, `data` is JSON, tables and figures, `other` is all other scripts."""

PER_MESSAGE_BY_OTHERS, PER_REQUEST_BY_OTHERS = 8, 24
"""What a reservation takes the chat format for: Llama's alone has 25 before the first word."""

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


def sizes(text: str) -> Sizes:
    """The weight of a text by kind; kinds that it does not have are left out. Together they are its whole weight."""
    found: Sizes = {}
    language = 0
    for kind, weight, votes in _blocks(text):
        found[kind] = found.get(kind, 0) + weight
        language += votes
    if language > 0 and "prose" in found:
        found["indonesian"] = found.pop("prose")
    return found


def together(parts: Iterable[Sizes]) -> Sizes:
    """The sizes of several texts as one."""
    found: Sizes = {}
    for part in parts:
        for kind, weight in part.items():
            found[kind] = found.get(kind, 0) + weight
    return found


@dataclass(frozen=True, slots=True)
class Measure:
    """How a model counts: thousandths of `TOKEN` for a weight of each kind, and thousandths that a reservation takes
    beyond it."""

    factors: Mapping[str, int]
    reserves: Mapping[str, int]

    def likely(self, found: Sizes) -> int:
        """The LLM tokens of a text of these sizes, rounded up."""
        weight = sum(weight * self.factors[kind] for kind, weight in found.items())
        return -(-weight // (TOKEN * 1000))

    def at_most(self, found: Sizes) -> int:
        """The LLM tokens that fewer than one text in a thousand has more than."""
        weight = sum(weight * self.factors[kind] * self.reserves[kind] for kind, weight in found.items())
        return -(-weight // (TOKEN * 1_000_000))


def format_tokens(messages: int) -> int:
    """LLM tokens that the chat format adds to a prompt of so many messages."""
    return PER_MESSAGE * messages + PER_REQUEST


def format_at_most(messages: int) -> int:
    """What a reservation takes them for."""
    return PER_MESSAGE_BY_OTHERS * messages + PER_REQUEST_BY_OTHERS


def factor_of(family: str) -> Decimal:
    """How many tokens a family's vocabulary needs for one of OpenAI's. A cautious figure for an unknown family."""
    return FACTORS.get(family, CAUTIOUS)


def family_of(model: str) -> str:
    """The family of a model by its slug or any provider's id of it; "other" if there is no telling."""
    name = model.lower()
    return next((family for family, pattern in FAMILIES if pattern.search(name)), "other")


Weighed = TypeVar("Weighed")


class _Remembered(dict[str, Weighed], Generic[Weighed]):
    """Weights of texts that were weighed before, for they come again: words in every text, and all lines but the last
    of a reply that is weighed while it grows. Long texts are not kept and the number is bounded, so that nobody's text
    can fill the memory."""

    def __init__(self, weigh: Callable[[str], Weighed], *, longest: int, most: int) -> None:
        super().__init__()
        self.weigh, self.longest, self.most = weigh, longest, most

    def __missing__(self, text: str) -> Weighed:
        weight = self.weigh(text)
        if len(text) <= self.longest:
            if len(self) >= self.most:
                self.clear()
            self[text] = weight
        return weight


FENCE = re.compile(r" {0,3}(```|~~~)")
DATA = re.compile(r"""\s*(?:[\[\]{}"|]|-?\d[\d.,:/-]*\s*[,;|\t])""")
CODE = re.compile(
    r"""\s*(?:def |class |import |from \S+ import |return\b|if .*:$|for .*[:{]$|while |else\b|elif |try\b|except|with .*:$|@\w
    |function\b|const |let |var |export |public |private |static |void |int |\#include|//|/\*|\*/|<[/!\w]|SELECT |INSERT |\$ )
    |.*(?:[;{}]|\):|=>|->)\s*$|.*\w\(.*\)|\s*[\w.\[\]]+\s*[-+|]?=\s""",
    re.VERBOSE,
)
SEEN = 200
"""Characters that tell the kind of a line. The patterns take their time on a line that is made to take it."""
WORD = re.compile(r"[^\W\d_]+")
INDONESIAN = frozenset(
    WORD.findall(
        "yang dan di ini itu untuk dengan tidak dari dalam adalah pada akan atau ke bisa dapat ada juga oleh sudah saya anda"
        " kami kita apa bagaimana karena jika agar lebih telah belum harus sebuah seorang para bila secara setelah sebelum"
        " seperti saat hanya tersebut masih sangat setiap tapi tetapi namun maka jangan tolong buat buatkan jelaskan"
    )
)
ENGLISH = frozenset(
    WORD.findall(
        "the and of to is are in that it for with as be this on not or by an was you have if can from at which will has its"
        " what how your they when there do does we my i"
    )
)
OF_CJK = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\uac00-\ud7af]")
OF_OTHERS = re.compile(r"[^\x00-\u024f\u2010-\u203a\u3000-\u303f\uff00-\uffef]")
OF_DATA = re.compile(r"""[\d"|{}\[\]:,]""")


def _blocks(text: str) -> list[tuple[str, int, int]]:
    """The kind, the weight, and the votes for Indonesian of each block: what stands between two empty lines, or in a fence.
    A block is of the kind that most of it is."""
    found: list[tuple[str, int, int]] = []
    block: Sizes = {}
    votes = 0
    in_fence = False

    def close() -> None:
        nonlocal block, votes
        if block:
            if in_fence and block.get("data", 0) * 2 < sum(block.values()):
                kind = "code"
            else:
                kind = max(block, key=block.__getitem__)
            found.append((kind, sum(block.values()), votes if kind == "prose" else 0))
        block, votes = {}, 0

    for line in LINE.findall(text):
        kind, weight, vote = _kinds[line]
        if kind == "fence":
            close()
            in_fence = not in_fence
            kind = "code"
        block[kind or next(iter(block), "prose")] = block.get(kind or next(iter(block), "prose"), 0) + weight
        votes += vote
        if not in_fence and not kind and len(line) > 1:
            close()
    close()
    return found


def _kind_of_line(line: str) -> tuple[str, int, int]:
    """The kind of a line as it stands alone ("" for line ends, "fence" for what opens and closes code), its weight, and
    whether its words are Indonesian (above 0) or English."""
    weight = _lines[line]
    line = line[:SEEN]
    signs = len(line) - line.count(" ")
    if not signs or line[0] == "\n":
        return "", weight, 0
    if FENCE.match(line):
        return "fence", weight, 0
    if len(OF_CJK.findall(line)) * 4 >= signs:
        return "cjk", weight, 0
    if len(OF_OTHERS.findall(line)) * 4 >= signs:
        return "other", weight, 0
    if len(OF_DATA.findall(line)) * (4 if DATA.match(line) else 2) >= signs:
        return "data", weight, 0
    if CODE.match(line):
        return "code", weight, 0
    words = [word.lower() for word in WORD.findall(line)]
    return "prose", weight, sum(word in INDONESIAN for word in words) - sum(word in ENGLISH for word in words)


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
_kinds = _Remembered(_kind_of_line, longest=400, most=4_000)

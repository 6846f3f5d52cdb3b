"""Markdown as a list of top-level blocks. Only the renderer calls this."""

import importlib
from dataclasses import dataclass
from itertools import pairwise

from django.utils.translation import gettext as _
from markdown_it import MarkdownIt
from markdown_it.rules_core import StateCore
from markdown_it.token import Token

from chat.render import formula_syntax

# The library lets a table with too few cells be filled up by 65,536 empty ones, which turns 1 kB into 650 kB of HTML.
importlib.import_module("markdown_it.rules_block.table").MAX_AUTOCOMPLETED_CELLS = 200  # type: ignore[attr-defined]

# The thread has the h1 and each message a hidden h2.
_HEADINGS = {"h1": "h3", "h2": "h3", "h3": "h4", "h4": "h5", "h5": "h6", "h6": "h6"}
_ALIGN = "text-align:"


@dataclass(frozen=True, slots=True)
class Block:
    """One top-level block: its tokens, and the line of the source that it begins on, counted from 0."""

    tokens: list[Token]
    first_line: int

    @property
    def lines_to_recognise(self) -> int:
        """How many of its lines tell that this block begins here: a table is known by its second line only."""
        return 2 if self.tokens[0].type == "table_frame_open" else 1


def parse(source: str) -> list[Block]:
    """The top-level blocks of `source`, in order. Lines end with a newline alone."""
    blocks: list[Block] = []
    depth = 0
    for token in parser.parse(source):
        if depth == 0:
            assert token.map is not None
            blocks.append(Block(tokens=[], first_line=token.map[0]))
        blocks[-1].tokens.append(token)
        depth += token.nesting
    return blocks


def count_settled(blocks: list[Block], *, complete_lines: int) -> int:
    """How many of the first blocks no later text can change.

    A block ends for good where the next one surely begins, and only complete lines are sure: `#` after a paragraph
    is a heading until it grows to `#tag`, which is more of the paragraph. So the last block is never settled.
    """
    for index in range(len(blocks) - 1, 0, -1):
        if blocks[index].first_line + blocks[index].lines_to_recognise <= complete_lines:
            return index
    return 0


def _shape(state: StateCore) -> None:
    """Fit the tokens to the page: headings below the thread's own, framed tables, alignment without inline style."""
    shaped: list[Token] = []
    for token in state.tokens:
        token.tag = _HEADINGS.get(token.tag, token.tag)
        if token.type == "table_open":
            shaped.append(_frame("table_frame_open", 1, token))
        if token.type in ("th_open", "td_open") and "style" in token.attrs:
            token.attrs = {"data-align": str(token.attrs["style"]).removeprefix(_ALIGN)}
        shaped.append(token)
        if token.type == "table_close":
            shaped.append(_frame("table_frame_close", -1, token))
        if token.children:
            _turn_images_into_links(token.children)
    state.tokens = shaped


def _frame(kind: str, nesting: int, table: Token) -> Token:
    """A wide table scrolls in a frame of its own, which the keyboard can reach."""
    frame = Token(kind, "div", nesting, map=table.map, block=True)  # type: ignore[arg-type]
    if nesting == 1:
        frame.attrs = {"class": "prose__table", "tabindex": "0", "role": "region", "aria-label": _("Table")}
    return frame


def _turn_images_into_links(children: list[Token]) -> None:
    """A picture from elsewhere would tell its host who reads it, so it is offered as a link and never fetched."""
    for token, following in pairwise(children):
        if token.type == "text" and following.type == "link_open" and token.content.endswith("!"):
            token.content = token.content[:-1]


def _build() -> MarkdownIt:
    options = {"html": False, "linkify": False, "typographer": False, "maxNesting": 20}
    md = MarkdownIt("js-default", options).enable(["table", "strikethrough"])
    # A reference defined at the end would change blocks that were given out long ago.
    md.disable(["image", "reference", "html_block", "html_inline", "linkify", "replacements", "smartquotes"])
    md.use(formula_syntax.plugin)
    md.core.ruler.before("text_join", "shape", _shape)
    return md


parser = _build()

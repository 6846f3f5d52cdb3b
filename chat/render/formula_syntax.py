r"""Where a formula begins and ends in Markdown: `$x$` and `\(x\)` in a line, `$$x$$` and `\[x\]` on display.

The rules never look past a blank line, and a line that opens a block of display math settles by itself that it does.
Otherwise a later `$$` could swallow blocks that have already been given out.
"""

import re

from markdown_it import MarkdownIt
from markdown_it.rules_block import StateBlock
from markdown_it.rules_inline import StateInline

_DISPLAY = {"$$": "$$", r"\[": r"\]"}
_INLINE = {**_DISPLAY, r"\(": r"\)"}
_MATHEMATICAL = re.compile(r"[\\^_{}=<>+*/]")
_PUNCTUATION = ("", ".", ",", ";", ":")
_ENDS = ["paragraph", "reference", "blockquote", "list"]


def plugin(md: MarkdownIt) -> None:
    """Teach a parser both rules. They leave `formula` tokens: `content` is LaTeX, `meta["display"]` a bool."""
    md.block.ruler.before("fence", "formula", _block, {"alt": _ENDS})
    md.inline.ruler.before("escape", "formula", _inline)


def _block(state: StateBlock, start: int, end: int, silent: bool) -> bool:
    if state.is_code_block(start):
        return False
    first = _line(state, start)
    closer = _DISPLAY.get(first[:2])
    if closer is None or not _opens(first[2:], closer):
        return False
    if silent:
        return True
    latex, following, closed = _read(state, start, end, closer)
    if closed:
        token = state.push("formula", "math", 0)
        token.content = latex
        token.meta = {"display": True}
        token.map = [start, following]
    else:
        _push_paragraph(state, start, following)
    state.line = following
    return True


def _opens(rest: str, closer: str) -> bool:
    """Whether the rest of a line that begins with a delimiter makes it a block, told by this line alone."""
    if not rest:
        return True
    latex, found, after = rest.partition(closer)
    if found:
        return bool(latex.strip()) and after in _PUNCTUATION
    return bool(_MATHEMATICAL.search(rest))


def _read(state: StateBlock, start: int, end: int, closer: str) -> tuple[str, int, bool]:
    """The LaTeX from line `start`, the line after it, and whether it was closed before the block had to end."""
    collected: list[str] = []
    for number in range(start, end):
        if number > start and (state.isEmpty(number) or state.sCount[number] < state.blkIndent):
            return "", number, False
        latex, found, after = _line(state, number)[2 if number == start else 0 :].partition(closer)
        collected.append(latex)
        if found:
            # A full stop that belongs to the sentence goes on the same line as the formula.
            return "\n".join(collected).strip() + after, number + 1, after in _PUNCTUATION
    return "", end, False


def _push_paragraph(state: StateBlock, start: int, following: int) -> None:
    opening = state.push("paragraph_open", "p", 1)
    opening.map = [start, following]
    text = state.push("inline", "", 0)
    text.content = "\n".join(_line(state, number) for number in range(start, following))
    text.map = [start, following]
    text.children = []
    state.push("paragraph_close", "p", -1)


def _line(state: StateBlock, number: int) -> str:
    return state.src[state.bMarks[number] + state.tShift[number] : state.eMarks[number]].strip()


def _inline(state: StateInline, silent: bool) -> bool:
    opener = state.src[state.pos : state.pos + 2]
    closer = _INLINE.get(opener)
    if closer is not None:
        found = _between(state, opener, closer)
    elif opener[:1] == "$":
        found = _between_dollars(state)
    else:
        return False
    if found is None:
        return False
    latex, end = found
    if not silent:
        token = state.push("formula", "math", 0)
        token.content = latex
        token.meta = {"display": opener in _DISPLAY}
    state.pos = end
    return True


def _between(state: StateInline, opener: str, closer: str) -> tuple[str, int] | None:
    start = state.pos + 2
    if start > _last(state, closer):
        return None
    end = state.src.find(closer, start, state.posMax)
    latex = state.src[start:end].strip()
    if end < 0 or not latex or (opener == r"\[" and not _MATHEMATICAL.search(latex)):
        return None
    return latex, end + 2


def _last(state: StateInline, closer: str) -> int:
    """Where `closer` stands for the last time, so that a thousand openers do not each search to the end in vain."""
    known = state.env.setdefault("last_closers", {})
    key = (closer, state.src)
    if key not in known:
        known[key] = state.src.rfind(closer)
    return int(known[key])


def _between_dollars(state: StateInline) -> tuple[str, int] | None:
    r"""`$x$` but not prices: in `$5 and $6` the first dollar is not closed, because a space stands before the second."""
    src, start = state.src, state.pos + 1
    if start >= state.posMax or src[start].isspace() or (state.pos > 0 and src[state.pos - 1].isalnum()):
        return None
    end = src.find("$", start, state.posMax)
    while end > 0 and src[end - 1] == "\\":
        end = src.find("$", end + 1, state.posMax)
    if end <= start or src[end - 1].isspace() or src[end + 1 : end + 2].isdigit():
        return None
    return src[start:end], end + 1

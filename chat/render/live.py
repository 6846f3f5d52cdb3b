"""Rendering as the text arrives: finished blocks are given out once, only the open block again and again."""

import re
from dataclasses import dataclass, replace

from django.utils.safestring import SafeString

from chat.render import markdown
from chat.render.allowance import MOST_EFFORT, Allowance, affordable
from chat.render.page import joined, plain, write

_LONE_SURROGATE = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class Update:
    """What changed: `blocks` is to be appended to what was shown before, `open` replaces the block being written."""

    blocks: SafeString
    open: SafeString


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Everything so far: all finished blocks, and the block being written."""

    blocks: SafeString
    open: SafeString


def render(text: str) -> SafeString:
    """A whole Markdown text as safe HTML, in the language that is active now.

    What is beyond `MOST_EFFORT`, which is 256 kB at most, follows as plain text.
    """
    update = LiveRenderer().feed(text)
    return joined(update.blocks, update.open)


class LiveRenderer:
    """Renders one growing reply for one viewer. Not to be shared between threads.

    All `blocks` ever given out, followed by the last `open`, equal `render` of the text so far. Each `feed` parses
    once, from the start of the open block, so the caller decides how often that is worth it.
    """

    def __init__(self) -> None:
        self._finished = joined()
        self._open = joined()
        self._source = ""  # from the start of the open block
        self._beyond = ""  # what came after the effort was spent
        self._effort = MOST_EFFORT
        self._allowance = Allowance()
        self._after_return = False

    def feed(self, text: str) -> Update:
        """Append `text` and say what changed. Costs one parse of the open block, or nothing if `text` is empty."""
        added = self._tidy(text)
        within, self._effort = affordable(added, self._effort)
        self._source += within
        self._beyond += added[len(within) :]
        blocks = self._parse() if within else joined()
        return Update(blocks=blocks, open=self._shown_open())

    def snapshot(self) -> Snapshot:
        """Everything rendered so far, for a viewer who has just come."""
        return Snapshot(blocks=self._finished, open=self._shown_open())

    def _parse(self) -> SafeString:
        """Write the open block again, and give back the blocks that are finished now."""
        blocks = markdown.parse(self._source)
        settled = markdown.count_settled(blocks, complete_lines=self._source.count("\n"))
        finished = write(blocks[:settled], self._allowance)
        if settled:
            self._source = _from_line(self._source, blocks[settled].first_line)
            self._finished = joined(self._finished, finished)
        # The open block is written again at the next feed, so it spends from a copy.
        self._open = write(blocks[settled:], replace(self._allowance))
        return finished

    def _shown_open(self) -> SafeString:
        return joined(self._open, plain(self._beyond))

    def _tidy(self, text: str) -> str:
        """`text` with every line ended by a newline alone, and without what HTML or UTF-8 cannot carry."""
        text = _LONE_SURROGATE.sub("\ufffd", text.replace("\0", ""))
        if not text:
            return ""
        if self._after_return and text[0] == "\n":
            text = text[1:]  # the second half of a line end that was cut in two
            self._after_return = False
            if not text:
                return ""
        self._after_return = text[-1] == "\r"
        return text.replace("\r\n", "\n").replace("\r", "\n")


def _from_line(source: str, line: int) -> str:
    start = 0
    for _ in range(line):
        start = source.index("\n", start) + 1
    return source[start:]

"""Markdown as models write it and as nobody should, for `hypothesis`: `documents` has all kinds of blocks, nested in lists
and quotes and then damaged; `cuts` says where such a text is cut into pieces.

Fragments in random order hardly ever make a table or a list in a list, and these are where a renderer goes wrong.
"""

from collections.abc import Sequence
from functools import partial

from hypothesis import strategies as st

PLAIN = "a b1 Satu dua é e\u0301 日本 🦆 👩\u200d💻 مرحبا \u202eright a\u00a0b x_1_y 2*3 <3 &amp; & &#60; Rp5.000 1. - # | \\"
MARKED = (
    "**b** *i* _i_ ~~s~~ `c` `` c`d `` **b *i* `c|d` $x^2$ $a_1$ $5 \\(x\\) \\[x=1\\] $$y$$ [l](https://a.example) [l]"
    " [l]( ![p](https://a.example/p.png) <https://a.example> https://a.example <b> </b> <br> <!-- \\* \\| \\$ ** ` ~~"
)
WORD = st.sampled_from(PLAIN.split(" "))
SPAN = WORD | WORD | st.sampled_from(MARKED.split(" "))
LINE = st.lists(SPAN, min_size=1, max_size=5).map(" ".join)
CODE = st.lists(
    st.sampled_from(
        ["x = 1", "def f():", "    return 1", "", "```", "~~~", "| a | b |", "$$", "<b>", "# c", "\t1", "- a"]
    ),
    max_size=4,
).map("\n".join)
LATEX = st.sampled_from(
    ["x^2", "\\frac{1}{2}", "a &= b \\\\\n c &= d", "x\n\ny", "\\frac{1", "a\n- b", "", "x $ y"]
)
INFO = st.sampled_from(["", "python", "js title=a.js", "latex", "klingon", " py", "{.cpp}", "`"])
PUT_IN = "\n,\n\n, ,    ,\t,\r,\r\n,```,~~~,|,-|-,$$,\\[,\\],- ,> ,1. ,#,*,`,[,](,<,&,\\,===\n,---\n,\0,\ud800,\u2028,\x0b,\x0c,\ufeff,"
DAMAGE = st.sampled_from(PUT_IN.split(","))


def _paragraph(lines: Sequence[str], end: str) -> str:
    return end.join(lines)


def _fence(mark: str, info: str, code: str, is_closed: bool) -> str:
    return f"{mark}{info}\n{code}\n" + (mark if is_closed else "")


def _table(rows: Sequence[Sequence[str]], aligns: Sequence[str], is_framed: bool) -> str:
    edge = "|" if is_framed else ""
    head, *body = [f"{edge} {' | '.join(row)} {edge}".strip() for row in rows]
    return "\n".join([head, edge + "|".join(aligns[: len(rows[0])]) + edge, *body])


def _formula(opener: str, latex: str, breaks: str, is_closed: bool, after: str) -> str:
    closer = {"$$": "$$", "\\[": "\\]"}[opener]
    return f"{opener}{breaks}{latex}{breaks}" + (closer + after if is_closed else "")


MOSTLY = st.sampled_from([True, True, True, False])
CELLS = st.lists(SPAN, min_size=1, max_size=4)
ALIGNS = st.lists(st.sampled_from(["---", ":--", "--:", ":-:", "-", " - "]), min_size=4, max_size=4)
BLOCK = st.one_of(
    st.builds(_paragraph, st.lists(LINE, min_size=1, max_size=3), st.sampled_from(["\n", "  \n", "\\\n"])),
    st.builds("{} {}".format, st.sampled_from(["#", "##", "###", "#######"]), LINE),
    st.builds("{}\n{}".format, LINE, st.sampled_from(["===", "---", "-"])),
    st.builds(_fence, st.sampled_from(["```", "~~~", "````"]), INFO, CODE, MOSTLY),
    CODE.map(lambda code: "\n".join("    " + line for line in code.split("\n"))),
    st.builds(_table, st.lists(CELLS, min_size=1, max_size=4), ALIGNS, MOSTLY),
    st.builds(
        _formula,
        st.sampled_from(["$$", "\\["]),
        LATEX,
        st.sampled_from(["\n", "\n", "", " "]),
        MOSTLY,
        st.sampled_from(["", "", ".", " x"]),
    ),
    st.sampled_from(
        ["---", "***", "<div>\n<b>x</b>\n</div>", "<!-- a\n\nb -->", "<script>\n1\n</script>", ""]
    ),
    st.sampled_from(
        ["[l]: https://b.example", "[^1]: note", ":::\nx\n:::", "- [ ] a\n- [x] b", "Term\n: what"]
    ),
)
GAP = st.sampled_from(["\n\n", "\n\n", "\n", "\n\n\n", "\n \n"])


def _joined(blocks: Sequence[str], gaps: Sequence[str]) -> str:
    return "".join(block + gap for block, gap in zip(blocks, gaps, strict=False))


def _blocks(block: st.SearchStrategy[str], most: int) -> st.SearchStrategy[str]:
    return st.builds(
        _joined, st.lists(block, min_size=1, max_size=most), st.lists(GAP, min_size=most, max_size=most)
    )


def _items(marker: str, items: Sequence[str], gap: str, indent: int) -> str:
    width = " " * (indent or len(marker))
    return gap.join(marker + item.rstrip("\n").replace("\n", "\n" + width) for item in items)


def _quoted(text: str, prefix: str, is_lazy: bool) -> str:
    lines = text.rstrip("\n").split("\n")
    return "\n".join(line if is_lazy and place % 2 else prefix + line for place, line in enumerate(lines))


def _nested(block: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    inner = _blocks(block, 3)
    return st.one_of(
        st.builds(
            _items,
            st.sampled_from(["- ", "* ", "1. ", "7) ", "-   ", "10. "]),
            st.lists(inner, min_size=1, max_size=3),
            st.sampled_from(["\n", "\n", "\n\n", "\n\n\n"]),
            st.sampled_from([0, 0, 0, 1, 2, 4]),
        ),
        st.builds(_quoted, inner, st.sampled_from(["> ", ">", ">  "]), st.sampled_from([False, False, True])),
    )


def _damaged(text: str, wounds: Sequence[tuple[int, int, str]]) -> str:
    """At each wound some characters are lost and others put in."""
    for place, lost, put_in in wounds:
        at = place % (len(text) + 1)
        text = text[:at] + put_in + text[at + lost :]
    return text


WOUNDS = st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 3), DAMAGE), max_size=4)
LINE_ENDS = st.sampled_from(["\n", "\n", "\n", "\r\n", "\r"])
documents: st.SearchStrategy[str] = st.builds(
    lambda text, wounds, line_end: _damaged(text, wounds).replace("\n", line_end),
    _blocks(st.recursive(BLOCK, _nested, max_leaves=5), 5),
    st.just([]) | WOUNDS,
    LINE_ENDS,
)


def _at_edges(text: str, edges: str, nudge: int) -> list[int]:
    return [place + nudge for place, letter in enumerate(text) if letter in edges]


def cuts(text: str, most: int = 12) -> st.SearchStrategy[list[int]]:
    """Where `text` is cut: anywhere, or before, behind or just after the ends of its lines or words; in order."""
    anywhere = st.lists(st.integers(0, len(text)), max_size=most)
    at_lines = st.integers(-1, 2).map(partial(_at_edges, text, "\r\n"))
    at_words = st.integers(0, 1).map(partial(_at_edges, text, " |`$*"))
    return st.one_of(anywhere, at_lines, st.builds(lambda a, b: a + b, anywhere, at_words)).map(
        lambda places: sorted(place for place in places if 0 <= place <= len(text))[: 4 * most]
    )

"""LaTeX as MathML, which browsers draw by themselves. Only the renderer calls this."""

import re
from functools import lru_cache
from html import unescape
from xml.etree import ElementTree

import nh3
from latex2mathml.converter import convert_to_element

LONGEST = 3_000  # characters; a page of derivations has fewer
DEEPEST = 30  # braces within braces

# The converter expands macros, by which a short formula can become a very long one.
_FORBIDDEN = re.compile(
    r"\\(?:(?:re)?newcommand|providecommand|newenvironment|def|gdef|edef|xdef|let|DeclareMathOperator)"
)
_WITHOUT_MEANING = re.compile(r"\\(?:nonumber|notag)(?![a-zA-Z])|\\label\s*\{[^{}]*\}")
_BRACE = re.compile(r"\\.|[{}]", re.DOTALL)
_ENVIRONMENT = re.compile(r"\\(begin|end)\s*\{([a-zA-Z]+\*?)\}")
# What the converter does not know, or would number, in terms of what it draws well.
_DRAWN_AS = {
    "align": "align*",
    "aligned": "split",
    "eqnarray": "align*",
    "eqnarray*": "align*",
    "gather": "matrix",
    "gather*": "matrix",
    "gathered": "matrix",
    "multline": "matrix",
    "multline*": "matrix",
    "dcases": "cases",
}
_LENGTH = re.compile(r"[+-]?\d?(?:\.\d{1,3})?(?:em|ex|mu|px|pt)?")
_LENGTHS = {"width", "height", "depth", "lspace", "rspace", "voffset", "minsize", "maxsize", "linethickness"}
_WORD = re.compile(r"[a-zA-Z0-9 .+-]{1,64}")


def _filter(tag: str, name: str, value: str) -> str | None:
    """Lengths stay below ten of their unit, so that a formula cannot be moved over something else on the page."""
    return value if (_LENGTH if name in _LENGTHS else _WORD).fullmatch(value) else None


_TAGS = (
    "math mrow mi mo mn ms mtext mspace mstyle mpadded mphantom menclose mfrac msqrt mroot msub msup msubsup mover"
    " munder munderover mmultiscripts mprescripts none mtable mtr mtd"
)
_OPERATOR = "mathvariant stretchy fence form accent largeop movablelimits minsize maxsize lspace rspace"
_cleaner = nh3.Cleaner(
    tags=set(_TAGS.split()),
    attributes={
        "mi": {"mathvariant"},
        "mn": {"mathvariant"},
        "mo": set(_OPERATOR.split()),
        "mtext": {"mathvariant"},
        "mspace": {"width", "height", "depth"},
        "mpadded": {"width", "height", "depth", "lspace", "voffset"},
        "mstyle": {"displaystyle", "scriptlevel"},
        "menclose": {"notation"},
        "mfrac": {"linethickness"},
        "mover": {"accent"},
        "munder": {"accentunder"},
        "mtable": {"displaystyle", "columnspacing", "rowspacing", "columnlines", "rowlines"},
        "mtd": {"columnalign"},
    },
    tag_attribute_values={"math": {"display": {"block"}}},
    attribute_filter=_filter,
    clean_content_tags={"script", "style"},
    url_schemes=set(),
    link_rel=None,
)


@lru_cache(maxsize=1024)
def mathml(latex: str, display: bool) -> str | None:
    """Safe MathML, or None where the LaTeX is wrong, too long or beyond what the converter knows."""
    if len(latex) > LONGEST or _FORBIDDEN.search(latex) or not _is_balanced(latex):
        return None
    try:
        element = convert_to_element(_prepared(latex), display="block" if display else "inline")
        if not _is_understood(element):
            return None
        written = ElementTree.tostring(element, encoding="unicode")
    except Exception:  # the converter raises whatever its parser stumbled over, recursion included
        return None
    return _cleaner.clean(written)


def _is_balanced(latex: str) -> bool:
    """The converter drops what an open brace leaves unfinished, and how deep it can go depends on its caller."""
    depth = 0
    for brace in _BRACE.findall(latex):
        depth += {"{": 1, "}": -1}.get(brace, 0)
        if not 0 <= depth <= DEEPEST:
            return False
    return depth == 0


def _prepared(latex: str) -> str:
    latex = _WITHOUT_MEANING.sub("", latex)
    if "\\\\" in latex and "\\begin" not in latex:
        latex = rf"\begin{{split}}{latex}\end{{split}}"
    return _ENVIRONMENT.sub(lambda m: rf"\{m[1]}{{{_DRAWN_AS.get(m[2], m[2])}}}", latex)


def _is_understood(element: ElementTree.Element) -> bool:
    """Resolve the entities that the converter writes as text. An unknown command or a stray `&` it leaves as it is."""
    for part in element.iter():
        if part.text:
            if part.text == "&" or (part.tag == "mi" and re.match(r"\\[a-zA-Z]", part.text)):
                return False
            part.text = unescape(part.text)
    return True

"""Parsed blocks as safe HTML. Only this module vouches for HTML, and only the renderer calls it."""

import re
import secrets
from collections.abc import Iterable, Sequence

import nh3
from django.template.loader import get_template
from django.utils.safestring import SafeString, mark_safe
from django.utils.translation import gettext as _
from markdown_it.renderer import RendererHTML
from markdown_it.token import Token
from markdown_it.utils import EnvType, OptionsDict

from chat.render import code, formulas
from chat.render.allowance import Allowance
from chat.render.markdown import Block, parser

_TAGS = (
    "p br hr em strong s del code pre blockquote ul ol li h1 h2 h3 h4 h5 h6 table thead tbody tr th td a div"
)
_cleaner = nh3.Cleaner(
    tags=set(_TAGS.split()),
    attributes={"a": {"href", "title"}, "ol": {"start"}, "div": {"aria-label"}},
    tag_attribute_values={
        "div": {"class": {"prose__table"}, "tabindex": {"0"}, "role": {"region"}},
        "th": {"data-align": {"left", "center", "right"}},
        "td": {"data-align": {"left", "center", "right"}},
    },
    set_tag_attribute_values={"a": {"target": "_blank"}},
    link_rel="noopener noreferrer nofollow ugc",
    url_schemes={"http", "https", "mailto"},
    url_relative="deny",
    clean_content_tags={"script", "style"},
    strip_comments=True,
)


def write(blocks: Iterable[Block], allowance: Allowance) -> SafeString:
    """The HTML of `blocks`, which spend from `allowance`."""
    tokens = [token for block in blocks for token in block.tokens]
    if not tokens:
        return joined()
    inserts = _Inserts(allowance)
    html = _cleaner.clean(_renderer.render(tokens, parser.options, {"inserts": inserts}))
    return _vouch_for(inserts.fill(html))


def plain(text: str) -> SafeString:
    """Text that is shown as it was written, Markdown or not."""
    return _vouch_for(get_template("chat/_unparsed.html").render({"text": text}) if text else "")


def joined(*parts: SafeString) -> SafeString:
    """One after the other."""
    return _vouch_for("".join(parts))


def _vouch_for(html: str) -> SafeString:
    return mark_safe(html)  # noqa: S308 - the one place: cleaned, escaped or of our own making


class _Inserts:
    """Code and formulas, put in after the cleaning because their markup is our own.

    Until then a mark stands in their place. It is a fresh secret for every call, so no text that was written before
    can contain one.
    """

    def __init__(self, allowance: Allowance) -> None:
        self._allowance = allowance
        self._secret = secrets.token_hex(16)
        self._pieces: list[str] = []

    def fill(self, html: str) -> str:
        if not self._pieces:
            return html
        return re.sub(rf"{self._secret}-(\d+)-", lambda mark: self._pieces[int(mark[1])], html)

    def add_code(self, source: str, info: str) -> str:
        source = source.removesuffix("\n")
        alias, label = code.language(info)
        coloured = alias and code.is_worth_colour(source) and self._allowance.grant_code(len(source))
        context = {
            "label": label or _("Text"),
            "code": _vouch_for(code.highlighted(source, alias)) if coloured else source,
        }
        return self._add(get_template("chat/_code.html").render(context))

    def add_formula(self, latex: str, display: bool) -> str | None:
        if not self._allowance.grant_formula(len(latex)):
            return None
        mathml = formulas.mathml(latex, display)
        return None if mathml is None else self._add(mathml)

    def _add(self, piece: str) -> str:
        self._pieces.append(piece)
        return f"{self._secret}-{len(self._pieces) - 1}-"


class _Renderer(RendererHTML):
    """Markdown-it's own HTML, except for code and formulas."""

    def fence(self, tokens: Sequence[Token], idx: int, options: OptionsDict, env: EnvType) -> str:
        inserts: _Inserts = env["inserts"]
        return inserts.add_code(tokens[idx].content, tokens[idx].info)

    code_block = fence

    def formula(self, tokens: Sequence[Token], idx: int, options: OptionsDict, env: EnvType) -> str:
        inserts: _Inserts = env["inserts"]
        token = tokens[idx]
        mark = inserts.add_formula(token.content, display=token.meta["display"])
        if token.block:
            return mark + "\n" if mark else inserts.add_code(token.content, "latex")
        return mark or self.code_inline(tokens, idx, options, env)


_renderer = _Renderer()

"""Code with its colours, by class names only. Only the renderer calls this."""

import re
import zlib
from collections.abc import Iterable, Iterator
from functools import cache, lru_cache

from pygments import format as write_tokens
from pygments.formatters import HtmlFormatter
from pygments.lexers import get_all_lexers, get_lexer_by_name
from pygments.token import Comment, Generic, Keyword, Name, Number, String, Text
from pygments.token import _TokenType as TokenType

LONGEST = 12_000  # characters
LONGEST_LINE = 400

# Pygments knows hundreds of languages; these are the ones that people ask about. First those that it calls by the name
# that they go by, then its name for the others and ours.
_OWN_NAMES = """
Ada|Arduino|Awk|Bash|Batchfile|C|C#|C++|CMake|COBOL|CSS|CUDA|Clojure|Common Lisp|Dart|Diff|Elixir|Elm|Erlang|F#|Fortran
GLSL|Gherkin|Go|GraphQL|Groovy|HTML|HTTP|Haskell|INI|JSON|JSON5|JSX|Java|JavaScript|Julia|Kotlin|Lua|Makefile|Markdown
MySQL|NASM|Nix|OCaml|Objective-C|PHP|PL/pgSQL|Perl|PowerShell|Prolog|Properties|Python|Racket|Ruby|Rust|SCSS|SQL|Sass
Scala|Scheme|Solidity|Swift|TOML|TSX|Terraform|TypeScript|Vue|WebAssembly|XML|YAML|Zig
"""
_LANGUAGES: dict[str, str] = {
    **{name: name for name in re.split(r"[|\n]", _OWN_NAMES.strip())},
    "Bash Session": "Terminal",
    "Delphi": "Pascal",
    "Django/Jinja": "Django template",
    "Docker": "Dockerfile",
    "LessCss": "Less",
    "Matlab": "MATLAB",
    "Nginx configuration file": "Nginx",
    "PostgreSQL SQL dialect": "PostgreSQL",
    "Protocol Buffer": "Protocol Buffers",
    "Python console session": "Python console",
    "S": "R",
    "TeX": "LaTeX",
    "Transact-SQL": "T-SQL",
    "VB.net": "Visual Basic",
    "VimL": "Vim script",
}
_ALSO_CALLED = {
    "jsonc": "json",
    "zsh": "bash",
    "svg": "xml",
    "ipython": "python",
    "patch": "diff",
    "node": "javascript",
}

# code.css gives these a colour; everything else is ink and needs no span, which makes the HTML a third of its size.
_DRESSED = {
    Comment,
    Generic.Deleted,
    Generic.Inserted,
    Keyword,
    Name.Attribute,
    Name.Builtin,
    Name.Class,
    Name.Decorator,
    Name.Function,
    Name.Tag,
    Number,
    String,
    String.Interpol,
}
_formatter: HtmlFormatter[str] = HtmlFormatter(nowrap=True)
_FIRST_WORD = re.compile(r"\w[\w+#./-]*")


def language(info: str) -> tuple[str, str]:
    """Pygments' alias and the human name of the language that a fence names; both empty when it is not known."""
    word = _FIRST_WORD.search(info)
    name = word[0].lower() if word else ""
    return _known().get(_ALSO_CALLED.get(name, name), ("", ""))


@lru_cache(maxsize=128)
def highlighted(code: str, alias: str) -> str:
    """`code` as escaped HTML in which spans of class k, s, c and the like carry the colours."""
    lexer = get_lexer_by_name(alias, stripnl=False)
    return write_tokens(_dressed(lexer.get_tokens(code)), _formatter).removesuffix("\n")


def is_worth_colour(code: str) -> bool:
    """Whether highlighting is bounded for this text, which it is for any code that people write.

    The patterns in Pygments take quadratic time or worse on long lines and on one thing repeated, and a thousand
    repetitions of `\\"` are no program. The second sort is told by how well it compresses: code shrinks to a third,
    the most regular data to a seventh.
    """
    if len(code) > LONGEST or max(map(len, code.split("\n"))) > LONGEST_LINE:
        return False
    return len(code) < 1_000 or len(zlib.compress(code.encode(), 1)) * 12 > len(code)


@cache
def _known() -> dict[str, tuple[str, str]]:
    return {
        alias: (aliases[0], _LANGUAGES[name])
        for name, aliases, _patterns, _types in get_all_lexers(plugins=False)
        if name in _LANGUAGES
        for alias in aliases
    }


def _dressed(tokens: Iterable[tuple[TokenType, str]]) -> Iterator[tuple[TokenType, str]]:
    for kind, value in tokens:
        yield _dress(kind), value


@cache
def _dress(kind: TokenType) -> TokenType:
    while kind not in _DRESSED and kind.parent is not None:
        kind = kind.parent
    return kind if kind in _DRESSED else Text

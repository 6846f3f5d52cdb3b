"""Tokens without a tokenizer: the measured examples, and that an estimate behaves like a count."""

import time
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.clock import in_time
from usage import estimate


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("", 0),
        ("Halo, apa kabar?", 5),
        ("Selamat pagi! Saya ingin bertanya tentang Django.", 12),
        ("The quick brown fox jumps over the lazy dog.", 10),
        ("def add(a, b):\n    return a + b\n", 15),
        ("你好，今天天气怎么样？", 10),
        ("12345678901234567890", 7),
    ],
)
def test_the_measured_examples_are_estimated_as_published(text: str, tokens: int) -> None:
    assert estimate.tokens(text) == tokens


@given(st.text(), st.text())
def test_a_text_has_no_fewer_tokens_for_being_continued_on_a_new_line(text: str, more: str) -> None:
    assert estimate.tokens(f"{text}\n{more}") >= estimate.tokens(text)


@given(st.lists(st.text(alphabet="aZ 09_\n\r\tあ一é!—😀")))
def test_weighing_a_reply_while_it_grows_ends_where_weighing_it_once_does(pieces: list[str]) -> None:
    text = ""
    for piece in pieces:
        text += piece
        estimate.tokens(text)
    grown = estimate.tokens(text)
    estimate._lines.clear()
    estimate._pieces.clear()
    assert grown == estimate.tokens(text)


def test_half_a_character_is_no_error() -> None:
    assert estimate.tokens("\ud83d") > 0


def test_memory_of_weighed_texts_is_bounded() -> None:
    for number in range(30_000):
        estimate.tokens(f"w{number}x")
    assert len(estimate._lines) <= 4_000
    assert len(estimate._pieces) <= 20_000


def test_a_long_reply_that_grows_is_weighed_in_no_time() -> None:
    text = "".join(f"Line {number} of a reply that somebody watches.\n" for number in range(300))
    estimate.tokens(text)
    began = time.perf_counter()
    for end in range(len(text) - 1000, len(text), 10):
        estimate.tokens(text[:end])
    in_time((time.perf_counter() - began) / 100, 0.005)


def test_the_chat_format_has_tokens_of_its_own() -> None:
    assert estimate.format_tokens(2) == 2 * 4 + 3
    assert estimate.format_at_most(2) > estimate.format_tokens(2)


def test_another_vocabulary_makes_more_of_a_text_and_rounds_up() -> None:
    claude = measure(factor=1400, reserve=1500)
    sizes = estimate.sizes("12345678901234567890")
    assert claude.likely(sizes) == 10
    assert claude.at_most(sizes) == 15
    assert claude.likely({}) == claude.at_most({}) == 0


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("The quick brown fox jumps over the lazy dog.", "prose"),
        ("Le renard brun saute par-dessus le chien paresseux.", "prose"),
        ("Selamat pagi! Saya ingin bertanya tentang Django, apa yang harus saya baca?", "indonesian"),
        ("def add(a, b):\n    return a + b\n", "code"),
        ("const total = items.reduce((sum, item) => sum + item.price, 0);", "code"),
        ("```\nhello there\n```\n", "code"),
        ('{"id": 17, "name": "Alice", "tags": ["a", "b"], "total": 12.5}', "data"),
        ("| Name | Qty |\n|---|---|\n| Apple | 12 |\n| Pear | 7 |", "data"),
        ("2026-11-22, 17, 4.5, 230\n2026-11-23, 18, 4.1, 231", "data"),
        ("你好，今天天气怎么样？", "cjk"),
        ("こんにちは、元気ですか", "cjk"),
        ("Привет, как дела? Сегодня хорошая погода.", "other"),
        ("🎉🎉🎉 🚀🚀", "other"),
    ],
)
def test_a_text_is_of_a_kind(text: str, kind: str) -> None:
    assert set(estimate.sizes(text)) == {kind}


def test_a_reply_with_code_in_it_is_weighed_in_parts() -> None:
    reply = "Here is how you can do it in Python:\n\n```python\nprint(sum(range(10)))\n```\n\nIt prints 45.\n"
    sizes = estimate.sizes(reply)
    assert set(sizes) == {"prose", "code"}
    assert sizes["code"] > 0


@given(st.text(alphabet=st.sampled_from("aZ 09_\n`|{}();あ一é!—😀ж")))
def test_the_kinds_of_a_text_make_its_whole_weight(text: str) -> None:
    assert sum(estimate.sizes(text).values()) == estimate._weight(text)


def test_no_text_takes_long_to_be_told_apart() -> None:
    for nasty in ("a(" * 50_000, "; " * 50_000, " " * 100_000, ("x" * 150 + "(\n") * 600):
        began = time.perf_counter()
        estimate.sizes(nasty)
        in_time(time.perf_counter() - began, 2)


def measure(*, factor: int, reserve: int) -> estimate.Measure:
    return estimate.Measure(dict.fromkeys(estimate.KINDS, factor), dict.fromkeys(estimate.KINDS, reserve))


@pytest.mark.parametrize(
    ("model", "family", "factor"),
    [
        ("gpt-4o-mini", "openai", "1.0"),
        ("openai/gpt-oss-120b", "openai", "1.0"),
        ("o3", "openai", "1.0"),
        ("claude-3.5-sonnet", "claude", "1.4"),
        ("gemini-3.8-flash", "gemini", "1.0"),
        ("deepseek-flash", "deepseek", "1.15"),
        ("meta-llama/Llama-3.3-70B-Instruct", "llama", "1.25"),
        ("deepseek-r1-distill-llama-70b", "llama", "1.25"),
        ("aleph-demo", "demo", "1.0"),
        ("qwen-3.8-27b", "other", "1.25"),
    ],
)
def test_a_model_belongs_to_a_family_with_a_factor(model: str, family: str, factor: str) -> None:
    assert estimate.family_of(model) == family
    assert estimate.factor_of(family) == Decimal(factor)

"""Tokens without a tokenizer: the measured examples, and that an estimate behaves like a count."""

import time
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

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
    assert (time.perf_counter() - began) / 100 < 0.005


def test_a_prompt_has_the_tokens_of_its_texts_and_of_the_chat_format() -> None:
    messages = [("system", "12345678901234567890"), ("user", "Halo, apa kabar?")]
    assert estimate.prompt_tokens(messages, factor=Decimal("1.0")) == 7 + 5 + 2 * 4 + 3
    assert estimate.prompt_tokens([], factor=Decimal("1.0")) == 3


def test_a_prompt_for_another_vocabulary_grows_by_its_factor_and_rounds_up() -> None:
    messages = [("user", "12345678901234567890")]
    assert estimate.prompt_tokens(messages, factor=Decimal("1.4")) == 10 + 4 + 3


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

"""The offline model: plainly labelled, useful, counted exactly, and it stops when told."""

import re
import time

import pytest

from chat import providers
from chat.providers import demo
from chat.providers.base import Call, Provider, Text
from tests.clock import in_time
from tests.listening import ask, ask_and_cancel, prompt


@pytest.fixture
def aleph_demo() -> Provider:
    return providers.configure({"ALEPH_DEMO_WORDS_PER_SECOND": "100000"})["demo"]


def test_the_demo_says_what_it_is_and_how_to_connect_a_model(aleph_demo: Provider) -> None:
    heard = ask(aleph_demo, prompt("aleph-demo", "What can you do?"))
    assert "**Aleph Demo**" in heard.text
    assert "I do not think" in heard.text
    assert "> What can you do?" in heard.text
    assert "| OpenAI | `OPENAI_API_KEY` |" in heard.text
    assert "```bash" in heard.text
    assert "$$" in heard.text
    assert "{" not in re.sub(r"\$\$.*?\$\$|\$.*?\$", "", heard.text, flags=re.DOTALL)


def test_the_demo_answers_in_the_language_of_the_question(aleph_demo: Provider) -> None:
    assert (
        "tidak berpikir" in ask(aleph_demo, prompt("aleph-demo", "Apa itu Aleph dan bagaimana caranya?")).text
    )
    assert "I do not think" in ask(aleph_demo, prompt("aleph-demo", "Explain the moon to me")).text


def test_the_demo_quotes_briefly_and_as_plain_text(aleph_demo: Provider) -> None:
    text = ask(aleph_demo, prompt("aleph-demo", "# <b>loud</b>\n\n| a | *b* " + "c" * 500)).text
    quote = next(line for line in text.splitlines() if line.startswith("> "))
    assert quote.startswith(r"> \# \<b\>loud\</b\> \| a \| \*b\* ccc")
    assert len(quote) < 150


def test_the_demo_goes_on_where_it_was_cut_off(aleph_demo: Provider) -> None:
    asked = prompt("aleph-demo", "What can you do?")
    whole = ask(aleph_demo, asked).text
    for cut in (40, 300, len(whole) - 30):
        so_far = (*asked.messages, ("assistant", whole[:cut]), ("user", "Go on"))
        rest = ask(aleph_demo, prompt("aleph-demo", messages=so_far, is_continuation=True)).text
        assert whole[:cut] + rest == whole


def test_the_demo_that_cannot_go_on_begins_anew(aleph_demo: Provider) -> None:
    asked = prompt("aleph-demo", "What can you do?").messages
    for so_far in ("Something else", ask(aleph_demo, prompt("aleph-demo", "What can you do?")).text):
        messages = (*asked, ("assistant", so_far), ("user", "Go on"))
        text = ask(aleph_demo, prompt("aleph-demo", messages=messages, is_continuation=True)).text
        assert "> What can you do?" in text


def test_the_demo_counts_exactly_what_it_wrote(aleph_demo: Provider) -> None:
    heard = ask(aleph_demo, prompt("aleph-demo", "What can you do?"))
    assert heard.counts is not None
    assert heard.counts.provider_output == demo.count(heard.text)
    assert heard.counts.provider_input == demo.count("Be kind.") + demo.count("What can you do?")
    assert heard.finish.reason == "stop"


@pytest.mark.parametrize("limit", [0, 1, 64])
def test_the_demo_never_writes_more_than_allowed(aleph_demo: Provider, limit: int) -> None:
    heard = ask(aleph_demo, prompt("aleph-demo", max_output_tokens=limit))
    assert heard.finish.reason == "length"
    assert demo.count(heard.text) <= limit


def test_the_demo_keeps_its_pace() -> None:
    call = Call()
    stream = demo.Demo(words_per_second=50).stream(prompt("aleph-demo"), call=call)
    started_at = time.monotonic()
    words = [next(stream) for _ in range(11)]
    took_s = time.monotonic() - started_at
    assert took_s > 0.15
    in_time(took_s, 0.4)
    assert all(isinstance(word, Text) and len(word.text.split()) == 1 for word in words)


def test_the_demo_stops_when_told() -> None:
    heard, took_s = ask_and_cancel(demo.Demo(words_per_second=0.5), prompt("aleph-demo"), after_s=0.1)
    assert heard.cancelled
    in_time(took_s, 0.2)

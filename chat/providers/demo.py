"""Aleph Demo: the model that is always there. It needs no key and no network, does not think, and says so;
it lets anyone see the whole way of a message, and tells how to connect a model that does think.
"""

import re
import secrets
from collections.abc import Generator
from pathlib import Path
from time import monotonic, sleep

from chat.providers.base import (
    CLOCKS,
    Call,
    Clocks,
    Counts,
    Event,
    Finish,
    Prompt,
    ProviderError,
    Text,
    Usage,
)

MODEL = "aleph-demo"
LETTERS_PER_TOKEN = 6
LONGEST_QUOTE = 120
IMAGE_TOKENS = 258
OF_IMAGES = {
    "en": "Images in this chat that a connected model would look at: {}.",
    "id": "Gambar di percakapan ini yang akan dilihat oleh model yang tersambung: {}.",
}
NAP_S = 0.1  # the longest sleep between two looks at the stop flag

INDONESIAN = frozenset(
    re.findall(
        r"\w+",
        """
        ada adalah agar aku anda apa apakah atau bagaimana bagi bahasa bahwa baik bantu beberapa belum
        berapa berikan bisa boleh buat buatkan cara carikan contoh dalam dan dapat dari dengan di hai halo
        hari ini itu jadi jangan jelaskan jika juga kamu kapan karena kasih ke kenapa kepada kita lagi lebih
        mana mau membuat mengapa mohon nya oleh pada pagi saja saya sebuah secara selamat seperti siang
        siapa sudah tanpa tentang terima terjemahkan tersebut tidak tolong tuliskan untuk yang
        """,
    )
)
ENGLISH = frozenset(
    re.findall(
        r"\w+",
        """
        a about all an and are as at be but by can could do does explain for from give good had has have
        hello help hi how i if in is it like list make me more my no not of on one or please should so some
        tell than thanks that the their them then there these they this to translate was we what when where
        which who why will with would write yes you your
        """,
    )
)
_PAGES = {
    language: Path(__file__).with_name(f"demo_{language}.md").read_text("utf-8") for language in ("en", "id")
}


class Demo:
    """The offline model. `ways_to_connect`: (label, environment variable) of each provider, for its
    answer."""

    name = "demo"

    def __init__(
        self, *, words_per_second: float = 40, ways_to_connect: tuple[tuple[str, str], ...] = ()
    ) -> None:
        self._word_s = 1 / words_per_second
        self._ways = ways_to_connect

    def stream(self, prompt: Prompt, *, call: Call, clocks: Clocks = CLOCKS) -> Generator[Event, None, None]:
        """The answer word by word, at the speed asked for, never more than `max_output_tokens`. The count
        is exact, in tokens of `count`. Raises Cancelled within 0.2 s of `call.cancel()`, ProviderError
        `timeout` after `clocks.total_s`."""
        call.request_id = f"demo-{secrets.token_hex(8)}"
        said = _size(prompt.messages) + IMAGE_TOKENS * sum(map(len, prompt.images.values()))
        written = 0
        whole = True
        due_at = started_at = monotonic()
        for word in re.findall(r"\s*\S+", self._answer(prompt)):
            size = count(word)
            if written + size > prompt.max_output_tokens:
                whole = False
                break
            _wait(until=due_at, call=call)
            if due_at - started_at > clocks.total_s:
                raise ProviderError("timeout", request_id=call.request_id, detail="the demo took too long")
            due_at += self._word_s
            written += size
            yield Text(word)
        yield Usage(
            Counts(
                fresh_input=said,
                cache_read=0,
                cache_write=0,
                visible_output=written,
                reasoning=0,
                provider_input=said,
                provider_output=written,
                provider_total=said + written,
            ),
            {"prompt_tokens": said, "completion_tokens": written, "total_tokens": said + written},
        )
        reason = "stop" if whole else "length"
        yield Finish("stop" if whole else "length", reason, MODEL, call.request_id)

    def _answer(self, prompt: Prompt) -> str:
        images = sum(map(len, prompt.images.values()))
        if not prompt.is_continuation:
            return self._page(prompt.messages, prompt.max_output_tokens, images)
        so_far = prompt.messages[-2][1]
        page = self._page(prompt.messages[:-2], prompt.max_output_tokens, images)
        rest = page.removeprefix(so_far)
        return rest if rest.strip() else page

    def _page(self, messages: tuple[tuple[str, str], ...], cap: int, images: int = 0) -> str:
        questions = [content for role, content in messages if role == "user"]
        question = questions[-1] if questions else ""
        language = "id" if looks_indonesian(question) else "en"
        page = _PAGES[language]
        rows = "\n".join(f"| {label} | `{variable}` |" for label, variable in self._ways)
        variable = self._ways[0][1] if self._ways else "OPENAI_API_KEY"
        return (
            page.replace("{rows}", rows)
            .replace("{variable}", variable)
            .replace("{input}", str(_size(messages) + images * IMAGE_TOKENS))
            .replace("{images}", f"\n{OF_IMAGES[language].format(images)}\n" if images else "")
            .replace("{cap}", str(cap))
            .replace("{question}", _quoted(question))
        )


def _size(messages: tuple[tuple[str, str], ...]) -> int:
    return sum(count(content) for _, content in messages)


def count(text: str) -> int:
    """Demo tokens: one for each six letters of a word, and at least one a word."""
    return sum(1 + (len(word) - 1) // LETTERS_PER_TOKEN for word in text.split())


def looks_indonesian(text: str) -> bool:
    words = re.findall(r"[a-z]+", text.lower())
    indonesian = sum(word in INDONESIAN for word in words)
    return indonesian > sum(word in ENGLISH for word in words)


def _wait(*, until: float, call: Call) -> None:
    call.check()
    while (left := until - monotonic()) > 0:
        sleep(min(left, NAP_S))
        call.check()


def _quoted(question: str) -> str:
    """The question on one line, short, and as plain text for Markdown."""
    line = " ".join(question.split())
    if len(line) > LONGEST_QUOTE:
        line = line[: LONGEST_QUOTE - 1].rstrip() + "…"
    return re.sub(r"([\\`*_{}\[\]()<>#+|$~!&-])", r"\\\1", line) or "…"

"""What a page shows of a reply while it is streamed and afterwards, as the browser puts it together."""

import html
import re


class Screen:
    """The part of the page that a stream draws, as the browser puts it together."""

    def __init__(self) -> None:
        self.blocks = self.tail = self.count = self.article = ""
        self.drawn: list[str] = []
        self.is_done = False

    def take(self, sent: str) -> None:
        for name, data in re.findall(r"^event: (\w+)\n((?:data: .*\n)+)", sent, re.MULTILINE):
            self.show(name, "\n".join(line.removeprefix("data: ") for line in data.rstrip("\n").split("\n")))

    def show(self, name: str, data: str) -> None:
        if name == "snapshot":
            found = re.fullmatch(
                r'\s*<div class="prose" id="\w+-blocks">(.*)</div><div class="prose prose--open" id="\w+-open">'
                r"(.*)</div>\s*",
                data,
                re.DOTALL,
            )
            assert found, data
            self.blocks, self.tail = found.groups()
        elif name == "block":
            self.blocks += data
        elif name == "tail":
            self.tail = data
        elif name == "count":
            self.count = data
        elif name == "done":
            self.article, self.is_done = article_of(data), True
        else:
            raise AssertionError(f"an unknown event {name}")
        self.drawn.append(name)

    @property
    def letters(self) -> str:
        """What can be read on it, without any space."""
        return letters_of(self.blocks + self.tail)


def letters_of(markup: str) -> str:
    return re.sub(r"\s", "", html.unescape(re.sub(r"<[^>]*>", "", markup)))


def article_of(page: str) -> str:
    found = re.search(r'<article class="message message--reply".*?</article>', page, re.DOTALL)
    return re.sub(r"\s+", " ", found[0]) if found else ""

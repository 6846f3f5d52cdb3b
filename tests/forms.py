"""Forms as a browser fills them: what a page's form would send, untouched fields and the hidden ones included."""

from html.parser import HTMLParser
from typing import Any

Answer = Any
"""What the test client returns: a response with what was rendered beside it."""


class Form(HTMLParser):
    """The fields of the first form that posts to `action` (or, without one, of the only form with `id`)."""

    def __init__(self, wanted: dict[str, str]) -> None:
        super().__init__()
        self.wanted = wanted
        self.inside = self.found = False
        self.fields: dict[str, Any] = {}
        self.select = ""
        self.textarea = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        if tag == "form":
            is_wanted = all(given.get(name) == value for name, value in self.wanted.items())
            self.inside = is_wanted and not self.found
            self.found = self.found or is_wanted
        elif self.inside:
            self.note(tag, given)

    def handle_endtag(self, tag: str) -> None:
        if tag == "form":
            self.inside = False
        elif tag in ("select", "textarea"):
            self.select = self.textarea = ""

    def handle_data(self, data: str) -> None:
        if self.textarea:
            self.fields[self.textarea] = self.fields.get(self.textarea, "") + data

    def note(self, tag: str, given: dict[str, str]) -> None:
        name = given.get("name", "")
        if tag == "option" and self.select and "selected" in given:
            self.fields.setdefault(self.select, []).append(given.get("value", ""))
        elif not name or "disabled" in given or "form" in given:
            return  # what names a form belongs to another one
        elif tag == "select":
            self.select = name
        elif tag == "textarea":
            self.textarea = name
        elif tag == "input" and given.get("type") in ("checkbox", "radio"):
            if "checked" in given:
                self.fields[name] = given.get("value", "on")
        elif tag == "input" and given.get("type") not in ("submit", "button", "image"):
            self.fields[name] = given.get("value", "")


def filled(page: Answer, **wanted: str) -> dict[str, Any]:
    """What the form with these attributes (``action="/settings"``, ``id="user_form"``) would send as it stands."""
    form = Form(wanted)
    form.feed(page.content.decode())
    assert form.found, f"no form with {wanted}"
    return form.fields

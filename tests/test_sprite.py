"""The drawings that pages name stand in the sprite, and no others."""

import re

from django.conf import settings


def test_pages_and_the_sprite_know_the_same_drawings() -> None:
    folders = [
        (settings.BASE_DIR / "templates").rglob("*.html"),
        (settings.BASE_DIR / "static" / "js").glob("*.js"),
    ]
    text = "".join(path.read_text() for folder in folders for path in folder)
    sprite = (settings.BASE_DIR / "static" / "icons.svg").read_text()
    drawn = set(re.findall(r'<symbol id="([\w-]+)"', sprite))
    named = set(re.findall(r'\{% icon "([\w-]+)"', text)) | set(
        re.findall(r"icons\.svg' %\}#([\w-]+)\"", text)
    )
    assert named == drawn

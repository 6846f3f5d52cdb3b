"""Static files: the stylesheet's parts become one file, and every file gets a hash in its name."""

import re
from collections.abc import Iterator
from typing import Any

from django.core.files.base import ContentFile
from whitenoise.storage import CompressedManifestStaticFilesStorage

STYLESHEET = "css/aleph.css"
IMPORT = re.compile(r'@import url\("([^"]+)"\) layer\((\w+)\);')


class BundledStaticFilesStorage(CompressedManifestStaticFilesStorage):
    """Inlines the `@import ... layer(...)` lines of the one stylesheet, so that a page loads it in one request."""

    def post_process(self, paths: dict[str, Any], dry_run: bool = False, **options: Any) -> Iterator[Any]:
        if STYLESHEET in paths and not dry_run:
            self.bundle()
            # What is hashed is read from where `paths` says, which was the folder of the sources.
            paths = {**paths, STYLESHEET: (self, STYLESHEET)}
        yield from super().post_process(paths, dry_run, **options)

    def bundle(self) -> None:
        with self.open(STYLESHEET) as file:
            text = file.read().decode()
        folder = STYLESHEET.rpartition("/")[0]

        def inlined(match: re.Match[str]) -> str:
            with self.open(f"{folder}/{match[1]}") as part:
                return f"@layer {match[2]} {{\n{part.read().decode()}}}\n"

        bundled = IMPORT.sub(inlined, text)
        if bundled != text:
            self.delete(STYLESHEET)
            self._save(STYLESHEET, ContentFile(bundled.encode()))

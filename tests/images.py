"""Images as people send them, honest ones and others."""

import io
import struct
import zlib
from collections.abc import Sequence
from typing import Any

from PIL import Image


def picture(kind: str = "PNG", *, size: tuple[int, int] = (64, 48), colour: Any = "red", **how: Any) -> bytes:
    """A plain picture."""
    return saved(Image.new("RGB", size, colour), kind, **how)


def photograph(*, size: tuple[int, int] = (400, 300), **how: Any) -> bytes:
    """A JPEG with so many colours that it is no drawing."""
    bands = [Image.effect_noise(size, sigma) for sigma in (60, 50, 40)]
    return saved(Image.merge("RGB", bands), "JPEG", **how)


def of_a_phone() -> bytes:
    """A photograph 60 wide and 40 high, taken with the camera on its side, that tells where, with what and why."""
    exif = Image.Exif()
    exif[0x0112] = 6
    exif[0x010F] = "Nusantara Phones"
    exif[0x8825] = {1: "S", 2: (7.0, 47.0, 12.0), 3: "E", 4: (110.0, 22.0, 5.0)}
    image = Image.new("RGB", (60, 40), "blue")
    image.paste("red", (0, 0, 20, 40))
    return saved(image, "JPEG", exif=exif, comment=b"only for my sister", quality=95)


def animation(kind: str) -> bytes:
    """Red, then green."""
    first, second = (Image.new("RGB", (30, 30), colour) for colour in ("red", "green"))
    return saved(first, kind, save_all=True, append_images=[second], duration=100)


def bomb(width: int = 20_000, height: int = 20_000) -> bytes:
    """A PNG of a few kilobytes that says it is very large."""
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    pieces = [_chunk(b"IHDR", head), _chunk(b"IDAT", zlib.compress(bytes(1000))), _chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(pieces)


def read(data: bytes) -> Image.Image:
    image = Image.open(io.BytesIO(data))
    image.load()
    return image


def saved(image: Image.Image, kind: str, **how: Any) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **how)
    return out.getvalue()


def pixel(data: bytes, at: Sequence[int]) -> tuple[int, ...]:
    found = read(data).convert("RGB").getpixel((at[0], at[1]))
    assert isinstance(found, tuple)
    return found


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

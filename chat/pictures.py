"""What is made of the bytes that somebody sends as an image. For `chat.attachments`; knows no database.

Nothing of what came is kept but its pixels: they are read once, turned as the camera says, made as small as models read
them, and written anew. So no name, no position, no second file behind the image and no trick of its format goes further.
Of an animation only the first picture is kept.
"""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from threading import BoundedSemaphore

from django.utils.translation import gettext_lazy as _
from PIL import Image

from aleph.problems import Busy, InvalidRequest

MOST_BYTES = 10 * 1024 * 1024
MOST_PIXELS = 50_000_000
"""What the sharpest phones take. Read, it weighs 200 MB, so few are read at once."""
LONGEST_SIDE = 2048
"""Providers make larger ones smaller before their models see them."""
MOST_KEPT_BYTES = 3 * 1024 * 1024
"""As base64 within what every provider takes of one image."""
QUALITIES = (88, 75, 60, 40)
FORMATS = ("PNG", "JPEG", "WEBP")
ORIENTATION = 0x0112
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
AT_ONCE = 2
PATIENCE_S = 20.0

_places = BoundedSemaphore(AT_ONCE)


class ImageTooLarge(InvalidRequest):
    status = 413
    text = _("This image is larger than 10 MB.")


class NotAnImage(InvalidRequest):
    text = _("This is no PNG, JPEG or WebP image.")


class TooManyPixels(InvalidRequest):
    text = _("This image has more than 50 million pixels. Make it smaller and try again.")


class DamagedImage(InvalidRequest):
    text = _("This image is damaged and cannot be read.")


@dataclass(frozen=True, slots=True)
class Picture:
    """An image as it is kept: `data` in the format `media_type` says."""

    data: bytes
    media_type: str
    width: int
    height: int


def rewritten(data: bytes) -> Picture:
    """The picture in these bytes, written anew. Raises `ImageTooLarge`, `NotAnImage`, `TooManyPixels`, `DamagedImage`, and
    `Busy` where too many are being read."""
    if len(data) > MOST_BYTES:
        raise ImageTooLarge
    with _place():
        image = _clean(_opened(data))
        written, media_type = _written(image)
    return Picture(written, media_type, image.width, image.height)


@contextmanager
def _place() -> Iterator[None]:
    if not _places.acquire(timeout=PATIENCE_S):
        raise Busy
    try:
        yield
    finally:
        _places.release()


def _opened(data: bytes) -> Image.Image:
    """The image with its head read and nothing else. What it is says its content, never its name."""
    try:
        image = Image.open(io.BytesIO(data), formats=FORMATS)
    except Image.DecompressionBombError as error:
        raise TooManyPixels from error
    except Exception as error:  # readers of hostile bytes fail in every way there is
        raise NotAnImage from error
    if image.width * image.height > MOST_PIXELS:
        raise TooManyPixels
    return image


def _clean(image: Image.Image) -> Image.Image:
    """The pixels alone, upright, small enough, in RGB or RGBA."""
    try:
        image.draft("RGB", (LONGEST_SIDE, LONGEST_SIDE))  # JPEG: read only as large as it is needed
        image.load()
        has_alpha = image.has_transparency_data
        exif = image.getexif()
        plain = image.convert("RGBA" if has_alpha else "RGB")
        plain.thumbnail((LONGEST_SIDE, LONGEST_SIDE), Image.Resampling.LANCZOS)
        upright = _turned(plain, exif)
    except Image.DecompressionBombError as error:
        raise TooManyPixels from error
    except Exception as error:
        raise DamagedImage from error
    clean = Image.new(upright.mode, upright.size)
    clean.paste(upright)
    return clean


def _turned(image: Image.Image, exif: Image.Exif) -> Image.Image:
    """The image as the camera was held."""
    turn = TURNS.get(exif.get(ORIENTATION, 0))
    return image if turn is None else image.transpose(turn)


def _written(image: Image.Image) -> tuple[bytes, str]:
    """As PNG where that is small or has to show what is behind, as drawings and screenshots are; else as JPEG. Models and
    servers that read no WebP are many."""
    if image.mode == "RGBA" or _is_drawn(image):
        data = _saved(image, "PNG", optimize=True)
        if len(data) <= MOST_KEPT_BYTES:
            return data, "image/png"
    if image.mode == "RGBA":
        paper = Image.new("RGB", image.size, "white")
        paper.paste(image, mask=image.getchannel("A"))
        image = paper
    for quality in QUALITIES:
        data = _saved(image, "JPEG", quality=quality, optimize=True)
        if len(data) <= MOST_KEPT_BYTES:
            break
    return data, "image/jpeg"


def _is_drawn(image: Image.Image) -> bool:
    """Whether it has so few colours that it is no photograph."""
    return image.getcolors(4096) is not None


def _saved(image: Image.Image, kind: str, **how: object) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **how)
    return out.getvalue()

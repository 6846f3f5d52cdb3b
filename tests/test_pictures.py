"""What is kept of an image: its pixels, upright and not too many. And what is refused, and how it is said."""

from contextlib import suppress

import pytest
from PIL import Image

from aleph.problems import Busy
from chat import image_tokens, pictures, prompts
from tests import images

SVG = b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>'
GIF = images.saved(Image.new("P", (9, 9)), "GIF")
PAGE = b"<!DOCTYPE html><script>alert(1)</script>"


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_a_picture_is_kept_as_it_looks(kind: str) -> None:
    kept = pictures.rewritten(images.picture(kind))
    assert (kept.media_type, kept.width, kept.height) == ("image/png", 64, 48)
    red, green, blue = images.pixel(kept.data, (30, 20))
    assert red > 240
    assert green < 15
    assert blue < 15


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "I;16", "CMYK"])
def test_pictures_in_every_way_of_colouring_are_read(mode: str) -> None:
    kind = "JPEG" if mode == "CMYK" else "PNG"
    kept = pictures.rewritten(images.saved(Image.new(mode, (20, 10)), kind))
    assert images.read(kept.data).mode in ("RGB", "RGBA")


def test_a_photograph_stays_a_jpeg_and_loses_what_nobody_sees() -> None:
    kept = pictures.rewritten(images.photograph(size=(4000, 3000)))
    assert (kept.media_type, kept.width, kept.height) == ("image/jpeg", 2048, 1536)
    assert len(kept.data) <= pictures.MOST_KEPT_BYTES


def test_a_phone_held_on_its_side_is_turned_and_says_nothing_of_where_it_was() -> None:
    sent = images.of_a_phone()
    assert 0x8825 in images.read(sent).getexif()
    kept = pictures.rewritten(sent)
    assert (kept.width, kept.height) == (40, 60)
    assert images.pixel(kept.data, (20, 5))[0] > 200, "what was at the left is at the top"
    assert images.pixel(kept.data, (20, 50))[2] > 200
    image = images.read(kept.data)
    assert dict(image.getexif()) == {}
    assert not {"exif", "comment", "icc_profile", "xmp"} & set(image.info)
    for secret in (b"Nusantara", b"sister", b"Exif", b"GPS"):
        assert secret not in kept.data


def test_nothing_that_hides_behind_a_picture_is_kept() -> None:
    for hidden in (PAGE, b"PK\x03\x04 an archive", b"%PDF-1.7"):
        for kind in ("PNG", "JPEG", "WEBP"):
            assert hidden not in pictures.rewritten(images.picture(kind) + hidden).data


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_of_an_animation_the_first_picture_is_kept(kind: str) -> None:
    sent = images.animation(kind)
    assert getattr(images.read(sent), "n_frames", 1) == 2
    kept = pictures.rewritten(sent)
    assert getattr(images.read(kept.data), "n_frames", 1) == 1
    assert images.pixel(kept.data, (10, 10))[0] > 240


@pytest.mark.parametrize(
    "data", [b"", b"\x00" * 64, SVG, GIF, PAGE, b"%PDF-1.7\n", b"\xff\xd8\xff", b"RIFF\x00\x00\x00\x00WEBP"]
)
def test_what_is_no_image_is_refused_whatever_it_is_called(data: bytes) -> None:
    with pytest.raises((pictures.NotAnImage, pictures.DamagedImage)):
        pictures.rewritten(data)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_half_an_image_is_refused(kind: str) -> None:
    whole = images.saved(Image.effect_noise((200, 200), 90).convert("RGB"), kind)
    for size in (len(whole) // 2, len(whole) // 4, 40):
        with pytest.raises((pictures.DamagedImage, pictures.NotAnImage)):
            pictures.rewritten(whole[:size])


@pytest.mark.parametrize("sides", [(20_000, 20_000), (8_000, 8_000), (2**31 - 1, 2**31 - 1), (50_000_001, 1)])
def test_a_bomb_is_refused_before_it_is_read(sides: tuple[int, int]) -> None:
    with pytest.raises(pictures.TooManyPixels):
        pictures.rewritten(images.bomb(*sides))


def test_a_file_above_ten_megabytes_is_refused() -> None:
    with pytest.raises(pictures.ImageTooLarge) as refused:
        pictures.rewritten(images.picture() + bytes(pictures.MOST_BYTES))
    assert refused.value.status == 413


def test_bytes_at_random_are_refused_by_name_and_nothing_else_happens() -> None:
    whole = bytearray(images.photograph(size=(80, 60)))
    for at in range(0, len(whole), max(1, len(whole) // 150)):
        broken = bytes(whole[:at]) + b"\xff\x00\xfe" + bytes(whole[at + 3 :])
        with suppress(pictures.NotAnImage, pictures.DamagedImage, pictures.TooManyPixels):
            assert pictures.rewritten(broken).media_type in ("image/jpeg", "image/png")


def test_whoever_comes_while_too_many_are_read_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pictures, "PATIENCE_S", 0.01)
    with pictures._place(), pictures._place(), pytest.raises(Busy):
        pictures.rewritten(images.picture())
    pictures.rewritten(images.picture())


@pytest.mark.parametrize(
    ("model", "width", "height", "tokens"),
    [
        ("gpt-4o", 1024, 1024, 85 + 4 * 170),
        ("gpt-4o", 2048, 1024, 85 + 6 * 170),
        ("gpt-4o", 300, 200, 85 + 170),
        ("gpt-4o-mini", 1024, 1024, 2833 + 4 * 5667),
        ("gpt-6-mini", 1024, 1024, 1762),
        ("gpt-6", 64, 64, 5),
        ("claude-haiku-5-5", 1000, 750, 1000),
        ("gemini-3.8-flash", 200, 200, 1120),
        ("gpt-6-luna", 2048, 2048, 4916),
        ("gemini-3.8-flash", 2048, 2048, 1120),
        ("gemini-pro", 1920, 1080, 1120),
        ("gemini-2.5-flash-lite", 200, 200, 258),
        ("gemini-2.5-flash-lite", 1920, 1080, 6 * 258),
        ("gemini-1.5-pro", 2048, 2, 8 * 258),
        ("llama-4", 560, 560, 1601),
        ("qwen-vl", 1500, 1000, 2000),
        ("aleph-demo", 2048, 2048, 258),
    ],
)
def test_images_are_counted_by_the_rule_of_who_looks_at_them(
    model: str, width: int, height: int, tokens: int
) -> None:
    assert image_tokens.of(model, width=width, height=height) == tokens


PUBLISHED = {
    # What one image of this size was counted as by Claude 5.5, Gemini 3 and GPT-6, a short question included:
    # huggingface.co/datasets/JOHNISKING/image-token-cost, 2026.
    (256, 256): (177, 1090, 77),
    (512, 512): (438, 1090, 308),
    (768, 768): (861, 1090, 692),
    (1024, 1024): (1446, 1090, 1229),
    (1280, 720): (1273, 1101, 1104),
    (1920, 1080): (2768, 1101, 2448),
    (1080, 1920): (2768, 1101, 2448),
}


@pytest.mark.parametrize("size", PUBLISHED)
def test_what_is_reserved_for_an_image_is_no_less_than_what_was_counted_and_not_far_more(
    size: tuple[int, int],
) -> None:
    width, height = size
    models = ("claude-opus-5-5", "gemini-3.8-flash", "gpt-6-luna")
    for model, counted in zip(models, PUBLISHED[size], strict=True):
        reserved = prompts._reserved(image_tokens.of(model, width=width, height=height))
        assert counted <= reserved <= 2 * counted, model

"""`decoding="fast"`: large JPEGs nearly the same pixels for a fraction of the work, all else the same to the bit."""

from __future__ import annotations

import hashlib
import io
import json
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from deepfake_client import DeepfakeError, ImageLimits, ImageTooLargeError, InvalidArgumentError
from deepfake_client._jpeg import scale_down
from deepfake_client.preprocessing import Pixels, load_image, to_pixels
from PIL import Image
from PIL.JpegImagePlugin import JpegImageFile

from tests.support.hostile_images import lossless_jpeg
from tests.support.pictures import EXIF_ORIENTATION, encoded, photo_like
from tests.support.variants import AnyClient

LARGE = (1203, 917)


def pixels_of(image: Any, decoding: Any = "exact") -> Pixels:
    return to_pixels(load_image(image, decoding=decoding))


def difference(content: bytes) -> int:
    """The largest, in grey levels."""
    return int(np.abs(pixels_of(content, "fast").astype(int) - pixels_of(content)).max())


def turned(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[EXIF_ORIENTATION] = orientation
    return exif


@pytest.mark.parametrize(
    ("size", "decoded"),
    [
        ((895, 895), (895, 895)),
        ((4000, 895), (4000, 895)),
        ((896, 896), (448, 448)),
        ((901, 2500), (451, 1250)),
        ((4000, 3000), (1000, 750)),
        ((3583, 3584), (896, 896)),
        ((3584, 3585), (448, 449)),
        ((60_000, 900), (30_000, 450)),
        ((1, 60_000), (1, 60_000)),
    ],
)
def test_no_side_is_decoded_to_less_than_twice_the_models(size: tuple[int, int], decoded: tuple[int, int]) -> None:
    content = encoded(Image.new("L", size), "JPEG")
    image = JpegImageFile(io.BytesIO(content))
    assert (scale_down(image, content, 448) is None) == (decoded == size)
    image.load()
    assert image.size == decoded


def test_other_formats_and_small_photos_get_the_same_pixels_to_the_bit() -> None:
    contents = [encoded(photo_like(*size, 1), "JPEG") for size in ((895, 1400), (1400, 895), (1, 3000), (224, 224))]
    contents += [encoded(photo_like(301, 499, 1, mode), "JPEG", exif=turned(6)) for mode in ("L", "CMYK")]
    contents += [encoded(photo_like(*LARGE, 2), kind) for kind in ("TIFF", "BMP")]
    for content in contents:
        np.testing.assert_array_equal(pixels_of(content, "fast"), pixels_of(content))
    for image in (photo_like(*LARGE, 3), np.asarray(photo_like(*LARGE, 3)), Image.open(io.BytesIO(large()))):
        np.testing.assert_array_equal(pixels_of(image, "fast"), pixels_of(image))


def large(mode: str = "RGB", **options: Any) -> bytes:
    return encoded(photo_like(*LARGE, 4, mode), "JPEG", **{"quality": 90, **options})


JPEGS: dict[str, Callable[[], bytes]] = {
    "baseline": large,
    "grey": lambda: large("L"),
    "CMYK": lambda: large("CMYK"),
    "progressive": lambda: large(progressive=True),
    "4:4:4 with restarts": lambda: large(subsampling=0, restart_marker_blocks=3),
    **{f"orientation {each}": lambda each=each: large(exif=turned(each)) for each in range(2, 9)},
}


@pytest.mark.parametrize("name", JPEGS)
def test_a_large_jpeg_of_any_kind_is_a_few_grey_levels_off(name: str) -> None:
    content = JPEGS[name]()
    assert not np.array_equal(pixels_of(content, "fast"), pixels_of(content))
    assert difference(content) <= 4
    assert load_image(content, decoding="fast").mode == "RGB"


def test_sides_that_no_fraction_divides_leave_the_picture_in_its_place() -> None:
    """At a quarter, 1,793 pixels are 449, of which the last is one of four: without the box, waves there would move."""
    waves = np.tile((np.sin(np.arange(1793) / 20) * 100 + 128).astype(np.uint8), (1793, 1))
    assert difference(encoded(Image.fromarray(waves), "JPEG", quality=95)) <= 4


def outcome(content: bytes, decoding: str) -> str:
    try:
        pixels_of(content, decoding)
    except DeepfakeError as error:
        return f"{type(error).__name__}: {error}"
    return "pixels"


@pytest.mark.parametrize("name", ["baseline", "CMYK", "progressive", "4:4:4 with restarts"])
def test_what_is_damaged_gets_the_same_error(name: str) -> None:
    content = JPEGS[name]()
    cuts = [content[: int(len(content) * share)] for share in (0.001, 0.01, 0.3, 0.9, 0.999)]
    marked = [cut + b"\xff\xd9" for cut in cuts]
    flipped = [content[:at] + b"\xff\xc4" + content[at + 2 :] for at in (30, 300, 700, len(content) // 2)]
    outcomes = [outcome(each, "exact") for each in (*cuts, *marked, *flipped)]
    assert [outcome(each, "fast") for each in (*cuts, *marked, *flipped)] == outcomes
    assert set(outcomes[:5]) == {"ImageCorruptError: image: truncated JPEG: the file ends before the image does"}


def test_mutated_files_get_the_same_outcome() -> None:
    dice = random.Random(8000)
    files = [encoded(photo_like(897, 900, 1, mode), "JPEG", progressive=mode == "L") for mode in ("RGB", "L", "CMYK")]
    outcomes = set()
    for _ in range(60):
        mutant = bytearray(dice.choice(files))
        for _ in range(dice.choice((1, 2, 20))):
            mutant[dice.randrange(2, dice.choice((700, len(mutant))))] = dice.choice((0, 0xC3, 0xDA, 0xFF))
        cut = bytes(mutant[: dice.choice((None, dice.randrange(len(mutant))))])
        outcomes.add(exact := outcome(cut, "exact"))
        assert outcome(cut, "fast") == exact
    assert {"pixels"} < outcomes


def test_a_jpeg_without_its_end_marker_is_decoded_exactly() -> None:
    """Whether it lacks pixels shows in the last bits of its last block, which a fraction of the size does not need."""
    for name in ("baseline", "progressive"):
        content = JPEGS[name]()
        np.testing.assert_array_equal(pixels_of(content[:-2], "fast"), pixels_of(content))
        for missing in range(3, 9):
            assert outcome(content[:-missing], "fast") == outcome(content[:-missing], "exact")


def test_limits_are_those_of_the_whole_picture() -> None:
    limits = ImageLimits(max_pixels=LARGE[0] * LARGE[1] - 1)
    with pytest.raises(ImageTooLargeError, match=r"1203 × 917 is more than 1,103,150 pixels"):
        load_image(large(), limits=limits, decoding="fast")
    huge = large().replace(b"\x03\x95\x04\xb3", b"\x03\x95\xff\xff")  # height and width in the header
    with pytest.raises(ImageTooLargeError, match="65535 × 917 is more than 60,000,000 pixels"):
        load_image(huge, limits=ImageLimits(max_pixels=60_000_000), decoding="fast")


def test_a_lossless_jpeg_is_decoded_exactly(tmp_path: Path) -> None:
    """In a process of its own: where Pillow is told to scale one down, it writes past its buffer."""
    path = tmp_path / "lossless.jpg"
    path.write_bytes(lossless_jpeg(4000, 3000))
    code = f"""
from deepfake_client.preprocessing import load_image, to_pixels
for decoding in ("exact", "fast"):
    print(set(to_pixels(load_image({str(path)!r}, decoding=decoding)).flat))
"""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stdout) == (0, "{128}\n{128}\n")


def test_the_client_sends_these_pixels_and_logs_the_files_digest(
    make_client: Callable[..., AnyClient], fake: Callable[..., Any], tmp_path: Path
) -> None:
    server, log, photo = fake(), tmp_path / "verdicts.jsonl", large()
    client = make_client(transport=server, decoding="fast", verdict_log=log)
    client.classify(photo)
    list(client.classify_many([photo]))
    sent = [np.frombuffer(request.inputs["pixels"].data, np.uint8) for request in server.requests]
    for pixels in sent:
        np.testing.assert_array_equal(pixels, pixels_of(photo, "fast").reshape(-1))
    entries = [json.loads(line) for line in log.read_text().splitlines()]
    assert [(each["sha256_of"], each["sha256"]) for each in entries] == [
        ("file", hashlib.sha256(photo).hexdigest())
    ] * 2


def test_decode_says_who_and_decoding_says_how(make_client: Callable[..., AnyClient], fake: Any) -> None:
    with pytest.raises(InvalidArgumentError, match=r"^decoding must be 'exact' or 'fast', not 'server'$"):
        make_client(transport=fake(), decoding="server")
    with pytest.raises(InvalidArgumentError, match=r"^decode must be 'client' or 'server', not 'fast'$"):
        make_client(transport=fake(), decode="fast")
    with pytest.raises(InvalidArgumentError, match=r"parameter `decoding` of the server's image_decoder decides$"):
        make_client(transport=fake(), decode="server", decoding="fast")
    assert make_client(transport=fake(), decode="server", decoding="exact").classify(large()).label == "Deepfake"
    with pytest.raises(InvalidArgumentError, match=r"^decoding must be 'exact' or 'fast', not None$"):
        load_image(large(), decoding=None)  # type: ignore[arg-type]

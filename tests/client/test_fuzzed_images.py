"""Mutated images give a verdict or a typed error: no crash, no hang, nothing else."""

from __future__ import annotations

import io
import itertools
import random
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress

import numpy as np
import pytest
from deepfake_client import DeepfakeClient, Failure, FakeTransport, ImageError, ImageLimits, Verdict
from deepfake_client.preprocessing import load_image, to_pixels
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from tests.support.pictures import EXIF_ORIENTATION, encoded, photo_like, with_alpha

# Small enough that a size which the mutation made up costs little; the limits themselves are tested elsewhere.
LIMITS = ImageLimits(max_pixels=1_000_000)


def _seeds() -> list[bytes]:
    turned = Image.Exif()
    turned[EXIF_ORIENTATION] = 6
    photo = photo_like(48, 40, 1)
    return [
        encoded(photo, "JPEG", exif=turned),
        encoded(photo, "JPEG", progressive=True),
        encoded(photo, "JPEG")[:-2],
        encoded(photo, "JPEG", progressive=True)[:-2],
        encoded(photo.convert("CMYK"), "JPEG"),
        encoded(with_alpha(photo), "PNG"),
        encoded(photo.convert("P"), "PNG", transparency=1),
        encoded(Image.fromarray(np.arange(1200, dtype=np.uint16).reshape(30, 40)), "PNG"),
        encoded(photo, "WEBP", exif=turned),
        encoded(photo, "WEBP", save_all=True, append_images=[photo_like(48, 40, 2)]),
        encoded(photo, "GIF", save_all=True, append_images=[photo_like(48, 40, 2)]),
        encoded(photo, "BMP"),
        encoded(photo.convert("P"), "BMP"),
        encoded(photo, "TIFF"),
        encoded(photo, "TIFF", compression="tiff_lzw", tiffinfo=turned),
        encoded(photo, "TIFF", compression="jpeg"),
        encoded(photo, "AVIF"),
    ]


SEEDS = _seeds()


def _mutants(count: int) -> Iterator[bytes]:
    source = random.Random(8000)
    for content in itertools.islice(itertools.cycle(SEEDS), count):
        mutant = bytearray(content)
        kind = source.randrange(4)
        if kind == 0:  # bit flips, most of them in the header
            for _ in range(source.randint(1, 12)):
                reach = len(mutant) if source.random() < 0.4 else min(len(mutant), 300)
                mutant[source.randrange(reach)] ^= 1 << source.randrange(8)
        elif kind == 1:  # truncation
            del mutant[source.randrange(len(mutant)) :]
        elif kind == 2:  # the header of one format before the data of another
            other = source.choice(SEEDS)
            cut = source.randint(4, 200)
            mutant = bytearray(other[:cut] + content[cut:])
        else:  # a piece moved, repeated or blown up
            start, length = source.randrange(len(mutant)), source.randint(1, 64)
            piece = mutant[start : start + length] or b"\xff"
            place = source.randrange(len(mutant))
            mutant[place:place] = piece * source.choice([1, 1, 2, 50])
        yield bytes(mutant)


@pytest.mark.parametrize("count", [500, pytest.param(10_000, marks=pytest.mark.slow)])
def test_mutated_images_give_verdicts_or_typed_errors(count: int) -> None:
    counts: Counter[str] = Counter()
    with DeepfakeClient(transport=FakeTransport(), limits=LIMITS) as client:
        for result in client.classify_many(_mutants(count), concurrency=4):
            assert isinstance(result, (Verdict, Failure))
            if isinstance(result, Failure):
                assert isinstance(result.error, ImageError), repr(result.error)
                assert result.error.__cause__ is result.error.__context__ is None
                assert len(str(result.error).splitlines()) == 1
            counts["verdict" if result.ok else type(result.error).__name__] += 1
    assert counts.total() == count
    # Were nearly all refused for one reason, the mutants would not reach the decoders.
    assert counts["verdict"] > count / 10
    assert counts["ImageCorruptError"] > count / 10


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(seed=st.sampled_from(SEEDS), data=st.data())
def test_any_edit_of_an_image_gives_pixels_or_a_typed_error(seed: bytes, data: st.DataObject) -> None:
    edits = data.draw(
        st.lists(st.tuples(st.integers(0, len(seed) - 1), st.binary(max_size=8), st.integers(0, 16)), max_size=6)
    )
    mutant = bytearray(seed)
    for place, new, removed in edits:
        mutant[place : place + removed] = new
    _decode(bytes(mutant))


@settings(max_examples=200, deadline=None)
@given(
    start=st.sampled_from([b"", *(seed[:12] for seed in SEEDS)]),
    rest=st.binary(max_size=400),
)
def test_any_bytes_behind_a_signature_give_pixels_or_a_typed_error(start: bytes, rest: bytes) -> None:
    _decode(start + rest)


def _decode(content: bytes) -> None:
    with suppress(ImageError):
        pixels = to_pixels(load_image(io.BytesIO(content), limits=LIMITS))
        assert (pixels.shape, pixels.dtype) == ((224, 224, 3), np.uint8)


@pytest.mark.parametrize("seed", SEEDS, ids=range(len(SEEDS)))
def test_the_images_that_are_mutated_are_good_themselves(seed: bytes) -> None:
    assert load_image(seed, limits=LIMITS).mode == "RGB"

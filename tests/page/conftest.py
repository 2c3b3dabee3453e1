"""One page before the session's Triton, one browser, and what is uploaded."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from deepfake_deploy.embedded import EmbeddedTriton

from tests.support.browsers import Browsers
from tests.support.page_process import PageProcess, page_process
from tests.support.pictures import EXIF_ORIENTATION, Image, encoded, photo_like


@pytest.fixture(scope="session")
def verdict_log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the page keeps record."""
    return tmp_path_factory.mktemp("record") / "verdicts.jsonl"


@pytest.fixture(scope="session")
def page(triton: EmbeddedTriton, tmp_path_factory: pytest.TempPathFactory, verdict_log: Path) -> Iterator[PageProcess]:
    """The page, without a policy."""
    arguments = ("--url", triton.grpc_url, "--verdict-log", str(verdict_log))
    with page_process(tmp_path_factory.mktemp("page"), *arguments) as process:
        yield process


@pytest.fixture(scope="module")  # while it is open an event loop runs in this thread, and a test with its own cannot
def browsers() -> Iterator[Browsers]:
    """Debian's Chromium, headless."""
    with Browsers() as started:
        yield started


@pytest.fixture(scope="session")
def uploads(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of images in forms that a page is tempted to convert, and of files that are no image."""
    folder = tmp_path_factory.mktemp("uploads")
    exif = Image.Exif()
    exif[EXIF_ORIENTATION] = 6
    sixteen_bits = np.random.default_rng(1).integers(0, 65536, (60, 80), dtype=np.uint16)
    photo = encoded(photo_like(640, 480, 2), "JPEG")
    contents = {
        "avif.avif": encoded(photo_like(300, 200, 3), "AVIF"),
        "cmyk.jpg": encoded(photo_like(320, 240, 4, "CMYK"), "JPEG"),
        "photo.jpg": photo,
        "sixteen-bits.png": encoded(Image.fromarray(sixteen_bits), "PNG"),
        "tiff.tif": encoded(photo_like(300, 200, 5), "TIFF"),
        "turned.jpg": encoded(photo_like(640, 480, 6), "JPEG", exif=exif),
        "webp.webp": encoded(photo_like(300, 200, 7), "WEBP"),
        "text.jpg": b"This is no image.",
        "truncated.jpg": photo[: len(photo) // 2],
    }
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    return folder

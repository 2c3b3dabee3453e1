"""What a photo costs to decode exactly and fast, and how far fast decoding moves pixels and probabilities.

Photos are scaled to the sizes of cameras and saved as JPEG of quality 90. The server answers at once, from this process,
so that images per second are those of the client alone.
"""

from __future__ import annotations

import argparse
import io
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from deepfake_client import DeepfakeClient, FakeTransport, ImageError
from deepfake_client._images import list_files
from deepfake_client.preprocessing import Decoding, ImageSource, load_image, to_pixels
from deepfake_deploy.export import Precision
from deepfake_deploy.export.torchscript import deserialise
from PIL import Image

from loadtests.studies import table
from loadtests.studies.serving import exported, model_file
from loadtests.traffic.answers import drawn
from loadtests.traffic.options import one_or_more

MEGAPIXELS = (0.3, 2, 12, 48)
_DECODINGS: tuple[Decoding, ...] = ("exact", "fast")


def main() -> None:
    parser = table.study_parser(__doc__, rounds=5, model=True)
    parser.add_argument("--photos", type=Path, metavar="FOLDER", help="images to scale; without it they are drawn")
    parser.add_argument("--images", type=one_or_more, default=8, help="photos of each size")
    table.run_study("decoding", parser, measure, page)


def measure(options: argparse.Namespace, folder: Path) -> table.Result:
    sources = drawn() if options.photos is None else list_files(options.photos)
    photos = list(islice(_readable(sources), options.images))
    if not photos:
        raise ValueError(f"{options.photos}: no images in it")
    with exported(options, [Precision.FP32], folder) as (_, repositories):
        file = model_file(repositories[Precision.FP32])
        model = deserialise(file.read_bytes(), torch.device("cpu"))
    return {
        "circumstances": table.circumstances("decoding", options.model),
        "photos": f"{len(photos)} of each size, {'drawn' if options.photos is None else 'given'}",
        "sizes": {f"{size:g}": _measure_size(photos, size, model, options.rounds) for size in MEGAPIXELS},
    }


def _readable(sources: Iterable[ImageSource]) -> Iterator[Image.Image]:
    for source in sources:
        with suppress(ImageError):
            yield load_image(source)


def _measure_size(
    photos: Sequence[Image.Image], megapixels: float, model: torch.jit.ScriptModule, rounds: int
) -> table.Result:
    table.tell(f"{megapixels:g} megapixels")
    files = [_scaled(photo, megapixels) for photo in photos]
    found = table.in_turns({decoding: partial(_round, files, decoding) for decoding in _DECODINGS}, rounds)
    exact, fast = (
        np.stack([to_pixels(load_image(file, decoding=decoding)) for file in files]) for decoding in _DECODINGS
    )
    levels, scores = np.abs(exact.astype(int) - fast), [_probabilities(model, pixels) for pixels in (exact, fast)]
    return {
        "largest_pixel_difference": int(levels.max()),
        "mean_pixel_difference": float(levels.mean()),
        "largest_probability_difference": float(np.abs(scores[0] - scores[1]).max()),
        "label_changes": int((scores[0].argmax(1) != scores[1].argmax(1)).sum()),
        **{decoding: table.figures(found[decoding]) for decoding in _DECODINGS},
        "faster": table.ratio(*([each["images_per_second"] for each in found[name]] for name in ("fast", "exact"))),
    }


def _scaled(photo: Image.Image, megapixels: float) -> bytes:
    factor = (megapixels * 1e6 / (photo.width * photo.height)) ** 0.5
    size = (round(photo.width * factor), round(photo.height * factor))
    file = io.BytesIO()
    photo.resize(size, Image.Resampling.BICUBIC).save(file, "JPEG", quality=90)
    return file.getvalue()


def _round(files: Sequence[bytes], decoding: Decoding) -> dict[str, float]:
    """Processor time of a photo in one thread, and images per second of `classify_many`."""
    before = time.thread_time()
    for file in files:
        to_pixels(load_image(file, decoding=decoding))
    milliseconds = (time.thread_time() - before) / len(files) * 1000
    with DeepfakeClient(transport=FakeTransport(), decoding=decoding) as client:
        since = time.perf_counter()
        answers = list(client.classify_many(2 * [*files]))
        elapsed = time.perf_counter() - since
    if failures := [answer.error for answer in answers if not answer.ok]:
        raise failures[0]
    return {"cpu_ms": milliseconds, "images_per_second": len(answers) / elapsed}


def _probabilities(model: torch.jit.ScriptModule, pixels: np.ndarray) -> np.ndarray:
    """Of each image alone: in a batch the last digits depend on its size."""
    with torch.inference_mode():
        return np.concatenate([model(torch.from_numpy(each[np.newaxis]))[0].numpy() for each in pixels])


def page(result: table.Result) -> list[str]:
    rows = []
    for size, found in result["sizes"].items():
        costs = {
            name: [table.shown(found[name][key]) for key in ("cpu_ms", "images_per_second")] for name in _DECODINGS
        }
        moved = f"{found['largest_pixel_difference']} ({found['mean_pixel_difference']:.2f})"
        scores = f"{found['largest_probability_difference']:.4f}"
        rows.append([size, "exact", *costs["exact"], "", "", "", ""])
        rows.append(
            [size, "fast", *costs["fast"], table.shown(found["faster"]), moved, scores, str(found["label_changes"])]
        )
    header = ["megapixels", "decoding", "CPU ms a photo", "images/s", "faster", "grey levels", "probability", "labels"]
    lines = table.markdown_table(header, rows, words=2)
    return table.page_of("Decoding photos, exactly and fast", result, f"Photos: {result['photos']}.", lines)


if __name__ == "__main__":
    main()

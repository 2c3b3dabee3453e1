"""The model card's own code in a process of its own: transformers in fp32, one image at a time.

    python -m model_speed.card CHECKPOINT LABELS.TXT

The answer to {"seconds": 5} tells images per second. Its images are PNG files of 224 × 224 pixels in memory's file
system, so that reading and resizing them costs next to nothing: the rest is transformers.
"""

from __future__ import annotations

import argparse
import itertools
import tempfile
import time
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from deepfake_evaluation.reference import open_reference
from PIL import Image

from loadtests.traffic.pool import PixelPool

from .silence import Silent
from .worker import Worker, answer_questions

_IMAGES = 16


def card(checkpoint: Path, labels: Path) -> AbstractContextManager[Worker]:
    """The process, for a checkpoint's folder. Its environment is the caller's: the card sets none."""
    return Worker("model_speed.card", [str(checkpoint), str(labels)], {})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint")
    parser.add_argument("labels", type=Path)
    options = parser.parse_args()
    labels = options.labels.read_text(encoding="utf-8").splitlines()
    with (
        tempfile.TemporaryDirectory() as name,
        open_reference(options.checkpoint, None, labels, Silent()) as reference,
    ):
        pool, files = PixelPool(), [Path(name) / f"{number}.png" for number in range(_IMAGES)]
        for number, file in enumerate(files):
            Image.fromarray(pool.image(number)).save(file)
        next_file = itertools.cycle(files)
        reference.probabilities(next(next_file))

        def answer(question: dict[str, Any]) -> dict[str, float]:
            began, images = time.perf_counter(), 0
            while images < 2 or time.perf_counter() - began < question["seconds"]:
                reference.probabilities(next(next_file))
                images += 1
            return {"images_per_second": images / (time.perf_counter() - began)}

        answer_questions(answer)


if __name__ == "__main__":
    main()

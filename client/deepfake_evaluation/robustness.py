"""The same measurement under each of the damages that happen to photos on their way, side by side.

A scaled image arrives small, as a thumbnail does, and the model stretches it as it stretches every image.
"""

from __future__ import annotations

import io
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageFilter

from .measures import Measures, Sample, collect, measure
from .report import Part, named
from .run import Damaging, EvaluationRun, Prediction

_NOISE_ROWS = 256


class Damage(NamedTuple):
    """One kind of damage; earlier answers are found again by its name and parameters."""

    name: str
    parameters: str
    apply: Damaging


def _jpeg(image: Image.Image, quality: int) -> Image.Image:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality, subsampling="4:2:0")
    return Image.open(buffer).convert("RGB")


def _scaled(image: Image.Image, factor: float) -> Image.Image:
    size = (max(1, round(image.width * factor)), max(1, round(image.height * factor)))
    return image.resize(size, Image.Resampling.BICUBIC)


def _blurred(image: Image.Image) -> Image.Image:
    return image.filter(ImageFilter.GaussianBlur(0.005 * min(image.size)))


def _noisy(image: Image.Image) -> Image.Image:
    pixels = np.array(image)
    # Another noise for each image, and the same one each time. In strips, since floats take 24 bytes for each pixel.
    random = np.random.default_rng(zlib.crc32(pixels.data))
    for top in range(0, len(pixels), _NOISE_ROWS):
        strip = pixels[top : top + _NOISE_ROWS]
        strip[:] = (strip + random.normal(0, 10, strip.shape)).round().clip(0, 255)
    return Image.fromarray(pixels)


def _cropped(image: Image.Image) -> Image.Image:
    width, height = (max(1, round(side * 0.8)) for side in image.size)
    left, top = (image.width - width) // 2, (image.height - height) // 2
    return image.crop((left, top, left + width, top + height))


def _screenshot(image: Image.Image) -> Image.Image:
    return _jpeg(_scaled(image, 1080 / max(image.size)), 70)


DAMAGES: tuple[Damage, ...] = (
    *(
        Damage(f"JPEG {quality}", f"JPEG of quality {quality}, chroma 4:2:0", partial(_jpeg, quality=quality))
        for quality in (95, 75, 50, 30)
    ),
    Damage("scale ×0.5", "width and height halved, bicubic with antialias", partial(_scaled, factor=0.5)),
    Damage("scale ×0.25", "width and height quartered, bicubic with antialias", partial(_scaled, factor=0.25)),
    Damage("blur", "Gaussian, standard deviation 0.5% of the shorter side", _blurred),
    Damage("noise", "Gaussian, standard deviation 10 of 255, seeded by the image", _noisy),
    Damage("crop", "the middle 80% of width and height", _cropped),
    Damage(
        "screenshot",
        "scaled to 1080 pixels on the longer side, bicubic, then JPEG of quality 70, chroma 4:2:0",
        _screenshot,
    ),
)


@dataclass(frozen=True)
class Row:
    """What is left of the figures under one damage; `failed` are files to which it could not be done, and why."""

    damage: str
    parameters: str
    images: int
    failed: list[tuple[str, str]]
    measures: Measures


def measure_robustness(
    run: EvaluationRun,
    predictions: Sequence[Prediction],
    sample: Sample,
    measures: Measures,
    advance: Callable[[], None] = lambda: None,
) -> list[Row]:
    """Have the readable images classified under each damage, and measure; errors as of `EvaluationRun.classify`.

    The first row are the images as they are, with their predictions, sample and measures.
    """
    rows = [Row("none", "", sample.images, [], measures)]
    for damage in DAMAGES:
        key = f"{damage.name}: {damage.parameters}"
        damaged = collect(run.classify_damaged(predictions, key, damage.apply, advance), run.model.labels)
        rows.append(Row(damage.name, damage.parameters, damaged.images, damaged.unreadable, measure(damaged)))
    return rows


def robustness_part(rows: Sequence[Row]) -> Part:
    """A table, the damages in the order of `DAMAGES`."""
    heads = [f"recall {label}" for label in rows[0].measures.recalls]
    width = max(len("damage"), *(len(row.damage) for row in rows))
    lines = ["  ".join([f"{'damage':{width}}  images", f"{'accuracy (95 % CI)':22}", f"{'AUC (95 % CI)':22}", *heads])]
    figures = []
    for row in rows:
        accuracy, auc, recalls = row.measures.accuracy, row.measures.auc, row.measures.recalls
        intervals = [f"{each.value:.4f} ({each.low:.4f}–{each.high:.4f})" for each in (accuracy, auc)]
        shares = [f"{each.value:>{len(head)}.4f}" for each, head in zip(recalls.values(), heads, strict=True)]
        lines.append("  ".join([f"{row.damage:{width}}  {row.images:>6}", *intervals, *shares]))
        kind = {"damage": row.damage, "parameters": row.parameters, "images": row.images, "failed": named(row.failed)}
        figures.append({**kind, "accuracy": accuracy, "auc": auc, "recall": recalls})
    lines += [f"Not measured under {row.damage}: {file}: {error}" for row in rows for file, error in row.failed]
    return Part("robustness", figures, "\n".join(lines))

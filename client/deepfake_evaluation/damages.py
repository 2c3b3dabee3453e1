"""What happens to photos on their way: the damages under which `--robustness` repeats the measurement.

Each takes an upright RGB image and gives the one that arrives, the same each time. Sizes are relative to the image where
the effect is one of the picture (blur, crop), and in pixels where it is one of the file (JPEG's blocks, noise). A scaled
image arrives small, as a thumbnail does, and the model stretches it as it stretches every image: scaling it up first
would add an interpolation of which nobody knows who does it.
"""

from __future__ import annotations

import io
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
from PIL import Image, ImageFilter

_BLUR_SHARE = 0.005
_NOISE_LEVELS = 10.0
_NOISE_ROWS = 256
_CROP_SHARE = 0.8
_SCREEN_PIXELS = 1080


@dataclass(frozen=True)
class Damage:
    """One kind of damage.

    Attributes:
        name: short, for tables and plots.
        parameters: all that decides what comes out; earlier answers are found again by both.
        apply: makes of an upright RGB image the damaged one, RGB too.
    """

    name: str
    parameters: str
    apply: Callable[[Image.Image], Image.Image]


def _jpeg(image: Image.Image, quality: int) -> Image.Image:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality, subsampling="4:2:0")
    return Image.open(buffer).convert("RGB")


def _scaled(image: Image.Image, factor: float) -> Image.Image:
    size = (max(1, round(image.width * factor)), max(1, round(image.height * factor)))
    return image.resize(size, Image.Resampling.BICUBIC)


def _blurred(image: Image.Image) -> Image.Image:
    return image.filter(ImageFilter.GaussianBlur(_BLUR_SHARE * min(image.size)))


def _noisy(image: Image.Image) -> Image.Image:
    pixels = np.array(image)
    # Another noise for each image, and the same one each time. In strips, since floats take 24 bytes for each pixel.
    random = np.random.default_rng(zlib.crc32(pixels.data))
    for top in range(0, len(pixels), _NOISE_ROWS):
        strip = pixels[top : top + _NOISE_ROWS]
        strip[:] = (strip + random.normal(0, _NOISE_LEVELS, strip.shape)).round().clip(0, 255)
    return Image.fromarray(pixels)


def _cropped(image: Image.Image) -> Image.Image:
    width, height = (max(1, round(side * _CROP_SHARE)) for side in image.size)
    left, top = (image.width - width) // 2, (image.height - height) // 2
    return image.crop((left, top, left + width, top + height))


def _screenshot(image: Image.Image) -> Image.Image:
    return _jpeg(_scaled(image, _SCREEN_PIXELS / max(image.size)), 70)


DAMAGES: tuple[Damage, ...] = (
    *(
        Damage(f"JPEG {quality}", f"JPEG of quality {quality}, chroma 4:2:0", partial(_jpeg, quality=quality))
        for quality in (95, 75, 50, 30)
    ),
    Damage("scale ×0.5", "width and height halved, bicubic with antialias", partial(_scaled, factor=0.5)),
    Damage("scale ×0.25", "width and height quartered, bicubic with antialias", partial(_scaled, factor=0.25)),
    Damage("blur", f"Gaussian, standard deviation {_BLUR_SHARE:.1%} of the shorter side", _blurred),
    Damage("noise", f"Gaussian, standard deviation {_NOISE_LEVELS:g} of 255, seeded by the image", _noisy),
    Damage("crop", f"the middle {_CROP_SHARE:.0%} of width and height", _cropped),
    Damage(
        "screenshot",
        f"scaled to {_SCREEN_PIXELS} pixels on the longer side, bicubic, then JPEG of quality 70, chroma 4:2:0",
        _screenshot,
    ),
)

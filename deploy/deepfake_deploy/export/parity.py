"""Does the TorchScript say what transformers says? Measured on what is about to be written."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice

import numpy as np
import torch
from deepfake_client.preprocessing import to_pixels
from numpy.typing import NDArray
from PIL import Image
from transformers import BaseImageProcessor, SiglipForImageClassification

from .reporting import ExportError
from .torchscript import Precision

BATCH_SIZES = (1, 2, 5, 8)
MAX_LOGIT_DIFFERENCE_FP32 = 1e-4
MAX_PROBABILITY_DIFFERENCE = 0.02
DECIDED_MARGIN = 0.05
"""Difference of the two fp32 probabilities over which a label must not change in another precision than fp32."""


@dataclass(frozen=True)
class Parity:
    """Largest differences between the exported graph and transformers' eager fp32 model over `images` images."""

    images: int
    batch_sizes: tuple[int, ...]
    device: str
    max_logit_difference: float
    max_probability_difference: float
    label_changes: int
    """Labels that differ, at any margin."""
    decided_label_changes: int
    """Labels that differ where the fp32 margin is over `DECIDED_MARGIN`."""

    def require(self, precision: Precision) -> None:
        """Refuse a graph that is outside the limits of its precision; a NaN is outside of every limit.

        Raises:
            ExportError: naming the difference and the limit.
        """
        if precision is Precision.FP32:
            if not self.max_logit_difference <= MAX_LOGIT_DIFFERENCE_FP32:
                raise ExportError(
                    f"the fp32 graph differs from transformers by {self.max_logit_difference:.2g} in a logit, "
                    f"{MAX_LOGIT_DIFFERENCE_FP32:.0e} is the limit; nothing was written"
                )
            return
        if not self.max_probability_difference <= MAX_PROBABILITY_DIFFERENCE or self.decided_label_changes:
            raise ExportError(
                f"the {precision.value} graph differs from transformers by {self.max_probability_difference:.2g} in a "
                f"probability ({MAX_PROBABILITY_DIFFERENCE} is the limit) and in {self.decided_label_changes} "
                "clear labels; nothing was written, export with --precision fp32"
            )

    def summary(self) -> str:
        """One line for a person."""
        return (
            f"{self.images} images in batches of {', '.join(map(str, self.batch_sizes))} on {self.device}: "
            f"max |Δlogit| {self.max_logit_difference:.1e}, max |Δprobability| {self.max_probability_difference:.1e}, "
            f"labels changed {self.label_changes}"
        )


def measure_parity(
    module: torch.jit.ScriptModule,
    model: SiglipForImageClassification,
    processor: BaseImageProcessor,
    device: torch.device,
    advance: Callable[[], None],
) -> Parity:
    """Compare `module` on `device`, fed by the client's preprocessing, with `model`, fed by transformers' own.

    `module` is the TorchScript as it was serialised, `model` the fp32 classifier on the CPU. `advance` is called after
    each batch.
    """
    images = varied_images(sum(BATCH_SIZES))
    served, expected = [], []
    with torch.inference_mode(), torch.jit.optimized_execution(False):  # as config.pbtxt asks of Triton
        for size in BATCH_SIZES:
            batch = list(islice(images, size))
            pixels = torch.from_numpy(np.stack([to_pixels(image) for image in batch])).to(device)
            served.append([tensor.cpu() for tensor in module(pixels)])
            inputs = processor(images=[image.convert("RGB") for image in batch], return_tensors="pt")
            expected.append(model(**inputs).logits)
            advance()
    probabilities, logits = (torch.cat(parts) for parts in zip(*served, strict=True))
    expected_logits = torch.cat(expected)
    expected_probabilities = torch.softmax(expected_logits, dim=-1)
    changed = probabilities.argmax(dim=-1) != expected_probabilities.argmax(dim=-1)
    top = expected_probabilities.topk(2, dim=-1).values
    return Parity(
        images=len(logits),
        batch_sizes=BATCH_SIZES,
        device=device.type,
        max_logit_difference=float((logits - expected_logits).abs().max()),
        max_probability_difference=float((probabilities - expected_probabilities).abs().max()),
        label_changes=int(changed.sum()),
        decided_label_changes=int((changed & (top[:, 0] - top[:, 1] > DECIDED_MARGIN)).sum()),
    )


def varied_images(count: int) -> Iterator[Image.Image]:
    """Seeded images of different sizes, modes and content: noise, soft noise, gradients, stripes and flat colours."""
    random = np.random.default_rng(224)
    sizes = [(640, 480), (224, 224), (97, 301), (1024, 768), (33, 40), (1, 1), (500, 500)]
    modes = ["RGB", "RGB", "L", "RGBA", "P", "CMYK"]
    for index in range(count):
        content = _content(index % 5, *sizes[index % len(sizes)], random)
        yield Image.fromarray(content.astype(np.uint8)).convert(modes[index % len(modes)])


def _content(kind: int, width: int, height: int, random: np.random.Generator) -> NDArray[np.float64]:
    colour = random.uniform(0, 255, 3)
    across, down = np.meshgrid(np.linspace(0, 1, width), np.linspace(0, 1, height))
    if kind == 0:
        return random.uniform(0, 255, (height, width, 3))
    if kind == 1:
        blotches = Image.fromarray(random.integers(0, 256, (12, 12, 3), dtype=np.uint8))
        return np.asarray(blotches.resize((width, height), Image.Resampling.BICUBIC), dtype=np.float64)
    shades = (across * down, np.sin(across * 60) * 0.5 + 0.5, np.ones_like(across))[kind - 2]
    return np.asarray(shades[..., None] * colour)

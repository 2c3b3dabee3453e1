"""Images whose answer is known, sent among the others: a server that is fast and wrong must not pass.

What goes wrong under load only is what nobody sees otherwise: answers handed to the wrong caller of a batch, a replica
with other weights, memory that is overwritten. The scores are asked once, from an idle server, or come from a file that
`deepfake classify --format jsonl` wrote, with a server that is trusted.
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from deepfake_client import DeepfakeClient, ImageError, Verdict
from deepfake_client.preprocessing import load_image, to_pixels
from numpy.typing import NDArray
from PIL import Image

from .pool import Payload, picture

#: Scores in bf16 move by up to 0.005 with the size of the batch (README, parity); four times as much is no rounding.
SCORE_TOLERANCE = 0.02
_IMAGES = 8
_SIDE = 256


@dataclass(frozen=True, slots=True)
class KnownAnswer:
    """An image and the verdict that every request for it must bring."""

    payload: Payload
    scores: Mapping[str, float]

    def contradicts(self, verdict: Verdict, tolerance: float) -> bool:
        """Whether the scores of `verdict` are not the known ones.

        The label follows from the scores, so that it can only differ where the two best are closer than twice the
        tolerance.
        """
        if set(verdict.scores) != set(self.scores):
            return True
        return any(abs(verdict.scores[label] - score) > tolerance for label, score in self.scores.items())


def ask(client: DeepfakeClient, payload: Payload, timeout_seconds: float) -> Verdict:
    """The verdict on a payload, by the client's way in."""
    if isinstance(payload, bytes):
        return client.classify(payload, timeout=timeout_seconds)
    return client.classify_pixels(payload, timeout=timeout_seconds)


def learn(client: DeepfakeClient, payload: str, timeout_seconds: float) -> list[KnownAnswer]:
    """Asks the server, before the load, for its verdicts on eight drawn images.

    Raises:
        DeepfakeError: it does not answer.
    """
    return [
        KnownAnswer(image, dict(ask(client, image, timeout_seconds).scores)) for image in _as_payloads(drawn(), payload)
    ]


def read(path: Path, payload: str) -> list[KnownAnswer]:
    """Known answers from a file of `deepfake classify --format jsonl`, whose paths are those of the images.

    Raises:
        ValueError: the file or an image cannot be read; in one line.
    """
    found: list[KnownAnswer] = []
    number = 1
    try:
        for line in path.read_text().splitlines():
            entry = json.loads(line)
            if "error" in entry:
                raise ValueError
            scores = {str(label): float(score) for label, score in entry["scores"].items()}
            image = Path(entry["source"]).read_bytes()
            found.append(KnownAnswer(_as_payloads([image], payload)[0], scores))
            number += 1
    except OSError as error:
        raise ValueError(f"{error.filename}: {error.strerror}") from None
    except ImageError as error:
        raise ValueError(f"{path}: line {number}: {error}") from None
    except (ValueError, KeyError, TypeError, AttributeError):
        raise ValueError(f"{path}: line {number} is not a verdict of `deepfake classify --format jsonl`") from None
    if not found:
        raise ValueError(f"{path}: no verdict in it; write it with `deepfake classify --format jsonl`")
    return found


def alike(answers: Sequence[KnownAnswer], tolerance: float) -> bool:
    """Whether all answers are the same within the tolerance, so that a mixed-up one would go unseen."""
    return all(
        max(answer.scores[label] for answer in answers) - min(answer.scores[label] for answer in answers) <= tolerance
        for label in answers[0].scores
    )


def drawn() -> list[bytes]:
    """Pictures as unlike each other as can be: plain colours, stripes, blotches, noise; as PNG files."""
    random = np.random.default_rng(7)
    rows, columns = np.mgrid[0:_SIDE, 0:_SIDE]
    drawn = [np.full((_SIDE, _SIDE, 3), colour, np.uint8) for colour in ((0, 0, 0), (255, 255, 255), (200, 40, 40))]
    for period, values in ((8, rows), (32, columns), (64, rows + columns)):
        stripes = np.where(values // period % 2, 255, 0).astype(np.uint8)
        drawn.append(np.dstack([stripes, 255 - stripes, stripes]))
    drawn += [picture(_SIDE, random) for _ in range(_IMAGES - len(drawn) - 1)]
    drawn.append(random.integers(0, 256, (_SIDE, _SIDE, 3), dtype=np.uint8))
    return [_png(pixels) for pixels in drawn]


def _as_payloads(files: Sequence[bytes], payload: str) -> list[Payload]:
    return list(files) if payload == "image" else [to_pixels(load_image(file)) for file in files]


def _png(pixels: NDArray[np.uint8]) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()

"""How answers are judged: images with known scores, and the causes that failures are counted by.

A server that is fast and wrong must not pass. Some faults show under load only: answers handed to the wrong caller of a
batch, a replica with other weights.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from deepfake_client import (
    ConnectionFailedError,
    DeadlineExceededError,
    DeepfakeClient,
    DeepfakeError,
    ImageError,
    NotReadyError,
    OverloadedError,
    ProtocolError,
    Verdict,
)
from deepfake_client.preprocessing import load_image, to_pixels

from .pool import Item, Payload, encoded, picture

#: Scores in bf16 move by up to 0.005 with the size of the batch; four times as much is no rounding.
SCORE_TOLERANCE = 0.02
_SIDE = 256

REJECTED_FULL = "rejected: the queue is full, or too many requests"
REJECTED_WAITED = "rejected: waited in the queue for too long"
WRONG_INVALID = "wrong answer: no valid scores"
WRONG_SCORES = "wrong answer: not the known scores"
_CAUSES = {
    NotReadyError: "rejected: the server is not ready",
    DeadlineExceededError: "deadline: no answer in time",
    ConnectionFailedError: "connection: refused, reset or closed",
    ProtocolError: WRONG_INVALID,
}


def cause_of(error: DeepfakeError) -> str:
    """The cause of a client's error; for a kind that no load brings about, "other" with its name."""
    if isinstance(error, OverloadedError):
        return REJECTED_WAITED if "timeout expired" in error.reason else REJECTED_FULL
    kind = next((cause for kind, cause in _CAUSES.items() if isinstance(error, kind)), None)
    return kind or f"other: {type(error).__name__}"


def wrong(
    scores: Mapping[str, float], known: Mapping[str, float] | None, labels: frozenset[str], tolerance: float
) -> str | None:
    """The cause when scores are not right, else None."""
    if frozenset(scores) != labels or abs(sum(scores.values()) - 1) > SCORE_TOLERANCE:
        return WRONG_INVALID
    if known and any(abs(scores.get(label, -1.0) - score) > tolerance for label, score in known.items()):
        return WRONG_SCORES
    return None


def ask(client: DeepfakeClient, payload: Payload) -> Verdict:
    return client.classify(payload) if isinstance(payload, bytes) else client.classify_pixels(payload)


def known_answers(client: DeepfakeClient, file: Path | None, known_rate: float, payload: str) -> list[Item]:
    """Those of a file; else, where some are to be sent, the server's own on eight drawn images, asked before the load.

    Raises:
        ValueError: the file cannot be used.
        DeepfakeError: the server does not answer.
    """
    if file:
        return read(file, payload)
    images = [_as_payload(each, payload) for each in drawn()] if known_rate else []
    return [Item(image, dict(ask(client, image).scores)) for image in images]


def read(path: Path, payload: str) -> list[Item]:
    """Known answers from a file of `deepfake classify --format jsonl`, whose paths are those of the images.

    Raises:
        ValueError: the file or an image cannot be read; in one line.
    """
    found: list[Item] = []
    try:
        for line in path.read_text(encoding="utf-8").splitlines():
            entry = json.loads(line)
            scores = {str(label): float(score) for label, score in entry["scores"].items()}
            found.append(Item(_as_payload(Path(entry["source"]).read_bytes(), payload), scores))
    except OSError as error:
        raise ValueError(f"{error.filename}: {error.strerror}") from None
    except (ImageError, ValueError, KeyError, TypeError, AttributeError) as error:
        reason = error if isinstance(error, ImageError) else "not a verdict of `deepfake classify --format jsonl`"
        raise ValueError(f"{path}: line {len(found) + 1}: {reason}") from None
    if not found:
        raise ValueError(f"{path}: no verdict in it; write it with `deepfake classify --format jsonl`")
    return found


def drawn() -> list[bytes]:
    """Pictures as unlike each other as can be: plain colours, stripes, blotches, noise; as PNG files."""
    generator = np.random.default_rng(7)
    rows, columns = np.mgrid[0:_SIDE, 0:_SIDE]
    stripes = [np.where(values % 2, 255, 0) for values in (rows // 8, columns // 32, (rows + columns) // 64)]
    pictures = [
        *(np.full((_SIDE, _SIDE, 3), colour) for colour in ((0, 0, 0), (255, 255, 255), (200, 40, 40))),
        *(np.dstack([each, 255 - each, each]) for each in stripes),
        picture(_SIDE, generator),
        generator.integers(0, 256, (_SIDE, _SIDE, 3)),
    ]
    return [encoded(each.astype(np.uint8), "PNG") for each in pictures]


def _as_payload(file: bytes, payload: str) -> Payload:
    return file if payload == "image" else to_pixels(load_image(file))

"""What the page asks the server: a verdict on each upload, and which weights give them."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import PurePath
from typing import Literal

import anyio.to_thread
from deepfake_client import (
    DeepfakeClient,
    DeepfakeError,
    Failure,
    ImageError,
    NotReadyError,
    OverloadedError,
    Provenance,
    Verdict,
)
from deepfake_client.preprocessing import load_image
from PIL import Image

from .uploads import Uploads

#: Images in one go. At three a second, which two cores of a CPU do, 50 are a quarter of a minute.
MAX_IMAGES = 50
_log = logging.getLogger("deepfake_page")
# Of one batch, at a time.
_BATCH_WORKERS = 2
# Twice the size at which a thumbnail is shown, for screens of double density.
_MAX_SIDE = 360
# Nobody waits for the server's weights longer than for an image.
_TIMEOUT_SECONDS = 3.0
# Each open page asks every few seconds; the server is asked for all of them together.
_FRESH_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class Upload:
    """Where gradio put a file, and its name as the sender gave it."""

    path: str
    name: str


@dataclass(frozen=True, slots=True)
class Answer:
    """What became of one upload, after how long, and a small JPEG where it could be decoded."""

    name: str
    result: Verdict | Failure
    milliseconds: float
    thumbnail: bytes | None


class Classifier:
    """Asks the server about uploads, which are removed with their answer."""

    def __init__(self, client: DeepfakeClient, uploads: Uploads) -> None:
        self._client, self._uploads = client, uploads

    async def classify(self, upload: Upload) -> Answer:
        try:
            return await anyio.to_thread.run_sync(self._answer, upload, None)
        finally:
            self._uploads.forget(upload.path)

    async def classify_many(self, uploads: Sequence[Upload]) -> AsyncIterator[Answer]:
        """The answers for several uploads, in their order; behind single ones in the server's queue.

        Once the server has failed one of them, the rest is not tried: each would wait for its retries.
        """
        failed = False
        waiting = list(uploads)
        try:
            while waiting:
                some = waiting[:_BATCH_WORKERS]
                if failed:
                    skipped = NotReadyError("not tried, because there was no answer for an image before it")
                    answers = [Answer(each.name, Failure(each.name, skipped), 0.0, None) for each in some]
                else:
                    answers = await asyncio.gather(
                        *(anyio.to_thread.run_sync(self._answer, upload, "bulk") for upload in some)
                    )
                for answer in answers:
                    self._uploads.forget(waiting.pop(0).path)
                    error = None if isinstance(answer.result, Verdict) else answer.result.error
                    failed = failed or (error is not None and not isinstance(error, (ImageError, OverloadedError)))
                    yield answer
        finally:
            self.forget(waiting)  # whoever closes the page in the middle leaves nothing behind

    def forget(self, uploads: Iterable[Upload]) -> None:
        """Remove uploads that get no answer."""
        for upload in uploads:
            self._uploads.forget(upload.path)

    def _answer(self, upload: Upload, priority: Literal["bulk"] | None) -> Answer:
        begun = time.perf_counter()
        small: bytes | None = None
        result: Verdict | Failure
        try:
            data = self._uploads.read(upload.path)
            # Decoded here for the thumbnail, and once more by the client, which takes note of the file as it came.
            small = _thumbnail(load_image(data))
            result = self._client.classify(data, source=upload.name, priority=priority)
        except DeepfakeError as error:
            error.source = upload.name
            # Not by its name, which may tell what nobody but its sender is to know.
            _log.warning("no verdict on an image: %s", error.reason)
            result = Failure(upload.name, error)
        return Answer(upload.name, result, (time.perf_counter() - begun) * 1000, small)


def _thumbnail(image: Image.Image) -> bytes:
    """A JPEG of at most 360 × 360 pixels, some 10 to 20 KB, without metadata; shrinks `image`, which is RGB."""
    image.thumbnail((_MAX_SIDE, _MAX_SIDE), Image.Resampling.BILINEAR)
    buffer = BytesIO()
    image.save(buffer, "JPEG", quality=80)
    return buffer.getvalue()


@dataclass(frozen=True, slots=True)
class ServedModel:
    """The server as it was when it was asked last."""

    provenance: Provenance | None
    """Of its weights, or what it told of them before it went away; None where it has told nothing."""
    away: str | None
    """Why it cannot be asked; None where it answers."""

    @property
    def stand_in(self) -> bool:
        """Whether its weights are known to be random."""
        return self.provenance is not None and self.provenance.stand_in

    @property
    def model_name(self) -> str:
        """The Hub id, or the last part of a folder's path: where that lies is nobody's business on the page."""
        if self.provenance is None:
            return "unknown"
        name = self.provenance.model_id
        return PurePath(name).name if name.startswith(("/", ".", "~")) else name


class ServedModelWatch:
    """Asks the server which weights it has, and logs when it goes away and when it comes back."""

    def __init__(self, client: DeepfakeClient) -> None:
        self._client = client
        self._lock = threading.Lock()
        self._last: tuple[float, ServedModel] | None = None

    def look(self, max_age: float = _FRESH_SECONDS) -> ServedModel:
        """What it had at most `max_age` seconds ago; never raises for a server that is away."""
        with self._lock:
            if self._last is None or time.monotonic() - self._last[0] >= max_age:
                self._last = time.monotonic(), self._ask()
            return self._last[1]

    def _ask(self) -> ServedModel:
        try:
            served = ServedModel(self._client.provenance(timeout=_TIMEOUT_SECONDS, max_retries=0), None)
        except DeepfakeError as error:
            # What is known of its weights holds for the verdicts that it gave before.
            served = ServedModel(self._last[1].provenance if self._last else None, error.reason)
        if served.away != (self._last[1].away if self._last else None):
            _log.warning("the server %s", "answers again" if served.away is None else f"is away: {served.away}")
        return served

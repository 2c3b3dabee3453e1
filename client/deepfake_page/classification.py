"""From an upload to its answer: the one place where the page asks for a verdict."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from deepfake_client import (
    DeepfakeClient,
    DeepfakeError,
    Failure,
    ImageError,
    ImageReadError,
    InternalServerError,
    NotReadyError,
    OverloadedError,
    Verdict,
)
from deepfake_client.preprocessing import load_image

from .limits import BATCH_WORKERS, PageLimits
from .thumbnails import thumbnail
from .uploads import Upload, UploadStore

_log = logging.getLogger("deepfake_page")


@dataclass(frozen=True, slots=True)
class Answer:
    """What became of one upload.

    Attributes:
        name: of the file.
        result: the verdict, or why there is none.
        milliseconds: from the uploaded bytes to the result, decoding included.
        thumbnail: a small JPEG; None where the image could not be decoded.
    """

    name: str
    result: Verdict | Failure
    milliseconds: float
    thumbnail: bytes | None

    @property
    def unanswered(self) -> bool:
        """Whether there is no verdict for a reason that the next image would meet as well."""
        return isinstance(self.result, Failure) and not isinstance(self.result.error, (ImageError, OverloadedError))


class Classifier:
    """Takes uploads out of the store and asks the server about them."""

    def __init__(self, client: DeepfakeClient, store: UploadStore, limits: PageLimits) -> None:
        self._client = client
        self._store = store
        self._limits = limits

    def classify(self, ticket: str) -> Answer:
        """The answer for one upload, which is forgotten with it."""
        upload = self._store.take(ticket)
        if upload is None:
            return _refused(ticket)
        return self._answer(upload, bulk=False)

    def classify_many(self, tickets: Sequence[str]) -> Iterator[Answer]:
        """The answers for several uploads, in their order; behind single ones in the server's queue.

        Once the server has failed one of them, the rest is not tried: each would wait for its retries.
        """
        failed = threading.Event()

        def answer(ticket: str) -> Answer:
            upload = self._store.take(ticket)
            if upload is None:
                return _refused(ticket)
            if failed.is_set():
                error = NotReadyError(
                    "not tried, because there was no answer for an image before it", source=upload.name
                )
                return Answer(upload.name, Failure(upload.name, error), 0.0, None)
            found = self._answer(upload, bulk=True)
            if found.unanswered:
                failed.set()
            return found

        pool = ThreadPoolExecutor(BATCH_WORKERS, thread_name_prefix="page-batch")
        try:
            yield from pool.map(answer, tickets)
        finally:
            # Whoever closes the page in the middle leaves nothing behind.
            pool.shutdown(wait=False, cancel_futures=True)
            for ticket in tickets:
                self._store.take(ticket)

    def _answer(self, upload: Upload, *, bulk: bool) -> Answer:
        begun = time.perf_counter()
        small: bytes | None = None
        result: Verdict | Failure
        try:
            # Decoded here for the thumbnail, and once more by the client, which takes note of the file as it came.
            small = thumbnail(load_image(upload.data, limits=self._limits.image))
            result = self._client.classify(upload.data, source=upload.name, priority="bulk" if bulk else None)
        except DeepfakeError as error:
            error.source = upload.name
            # Not by its name, which may tell what nobody but its sender is to know.
            _log.warning("no verdict on an image: %s", error.reason)
            result = Failure(upload.name, error)
        except Exception:
            _log.exception("the page failed on an image")
            reason = "the page failed on this image; its log says why"
            result = Failure(upload.name, InternalServerError(reason, source=upload.name))
        return Answer(upload.name, result, (time.perf_counter() - begun) * 1000, small)


def _refused(ticket: str) -> Answer:
    """What a caller hears who sends an address, a path or a ticket that has been used."""
    if "://" in ticket:
        error = ImageReadError("an address, not an uploaded file: nothing is fetched from other hosts")
    else:
        error = ImageReadError("not among the uploads that are waiting: send the file again")
    _log.warning("no verdict on an image: %s", error.reason)
    return Answer("image", Failure(None, error), 0.0, None)

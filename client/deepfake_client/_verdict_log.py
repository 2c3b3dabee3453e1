"""A line for each verdict, for audits: which image was judged how, by which model, and when."""

from __future__ import annotations

import errno
import io
import json
import logging.handlers
import os
from collections.abc import Sequence
from datetime import datetime, timezone
from typing import Any

from ._errors import ClientClosedError, InvalidArgumentError, VerdictLogError
from ._tensors import ImageDigest
from ._verdict import Verdict


class _Lines(io.FileIO):
    """Appends with one write(2) each, so that several processes can share the file."""

    def __init__(self, path: str) -> None:
        # Only for its owner: who had which picture checked is nobody else's business.
        super().__init__(path, "a+", opener=lambda path, flags: os.open(path, flags, 0o600))
        size = os.fstat(self.fileno()).st_size
        self._torn = size > 0 and os.pread(self.fileno(), 1, size - 1) != b"\n"

    def write(self, content: Any, /) -> int:
        # What a full disk cut off must not run into the next line.
        content = b"\n" + content if self._torn else content
        written = super().write(content) or 0
        self._torn = written < len(content)
        if self._torn:
            raise OSError(errno.ENOSPC, "it took only a part of a line: is the disk full?")
        return written


class _Handler(logging.handlers.WatchedFileHandler):
    """Follows the file when it is rotated, and raises what goes wrong."""

    def _open(self) -> io.TextIOWrapper:
        return io.TextIOWrapper(_Lines(self.baseFilename), encoding="utf-8", write_through=True)

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: ARG002, N802
        raise


class VerdictLog:
    """Appends JSON lines to a file, which others may append to and rotate.

    A line is written with one call, at the end of the file as it is then, so several processes can share it. A file that
    was renamed or removed in the meantime is made anew under the old name.

    Raises:
        InvalidArgumentError: the file cannot be opened.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        try:
            self._handler = _Handler(os.fspath(path))
            self._closed = False
        except (OSError, TypeError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error
            raise InvalidArgumentError(f"verdict_log {path!r:.200} cannot be written: {reason}") from None

    def write(self, verdicts: Sequence[Verdict], digests: Sequence[ImageDigest]) -> None:
        """One line for each verdict.

        Raises:
            VerdictLogError: the file takes no more; the verdicts are not to be used as if they were on record.
            ClientClosedError: the log was closed.
        """
        now = datetime.now(timezone.utc).isoformat(timespec="microseconds").replace("+00:00", "Z")
        lines = [
            json.dumps(_entry(now, verdict, digest), ensure_ascii=False)
            for verdict, digest in zip(verdicts, digests, strict=True)
        ]
        self._handler.acquire()
        try:
            # The handler itself opens the file again: an application that configures logging closes all handlers.
            if self._closed:
                raise ClientClosedError("the client was closed, and its verdict log with it")
            self._handler.handle(logging.makeLogRecord({"msg": "\n".join(lines)}))
        except OSError as error:
            raise VerdictLogError(
                f"the verdict log {self._handler.baseFilename} cannot be written: {error.strerror}"
            ) from None
        finally:
            self._handler.release()

    def close(self) -> None:
        """Closes the file; may be repeated."""
        self._handler.acquire()
        self._closed = True
        self._handler.release()
        self._handler.close()


def _entry(time: str, verdict: Verdict, digest: ImageDigest) -> dict[str, Any]:
    entry = {
        "time": time,
        "request_id": verdict.request_id,
        "sha256": digest.sha256,
        "sha256_of": digest.of,
        "label": verdict.label,
        "scores": dict(verdict.scores),
        "model": verdict.model,
        "model_version": verdict.model_version,
    }
    return entry if verdict.decision is None else {**entry, "decision": verdict.decision}

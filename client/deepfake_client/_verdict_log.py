"""A line for each verdict, for audits: which image was judged how, by which model, and when."""

from __future__ import annotations

import errno
import json
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timezone
from typing import Any

from ._errors import InvalidArgumentError, VerdictLogError
from ._tensors import ImageDigest
from ._verdict import Verdict

LOCK_SECONDS = 5.0


class VerdictLog:
    """Appends JSON lines to a file, which other processes may append to and rotate.

    Raises:
        InvalidArgumentError: the file cannot be opened.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        try:
            self._path = os.path.abspath(os.fspath(path))  # noqa: PTH100 - the caller may change the folder later
            os.close(self._open())
        except (OSError, TypeError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error
            raise InvalidArgumentError(f"verdict_log {path!r:.200} cannot be written: {reason}") from None

    def write(self, verdicts: Sequence[Verdict], digests: Sequence[ImageDigest]) -> None:
        """One line for each verdict.

        Raises:
            VerdictLogError: the file takes no more; the verdicts are not to be used as if they were on record.
        """
        now = datetime.now(timezone.utc).isoformat(timespec="microseconds").replace("+00:00", "Z")
        entries = [_entry(now, verdict, digest) for verdict, digest in zip(verdicts, digests, strict=True)]
        try:
            self._append(
                "".join(json.dumps(entry, ensure_ascii=False) + "\n" for entry in entries).encode(
                    "utf-8", "backslashreplace"
                )
            )
        except OSError as error:
            raise VerdictLogError(f"the verdict log {self._path} cannot be written: {error.strerror}") from None

    def _open(self) -> int:
        # Only for its owner: who had which picture checked is nobody else's business.
        return os.open(self._path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def _append(self, lines: bytes) -> None:
        """Opens the file each time, since it may have been rotated; writes once, since others may write too."""
        file = self._open()
        try:
            with _locked(file):  # else a line that another writer is just adding looks cut off
                size = os.fstat(file).st_size
                if size > 0 and os.pread(file, 1, size - 1) != b"\n":
                    lines = b"\n" + lines  # what a full disk cut off must not run into this line
                if os.write(file, lines) < len(lines):
                    raise OSError(errno.ENOSPC, "it took only a part of a line: is the disk full?")
        finally:
            os.close(file)


@contextmanager
def _locked(file: int) -> Iterator[None]:
    import fcntl  # not on Windows, where the library works without a log

    deadline = time.monotonic() + LOCK_SECONDS
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            break
        except BlockingIOError:
            if time.monotonic() > deadline:
                reason = f"another program has held its lock (flock) for over {LOCK_SECONDS:g} s"
                raise OSError(errno.EWOULDBLOCK, reason) from None
            time.sleep(0.0005)
    try:
        yield
    finally:
        fcntl.flock(file, fcntl.LOCK_UN)  # a child forked meanwhile keeps the file open, and must not keep the lock


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

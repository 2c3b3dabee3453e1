"""Uploaded files, in memory from their arrival to their answer."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from deepfake_client import ImageReadError

#: Of all files that wait, 512 MiB: a batch of 50 photos from a camera, twice.
MAX_WAITING_BYTES = 512 << 20
#: A file that nobody asked a verdict for is removed after this time; longer than any wait in the queue.
KEEP_SECONDS = 600

_MEMORY = Path("/dev/shm")  # noqa: S108 - a folder of its own is made in it
_PREFIX = "deepfake-page-"
# What even an empty file counts for, so that their number has an end too.
_LEAST_BYTES = 64 << 10


@contextmanager
def memory_folder() -> Iterator[Path]:
    """gradio's folder for uploads, for this user alone (mode 0700), removed at the end. Before gradio is imported.

    It lies in memory, or among the temporary files where the system has no /dev/shm. The folders of pages that were
    killed are removed first.
    """
    parent = _MEMORY if _MEMORY.is_dir() else Path(tempfile.gettempdir()).resolve()
    for old in parent.glob(f"{_PREFIX}*"):
        with suppress(OSError), _locked(old):  # a page that runs holds its own
            shutil.rmtree(old)
    folder = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=parent))
    try:
        with _locked(folder):
            os.environ["GRADIO_TEMP_DIR"] = str(folder)
            yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(descriptor)


@dataclass(slots=True)
class _Waiting:
    """A file that has arrived, `count` times: gradio stores equal files of one name under one path."""

    inode: int
    size: int
    since: float
    count: int


class Uploads:
    """Keeps account of gradio's upload folder, `GRADIO_TEMP_DIR`. For the event loop alone, but for `read`.

    `max_bytes` are those of all files together, those that are still arriving included.
    """

    def __init__(self, folder: Path, max_bytes: int = MAX_WAITING_BYTES) -> None:
        self.folder = folder
        self.max_bytes = max_bytes
        self._waiting: dict[str, _Waiting] = {}
        self._arriving = 0
        self._requests = 0

    @property
    def held_bytes(self) -> int:
        return self._arriving + sum(each.size for each in self._waiting.values())

    def has_room(self, size: int) -> bool:
        free = shutil.disk_usage(self.folder).free
        return self.held_bytes + size <= self.max_bytes and size < free

    def begin(self) -> None:
        self._requests += 1
        for path, waiting in list(self._waiting.items()):
            if time.monotonic() - waiting.since > KEEP_SECONDS:
                self._remove(path)

    def arriving(self, size: int) -> bool:
        """Make room for a piece of a request; False where there is none."""
        if not self.has_room(size):
            return False
        self._arriving += size
        return True

    def arrived(self, paths: Iterable[str]) -> None:
        """Take note of complete files, before their sender learns the paths."""
        for path in paths:
            with suppress(FileNotFoundError):
                status = Path(path).stat()
                count = self._waiting[path].count + 1 if path in self._waiting else 1
                size = max(status.st_size, _LEAST_BYTES)
                self._waiting[path] = _Waiting(status.st_ino, size, time.monotonic(), count)
                self._arriving -= status.st_size

    def end(self) -> None:
        self._requests -= 1
        if self._requests == 0:
            # gradio leaves files of failed requests behind, which count as arriving until now.
            self._arriving = 0
            for rest in self.folder.iterdir():
                if rest.is_file():
                    rest.unlink()

    def holds(self, path: object) -> bool:
        """Whether `path` can be that of an upload, and of nothing else on this machine."""
        return isinstance(path, str) and path.startswith(f"{self.folder}/") and os.path.normpath(path) == path

    def read(self, path: str) -> bytes:
        """The bytes of a file that waits; `ImageReadError` where it is none, or has been answered."""
        try:
            if self.holds(path):
                return Path(path).read_bytes()
        except OSError:
            pass
        raise ImageReadError("not among the uploads that are waiting: send the file again")

    def forget(self, path: str) -> None:
        """Remove a file that has been answered, unless an equal one still waits."""
        waiting = self._waiting.get(path)
        if waiting is not None:
            waiting.count -= 1
            if waiting.count == 0:
                self._remove(path)

    def _remove(self, path: str) -> None:
        inode = self._waiting.pop(path).inode
        with suppress(OSError):
            # Another inode is an equal file that arrives just now.
            if Path(path).stat().st_ino == inode:
                Path(path).unlink()
                Path(path).parent.rmdir()

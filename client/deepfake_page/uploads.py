"""Uploaded files, in memory from their arrival to their answer."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from deepfake_client import ImageReadError

#: Of all files that wait, 512 MiB: a batch of 50 photos from a camera, twice.
MAX_WAITING_BYTES = 512 << 20

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


class Uploads:
    """gradio's upload folder, `GRADIO_TEMP_DIR`. For the event loop alone, but for `read`.

    `max_bytes` are those of all files together, those that are still arriving included.
    """

    def __init__(self, folder: Path, max_bytes: int = MAX_WAITING_BYTES) -> None:
        self.folder = folder
        self.max_bytes = max_bytes
        # For each answer that is to come the inode: gradio stores equal files of one name under one path.
        self._waiting: dict[str, list[int]] = {}
        self._arriving: list[int] = []

    def has_room(self, size: int) -> bool:
        """Whether a request of `size` bytes may come as well."""
        held = sum(self._arriving)
        for path in self.folder.rglob("*"):
            with suppress(FileNotFoundError):
                held += max(path.stat().st_size, _LEAST_BYTES) if path.is_file() else 0
        return held + size <= self.max_bytes and size < shutil.disk_usage(self.folder).free

    @contextmanager
    def arriving(self, size: int) -> Iterator[None]:
        """Keep room for a request; what gradio leaves behind of failed ones goes with the last that is under way."""
        self._arriving.append(size)
        try:
            yield
        finally:
            self._arriving.remove(size)
            if not self._arriving:
                for rest in self.folder.iterdir():
                    if rest.is_file():
                        rest.unlink()

    def arrived(self, paths: Iterable[str]) -> None:
        """Take note of complete files, before their sender learns the paths."""
        self._waiting = {path: inodes for path, inodes in self._waiting.items() if Path(path).exists()}
        for path in paths:
            with suppress(FileNotFoundError):
                self._waiting.setdefault(path, []).append(Path(path).stat().st_ino)

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
        inodes = self._waiting.get(path, [])
        inode = inodes.pop(0) if inodes else None
        with suppress(OSError):
            # Another inode is an equal file that arrives just now.
            if not inodes and Path(path).stat().st_ino == inode:
                Path(path).unlink()
                Path(path).parent.rmdir()

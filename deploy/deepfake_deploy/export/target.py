"""Where an export is written: beside what was there, and then in its place."""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from .contract import MODEL_NAME
from .reporting import ExportError

FIRST_VERSION = 1
MODEL_FILE = "model.pt"
PROVENANCE_FILE = "provenance.json"


class ExportTarget:
    """The version folder of a model repository, held by one export at a time.

    Opened before the long work begins, so that a folder that cannot be written is told at once. The files are put
    together in a folder beside it that Triton passes over: a server that polls the repository finds no half of one.
    """

    def __init__(self, repository: Path, version: int = FIRST_VERSION) -> None:
        self.folder = repository / MODEL_NAME / str(version)
        self._staging = self.folder.with_name(f".{version}.partial")

    @contextmanager
    def open(self) -> Iterator[None]:
        """Hold the target; on the way out remove what was not put in place."""
        with ExitStack() as stack:
            try:
                if self.folder.exists():
                    os.scandir(self.folder).close()
                self._staging.mkdir(parents=True, exist_ok=True)
                descriptor = os.open(self._staging, os.O_RDONLY)
                stack.callback(os.close, descriptor)
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                stack.callback(self._discard, os.fstat(descriptor).st_ino)
            except BlockingIOError:
                raise ExportError(f"{self.folder}: another export is writing here; wait for it to end") from None
            except OSError as error:
                raise self._failure(error) from None
            yield

    def publish(self, model: bytes, provenance: bytes) -> None:
        """Write both files beside the old ones, make sure they are on the disk, and rename."""
        try:
            for name, content in ((MODEL_FILE, model), (PROVENANCE_FILE, provenance)):
                with (self._staging / name).open("wb") as file:
                    file.write(content)
                    file.flush()
                    os.fsync(file.fileno())
            # Between two renames the model and its provenance do not match.
            held = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM, signal.SIGHUP})
            try:
                if self.folder.exists():
                    for name in (MODEL_FILE, PROVENANCE_FILE):
                        (self._staging / name).replace(self.folder / name)
                else:
                    self._staging.rename(self.folder)
            finally:
                signal.pthread_sigmask(signal.SIG_SETMASK, held)
            _sync(self.folder)
            _sync(self.folder.parent)
        except OSError as error:
            raise self._failure(error) from None

    def _discard(self, inode: int) -> None:
        # Renamed, it is the target, and a folder of this name is another export's.
        if self._staging.exists() and self._staging.stat().st_ino == inode:
            shutil.rmtree(self._staging)

    def _failure(self, error: OSError) -> ExportError:
        return ExportError(
            f"{self.folder}: cannot be written ({error.strerror}); what was there is unchanged; free some space, change "
            "its permissions, or choose another --repository"
        )


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

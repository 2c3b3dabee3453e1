"""Where an export is written: beside what was there, and then in its place."""

from __future__ import annotations

import fcntl
import os
import signal
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO

from .contract import MODEL_NAME
from .reporting import ExportError

FIRST_VERSION = 1
MODEL_FILE = "model.pt"
PROVENANCE_FILE = "provenance.json"


class ExportTarget:
    """The version folder of a model repository, held by one export at a time.

    Opened before the long work begins, so that a folder that cannot be written is told at once. A version that is not
    there yet is put together in a folder that Triton passes over, so that a server which polls the repository never
    finds half of one.
    """

    def __init__(self, repository: Path, version: int = FIRST_VERSION) -> None:
        self.folder = repository / MODEL_NAME / str(version)
        self._staging = self.folder
        self._files: dict[str, IO[bytes]] = {}

    @contextmanager
    def open(self) -> Iterator[None]:
        """Hold the target; on the way out remove what was not put in place.

        Raises:
            ExportError: it cannot be written, or another export holds it.
        """
        if not self.folder.exists():
            self._staging = self.folder.with_name(f".{self.folder.name}.partial")
        with ExitStack() as stack:
            try:
                self._staging.mkdir(parents=True, exist_ok=True)
                if self._staging != self.folder:
                    stack.callback(self._remove_staging_if_empty)
                for name in (MODEL_FILE, PROVENANCE_FILE):
                    path = self._partial(name)
                    file = stack.enter_context(path.open("ab"))
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    file.truncate(0)
                    self._files[name] = file
                    stack.callback(self._discard, name)
            except BlockingIOError:
                raise ExportError(f"{self.folder}: another export is writing here; wait for it to end") from None
            except OSError as error:
                raise self._failure(error) from None
            yield

    def publish(self, model: bytes, provenance: bytes) -> None:
        """Write both files beside the old ones, make sure they are on the disk, and rename.

        Raises:
            ExportError: the disk is full or failed; the old files are untouched.
        """
        try:
            for name, content in ((MODEL_FILE, model), (PROVENANCE_FILE, provenance)):
                file = self._files[name]
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            # Between the two renames the model and its provenance do not match.
            held = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM, signal.SIGHUP})
            try:
                for name in (MODEL_FILE, PROVENANCE_FILE):
                    self._partial(name).replace(self._staging / name)
                    del self._files[name]
                if self._staging != self.folder:
                    self._staging.rename(self.folder)
            finally:
                signal.pthread_sigmask(signal.SIG_SETMASK, held)
            _sync(self.folder)
            _sync(self.folder.parent)
        except OSError as error:
            raise self._failure(error) from None

    def _partial(self, name: str) -> Path:
        return self._staging / f".{name}.partial"

    def _discard(self, name: str) -> None:
        if name in self._files:  # else it has been renamed, and a file of this name is another export's
            self._partial(name).unlink(missing_ok=True)

    def _remove_staging_if_empty(self) -> None:
        if self._staging.is_dir() and not any(self._staging.iterdir()):
            self._staging.rmdir()

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

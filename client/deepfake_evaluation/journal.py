"""The answers so far, on the disk as they come: what an interrupted evaluation goes on from.

A line of JSON for the model, then one for each answer. An answer is found again by the SHA-256 of the image and the
damage done to it: sizes and times of files can stay the same after an edit, and change without one.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, Any

from . import InputError, OutputError

#: The scores of an image, in the order of the labels, or why it has none.
Answer = tuple[float, ...] | str

_FORMAT = "deepfake evaluate, answers 1"


class Journal:
    """An open file of answers, which are in memory too (some 300 bytes each); made by `open_journal`.

    `note` says that answers of earlier runs are used again, or why not.
    """

    def __init__(self, path: Path, file: IO[bytes], identity: Mapping[str, Any]) -> None:
        self.note: str | None = None
        self._path, self._file, self._identity = path, file, dict(identity)
        self._answers: defaultdict[str, dict[str, Answer]] = defaultdict(dict)
        # What the file holds beyond is cut off with the first answer: a run that is refused before it loses nothing.
        with path.open("rb") as lines:
            self._end = self._load(lines)

    def find(self, damage: str, sha256: str | None) -> Answer | None:
        """The answer for an image with this damage, or None."""
        return None if sha256 is None else self._answers[damage].get(sha256)

    def append(self, file: str, damage: str, sha256: str, answer: Answer) -> None:
        """Write an answer, so that it outlives this process; `OutputError` where the disk is full or failed."""
        if self._end == 0:
            self._write({"format": _FORMAT, "model": self._identity})
        key = "error" if isinstance(answer, str) else "scores"
        self._write({"file": file, "damage": damage, "sha256": sha256, key: answer})
        self._answers[damage][sha256] = answer

    def forget(self) -> None:
        """Take out all answers: some may be of another model than the first line says."""
        self._file.truncate(0)

    def _load(self, lines: IO[bytes]) -> int:
        """Read the answers of earlier runs; the end of the last whole line, 0 to start afresh."""
        header = _parse(lines.readline())
        if header is None:
            return 0
        if header.get("format") != _FORMAT:
            raise InputError(
                f"{self._path}: not written by `deepfake evaluate`; move it away or choose another --output"
            )
        found, asked = header["model"], self._identity
        if found != asked or asked["model_pt_sha256"] is None:
            models = f"its answers are of {_name(found)}, the server has {_name(asked)}"
            unknown = "the server does not say which weights it serves"
            self.note = f"{self._path}: {models if found != asked else unknown}; starting afresh"
            return 0
        end = lines.tell()
        # A line that is torn, or what a power failure left, ends it: the images of the rest are asked for again.
        while (entry := _parse(lines.readline())) and "file" in entry:
            answer = tuple(entry["scores"]) if "scores" in entry else entry["error"]
            self._answers[entry["damage"]][entry["sha256"]] = answer
            end = lines.tell()
        if count := sum(map(len, self._answers.values())):
            again = "images that are unchanged are not asked for again"
            self.note = f"{self._path}: has {count} answers of this model; {again}"
        return end

    def _write(self, entry: Mapping[str, Any]) -> None:
        line = json.dumps(entry).encode() + b"\n"
        try:
            self._file.truncate(self._end)
            self._file.seek(self._end)
            if self._file.write(line) != len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError as error:
            raise OutputError(
                f"{self._path}: cannot be written ({error.strerror}); what was answered before is kept, free some space "
                "and run the same command again to go on"
            ) from None
        self._end += len(line)


@contextmanager
def open_journal(path: Path, identity: Mapping[str, Any]) -> Iterator[Journal]:
    """Open the answers at `path`, which need not exist; `identity` is that of the model that is asked."""
    with ExitStack() as stack:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
            file = stack.enter_context(path.open("r+b", buffering=0))
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            journal = Journal(path, file, identity)
        except BlockingIOError:
            raise OutputError(f"{path.parent}: another evaluation is writing here; wait for it to end") from None
        except OSError as error:
            raise InputError(
                f"{path}: cannot be written ({error.strerror}); change the permissions, or choose another --output"
            ) from None
        yield journal


def _parse(line: bytes) -> dict[str, Any] | None:
    """The object in a whole line."""
    try:
        entry = json.loads(line) if line.endswith(b"\n") else None
    except ValueError:
        return {}
    return entry if isinstance(entry, dict) else None


def _name(model: Mapping[str, Any]) -> str:
    return f"{model['name']} version {model['version']} (sha256 {str(model['model_pt_sha256'])[:12]})"

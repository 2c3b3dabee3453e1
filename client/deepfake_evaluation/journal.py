"""The answers so far, on the disk as they come: what an interrupted evaluation goes on from.

A line of JSON for the model, then one for each answer. An answer is found again by the path of its file, the SHA-256 of
the bytes that were classified, and the damage done to them: sizes and times of files can be the same after an edit
(`cp -p`, `rsync -t`, an archive), and differ without one (a checkout, a copy on another machine). Hashing costs a few
per cent of what decoding costs.

In memory there are 16 bytes for each answer of an earlier run: a hash and the place of its line.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
from array import array
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np

from .errors import InputError, OutputError
from .predictions import Prediction

_FORMAT = "deepfake evaluate, answers 1"


class Journal:
    """An open file of answers; made by `open_journal`.

    Attributes:
        path: of the file.
        note: what a person should know of how it was found: answers that are used again, or why they are not.
    """

    def __init__(self, path: Path, file: IO[bytes], reader: IO[bytes], identity: Mapping[str, Any]) -> None:
        self.path = path
        self.note: str | None = None
        self._file, self._reader = file, reader
        lines = array("Q"), array("q")
        self._end = self._load(identity, *lines)
        hashes, places = np.frombuffer(lines[0], np.uint64), np.frombuffer(lines[1], np.int64)
        order = np.argsort(hashes, kind="stable")
        self._found, self._places = hashes[order], places[order]
        # What the file holds beyond is cut off with the first answer: a run that is refused before it loses nothing.
        self._header: dict[str, Any] | None = {"format": _FORMAT, "model": dict(identity)}
        self._settled = self._end

    def __len__(self) -> int:
        """Answers of earlier runs."""
        return len(self._found)

    def find(self, file: str, digest: str, damage: str) -> int | None:
        """The place of the answer of an earlier run, or None."""
        wanted = np.uint64(_hash(file, digest, damage))
        first, last = np.searchsorted(self._found, wanted, "left"), np.searchsorted(self._found, wanted, "right")
        for place in self._places[first:last]:
            line = self._line(int(place))
            if (line["file"], line["sha256"], line["damage"]) == (file, digest, damage):
                return int(place)
        return None

    def append(
        self, file: str, digest: str | None, damage: str, scores: Sequence[float] | None, error: str | None
    ) -> int:
        """Write an answer, so that it outlives this process; its place.

        Raises:
            OutputError: the disk is full or failed.
        """
        if self._header is not None:
            header, self._header = self._header, None
            self._file.truncate(self._end)
            self._reader.seek(0, os.SEEK_END)  # it may hold what was cut off
            if self._end == 0:
                self._write(header)
                self._settled = self._end
        answer: dict[str, Any] = {"error": error} if scores is None else {"scores": list(scores)}
        return self._write({"file": file, "damage": damage, "sha256": digest, **answer})

    def read(self, place: int) -> Prediction:
        """The answer at a place."""
        line = self._line(place)
        scores = line.get("scores")
        label = line["file"].partition("/")[0]
        return Prediction(line["file"], label, None if scores is None else tuple(scores), line.get("error"))

    def digest(self, place: int) -> str | None:
        """SHA-256 of the bytes that the answer at a place is about; None where they could not be read."""
        found: str | None = self._line(place)["sha256"]
        return found

    def settle(self) -> None:
        """What was appended stays, also when the power fails."""
        os.fsync(self._file.fileno())
        self._settled = self._end

    def roll_back(self) -> None:
        """Forget what was appended since `settle`."""
        self._end = self._settled
        self._file.truncate(self._end)

    def _load(self, identity: Mapping[str, Any], hashes: array[int], places: array[int]) -> int:
        """Take in the lines of earlier runs; the end of the last that is whole, 0 to start afresh."""
        self._reader.seek(0)
        header = self._reader.readline()
        if not header.endswith(b"\n"):
            return 0
        found = _parse(header)
        if found.get("format") != _FORMAT:
            raise InputError(
                f"{self.path}: not written by `deepfake evaluate`; move it away or choose another --output"
            )
        end = len(header)
        for line in self._reader:
            entry = _parse(line)
            if "file" not in entry:
                break  # torn, or what a power failure left; the images of the rest are asked for again
            if entry["sha256"] is not None:
                hashes.append(_hash(entry["file"], entry["sha256"], entry["damage"]))
                places.append(end)
            end += len(line)
        if not hashes:
            return end if found["model"] == identity else 0
        if found["model"] == identity and identity["model_pt_sha256"] is not None:
            self.note = f"{self.path}: has {len(hashes)} answers of this model; images that are unchanged are not asked for again"
            return end
        if found["model"] == identity:
            reason = "the server does not say which weights it serves, and they may be others than before"
        else:
            reason = f"its answers are of {_name(found['model'])}, the server has {_name(identity)}"
        self.note = f"{self.path}: {reason}; starting afresh"
        del hashes[:], places[:]
        return 0

    def _line(self, place: int) -> dict[str, Any]:
        self._reader.seek(place)
        return _parse(self._reader.readline())

    def _write(self, entry: Mapping[str, Any]) -> int:
        place = self._end
        try:
            self._file.seek(place)
            line = json.dumps(entry).encode() + b"\n"
            if self._file.write(line) != len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError as error:
            self._file.truncate(place)
            raise OutputError(
                f"{self.path}: cannot be written ({error.strerror}); what was answered before is kept, free some space "
                "and run the same command again to go on"
            ) from None
        self._end += len(line)
        return place


@contextmanager
def open_journal(path: Path, identity: Mapping[str, Any]) -> Iterator[Journal]:
    """Open the answers at `path` for one evaluation, with those of earlier runs if they are of the same model.

    Args:
        path: of the file; it and its folder need not exist.
        identity: the model that is asked, as `ServedModel.identity` has it.

    Raises:
        InputError: it cannot be written, or is some other file.
        OutputError: another evaluation writes there.
    """
    with ExitStack() as stack:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
            file = stack.enter_context(path.open("r+b", buffering=0))
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            reader = stack.enter_context(path.open("rb"))
            journal = Journal(path, file, reader, identity)
        except BlockingIOError:
            raise OutputError(f"{path.parent}: another evaluation is writing here; wait for it to end") from None
        except OSError as error:
            raise InputError(
                f"{path}: cannot be written ({error.strerror}); change the permissions, or choose another --output"
            ) from None
        yield journal


def _hash(file: str, digest: str, damage: str) -> int:
    key = "\0".join([damage, digest, file]).encode("utf-8", "surrogateescape")
    return int.from_bytes(hashlib.blake2b(key, digest_size=8).digest(), "little")


def _parse(line: bytes) -> dict[str, Any]:
    try:
        entry = json.loads(line) if line.endswith(b"\n") else None
    except ValueError:
        return {}
    return entry if isinstance(entry, dict) else {}


def _name(identity: Mapping[str, Any]) -> str:
    digest = identity["model_pt_sha256"]
    return (
        f"{identity['name']} version {identity['version']} ({f'sha256 {digest[:12]}' if digest else 'weights unknown'})"
    )

"""What a call gives back, `Verdict` or `Failure`; how it is read from the model's answer; and the log of verdicts."""

from __future__ import annotations

import errno
import json
import os
import struct
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any, Literal

from ._errors import DeepfakeError, InvalidArgumentError, ProtocolError, VerdictLogError
from ._policy import DecisionPolicy
from ._tensors import PROBABILITIES, ImageDigest, strings_in
from ._transports.base import InferResponse, Tensor

LOCK_SECONDS = 5.0
_MOST_ROTATIONS = 3


@dataclass(frozen=True, slots=True)
class Verdict:
    """The model's answer for one image.

    Attributes:
        label: name of the class with the highest score, as the server's `labels.txt` spells it.
        scores: probability of each class, 0 to 1, in the order of the class indices; they sum to 1.
        source: name of the image, where it has one.
        model, model_version: what answered.
        request_id: the id under which the server saw the request.
        decision: "Deepfake", "Real one" or "unsure", where the client has a `DecisionPolicy`; else None. `scores` are the
            model's own in either case.
    """

    label: str
    scores: Mapping[str, float] = field(hash=False)
    source: str | None
    model: str
    model_version: str
    request_id: str
    decision: str | None = None

    @property
    def ok(self) -> Literal[True]:
        """True: tells a `Verdict` from a `Failure`."""
        return True

    @property
    def score(self) -> float:
        """Probability of `label`."""
        return self.scores[self.label]

    def to_dict(self) -> dict[str, Any]:
        """The verdict as plain types, ready for `json.dumps`; with a "decision" only where there is one."""
        plain = {
            "source": self.source,
            "label": self.label,
            "scores": dict(self.scores),
            "model": self.model,
            "model_version": self.model_version,
        }
        return plain if self.decision is None else {**plain, "decision": self.decision}


@dataclass(frozen=True, slots=True)
class Failure:
    """Stands in the place of an image that got no verdict, in what `classify_many` yields.

    Attributes:
        source: name of the image, where it has one.
        error: what `classify` would have raised for it.
    """

    source: str | None
    error: DeepfakeError

    @property
    def ok(self) -> Literal[False]:
        """False: tells a `Failure` from a `Verdict`."""
        return False

    def to_dict(self) -> dict[str, Any]:
        """The failure as plain types, ready for `json.dumps`."""
        return {"source": self.source, "error": str(self.error)}


def probabilities_in(response: InferResponse, count: int) -> list[tuple[float, ...]]:
    """The probabilities of `count` images, a tuple with one number for each class."""
    tensor = response.outputs.get(PROBABILITIES)
    if tensor is None:
        raise ProtocolError(f"the answer has no output {PROBABILITIES!r}")
    if tensor.datatype != "FP32" or len(tensor.shape) != 2 or tensor.shape[0] != count or tensor.shape[1] < 1:
        raise ProtocolError(f"{PROBABILITIES} came as {tensor.datatype} of shape {tensor.shape} for {count} image(s)")
    if len(tensor.data) != 4 * count * tensor.shape[1]:
        raise ProtocolError(f"{PROBABILITIES} has {len(tensor.data)} bytes, which do not fit shape {tensor.shape}")
    # For two numbers, numpy takes ten times as long as struct.
    rows = list(struct.iter_unpack(f"<{tensor.shape[1]}f", tensor.data))
    for number, row in enumerate(rows, 1):
        # Written so that NaN fails too. Half precision leaves sums off by some 1e-3.
        if not (min(row) >= 0 and abs(sum(row) - 1) < 0.05):
            which = f" of image {number} of {count}" if count > 1 else ""
            raise ProtocolError(f"{PROBABILITIES}{which} are not between 0 and 1 with a sum of 1: the model is broken")
    return rows


def verdicts_from(
    rows: list[tuple[float, ...]],
    labels: tuple[str, ...],
    response: InferResponse,
    request_id: str,
    source: str | None,
    policy: DecisionPolicy | None,
) -> list[Verdict]:
    """One verdict for each row, with the decision of `policy` where there is one."""
    found = []
    for row in rows:
        label, scores = labels[row.index(max(row))], dict(zip(labels, row, strict=True))
        decision = None if policy is None else policy.decide(scores)
        found.append(Verdict(label, scores, source, response.model, response.version, request_id, decision))
    return found


def labels_from(tensor: Tensor) -> tuple[str, ...]:
    """Labels by class index from an output that was asked for as classes: BYTES, shape (1, K).

    Triton shows `labels.txt` through the classification extension only, as "value:index:label" strings. The values have
    six decimals, so scores are always read as raw floats, and the labels once for each version.
    """
    by_index: dict[int, str] = {}
    for element in strings_in(tensor):
        _, _, rest = element.partition(":")
        index, _, label = rest.partition(":")
        if not index.isdecimal() or not label:
            raise ProtocolError("the model's classes have no names: its labels.txt is missing on the server")
        by_index[int(index)] = label
    if not by_index or sorted(by_index) != list(range(len(by_index))) or len(set(by_index.values())) != len(by_index):
        raise ProtocolError("the model's class names are incomplete or not distinct: check labels.txt on the server")
    return tuple(by_index[index] for index in range(len(by_index)))


class VerdictLog:
    """A line of JSON for each verdict, for audits: which image was judged how, by which model, and when.

    It goes to the end of a file, which other processes may append to and rotate.

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
        for _ in range(_MOST_ROTATIONS):
            file = self._open()
            try:
                with _locked(file):  # else a line that another writer is just adding looks cut off
                    if not self._is_at_its_path(file):
                        continue
                    size = os.fstat(file).st_size
                    if size > 0 and os.pread(file, 1, size - 1) != b"\n":
                        lines = b"\n" + lines  # what a full disk cut off must not run into this line
                    if os.write(file, lines) < len(lines):
                        raise OSError(errno.ENOSPC, "it took only a part of a line: is the disk full?")
                    return
            finally:
                os.close(file)
        raise OSError(errno.EBUSY, f"it was replaced {_MOST_ROTATIONS} times while its lock was waited for")

    def _is_at_its_path(self, file: int) -> bool:
        """Whether the file was not rotated while its lock was waited for."""
        try:
            return os.path.samestat(os.fstat(file), os.stat(self._path))  # noqa: PTH116
        except FileNotFoundError:
            return False


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

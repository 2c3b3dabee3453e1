"""What a call gives back, `Verdict` or `Failure`, and how it is read from the model's answer."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from ._errors import DeepfakeError, ProtocolError
from ._policy import DecisionPolicy
from ._tensors import PROBABILITIES, strings_in
from ._transports.base import InferResponse, Tensor


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

"""What a call gives back: `Verdict`, or in a stream of many `Failure`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal

from ._errors import DeepfakeError


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
    scores: Mapping[str, float]
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

    def __reduce__(self) -> tuple[Any, ...]:
        # A mapping proxy cannot be pickled, and verdicts travel between processes.
        return _rebuild, (
            self.label,
            dict(self.scores),
            self.source,
            self.model,
            self.model_version,
            self.request_id,
            self.decision,
        )


def _rebuild(
    label: str,
    scores: dict[str, float],
    source: str | None,
    model: str,
    version: str,
    request_id: str,
    decision: str | None,
) -> Verdict:
    return Verdict(label, MappingProxyType(scores), source, model, version, request_id, decision)


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

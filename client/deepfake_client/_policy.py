"""When to say «Deepfake», when «Real one», and when neither: what `deepfake calibrate` fits to your own images."""

from __future__ import annotations

import dataclasses
import math
import os
import re
from collections.abc import Mapping

from ._errors import InvalidArgumentError
from ._policy_evidence import PolicyEvidence, checked_number
from ._policy_file import read_policy_file, write_policy_file

DEEPFAKE, REAL, UNSURE = "Deepfake", "Real one", "unsure"
#: Temperatures beyond these bounds say nothing more: every score is all or nothing, or every one is a half.
MIN_TEMPERATURE, MAX_TEMPERATURE = 0.01, 100.0

_MAX_NAME_CHARS = 200
_SHA256 = re.compile(r"[0-9a-f]{64}")
# The smallest normal float32. The server's softmax may round what is below it to 0, whose logarithm is -∞; cut here,
# the log-odds end at ±87 and are otherwise in the order of the logits.
_SMALLEST = 2.0**-126


@dataclasses.dataclass(frozen=True, slots=True)
class DecisionPolicy:
    """Turns the scores of a verdict into a decision: "Deepfake", "Real one" or "unsure".

    The scores are calibrated first, by one number (temperature scaling, Guo et al. 2017): softmax(log p /
    `temperature`). The probability of "Deepfake" that this gives is then compared with two thresholds.

    Attributes:
        temperature: over 1 where the model is too sure of itself, under 1 where it is too timid; 0.01 to 100.
        deepfake_threshold: at or above it the decision is "Deepfake"; None for never.
        real_threshold: at or below it the decision is "Real one"; None for never.
        model, model_version: what it was fitted for.
        model_pt_sha256: the weights that it was fitted for, as `Provenance` has it; a client applies it to no others,
            whatever their version. Where it is None, as for a server that did not tell, `model_version` is compared in
            its place; where that is None too, the policy is applied to any weights.
        stand_in: whether those weights were random, and the policy is without meaning.
        evidence: how it did on the images that it was fitted to; None for one made by hand.

    Raises:
        InvalidArgumentError: a field is not what is said here, or `real_threshold` is over `deepfake_threshold`.
    """

    temperature: float
    deepfake_threshold: float | None
    real_threshold: float | None
    model: str | None = None
    model_version: str | None = None
    model_pt_sha256: str | None = None
    stand_in: bool = False
    evidence: PolicyEvidence | None = None

    def __post_init__(self) -> None:
        checked_number("temperature", self.temperature, MIN_TEMPERATURE, MAX_TEMPERATURE)
        thresholds = {"deepfake_threshold": self.deepfake_threshold, "real_threshold": self.real_threshold}
        for name, threshold in thresholds.items():
            if threshold is not None:
                checked_number(name, threshold, 0, 1)
        upper, lower = self.deepfake_threshold, self.real_threshold
        if upper is not None and lower is not None and lower > upper:
            raise InvalidArgumentError(f"real_threshold, {lower:g}, must not be over deepfake_threshold, {upper:g}")
        for name in ("model", "model_version"):
            text = getattr(self, name)
            if text is not None and not (isinstance(text, str) and 0 < len(text) <= _MAX_NAME_CHARS):
                raise InvalidArgumentError(f"{name} must be a name or null, not {text!r:.40}")
        digest = self.model_pt_sha256
        if digest is not None and not (isinstance(digest, str) and _SHA256.fullmatch(digest)):
            raise InvalidArgumentError(f"model_pt_sha256 must be 64 hexadecimal digits or null, not {digest!r:.40}")
        if not isinstance(self.stand_in, bool):
            raise InvalidArgumentError(f"stand_in must be true or false, not {self.stand_in!r:.40}")
        if self.evidence is not None and not isinstance(self.evidence, PolicyEvidence):
            raise InvalidArgumentError(f"evidence must be an object or null, not {self.evidence!r:.40}")

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> DecisionPolicy:
        """The policy in a file that `save` or `deepfake calibrate` wrote.

        Raises:
            InvalidArgumentError: the file cannot be read or is no policy; in one line that names it.
        """
        try:
            fields = read_policy_file(path)
            expected = {field.name for field in dataclasses.fields(cls)}
            _require_fields(fields, expected, "")
            if isinstance(evidence := fields["evidence"], dict):
                _require_fields(evidence, {field.name for field in dataclasses.fields(PolicyEvidence)}, "evidence.")
                fields["evidence"] = PolicyEvidence(**evidence)
            return cls(**fields)
        except InvalidArgumentError as error:
            raise InvalidArgumentError(error.reason, source=os.fsdecode(path)) from None

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the policy as JSON. A file that is there is replaced, by the finished one only.

        Raises:
            OSError: it cannot be written; what was there is unchanged.
        """
        write_policy_file(path, dataclasses.asdict(self))

    def probability(self, scores: Mapping[str, float]) -> float:
        """Calibrated probability of "Deepfake", 0 to 1.

        Args:
            scores: the model's probabilities by label, as `Verdict.scores` has them.

        Raises:
            InvalidArgumentError: the labels are not "Deepfake" and "Real one", or a score is no probability.
        """
        return sigmoid(log_odds(scores) / self.temperature)

    def decide(self, scores: Mapping[str, float]) -> str:
        """The decision on these scores, "Deepfake", "Real one" or "unsure"; otherwise as `probability`."""
        probability = self.probability(scores)
        if self.deepfake_threshold is not None and probability >= self.deepfake_threshold:
            return DEEPFAKE
        if self.real_threshold is not None and probability <= self.real_threshold:
            return REAL
        return UNSURE


def log_odds(scores: Mapping[str, float]) -> float:
    """log(p / (1 − p)) of "Deepfake", from −87.4 to 87.4; raises as `DecisionPolicy.probability`."""
    if set(scores) != {DEEPFAKE, REAL}:
        found = ", ".join(f"«{label}»" for label in scores)
        raise InvalidArgumentError(f"a policy decides between «{DEEPFAKE}» and «{REAL}», and the labels are {found}")
    deepfake, real = scores[DEEPFAKE], scores[REAL]
    if not (0 <= deepfake <= 1 and 0 <= real <= 1):
        raise InvalidArgumentError(f"scores must be from 0 to 1, not {deepfake!r:.40} and {real!r:.40}")
    return math.log(max(deepfake, _SMALLEST)) - math.log(max(real, _SMALLEST))


def sigmoid(value: float) -> float:
    """1 / (1 + e^−value), which must not overflow."""
    if value >= 0:
        return 1 / (1 + math.exp(-value))
    small = math.exp(value)
    return small / (1 + small)


def _require_fields(found: Mapping[str, object], expected: set[str], prefix: str) -> None:
    if missing := sorted(expected - set(found)):
        raise InvalidArgumentError(f"{prefix}{missing[0]} is missing: calibrate again")
    if unknown := sorted(set(found) - expected):
        raise InvalidArgumentError(f"{prefix}{unknown[0]} is no field of a policy: calibrate again")

"""When to say «Deepfake», when «Real one», and when neither: what `deepfake calibrate` fits to your own images."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ._errors import ImageError, InvalidArgumentError, PolicyMismatchError
from ._images import read_encoded
from ._model_info import PlainData, Provenance

DEEPFAKE, REAL, UNSURE = "Deepfake", "Real one", "unsure"
#: Temperatures beyond these bounds say nothing more: every score is all or nothing, or every one is a half.
MIN_TEMPERATURE, MAX_TEMPERATURE = 0.01, 100.0

_MAX_NAME_CHARS = 200
_SHA256 = re.compile(r"[0-9a-f]{64}")
# The smallest normal float32. The server's softmax may round what is below it to 0, whose logarithm is -∞; cut here,
# the log-odds end at ±87 and are otherwise in the order of the logits.
_SMALLEST = 2.0**-126

_FORMAT = "deepfake-decision-policy"
_FORMAT_VERSION = 1
_MAX_FILE_BYTES = 64 * 1024  # a policy has about one thousand


@dataclasses.dataclass(frozen=True, slots=True)
class PolicyEvidence(PlainData):
    """What the calibration images showed of a policy; for a person to read, nothing is decided by it.

    Attributes:
        deepfakes, real_photos: images of each kind.
        error_rate_asked: highest share of each kind that may be taken for the other.
        confidence: of the two upper bounds, 0.95.
        photos_called_deepfake, deepfakes_called_real: errors made on these images.
        photos_called_deepfake_bound, deepfakes_called_real_bound: upper bounds of the rates of these errors on images
            like these (Clopper and Pearson 1934, one-sided).
        unsure: images left undecided.
        ece_before, ece_after: expected calibration error of the scores, and of the calibrated ones.

    Raises:
        InvalidArgumentError: a count or a rate that cannot be one.
    """

    deepfakes: int
    real_photos: int
    error_rate_asked: float
    confidence: float
    photos_called_deepfake: int
    photos_called_deepfake_bound: float
    deepfakes_called_real: int
    deepfakes_called_real_bound: float
    unsure: int
    ece_before: float
    ece_after: float

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            name, value = f"evidence.{field.name}", getattr(self, field.name)
            if field.type == "float":
                _require_number(name, value, 0, 1)
            elif isinstance(value, bool) or not isinstance(value, int) or value < 0:
                raise InvalidArgumentError(f"{name} must be a count, not {value!r:.40}")


@dataclasses.dataclass(frozen=True, slots=True)
class DecisionPolicy(PlainData):
    """Turns the scores of a verdict into a decision: "Deepfake", "Real one" or "unsure".

    The scores are calibrated first (temperature scaling, Guo et al. 2017): softmax(log p / `temperature`). The
    probability of "Deepfake" that this gives is then compared with two thresholds.

    Attributes:
        temperature: over 1 where the model is too sure of itself, under 1 where it is too timid; 0.01 to 100.
        deepfake_threshold: at or above it the decision is "Deepfake"; None for never.
        real_threshold: at or below it the decision is "Real one"; None for never.
        model, model_version: what it was fitted for.
        model_pt_sha256: the weights that it was fitted for, as `Provenance` has it; a client applies it to no others.
            Where it is None `model_version` is compared; where that is None too, it is applied to any weights.
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
        _require_number("temperature", self.temperature, MIN_TEMPERATURE, MAX_TEMPERATURE)
        thresholds = {"deepfake_threshold": self.deepfake_threshold, "real_threshold": self.real_threshold}
        for name, threshold in thresholds.items():
            if threshold is not None:
                _require_number(name, threshold, 0, 1)
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
            InvalidArgumentError: the file cannot be read or is no policy.
        """
        try:
            fields = _read_fields(path)
            _require_names(fields, cls, "")
            if isinstance(evidence := fields["evidence"], dict):
                _require_names(evidence, PolicyEvidence, "evidence.")
                fields["evidence"] = PolicyEvidence(**evidence)
            return cls(**fields)
        except InvalidArgumentError as error:
            raise InvalidArgumentError(error.reason, source=os.fsdecode(path)) from None

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the policy as JSON. A file that is there is replaced, by the finished one only.

        Raises:
            OSError: it cannot be written; what was there is unchanged.
        """
        target = Path(path)
        document = {"format": _FORMAT, "format_version": _FORMAT_VERSION, **self.to_dict()}
        partial = target.with_name(f".{target.name}.{os.getpid()}.partial")
        try:
            with partial.open("w", encoding="utf-8") as file:
                file.write(json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False) + "\n")
                file.flush()
                os.fsync(file.fileno())
            partial.replace(target)
        finally:
            partial.unlink(missing_ok=True)

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


def _read_fields(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The fields in a policy's file, which may come from anywhere, with the format's own two left out."""
    try:
        content = read_encoded(path, _MAX_FILE_BYTES)
    except ImageError as error:
        raise InvalidArgumentError(f"no policy can be read there: {error.reason.partition(', the limit')[0]}") from None
    try:
        document = json.loads(content)
    except (ValueError, RecursionError):
        raise InvalidArgumentError("not JSON; a policy is written by `deepfake calibrate`") from None
    if not isinstance(document, dict) or document.pop("format", None) != _FORMAT:
        raise InvalidArgumentError("not a policy of `deepfake calibrate`")
    version = document.pop("format_version", None)
    if version != _FORMAT_VERSION or isinstance(version, bool):
        raise InvalidArgumentError(
            f"a policy of format version {version!r:.40}, and this program reads {_FORMAT_VERSION}: update it, or "
            "calibrate again"
        )
    return document


def _require_names(found: Mapping[str, object], kind: type[DecisionPolicy | PolicyEvidence], prefix: str) -> None:
    expected = {field.name for field in dataclasses.fields(kind)}
    if missing := sorted(expected - set(found)):
        raise InvalidArgumentError(f"{prefix}{missing[0]} is missing: calibrate again")
    if unknown := sorted(set(found) - expected):
        raise InvalidArgumentError(f"{prefix}{unknown[0]} is no field of a policy: calibrate again")


def _require_number(name: str, value: object, low: float, high: float) -> None:
    """Refuses what is not a number from `low` to `high`; NaN is none."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not low <= value <= high:
        raise InvalidArgumentError(f"{name} must be a number from {low:g} to {high:g}, not {value!r:.40}")


# A version keeps its weights for as long as a server runs, but servers are replaced under the same address.
_TRUSTED_SECONDS = 30.0


class PolicyGuard:
    """Remembers for each version of the model whether its weights are those of the policy."""

    def __init__(self, policy: DecisionPolicy, clock: Callable[[], float]) -> None:
        self.policy = policy
        self._clock = clock
        #: by version, when it was compared and what was wrong with it, "" for nothing
        self._compared: dict[str, tuple[float, str]] = {}

    @property
    def asks_nothing(self) -> bool:
        """Whether the policy is for any weights."""
        return self.policy.model_pt_sha256 is None and self.policy.model_version is None

    def settled(self, version: str) -> bool:
        """Whether the weights of `version` were compared a moment ago and found right; raises if found wrong."""
        compared_at, reason = self._compared.get(version, (None, ""))
        if compared_at is None or self._clock() - compared_at > _TRUSTED_SECONDS:
            return False
        if reason:
            raise PolicyMismatchError(reason)
        return True

    def compare(self, version: str, served_version: str, provenance: Provenance | None) -> None:
        """Takes note of what the server told about `version`; raises `PolicyMismatchError` for other weights.

        Args:
            served_version: of the classifier, where `version` is the ensemble's.
            provenance: of the classifier; not looked at where the policy names no digest.
        """
        reason = _mismatch(self.policy, served_version, provenance)
        self._compared[version] = (self._clock(), reason)
        if reason:
            raise PolicyMismatchError(reason)


def _mismatch(policy: DecisionPolicy, served_version: str, provenance: Provenance | None) -> str:
    """What is wrong with the weights that are served, "" for nothing."""
    wanted = f"the policy was fitted for {policy.model or 'the model'}"
    way_out = "calibrate again for these weights, or leave the policy out"
    if policy.model_pt_sha256 is None:
        if served_version == policy.model_version:
            return ""
        return f"{wanted} version {policy.model_version}, and version {served_version} answers: {way_out}"
    wanted += f" with weights {policy.model_pt_sha256[:12]}…"
    if provenance is None:
        way_out = "serve weights that `deepfake export` wrote, or leave the policy out"
        return f"{wanted}, and the server does not say which it has: {way_out}"
    if provenance.model_pt_sha256 == policy.model_pt_sha256:
        return ""
    return f"{wanted}, and version {served_version} has {provenance.model_pt_sha256[:12]}…: {way_out}"

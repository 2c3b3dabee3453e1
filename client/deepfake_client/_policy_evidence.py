"""What the images that a decision policy was fitted to showed of it."""

from __future__ import annotations

from dataclasses import dataclass

from ._errors import InvalidArgumentError


@dataclass(frozen=True, slots=True)
class PolicyEvidence:
    """Counts and rates on the calibration images; for a person to read, nothing is decided by it.

    Attributes:
        deepfakes, real_photos: images of each kind.
        error_rate_asked: highest share of each kind that may be taken for the other.
        confidence: of the two upper bounds, 0.95.
        photos_called_deepfake, deepfakes_called_real: errors made on these images.
        photos_called_deepfake_bound, deepfakes_called_real_bound: upper bounds of the rates at which they are made on
            images like these (Clopper and Pearson 1934, one-sided).
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
        for name in ("deepfakes", "real_photos", "photos_called_deepfake", "deepfakes_called_real", "unsure"):
            count = getattr(self, name)
            if isinstance(count, bool) or not isinstance(count, int) or count < 0:
                raise InvalidArgumentError(f"evidence.{name} must be a count, not {count!r:.40}")
        for name in (
            "error_rate_asked",
            "confidence",
            "photos_called_deepfake_bound",
            "deepfakes_called_real_bound",
            "ece_before",
            "ece_after",
        ):
            checked_number(f"evidence.{name}", getattr(self, name), 0, 1)


def checked_number(name: str, value: object, low: float, high: float) -> None:
    """Refuse what is not a number from `low` to `high`; NaN is none.

    Raises:
        InvalidArgumentError: naming the field.
    """
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not low <= value <= high:
        raise InvalidArgumentError(f"{name} must be a number from {low:g} to {high:g}, not {value!r:.40}")

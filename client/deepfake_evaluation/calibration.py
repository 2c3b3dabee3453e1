"""Fits a decision policy to labelled images."""

from __future__ import annotations

import dataclasses
from array import array
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from deepfake_client import DecisionPolicy, PolicyEvidence
from deepfake_client._policy import DEEPFAKE, REAL, log_odds, sigmoid

from .decisions import Decisions, decide_all, require_labels
from .error_bounds import CONFIDENCE, upper_bound
from .folder import LabelledFolder
from .predictions import Prediction
from .reliability import BINS, reliability
from .served_model import ServedModel
from .temperature import fit_temperature
from .thresholds import choose_thresholds, require_enough


@dataclass(frozen=True)
class Calibration:
    """A fitted policy, and what there is to tell of it.

    Attributes:
        policy: for the weights that gave the predictions.
        evidence: its own, as `policy.evidence` has it.
        decisions: of the policy on the images that it was fitted to.
        note: what a person should know of the temperature, or None.
    """

    policy: DecisionPolicy
    evidence: PolicyEvidence
    decisions: Decisions
    note: str | None

    def report(self) -> str:
        """Some lines for a person."""
        policy, evidence, decisions = self.policy, self.evidence, self.decisions
        right = f"{decisions.right} of {decisions.decided}{_share(decisions.right, decisions.decided)}"
        lines = {
            "images": f"{evidence.deepfakes} {DEEPFAKE}, {evidence.real_photos} {REAL}",
            "temperature": f"{policy.temperature:.4g}" + (f" ({self.note})" if self.note else ""),
            "calibration error": (
                f"{evidence.ece_before:.4f} → {evidence.ece_after:.4f} (expected, {BINS} bins of equal width)"
            ),
            DEEPFAKE: _threshold("from", policy.deepfake_threshold, "up"),
            REAL: _threshold("up to", policy.real_threshold, ""),
            "unsure": f"{decisions.unsure} of {decisions.images}{_share(decisions.unsure, decisions.images)}",
            "right if decided": right,
            "photos called Deepfake": _errors(decisions, REAL, evidence.photos_called_deepfake_bound),
            "deepfakes called Real one": _errors(decisions, DEEPFAKE, evidence.deepfakes_called_real_bound),
        }
        width = max(map(len, lines))
        return "\n".join(f"{name:{width}}  {text}" for name, text in lines.items())


def require_enough_files(folder: LabelledFolder, model: ServedModel, error_rate: float) -> None:
    """Refuse a folder with too few files, or a model with other labels, before any file is classified.

    Raises:
        InputError: as `calibrate`.
    """
    require_labels(model)
    counts = Counter(label for label, _ in folder)
    for label in folder.labels:
        require_enough(label, counts[label], error_rate)


def calibrate(predictions: Iterable[Prediction], model: ServedModel, error_rate: float) -> Calibration:
    """Fit temperature and thresholds to the predictions that have scores.

    Args:
        predictions: of images of both kinds; gone through more than once, so no generator.
        model: what gave them.
        error_rate: highest share of photos called "Deepfake", and of deepfakes called "Real one".

    Raises:
        InputError: too few images of one kind to show that rate, or the model has other labels.
    """
    require_labels(model)
    truth, odds = array("b"), array("d")  # nine bytes for each image
    for each in predictions:
        if each.scores is not None:
            truth.append(each.label == DEEPFAKE)
            odds.append(log_odds(dict(zip(model.labels, each.scores, strict=True))))
    is_deepfake, log_odds_of = np.array(truth, np.bool_), np.array(odds, np.float64)
    deepfakes, photos = int(is_deepfake.sum()), int((~is_deepfake).sum())
    require_enough(DEEPFAKE, deepfakes, error_rate)
    require_enough(REAL, photos, error_rate)
    fit = fit_temperature(log_odds_of, is_deepfake)
    # By the function that will decide, so that an image on a threshold is on the same side of it then.
    probabilities = np.array([sigmoid(value / fit.temperature) for value in odds])
    upper, lower = choose_thresholds(probabilities, is_deepfake, error_rate)
    provenance = model.provenance
    policy = DecisionPolicy(
        temperature=fit.temperature,
        deepfake_threshold=upper,
        real_threshold=lower,
        model=model.name,
        model_version=model.version,
        model_pt_sha256=None if provenance is None else provenance.model_pt_sha256,
        stand_in=provenance is not None and provenance.stand_in,
    )
    decisions = decide_all(predictions, model.labels, policy)
    evidence = PolicyEvidence(
        deepfakes=deepfakes,
        real_photos=photos,
        error_rate_asked=error_rate,
        confidence=CONFIDENCE,
        photos_called_deepfake=decisions.errors(REAL),
        photos_called_deepfake_bound=upper_bound(decisions.errors(REAL), photos),
        deepfakes_called_real=decisions.errors(DEEPFAKE),
        deepfakes_called_real_bound=upper_bound(decisions.errors(DEEPFAKE), deepfakes),
        unsure=decisions.unsure,
        ece_before=reliability(is_deepfake, np.array([sigmoid(value) for value in odds])).expected_calibration_error,
        ece_after=decisions.calibration_error,
    )
    return Calibration(dataclasses.replace(policy, evidence=evidence), evidence, decisions, fit.note)


def _threshold(before: str, threshold: float | None, after: str) -> str:
    if threshold is None:
        return "never: no probability keeps the rate"
    return f"{before} {threshold:.4f} {after}".rstrip()


def _errors(decisions: Decisions, label: str, bound: float) -> str:
    errors, images = decisions.errors(label), decisions.images_of(label)
    return f"{errors} of {images}{_share(errors, images)}; at most {100 * bound:.2f} % with {100 * CONFIDENCE:.0f} % confidence"


def _share(part: int, whole: int) -> str:
    return f" ({100 * part / whole:.1f} %)" if whole else ""

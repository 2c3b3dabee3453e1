"""A decision policy, fitted to labelled images (a temperature and two thresholds), and how one does on them."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from deepfake_client import DecisionPolicy, PolicyEvidence
from deepfake_client._policy import (
    DEEPFAKE,
    MAX_TEMPERATURE,
    MIN_TEMPERATURE,
    REAL,
    UNSURE,
    PolicyGuard,
    log_odds,
    sigmoid,
)
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.special import expit

from . import InputError
from .measures import (
    BINS,
    CONFIDENCE,
    allowed_errors,
    expected_calibration_error,
    images_needed,
    proportion,
    upper_bound,
)
from .report import Part
from .run import STAND_IN_NOTE, Prediction, ServedModel

# At one half exactly the label is the first one, "Deepfake".
_BELOW_HALF = float(np.nextafter(0.5, 0))


class Decisions(NamedTuple):
    """Images with scores by true label and decision, and the expected calibration error of the probabilities."""

    counts: Mapping[str, Mapping[str, int]]
    calibration_error: float

    @property
    def unsure(self) -> int:
        return sum(row[UNSURE] for row in self.counts.values())

    def images_of(self, label: str) -> int:
        return sum(self.counts[label].values())

    def errors(self, label: str) -> int:
        """Images of one kind that were taken for the other."""
        return self.counts[label][REAL if label == DEEPFAKE else DEEPFAKE]


def decide_all(predictions: Sequence[Prediction], model: ServedModel, policy: DecisionPolicy) -> Decisions:
    """The decisions of `policy` on the predictions of `model` that have scores; at least one has."""
    counts = {label: dict.fromkeys((DEEPFAKE, REAL, UNSURE), 0) for label in (DEEPFAKE, REAL)}
    scored = [(each.label, model.by_label(each.scores)) for each in predictions if each.scores]
    for label, scores in scored:
        counts[label][policy.decide(scores)] += 1
    truth = np.array([label == DEEPFAKE for label, _ in scored])
    probabilities = np.array([policy.probability(scores) for _, scores in scored])
    return Decisions(counts, expected_calibration_error(truth, probabilities))


def decisions_part(decisions: Decisions, policy: DecisionPolicy) -> Part:
    """What the policy does on the images, for the report."""
    images, unsure = sum(map(decisions.images_of, decisions.counts)), decisions.unsure
    right, decided = sum(decisions.counts[label][label] for label in (DEEPFAKE, REAL)), images - unsure
    # Of all images of the kind, the undecided included.
    photos, deepfakes = (proportion(decisions.errors(kind), decisions.images_of(kind)) for kind in (REAL, DEEPFAKE))
    figures = {
        "policy": policy,
        "counts": decisions.counts,
        "unsure": proportion(unsure, images),
        "accuracy_of_decided": proportion(right, decided) if decided else None,
        "photos_called_deepfake": photos,
        "deepfakes_called_real": deepfakes,
        "expected_calibration_error": decisions.calibration_error,
    }
    lines = [
        *([f"Policy fitted to {STAND_IN_NOTE}"] if policy.stand_in else []),
        f"Decisions: unsure {figures['unsure']}, {unsure} of {images}",
        f"Right where decided {figures['accuracy_of_decided'] or '-'}, {right} of {decided}",
        f"Photos called {DEEPFAKE} {photos}, {decisions.errors(REAL)} of {decisions.images_of(REAL)}",
        f"Deepfakes called {REAL} {deepfakes}, {decisions.errors(DEEPFAKE)} of {decisions.images_of(DEEPFAKE)}",
        f"Expected calibration error after temperature {policy.temperature:.4g}: {decisions.calibration_error:.4f}",
    ]
    return Part("decisions", figures, "\n".join(lines))


def require_labels(model: ServedModel) -> None:
    """Raise `InputError` for a model whose classes have other names, which no policy decides between."""
    if set(model.labels) != {DEEPFAKE, REAL}:
        names = " and ".join(f"«{label}»" for label in model.labels)
        raise InputError(f"{model.name}: its labels are {names}; a policy decides between «{DEEPFAKE}» and «{REAL}»")


def require_fit(policy: DecisionPolicy, model: ServedModel) -> None:
    """Refuse a policy that was fitted for other weights, as the client does, with `PolicyMismatchError`."""
    require_labels(model)
    guard = PolicyGuard(policy, time.monotonic)
    if not guard.asks_nothing:
        version = model.version if model.provenance is None else model.provenance.model_version
        guard.compare(version, version, model.provenance)


def require_enough(kind: str, images: int, rate: float) -> None:
    """Raise `InputError` for a rate that no threshold could be shown to keep with so many images."""
    if images < images_needed(rate):
        possible = upper_bound(0, images) if images else 1.0
        enough = f", or ask for --false-positive-rate {np.ceil(possible * 1e4) / 1e4:g}" if possible < 0.5 else ""
        raise InputError(
            f"{images} images of «{kind}» cannot show an error rate of {rate:g} with {100 * CONFIDENCE:.0f} % confidence; "
            f"{images_needed(rate)} are needed{enough}"
        )


def calibrate(predictions: Sequence[Prediction], model: ServedModel, error_rate: float) -> tuple[DecisionPolicy, str]:
    """Fit temperature and thresholds to the predictions of `model` that have scores.

    `error_rate` is the highest share of photos called "Deepfake", and of deepfakes called "Real one". Gives the policy
    and some lines for a person; raises `InputError` for too few images of one kind.
    """
    scored = [(each.label == DEEPFAKE, log_odds(model.by_label(each.scores))) for each in predictions if each.scores]
    is_deepfake = np.array([truth for truth, _ in scored], np.bool_)
    odds = np.array([value for _, value in scored])
    deepfakes, photos = int(is_deepfake.sum()), int((~is_deepfake).sum())
    require_enough(DEEPFAKE, deepfakes, error_rate)
    require_enough(REAL, photos, error_rate)
    temperature, note = fit_temperature(odds, is_deepfake)
    # By the function that will decide, so that an image on a threshold is on the same side of it then.
    probabilities = np.array([sigmoid(value / temperature) for value in odds.tolist()])
    upper, lower = choose_thresholds(probabilities, is_deepfake, error_rate)
    provenance = model.provenance
    policy = DecisionPolicy(
        temperature=temperature,
        deepfake_threshold=upper,
        real_threshold=lower,
        model=model.name,
        model_version=model.version,
        model_pt_sha256=None if provenance is None else provenance.model_pt_sha256,
        stand_in=provenance is not None and provenance.stand_in,
    )
    decisions = decide_all(predictions, model, policy)
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
        ece_before=expected_calibration_error(is_deepfake, expit(odds)),
        ece_after=decisions.calibration_error,
    )
    return dataclasses.replace(policy, evidence=evidence), _report(policy, evidence, note)


def fit_temperature(odds: NDArray[np.float64], is_deepfake: NDArray[np.bool_]) -> tuple[float, str | None]:
    """The temperature of the lowest negative log-likelihood, from 0.01 to 100 (C. Guo et al. 2017, arXiv:1706.04599).

    In β = 1 / temperature that is convex, with the derivative Σ z (σ(βz) − y). Where every label is right it has no
    minimum. The labels are then softened to (n + 1) / (n + 2) and 1 / (n + 2) for the n images of a class (Platt 1999).

    `odds` are log(p / (1 − p)) of "Deepfake", shape (N,). The note is what a person should know, or None.
    """
    note = None
    targets = is_deepfake.astype(np.float64)
    if np.all(np.where(is_deepfake, odds, -odds) > 0):
        deepfakes, photos = int(is_deepfake.sum()), int((~is_deepfake).sum())
        targets = np.where(is_deepfake, (deepfakes + 1) / (deepfakes + 2), 1 / (photos + 2))
        note = (
            "every label is right, and no temperature is the best one: it is held to the confidence that so many "
            "images can show (Platt 1999)"
        )

    def derivative(beta: float) -> float:
        return float(np.sum(odds * (expit(beta * odds) - targets)))

    lowest, highest = 1 / MAX_TEMPERATURE, 1 / MIN_TEMPERATURE
    if derivative(lowest) >= 0:
        return MAX_TEMPERATURE, "the scores say nothing about these labels, or the opposite of them"
    if derivative(highest) <= 0:
        return MIN_TEMPERATURE, "the scores are so close together that the temperature is at its limit"
    return 1 / float(brentq(derivative, lowest, highest, xtol=1e-12, rtol=1e-12)), note


def choose_thresholds(
    probabilities: NDArray[np.float64], is_deepfake: NDArray[np.bool_], rate: float
) -> tuple[float | None, float | None]:
    """The lowest threshold for "Deepfake" and the highest for "Real one" that are shown to keep the rate.

    As many of the highest photos may be called deepfakes as the bound of `rate` allows; the threshold is the first
    probability above the next one. Chosen by rank it is a one-sided tolerance limit (Wilks 1941), so the bound holds
    although the images are the same. Thresholds that cross change places, and neither crosses one half.

    `probabilities` are the calibrated ones of "Deepfake", shape (N,). A threshold is None where even the outermost
    probabilities are of the wrong kind too often.
    """
    photos, deepfakes = np.sort(probabilities[~is_deepfake]), np.sort(probabilities[is_deepfake])
    seen = np.unique(probabilities)
    above = seen[seen > photos[-1 - allowed_errors(len(photos), rate)]]
    below = seen[seen < deepfakes[allowed_errors(len(deepfakes), rate)]]
    upper = float(above[0]) if len(above) else None
    lower = float(below[-1]) if len(below) else None
    if upper is not None and lower is not None and lower > upper:
        upper, lower = lower, upper
    return None if upper is None else max(upper, 0.5), None if lower is None else min(lower, _BELOW_HALF)


def _report(policy: DecisionPolicy, evidence: PolicyEvidence, note: str | None) -> str:
    def threshold(text: str, value: float | None) -> str:
        return "never: no probability keeps the rate" if value is None else text.format(value)

    def share(part: int, whole: int) -> str:
        return f"{part} of {whole} ({100 * part / whole:.1f} %)"

    def bound(rate: float) -> str:
        return f"; at most {100 * rate:.2f} % with {100 * CONFIDENCE:.0f} % confidence"

    photos_bound, deepfakes_bound = evidence.photos_called_deepfake_bound, evidence.deepfakes_called_real_bound
    lines = {
        "images": f"{evidence.deepfakes} {DEEPFAKE}, {evidence.real_photos} {REAL}",
        "temperature": f"{policy.temperature:.4g}" + (f" ({note})" if note else ""),
        "calibration error": f"{evidence.ece_before:.4f} → {evidence.ece_after:.4f} (expected, {BINS} bins)",
        DEEPFAKE: threshold("from {:.4f} up", policy.deepfake_threshold),
        REAL: threshold("up to {:.4f}", policy.real_threshold),
        "unsure": share(evidence.unsure, evidence.deepfakes + evidence.real_photos),
        "photos called Deepfake": share(evidence.photos_called_deepfake, evidence.real_photos) + bound(photos_bound),
        "deepfakes called Real one": share(evidence.deepfakes_called_real, evidence.deepfakes) + bound(deepfakes_bound),
    }
    width = max(map(len, lines))
    return "\n".join(f"{name:{width}}  {text}" for name, text in lines.items())

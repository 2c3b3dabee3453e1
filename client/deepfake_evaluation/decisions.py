"""How a decision policy does on labelled images: what it decides, how often it is wrong, and what it leaves open."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from deepfake_client import DecisionPolicy
from deepfake_client._policy import DEEPFAKE, REAL, UNSURE, PolicyGuard

from . import InputError
from .intervals import proportion
from .measures import reliability
from .report import Part
from .run import STAND_IN_NOTE, Prediction, ServedModel


@dataclass(frozen=True)
class Decisions:
    """Images with scores by true label and decision, and the expected calibration error of the probabilities."""

    counts: Mapping[str, Mapping[str, int]]
    calibration_error: float

    @property
    def unsure(self) -> int:
        """Images left undecided."""
        return sum(row[UNSURE] for row in self.counts.values())

    @property
    def right(self) -> int:
        """Images whose decision is their label."""
        return sum(self.counts[label][label] for label in self.counts)

    @property
    def images(self) -> int:
        """How many there are."""
        return sum(map(self.images_of, self.counts))

    def images_of(self, label: str) -> int:
        """Images of one kind."""
        return sum(self.counts[label].values())

    def errors(self, label: str) -> int:
        """Images of one kind that were taken for the other."""
        return self.counts[label][REAL if label == DEEPFAKE else DEEPFAKE]


def decide_all(predictions: Sequence[Prediction], model: ServedModel, policy: DecisionPolicy) -> Decisions:
    """The decisions of `policy` on the predictions of `model` that have scores; at least one has."""
    counts = {label: dict.fromkeys((DEEPFAKE, REAL, UNSURE), 0) for label in (DEEPFAKE, REAL)}
    truth, probabilities = [], []
    for each in predictions:
        if each.scores is not None:
            scores = model.by_label(each.scores)
            counts[each.label][policy.decide(scores)] += 1
            truth.append(each.label == DEEPFAKE)
            probabilities.append(policy.probability(scores))
    diagram = reliability(np.array(truth, np.bool_), np.array(probabilities))
    return Decisions(counts, diagram.expected_calibration_error)


def decisions_part(decisions: Decisions, policy: DecisionPolicy) -> Part:
    """What the policy does on the images, for the report."""
    decided = decisions.images - decisions.unsure
    right = proportion(decisions.right, decided) if decided else None
    # Of all images of the kind, the undecided included.
    photos, deepfakes = (proportion(decisions.errors(kind), decisions.images_of(kind)) for kind in (REAL, DEEPFAKE))
    unsure = proportion(decisions.unsure, decisions.images)
    lines = [
        f"Decisions: unsure {unsure}, {decisions.unsure} of {decisions.images}",
        f"Right where decided {right or '-'}, {decisions.right} of {decided}",
        f"Photos called {DEEPFAKE} {photos}, {decisions.errors(REAL)} of {decisions.images_of(REAL)}",
        f"Deepfakes called {REAL} {deepfakes}, {decisions.errors(DEEPFAKE)} of {decisions.images_of(DEEPFAKE)}",
        f"Expected calibration error after temperature {policy.temperature:.4g}: {decisions.calibration_error:.4f}",
    ]
    if policy.stand_in:
        lines.insert(0, f"Policy fitted to {STAND_IN_NOTE}")
    figures = {
        "policy": dataclasses.asdict(policy),
        "counts": decisions.counts,
        "unsure": unsure._asdict(),
        "accuracy_of_decided": right and right._asdict(),
        "photos_called_deepfake": photos._asdict(),
        "deepfakes_called_real": deepfakes._asdict(),
        "expected_calibration_error": decisions.calibration_error,
    }
    return Part("decisions", figures, "\n".join(lines))


def require_labels(model: ServedModel) -> None:
    """Refuse a model whose classes have other names, which no policy decides between.

    Raises:
        InputError: naming them.
    """
    if set(model.labels) != {DEEPFAKE, REAL}:
        names = " and ".join(f"«{label}»" for label in model.labels)
        raise InputError(f"{model.name}: its labels are {names}; a policy decides between «{DEEPFAKE}» and «{REAL}»")


def require_fit(policy: DecisionPolicy, model: ServedModel) -> None:
    """Refuse a policy that was fitted for other weights, as the client does.

    Raises:
        PolicyMismatchError: naming both.
        InputError: the model has other labels.
    """
    require_labels(model)
    guard = PolicyGuard(policy, time.monotonic)
    if not guard.asks_nothing:
        version = model.version if model.provenance is None else model.provenance.model_version
        guard.compare(version, version, model.provenance)

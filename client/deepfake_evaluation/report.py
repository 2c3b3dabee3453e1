"""What an evaluation tells: on stdout in the form of the model card, and in full as `report.json`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from typing import Any

from deepfake_client._errors import one_line

from .intervals import CONFIDENCE, Interval
from .measures import THRESHOLD, Measures, Sample
from .served_model import ServedModel

_FORMAT = 1
_SHOWN = 20
_LIBRARIES = ("deepfake-vs-real", "scikit-learn", "scipy", "numpy", "pillow", "matplotlib")


@dataclass(frozen=True)
class Part:
    """What one measurement contributes.

    Attributes:
        key: of its figures in report.json.
        figures: ready for `json.dumps`.
        text: lines for stdout, without the last line break.
    """

    key: str
    figures: Any
    text: str


def heading(model: ServedModel, sample: Sample) -> str:
    """What was measured on which model; a note on its weights comes first, where there is one."""
    counts = ", ".join(f"{sample.images_of(label)} {label}" for label in sample.labels)
    lines = [model.weights_note, f"{sample.images} images ({counts}), {model.describe()}"]
    return "\n".join(filter(None, lines))


def classification(sample: Sample, measures: Measures) -> Part:
    """Precision, recall and F1 of each class, accuracy, AUC and calibration."""
    hits = sum(measures.confusion[index][index] for index in range(len(sample.labels)))
    error = measures.reliability.expected_calibration_error
    lines = [
        measures.table,
        f"Accuracy {measures.accuracy}, {hits} of {sample.images}; threshold {THRESHOLD:g}",
        f"AUC {measures.auc}; positive class {sample.labels[0]}",
        f"Average precision {measures.average_precision:.4f}, expected calibration error {error:.4f} in "
        f"{len(measures.reliability.bins)} bins",
    ]
    figures = {
        "positive_label": sample.labels[0],
        "threshold": THRESHOLD,
        "report": measures.by_class,
        "confusion_matrix": {"labels": sample.labels, "true_by_predicted": measures.confusion},
        "accuracy": _interval(measures.accuracy),
        "auc": _interval(measures.auc),
        "recall": {label: _interval(each) for label, each in measures.recalls.items()},
        "average_precision": measures.average_precision,
        "reliability": asdict(measures.reliability),
    }
    return Part("classification", figures, "\n".join(lines))


def unreadable(sample: Sample, left_out: Sequence[str]) -> Part:
    """The files that are in no figure, and why."""
    lines = []
    if sample.unreadable:
        total = len(sample.unreadable) + sample.images
        lines.append(f"Unreadable, and in no figure: {len(sample.unreadable)} of {total} files")
        lines += [f"  {one_line(file, 200)}: {error}" for file, error in sample.unreadable[:_SHOWN]]
        if len(sample.unreadable) > _SHOWN:
            lines.append(f"  … and {len(sample.unreadable) - _SHOWN} more, see predictions.csv")
    figures = {
        "count": len(sample.unreadable),
        "files": [{"file": file, "error": error} for file, error in sample.unreadable],
        "left_out": list(left_out),
    }
    return Part("unreadable", figures, "\n".join(lines))


def document(model: ServedModel, sample: Sample, parts: Sequence[Part]) -> dict[str, Any]:
    """The content of report.json; nothing in it depends on when, how fast or in how many runs it came about."""
    provenance = None if model.provenance is None else dict(model.provenance.document)
    return {
        "format": _FORMAT,
        "weights_note": model.weights_note,
        "model": {"name": model.name, "version": model.version, "labels": model.labels},
        "provenance": provenance,
        "images": {"measured": sample.images, "by_label": {name: sample.images_of(name) for name in sample.labels}},
        **{part.key: part.figures for part in parts},
        "libraries": {name: version(name) for name in _LIBRARIES},
    }


def _interval(interval: Interval) -> dict[str, Any]:
    return {**interval._asdict(), "confidence": CONFIDENCE}

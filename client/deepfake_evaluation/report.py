"""What an evaluation tells: on stdout in the form of the model card, and in full as `report.json`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from importlib.metadata import version
from typing import Any, NamedTuple

from deepfake_client._errors import one_line

from .intervals import CONFIDENCE, Interval
from .measures import THRESHOLD, Measures, Sample
from .run import ServedModel

#: How many files of a list a person is shown; report.json has them all.
SHOWN = 20

_FORMAT = 1
_LIBRARIES = ("deepfake-vs-real", "scikit-learn", "scipy", "numpy", "pillow", "matplotlib")


class Part(NamedTuple):
    """What one measurement contributes: figures for report.json, under their key, and lines for stdout."""

    key: str
    figures: Any
    text: str


def heading(model: ServedModel, sample: Sample) -> str:
    """What was measured on which model; a note on its weights comes first, where there is one."""
    counts = ", ".join(f"{sample.images_of(label)} {label}" for label in sample.labels)
    return "\n".join(filter(None, [model.weights_note, f"{sample.images} images ({counts}), {model.describe()}"]))


def classification(sample: Sample, measures: Measures) -> Part:
    """Precision, recall and F1 of each class, accuracy, AUC and calibration."""
    hits = sum(measures.confusion[index][index] for index in range(len(sample.labels)))
    error, bins = measures.reliability.expected_calibration_error, len(measures.reliability.bins)
    lines = [
        measures.table,
        f"Accuracy {measures.accuracy}, {hits} of {sample.images}; threshold {THRESHOLD:g}",
        f"AUC {measures.auc}; positive class {sample.labels[0]}",
        f"Average precision {measures.average_precision:.4f}, expected calibration error {error:.4f} in {bins} bins",
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
    files, lines = sample.unreadable, []
    if files:
        lines.append(f"Unreadable, and in no figure: {len(files)} of {len(files) + sample.images} files")
        lines += shown([f"{one_line(file, 200)}: {error}" for file, error in files], "predictions.csv")
    figures = {"count": len(files), "files": named(files), "left_out": list(left_out)}
    return Part("unreadable", figures, "\n".join(lines))


def document(model: ServedModel, sample: Sample, parts: Sequence[Part]) -> dict[str, Any]:
    """The content of report.json; nothing in it depends on when, how fast or in how many runs it came about."""
    return {
        "format": _FORMAT,
        "weights_note": model.weights_note,
        "model": {"name": model.name, "version": model.version, "labels": model.labels},
        "provenance": None if model.provenance is None else dict(model.provenance.document),
        "images": {"measured": sample.images, "by_label": {name: sample.images_of(name) for name in sample.labels}},
        **{part.key: part.figures for part in parts},
        "libraries": {name: version(name) for name in _LIBRARIES},
    }


def shown(lines: Sequence[str], complete: str) -> list[str]:
    """The first lines of a list, indented, and where the rest is to be found."""
    rest = [f"  … and {len(lines) - SHOWN} more, see {complete}"] if len(lines) > SHOWN else []
    return [f"  {line}" for line in lines[:SHOWN]] + rest


def named(files: Sequence[tuple[str, str]]) -> list[dict[str, str]]:
    """Files with their errors for report.json."""
    return [{"file": file, "error": error} for file, error in files]


def _interval(interval: Interval) -> dict[str, Any]:
    return {**interval._asdict(), "confidence": CONFIDENCE}

"""What an evaluation tells: on stdout in the form of the model card, and in full as files in its folder."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from deepfake_client._errors import one_line

from . import OutputError, plots
from .measures import BINS, THRESHOLD, Measures, Sample
from .run import Prediction, ServedModel

if TYPE_CHECKING:
    from .robustness import Row

#: How many files of a list a person is shown; report.json has them all.
SHOWN = 20

#: What the server has answered; stays for the next evaluation into the same folder.
ANSWERS = "answers.jsonl"

_STAGING = ".results.partial"
_ROBUSTNESS_TABLE, _ROBUSTNESS_PLOT = "robustness.csv", "robustness.png"
_FORMAT = 1
_LIBRARIES = ("deepfake-vs-real", "scikit-learn", "scipy", "numpy", "pillow", "matplotlib")


class Part(NamedTuple):
    """Figures of one measurement for report.json, dataclasses too, under their key, and lines for stdout."""

    key: str
    figures: Any
    text: str


def heading(model: ServedModel, sample: Sample) -> str:
    """What was measured on which model; a note on its weights comes first, where there is one."""
    return "\n".join(filter(None, [model.weights_note, f"{sample.describe()}, {model.describe()}"]))


def classification(sample: Sample, measures: Measures) -> Part:
    """Precision, recall and F1 of each class, accuracy, AUC and calibration."""
    hits = sum(measures.confusion[index][index] for index in range(len(sample.labels)))
    lines = [
        measures.table,
        f"Accuracy {measures.accuracy}, {hits} of {sample.images}; threshold {THRESHOLD:g}",
        f"AUC {measures.auc}; positive class {sample.labels[0]}",
        f"Average precision {measures.average_precision:.4f}, expected calibration error "
        f"{measures.calibration_error:.4f} in {BINS} bins",
    ]
    figures = {
        "positive_label": sample.labels[0],
        "threshold": THRESHOLD,
        "report": measures.by_class,
        "confusion_matrix": {"labels": sample.labels, "true_by_predicted": measures.confusion},
        "accuracy": measures.accuracy,
        "auc": measures.auc,
        "recall": measures.recalls,
        "average_precision": measures.average_precision,
        "reliability": {"expected_calibration_error": measures.calibration_error},
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


def shown(lines: Sequence[str], complete: str) -> list[str]:
    """The first lines of a list, indented, and where the rest is to be found."""
    rest = [f"  … and {len(lines) - SHOWN} more, see {complete}"] if len(lines) > SHOWN else []
    return [f"  {line}" for line in lines[:SHOWN]] + rest


def named(files: Sequence[tuple[str, str]]) -> list[dict[str, str]]:
    """Files with their errors for report.json."""
    return [{"file": file, "error": error} for file, error in files]


def write_results(
    output: Path,
    model: ServedModel,
    predictions: Sequence[Prediction],
    sample: Sample,
    measures: Measures,
    rows: Sequence[Row],
    parts: Sequence[Part],
) -> None:
    """Write report.json, the tables and the plots; they replace those of an earlier evaluation.

    Without rows there is no table and no plot of the robustness.
    """
    staging, note = output / _STAGING, model.weights_note
    drawings = plots.plots_of(sample, measures)
    if rows:
        drawings[_ROBUSTNESS_PLOT] = "Robustness to damage", partial(plots.plot_robustness, rows=rows)
    try:
        shutil.rmtree(staging, ignore_errors=True)
        staging.mkdir()
        _write_report(staging / "report.json", model, sample, parts)
        write_predictions(staging / "predictions.csv", model.labels, predictions, note)
        for name, (title, plot) in drawings.items():
            plots.draw(staging / name, title, f"n = {sample.describe()}; {model.describe()}", note, plot)
        if rows:
            _write_robustness(staging / _ROBUSTNESS_TABLE, rows, note)
        for name in (_ROBUSTNESS_TABLE, _ROBUSTNESS_PLOT):
            (output / name).unlink(missing_ok=True)  # of an earlier evaluation, and not true of this one
        for file in staging.iterdir():
            file.replace(output / file.name)
    except OSError as error:
        raise OutputError(
            f"{output}: cannot be written ({error.strerror or error}); the results there are unchanged; free some "
            "space, change the permissions, or choose another --output"
        ) from None
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _write_report(path: Path, model: ServedModel, sample: Sample, parts: Sequence[Part]) -> None:
    """Nothing in it depends on when, how fast or in how many runs it came about."""
    document = {
        "format": _FORMAT,
        "weights_note": model.weights_note,
        "model": {"name": model.name, "version": model.version, "labels": model.labels},
        "provenance": None if model.provenance is None else dict(model.provenance.document),
        "images": {"measured": sample.images, "by_label": {name: sample.images_of(name) for name in sample.labels}},
        **{part.key: part.figures for part in parts},
        "libraries": {name: version(name) for name in _LIBRARIES},
    }
    path.write_text(json.dumps(document, indent=2, default=asdict) + "\n", encoding="utf-8")


def write_predictions(path: Path, labels: Sequence[str], predictions: Sequence[Prediction], note: str | None) -> None:
    """Write CSV: file, label, predicted, a column with the score of each label, error, and `note` where there is one.

    Every cell is a label, a number, our own words, or a path that begins with a label, so that none is taken for a
    formula by a spreadsheet, whatever the files are called. Scores have all their digits.
    """
    empty = [""] * len(labels)
    cells = (
        [each.file, each.label, each.predicted(labels) or "", *(each.scores or empty), each.error or ""]
        for each in predictions
    )
    _write_table(path, ["file", "label", "predicted", *labels, "error"], cells, note)


def _write_robustness(path: Path, rows: Sequence[Row], note: str | None) -> None:
    names = ["accuracy", "auc", *(f"recall {label}" for label in rows[0].measures.recalls)]
    header = ["damage", "parameters", "images", *(name + end for name in names for end in ("", "_low", "_high"))]
    cells = []
    for row in rows:
        intervals = [row.measures.accuracy, row.measures.auc, *row.measures.recalls.values()]
        numbers = [number for each in intervals for number in (each.value, each.low, each.high)]
        cells.append([row.damage, row.parameters, row.images, *numbers])
    _write_table(path, header, cells, note)


def _write_table(path: Path, header: Sequence[str], rows: Iterable[Sequence[object]], note: str | None) -> None:
    # A file name may be no valid UTF-8; this way it can be opened again by what is read back.
    with path.open("w", encoding="utf-8", errors="surrogateescape", newline="") as stream:
        lines = csv.writer(stream)
        lines.writerow(header if note is None else [*header, "note"])
        lines.writerows(row if note is None else [*row, note] for row in rows)

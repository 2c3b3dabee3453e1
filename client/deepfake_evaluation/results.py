"""Writes the results of an evaluation into its folder: beside first, then in place together."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Sequence
from pathlib import Path

from . import OutputError, plots, report
from .measures import Measures, Sample
from .robustness import Row
from .run import Prediction, ServedModel

#: What the server has answered; stays for the next evaluation into the same folder.
ANSWERS = "answers.jsonl"

_STAGING = ".results.partial"
_REPORT, _PREDICTIONS = "report.json", "predictions.csv"
_PLOTS = ("confusion_matrix.png", "roc.png", "precision_recall.png", "reliability.png", "scores.png")
_ROBUSTNESS = ("robustness.csv", "robustness.png")


def write_results(
    output: Path,
    model: ServedModel,
    predictions: Sequence[Prediction],
    sample: Sample,
    measures: Measures,
    rows: Sequence[Row],
    parts: Sequence[report.Part],
) -> None:
    """Write report.json, the tables and the plots; they replace those of an earlier evaluation.

    Without rows there is no table and no plot of the robustness. The open file of answers sees to it that only one
    evaluation at a time writes here.

    Raises:
        OutputError: the disk is full or failed; the results in `output` are unchanged.
    """
    staging = output / _STAGING
    note = model.weights_note
    counts = ", ".join(f"{sample.images_of(label):,} {label}" for label in sample.labels)
    caption = plots.Caption(f"n = {sample.images:,} images ({counts})", model.describe(), note)
    try:
        shutil.rmtree(staging, ignore_errors=True)
        staging.mkdir()
        content = json.dumps(report.document(model, sample, parts), indent=2)
        (staging / _REPORT).write_text(content + "\n", encoding="utf-8")
        write_predictions(staging / _PREDICTIONS, model.labels, predictions, note)
        confusion, roc, precision_recall, reliability, scores = (staging / name for name in _PLOTS)
        plots.plot_confusion(confusion, sample, measures, caption)
        plots.plot_roc(roc, sample, measures, caption)
        plots.plot_precision_recall(precision_recall, sample, measures, caption)
        plots.plot_reliability(reliability, sample, measures, caption)
        plots.plot_scores(scores, sample, caption)
        if rows:
            _write_robustness(staging / _ROBUSTNESS[0], rows, note)
            plots.plot_robustness(staging / _ROBUSTNESS[1], rows, caption)
        for name in (_REPORT, _PREDICTIONS, *_PLOTS, *_ROBUSTNESS):
            if (staging / name).exists():
                (staging / name).replace(output / name)
            else:
                (output / name).unlink(missing_ok=True)  # of an earlier evaluation, and not true of this one
    except OSError as error:
        raise OutputError(
            f"{output}: cannot be written ({error.strerror or error}); the results there are unchanged; free some "
            "space, change the permissions, or choose another --output"
        ) from None
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def write_predictions(path: Path, labels: Sequence[str], predictions: Sequence[Prediction], note: str | None) -> None:
    """Write CSV: file, label, predicted, a column with the score of each label, error, and `note` where there is one.

    Every cell is a label, a number, our own words, or a path that begins with a label, so that none is taken for a
    formula by a spreadsheet, whatever the files are called. Scores have all their digits.
    """
    last = [] if note is None else [note]
    # A file name may be no valid UTF-8; this way it can be opened again by what is read back.
    with path.open("w", encoding="utf-8", errors="surrogateescape", newline="") as stream:
        rows = csv.writer(stream)
        rows.writerow(["file", "label", "predicted", *labels, "error", *("note" for _ in last)])
        for each in predictions:
            scores = each.scores or [""] * len(labels)
            rows.writerow([each.file, each.label, each.predicted(labels) or "", *scores, each.error or "", *last])


def _write_robustness(path: Path, rows: Sequence[Row], note: str | None) -> None:
    names = ["accuracy", "auc", *(f"recall {label}" for label in rows[0].measures.recalls)]
    columns = [name + end for name in names for end in ("", "_low", "_high")]
    last = [] if note is None else [note]
    with path.open("w", encoding="utf-8", newline="") as stream:
        lines = csv.writer(stream)
        lines.writerow(["damage", "parameters", "images", *columns, *("note" for _ in last)])
        for row in rows:
            intervals = [row.measures.accuracy, row.measures.auc, *row.measures.recalls.values()]
            numbers = [number for each in intervals for number in each[:3]]
            lines.writerow([row.damage, row.parameters, row.images, *numbers, *last])

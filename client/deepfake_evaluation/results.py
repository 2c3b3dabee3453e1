"""Writes the results of an evaluation into a folder."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path

from . import output, report
from .measures import Measures, Sample
from .plots.counts import plot_confusion, plot_scores
from .plots.curves import plot_precision_recall, plot_reliability, plot_roc
from .plots.frame import Caption
from .plots.robustness import plot_robustness
from .predictions import Prediction, write_predictions
from .robustness import Row, write_robustness
from .served_model import ServedModel


def write_results(
    folder: Path,
    model: ServedModel,
    predictions: Iterable[Prediction],
    sample: Sample,
    measures: Measures,
    rows: Sequence[Row],
    parts: Sequence[report.Part],
) -> None:
    """Write report.json, the tables and the plots.

    Args:
        folder: exists; see `output.staged_results`.
        model: what answered.
        predictions: all of them, the unreadable ones too.
        sample, measures: of the predictions.
        rows: of the robustness; without any there is no table and no plot of it.
        parts: of the report, in their order.
    """
    note = model.weights_note
    content = json.dumps(report.document(model, sample, parts), indent=2)
    (folder / output.REPORT).write_text(content + "\n", encoding="utf-8")
    write_predictions(folder / output.PREDICTIONS, model.labels, predictions, note)
    counts = ", ".join(f"{sample.images_of(label):,} {label}" for label in sample.labels)
    caption = Caption(f"n = {sample.images:,} images ({counts})", model.describe(), note)
    plot_confusion(folder / output.CONFUSION_PLOT, sample, measures, caption)
    plot_roc(folder / output.ROC_PLOT, sample, measures, caption)
    plot_precision_recall(folder / output.PRECISION_RECALL_PLOT, sample, measures, caption)
    plot_reliability(folder / output.RELIABILITY_PLOT, sample, measures, caption)
    plot_scores(folder / output.SCORES_PLOT, sample, caption)
    if rows:
        write_robustness(folder / output.ROBUSTNESS, rows, note)
        plot_robustness(folder / output.ROBUSTNESS_PLOT, rows, caption)

"""The folder of results: everything is written beside, and put in place together."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from .errors import InputError, OutputError

#: What the server has answered; stays for the next evaluation into the same folder.
ANSWERS = "answers.jsonl"
REPORT = "report.json"
PREDICTIONS = "predictions.csv"
ROBUSTNESS = "robustness.csv"
CONFUSION_PLOT = "confusion_matrix.png"
ROC_PLOT = "roc.png"
PRECISION_RECALL_PLOT = "precision_recall.png"
RELIABILITY_PLOT = "reliability.png"
SCORES_PLOT = "scores.png"
ROBUSTNESS_PLOT = "robustness.png"
#: All that an evaluation may write; what it did not write this time would be of an earlier one, and goes.
RESULTS = (
    REPORT,
    PREDICTIONS,
    ROBUSTNESS,
    CONFUSION_PLOT,
    ROC_PLOT,
    PRECISION_RECALL_PLOT,
    RELIABILITY_PLOT,
    SCORES_PLOT,
    ROBUSTNESS_PLOT,
)
_STAGING = ".results.partial"


def require_apart(output: Path, images: Path) -> None:
    """Refuse a folder for the results that would be taken for images the next time.

    Raises:
        InputError: it is the folder of images or lies below it.
    """
    if output.resolve().is_relative_to(images.resolve()):
        raise InputError(f"{output}: lies in the folder of images; choose another --output")


@contextmanager
def staged_results(output: Path) -> Iterator[Path]:
    """A folder to write results into; when all is well they take the place of those that are in `output`.

    For one evaluation at a time, which the open file of answers sees to.

    Raises:
        OutputError: the disk is full or failed; the results in `output` are unchanged.
    """
    staging = output / _STAGING
    try:
        shutil.rmtree(staging, ignore_errors=True)
        staging.mkdir()
        try:
            yield staging
            # In a thread, because signals only interrupt the main one: a mixture of two evaluations must not remain.
            with ThreadPoolExecutor(1) as pool:
                pool.submit(_put_in_place, staging, output).result()
        finally:
            shutil.rmtree(staging, ignore_errors=True)
    except OSError as error:
        raise _failure(output, error) from None


def _put_in_place(staging: Path, output: Path) -> None:
    written = sorted(staging.iterdir())
    for file in written:
        with file.open("rb") as stream:
            os.fsync(stream.fileno())
    for file in written:
        file.replace(output / file.name)
    for name in set(RESULTS) - {file.name for file in written}:
        (output / name).unlink(missing_ok=True)


def _failure(output: Path, error: OSError) -> OutputError:
    return OutputError(
        f"{output}: cannot be written ({error.strerror or error}); the results there are unchanged; free some space, "
        "change the permissions, or choose another --output"
    )

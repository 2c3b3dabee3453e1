"""How near the served model comes to the bare one, and how far ahead of the model card's own code it is.

    python -m loadtests.studies.ceiling [--precision fp32 --precision auto] [--rounds 5] [--output loadtests/results/ceiling.md]

In one run, in alternation: the bare TorchScript model in one process, at the batch size that is its best here and with the
allocator and OpenMP set as for the served one; the embedded Triton at saturation, over gRPC with distinct pixels; and the
card's code, transformers in fp32, one image at a time. Exit code 1 when the served model does less than 0.95 of the bare
one in a precision, or with `auto` less than 1.8 times the card's code; 2 for wrong usage.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from deepfake_deploy.embedded.installation import cuda_device_count
from deepfake_deploy.export import MODEL_NAME, Precision
from deepfake_deploy.export.torchscript import best_precision

from loadtests.studies.model_speed.bare import bare_model
from loadtests.studies.model_speed.card import card
from loadtests.studies.model_speed.command import add_model_options, measure_and_write
from loadtests.studies.model_speed.figures import Figure, ratio
from loadtests.studies.model_speed.report import circumstances, markdown_table
from loadtests.studies.model_speed.repositories import (
    Settings,
    configuration_path,
    read_configuration,
    write_repository,
)
from loadtests.studies.model_speed.served import Served, ServedRun, serve_saturated
from loadtests.studies.model_speed.variants import Models, Variant, open_models
from loadtests.studies.model_speed.worker import Worker

SERVED_SHARE = 0.95
CARD_FACTOR = 1.8
BATCHES = (4, 8, 16, 32)
_ANSWER_SECONDS = 600.0


@dataclass
class Contest:
    """One precision: the bare model and the served one, and their rounds in images per second."""

    precision: Precision
    bare: Worker
    served: Served
    batch: int = 0
    """The bare model's best."""
    bare_rounds: list[float] = field(default_factory=list)
    served_rounds: list[ServedRun] = field(default_factory=list)

    def find_best_batch(self, seconds: float) -> None:
        """By the better of two short rounds each, in turns; the rounds that count come after."""
        rates = dict.fromkeys(BATCHES, 0.0)
        for batch in BATCHES * 2:
            rates[batch] = max(rates[batch], self._bare(batch, seconds))
        self.batch = max(rates, key=lambda batch: rates[batch])

    def round(self, seconds: float) -> None:
        self.bare_rounds.append(self._bare(self.batch, seconds))
        # As long for what counts: the first fifth of a served round does not.
        self.served_rounds.append(self.served.measure(seconds * 1.25))

    @property
    def served_rates(self) -> list[float]:
        return [run.images_per_second for run in self.served_rounds]

    @property
    def share(self) -> Figure:
        return ratio(self.served_rates, self.bare_rounds)

    def _bare(self, batch: int, seconds: float) -> float:
        return self.bare.ask(_ANSWER_SECONDS, batch=batch, seconds=seconds)["images_per_second"]


def main() -> None:
    measure_and_write("ceiling", _options(), _measure)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_model_options(parser)
    parser.add_argument("--precision", action="append", choices=["fp32", "bf16", "auto"], help="may be repeated")
    parser.add_argument("--rounds", type=int, default=5, help="(default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=12.0, help="of each measurement (default: %(default)s)")
    parser.add_argument("--output", type=Path, default=Path("loadtests/results/ceiling.md"))
    options = parser.parse_args()
    if options.rounds < 1 or options.seconds <= 0:
        parser.error("--rounds must be at least 1 and --seconds above 0")
    return options


def _measure(options: argparse.Namespace, folder: Path) -> tuple[list[str], list[str]]:
    asked = options.precision or ["fp32", "auto"]
    precisions = dict.fromkeys(best_precision() if each == "auto" else Precision(each) for each in asked)
    with (
        open_models(options.model, options.revision, options.repository, folder) as models,
        contextlib.ExitStack() as stack,
    ):
        contests = [stack.enter_context(_contest(models, each, options.repository, folder)) for each in precisions]
        models.release()
        labels = options.repository / MODEL_NAME / "labels.txt"
        rival = stack.enter_context(card(models.checkpoint.folder, labels))
        for contest in contests:
            contest.find_best_batch(options.seconds / 4)
        card_rounds = []
        for number in range(options.rounds):
            print(f"Round {number + 1} of {options.rounds}", file=sys.stderr)
            card_rounds.append(rival.ask(_ANSWER_SECONDS, seconds=options.seconds)["images_per_second"])
            for contest in contests:
                contest.round(options.seconds)
    missed = judge(contests, card_rounds, best_precision() if "auto" in asked else None)
    only = "".join(f" --precision {each}" for each in options.precision or [])
    command = f"-m loadtests.studies.ceiling{only} --rounds {options.rounds} --seconds {options.seconds:g}"
    head = circumstances(command, options.model)
    return report(head, contests, card_rounds, missed), missed


@contextlib.contextmanager
def _contest(models: Models, precision: Precision, repository: Path, folder: Path) -> Iterator[Contest]:
    model = models.write(Variant(precision))
    gpu = cuda_device_count() > 0
    target = write_repository(repository, folder / f"repository-{precision.value}", model, Settings(), gpu=gpu)
    size = read_configuration(configuration_path(target, gpu=gpu)).max_batch_size
    with bare_model(model, "cuda" if gpu else "cpu") as bare, serve_saturated(target, size) as served:
        yield Contest(precision, bare, served)


def judge(contests: list[Contest], card_rounds: list[float], best: Precision | None) -> list[str]:
    """What was promised and not kept; the medians of the rounds count.

    Args:
        best: the precision that is held against the card's code, None for none.
    """
    missed = []
    for contest in contests:
        if contest.share.median < SERVED_SHARE:
            missed.append(f"{contest.precision.value}: served {contest.share} of the bare model, under {SERVED_SHARE}")
        lead = ratio(contest.served_rates, card_rounds)
        if contest.precision is best and lead.median < CARD_FACTOR:
            missed.append(f"{contest.precision.value}: served {lead} times the card's own code, under {CARD_FACTOR}")
    return missed


def report(head: list[str], contests: list[Contest], card_rounds: list[float], missed: list[str]) -> list[str]:
    """The Markdown page."""
    rows = []
    for contest in contests:
        runs = contest.served_rounds
        rows.append(
            [
                contest.precision.value,
                f"{Figure(tuple(contest.bare_rounds))}, batch {contest.batch}",
                str(Figure(tuple(contest.served_rates))),
                str(contest.share),
                str(ratio(contest.served_rates, card_rounds)),
                f"{Figure(tuple(run.batch for run in runs)).median:.1f}",
                f"{Figure(tuple(run.busy for run in runs)).median:.0%}",
                f"{Figure(tuple(run.generators_cores for run in runs)).median:.2f}",
            ]
        )
    header = [
        "precision",
        "bare model",
        "served",
        "served ÷ bare",
        "served ÷ card",
        "batch",
        "backend busy",
        "load, cores",
    ]
    return [
        "# The served model beside the bare one and the model card's code",
        "",
        *head,
        "",
        *markdown_table(header, rows),
        "",
        f"The card's own code, fp32, one image at a time: {Figure(tuple(card_rounds))}.",
        "",
        "Images per second, median of the rounds (lowest–highest); the ratios are of the same round. The bare model runs at the "
        "best of its batch sizes, with the allocator and OpenMP set as for the served one. Busy: share of the time in which "
        "the backend had a batch.",
        "",
        f"Missed: {'; '.join(missed)}."
        if missed
        else f"Kept: at least {SERVED_SHARE} of the bare model, and with `auto` {CARD_FACTOR} times the card's code.",
    ]


if __name__ == "__main__":
    main()

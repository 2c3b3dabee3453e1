"""How near the served model comes to the bare one, and how far ahead of the model card's own code it is.

    python -m loadtests.studies.ceiling [--precision fp32 --precision auto] [--rounds 5]

In one run, in turns: the bare TorchScript model in one process, at the batch size that is its best here; the embedded
Triton at saturation, over gRPC with distinct pixels; and the card's code, transformers in fp32, one image at a time.
Exit code 1 when the served model does less than 0.95 of the bare one, or with `auto` less than 1.8 times the card's code.
"""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from deepfake_deploy.export import MODEL_NAME, Precision

from loadtests.studies import table
from loadtests.studies.serving import Served, ServedRun, export, max_batch_size, saturating, serve
from loadtests.studies.worker import Worker, bare_model, card_code

SERVED_SHARE = 0.95
CARD_FACTOR = 1.8
BATCHES = (4, 8, 16, 32)


@dataclass
class Contest:
    """One precision: the bare model and the served one, and their rounds."""

    bare: Worker
    served: Served
    batch: int = 0
    """The bare model's best."""
    bare_rounds: list[float] = field(default_factory=list)
    served_rounds: list[ServedRun] = field(default_factory=list)

    def find_best_batch(self, batches: Sequence[int], seconds: float) -> None:
        """By the better of two short rounds each, in turns; the rounds that count come after."""
        rates = dict.fromkeys(batches, 0.0)
        for batch in [*batches, *batches]:
            rates[batch] = max(rates[batch], self._bare(batch, seconds))
        self.batch = max(rates, key=lambda batch: rates[batch])

    def round(self, seconds: float) -> None:
        self.bare_rounds.append(self._bare(self.batch, seconds))
        self.served_rounds.append(self.served.measure(seconds))

    def _bare(self, batch: int, seconds: float) -> float:
        return float(self.bare.ask(batch=batch, seconds=seconds)["images_per_second"])


def main() -> None:
    parser = table.study_parser(__doc__, rounds=5)
    parser.add_argument("--precision", action="append", choices=["fp32", "bf16", "auto"], help="may be repeated")
    parser.add_argument(
        "--seconds", type=table.seconds, default=12.0, help="of each measurement (default: %(default)s)"
    )
    table.run_study("ceiling", parser.parse_args(), measure, page)


def measure(options: argparse.Namespace, folder: Path) -> table.Result:
    gpu = torch.cuda.is_available()
    contests: dict[str, Contest] = {}
    card_rounds, best = [], None
    with contextlib.ExitStack() as stack:
        for asked in options.precision or ["fp32", "auto"]:
            target = folder / f"repository-{asked}"
            wanted = None if asked == "auto" else Precision(asked)
            model, precision = export(options.model, options.revision, wanted, options.repository, target)
            if asked == "auto":
                best = precision.value
            if precision.value not in contests:
                bare = stack.enter_context(bare_model(model, "cuda" if gpu else "cpu"))
                callers = saturating(max_batch_size(target, gpu=gpu))
                contests[precision.value] = Contest(bare, stack.enter_context(serve(target, callers)))
        card = stack.enter_context(
            card_code(options.model, options.revision, options.repository / MODEL_NAME / "labels.txt")
        )
        for contest in contests.values():
            contest.find_best_batch(BATCHES, options.seconds / 4)
        for number in range(options.rounds):
            table.tell(f"Round {number + 1} of {options.rounds}")
            card_rounds.append(card.ask(seconds=options.seconds)["images_per_second"])
            for contest in contests.values():
                contest.round(options.seconds)
    found = {name: outcome(contest, card_rounds) for name, contest in contests.items()}
    return {
        "circumstances": table.circumstances("ceiling", options.model),
        "best": best,
        "precisions": found,
        "card": table.figure(card_rounds),
        "missed": judge(found, best),
    }


def outcome(contest: Contest, card_rounds: list[float]) -> table.Result:
    """What the rounds of one precision come to."""
    served = [run.images_per_second for run in contest.served_rounds]
    return {
        "bare": table.figure(contest.bare_rounds),
        "bare_batch": contest.batch,
        "served": table.figure(served),
        "served_to_bare": table.ratio(served, contest.bare_rounds),
        "served_to_card": table.ratio(served, card_rounds),
        "batch": table.figure([run.batch for run in contest.served_rounds]),
        "busy": table.figure([run.busy for run in contest.served_rounds]),
        "generator_cores": table.figure([run.generator_cores for run in contest.served_rounds]),
    }


def judge(precisions: dict[str, table.Result], best: str | None) -> list[str]:
    """What was promised and not kept; the medians of the rounds count.

    Args:
        best: the precision that is held against the card's code, None for none.
    """
    missed = []
    for name, found in precisions.items():
        if found["served_to_bare"]["median"] < SERVED_SHARE:
            missed.append(
                f"{name}: served {table.shown(found['served_to_bare'])} of the bare model, under {SERVED_SHARE}"
            )
        if name == best and found["served_to_card"]["median"] < CARD_FACTOR:
            missed.append(
                f"{name}: served {table.shown(found['served_to_card'])} times the card's own code, under {CARD_FACTOR}"
            )
    return missed


def page(result: table.Result) -> list[str]:
    rows = [
        [
            name,
            f"{table.shown(found['bare'])}, batch {found['bare_batch']}",
            *(table.shown(found[column]) for column in ("served", "served_to_bare", "served_to_card")),
            f"{found['batch']['median']:.1f}",
            f"{found['busy']['median']:.0%}",
            f"{found['generator_cores']['median']:.2f}",
        ]
        for name, found in result["precisions"].items()
    ]
    header = ["precision", "bare model", "served", "served ÷ bare", "served ÷ card", "batch", "busy", "load, cores"]
    return table.page_of(
        "The served model beside the bare one and the model card's code",
        result,
        table.markdown_table(header, rows),
        f"The card's own code, fp32, one image at a time: {table.shown(result['card'])}.",
        "Images per second, median of the rounds (lowest–highest); the ratios are of the same round. The bare model runs at "
        "the best of its batch sizes, with the server's allocator and OpenMP settings. Busy: share of the time in which the "
        "backend had a batch.",
        kept=f"Kept: at least {SERVED_SHARE} of the bare model, and with `auto` {CARD_FACTOR} times the card's code.",
    )


if __name__ == "__main__":
    main()

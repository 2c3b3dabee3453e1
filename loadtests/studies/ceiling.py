"""The served model beside the bare TorchScript model, and beside the model card's own code in fp32.

In turns, in each precision that this machine computes natively, on the same device. The bare model runs at its best batch
size, the embedded Triton at saturation over gRPC with distinct pixels, and the card's code with one image at a time.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

import torch

from loadtests.studies import serving, table
from loadtests.traffic.answers import drawn

SERVED_SHARE = {"cpu": 0.95, "cuda": 0.8}
#: By the fastest precision of the machine, which comes last.
CARD_FACTOR = {"fp32": 1.0, "bf16": 1.8, "fp16": 1.8, "int8": 3.4}
INT8_FACTOR = {"fp32": 2.6, "bf16": 1.4}
BATCHES = {"cpu": (4, 8, 16, 32), "cuda": (8, 16, 32, 64, 128, 256)}
Measurement = Callable[[], Mapping[str, float]]


def main() -> None:
    parser = table.study_parser(__doc__, rounds=12, seconds=8.0, model=True)
    parser.set_defaults(device="cuda" if torch.cuda.is_available() else "cpu", generators=1)
    table.run_study("ceiling", parser, measure, page)


def measure(options: argparse.Namespace, folder: Path, name: str = "ceiling") -> table.Result:
    batches: dict[str, int] = {}
    measures: dict[str, Callable[[], Mapping[str, float]]] = {}
    with serving.exported(options, serving.precisions(), folder) as exported, contextlib.ExitStack() as stack:
        checkpoint, repositories = exported
        measures["card"] = partial(_measure_card, serving.card_code(checkpoint, options.device), options)
        for precision, repository in repositories.items():
            bare = stack.enter_context(serving.bare_model(serving.model_file(repository), options.device))
            served = stack.enter_context(
                serving.serve(repository, serving.saturating(repository), generators=options.generators)
            )
            batch = serving.best_batch(bare, BATCHES[options.device], options.seconds / 4)
            measures[f"{precision.value} bare"] = partial(bare, batch, options.seconds)
            measures[f"{precision.value} served"] = partial(served, options.seconds)
            batches[precision.value] = batch
        found = table.in_turns(measures, options.rounds)
    best = list(batches)[-1]
    precisions = {
        each: outcome(found[f"{each} bare"], found[f"{each} served"], found["card"]) | {"bare_batch": batch}
        for each, batch in batches.items()
    }
    served = {each: [found_then["images_per_second"] for found_then in found[f"{each} served"]] for each in batches}
    result: table.Result = {
        "circumstances": table.circumstances(name, options.model),
        "best": best,
        "precisions": precisions,
        "best_to_others": {each: table.ratio(served[best], rounds) for each, rounds in served.items() if each != best},
        "card": table.figures(found["card"])["images_per_second"],
    }
    return result | {"missed": judge(result, options.device)}


def _measure_card(probabilities: Callable[[bytes], list[float]], options: argparse.Namespace) -> dict[str, float]:
    files = itertools.cycle(drawn())
    times, elapsed = serving.repeated(lambda: probabilities(next(files)), options.seconds)
    return {"images_per_second": times / elapsed}


def outcome(*sides: Sequence[Mapping[str, float]]) -> table.Result:
    """What the rounds of one precision come to: those of the bare model, the served one and the card's code."""
    bare, served, card = ([each["images_per_second"] for each in rounds] for rounds in sides)
    return {
        "bare": table.figure(bare),
        "served": table.figure(served),
        "served_to_bare": table.ratio(served, bare),
        "served_to_card": table.ratio(served, card),
        **table.figures(sides[1]),
    }


def judge(result: table.Result, device: str) -> list[str]:
    """What was promised and not kept: medians count, and against the card's code the best precision alone."""
    precisions, best = result["precisions"], result["best"]
    missed = [
        f"{name}: served {table.shown(found['served_to_bare'])} of the bare model, under {SERVED_SHARE[device]}"
        for name, found in precisions.items()
        if found["served_to_bare"]["median"] < SERVED_SHARE[device]
    ]
    to_card = precisions[best]["served_to_card"]
    if to_card["median"] < CARD_FACTOR[best]:
        missed.append(f"{best}: served {table.shown(to_card)} times the card's own code, under {CARD_FACTOR[best]}")
    if best == "int8":
        missed += [
            f"int8: served {table.shown(found)} times {other}, under {INT8_FACTOR[other]}"
            for other, found in result["best_to_others"].items()
            if found["median"] < INT8_FACTOR[other]
        ]
    return missed


def page(result: table.Result) -> list[str]:
    rows = [
        [
            name,
            f"{table.shown(found['bare'])}, batch {found['bare_batch']}",
            *(table.shown(found[column]) for column in ("served", "served_to_bare", "served_to_card")),
            f"{found['batch']['median']:.1f}",
            f"{found['busy']['median']:.0%}",
        ]
        for name, found in result["precisions"].items()
    ]
    header = ["precision", "bare model", "served", "served ÷ bare", "served ÷ card", "batch", "busy"]
    return table.page_of(
        "The served model beside the bare one and the model card's code",
        result,
        table.markdown_table(header, rows),
        f"The card's own code, fp32, one image at a time: {table.shown(result['card'])} images per second.",
        f"{result['best']} served ÷ the others served: "
        + ", ".join(f"{other} {table.shown(found)}" for other, found in result["best_to_others"].items()),
    )


if __name__ == "__main__":
    main()

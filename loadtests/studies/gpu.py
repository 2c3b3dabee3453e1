"""How much of a GPU the model uses: the bare TorchScript model beside the served one, at each its best.

The bare model at its best batch size, and the embedded Triton at saturation, over gRPC with distinct pixels.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from deepfake_deploy.export import Precision

from loadtests.capacity.resources import cores
from loadtests.studies import table
from loadtests.studies.ceiling import bare_and_served
from loadtests.studies.serving import exported

FLOP_PER_IMAGE = 35.0e9  # SigLIP base, patch 16, 224 × 224
SERVED_SHARE = 0.8
BATCHES = (8, 16, 32, 64, 128, 256)


def main() -> None:
    parser = table.study_parser(__doc__, rounds=3, seconds=20.0, model=True)
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda", help="of the model")
    parser.add_argument("--generators", type=int, default=max(1, min(8, cores() // 2)), help="client processes")
    table.run_study("gpu", parser, measure, page)


def measure(options: argparse.Namespace, folder: Path) -> table.Result:
    gpu = options.device == "cuda"
    if gpu and not torch.cuda.is_available():
        raise ValueError("no CUDA device here; `make tune` and `make ceiling` measure a CPU")
    wanted = Precision.FP16 if gpu else Precision.BF16
    with exported(options, [wanted], folder) as (_, repositories):
        sides = bare_and_served(repositories[wanted], options.device, BATCHES, options.seconds, options.generators)
        with sides as (batch, bare, served):
            found = table.in_turns({"bare": bare, "served": served}, options.rounds)
    share = table.ratio(*([each["images_per_second"] for each in found[name]] for name in ("served", "bare")))
    return {
        "circumstances": table.circumstances("gpu", options.model),
        "precision": wanted.value,
        "bare_batch": batch,
        "generators": options.generators,
        **{name: table.figures(rounds) for name, rounds in found.items()},
        "served_to_bare": share,
        "missed": judge(share),
    }


def judge(served_to_bare: table.Figure) -> list[str]:
    short = served_to_bare["median"] < SERVED_SHARE
    return [f"served {table.shown(served_to_bare)} of the bare model, under {SERVED_SHARE}"] if short else []


def page(result: table.Result) -> list[str]:
    bare = result["bare"]["images_per_second"]
    facts = [
        ["bare, images/s", f"{table.shown(bare)} in {result['precision']}, batches of {result['bare_batch']}"],
        ["bare, TFLOP/s", f"{bare['median'] * FLOP_PER_IMAGE / 1e12:.1f}"],
        ["served ÷ bare", table.shown(result["served_to_bare"])],
        ["client processes", str(result["generators"])],
        *([f"served, {name}", table.shown(each)] for name, each in result["served"].items()),
    ]
    rows = table.markdown_table(["what", "measured"], facts)
    return table.page_of("How much of the chip the model uses", result, rows)


if __name__ == "__main__":
    main()

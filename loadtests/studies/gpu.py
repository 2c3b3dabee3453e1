"""How much of a GPU the model uses: the ceiling, with the batches and the client processes that a GPU takes."""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from loadtests.capacity.resources import cores
from loadtests.studies import ceiling, table


def main() -> None:
    parser = table.study_parser(__doc__, rounds=3, seconds=20.0, model=True)
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda", help="of the model")
    parser.add_argument("--generators", type=int, default=max(1, min(8, cores() // 2)), help="client processes")
    table.run_study("gpu", parser, measure, ceiling.page)


def measure(options: argparse.Namespace, folder: Path) -> table.Result:
    if options.device == "cuda" and not torch.cuda.is_available():
        raise ValueError("no CUDA device here; `make tune` and `make ceiling` measure a CPU")
    return ceiling.measure(options, folder, "gpu")


if __name__ == "__main__":
    main()

"""The command: rounds of visits, and after each round the table and the plot."""

from __future__ import annotations

import argparse
import json
import multiprocessing
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from deepfake_deploy.embedded import EmbeddedTritonError
from deepfake_deploy.export import FIRST_VERSION, MODEL_FILE, MODEL_NAME, STAND_IN, ExportError
from deepfake_deploy.export.torchscript import best_precision

from loadtests.capacity.resources import cores
from loadtests.studies.model_speed.bare import bare_model
from loadtests.studies.model_speed.report import circumstances, write_report

from .contestants import CONTESTANTS, missing_package
from .judge import judge
from .plot import draw
from .preparation import checkpoint_of, prepare
from .result import Comparison
from .server_process import ServerError
from .table import render
from .visits import Plan, visit

_KEYS = [each.key for each in CONTESTANTS]
_BARE_BATCHES = (1, 4, 8)
_BARE_TIMEOUT_SECONDS = 120.0
_VERSIONS = (
    "import importlib.metadata as m, json; print(json.dumps({d.name.lower(): d.version for d in m.distributions()}))"
)


def main() -> None:
    """Measures, writes after each round, and judges.

    Ends with 0 when the embedded Triton is ahead of every peer that was measured, 1 when not or when nothing could be
    compared, 2 for wrong usage.
    """
    options = _parse()
    python = options.environment.absolute() / "bin" / "python"
    comparison = _empty(options)
    try:
        _look_for_peers(comparison, python)
        with _plan(options, python) as plan:
            for number in range(options.rounds):
                _round(plan, comparison, number)
                comparison.rounds = number + 1
                _write(comparison, options.output)
    except (EmbeddedTritonError, ExportError, ChildProcessError, OSError) as error:
        _tell(f"peers: {error}")
        sys.exit(1)
    except KeyboardInterrupt:
        finished = f"{comparison.rounds} of {options.rounds} rounds are in {options.output}"
        _tell(f"peers: interrupted; {finished if comparison.rounds else 'nothing was written'}")
        sys.exit(130)
    sys.exit(_conclude(comparison, options.output))


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="peers", description="The embedded Triton beside other servers of the same checkpoint, side by side."
    )
    add = parser.add_argument
    add("--model", default=STAND_IN, help="folder, Hub id, or stand-in (default: %(default)s)")
    add("--repository", type=Path, default=Path("model_repository"), help="its configuration is measured")
    add("--rounds", type=int, default=3, help="(default: %(default)s)")
    add(
        "--seconds",
        type=float,
        default=5.0,
        help="for each figure, at least (default: %(default)s; half for one caller)",
    )
    add("--callers", type=_numbers, default=[1, 8, 32], help="(default: 1,8,32)")
    add(
        "--precisions",
        type=_precisions,
        default=_precisions("fp32,auto"),
        help="fp32, bf16, fp16, auto (default: fp32,auto)",
    )
    add("--only", type=_contestants, default=_KEYS, help=f"some of {','.join(_KEYS)}")
    add("--environment", type=Path, default=Path(".venv/peers"), help="of the peers, with comparison/requirements.txt")
    add("--output", type=Path, default=Path("loadtests/results"), help="folder (default: %(default)s)")
    options = parser.parse_args()
    if options.rounds < 1 or not options.seconds > 0:
        parser.error("--rounds must be at least 1 and --seconds above 0")
    return options


def _numbers(text: str) -> list[int]:
    found = sorted({int(each) for each in text.split(",")})
    if found[0] < 1 or found[-1] > 256:
        raise argparse.ArgumentTypeError("numbers from 1 to 256, separated by commas")
    return found


def _precisions(text: str) -> list[str]:
    named = [best_precision().value if each == "auto" else each for each in text.split(",")]
    if not set(named) <= {"fp32", "bf16", "fp16"}:
        raise argparse.ArgumentTypeError("fp32, bf16, fp16 or auto, separated by commas")
    return list(dict.fromkeys(named))


def _contestants(text: str) -> list[str]:
    named = text.split(",")
    if unknown := [each for each in named if each not in _KEYS]:
        raise argparse.ArgumentTypeError(f"{unknown[0]}: not one of {', '.join(_KEYS)}")
    return [key for key in _KEYS if key in named]


def _empty(options: argparse.Namespace) -> Comparison:
    model = "seeded random numbers in the model's full size (stand-in)" if options.model == STAND_IN else options.model
    command = shlex.join(["python", "-m", "loadtests.studies.peers", *sys.argv[1:]])
    return Comparison(
        command=command,
        rounds_wanted=options.rounds,
        seconds=options.seconds,
        callers=options.callers,
        circumstances=circumstances(command, model),
        precisions=options.precisions,
        contestants=options.only,
    )


def _look_for_peers(comparison: Comparison, python: Path) -> None:
    """Notes which versions are installed and which peers cannot be measured."""
    try:
        done = subprocess.run(  # noqa: S603 - the peers' own Python
            [str(python), "-c", _VERSIONS], capture_output=True, text=True, timeout=60, check=True
        )
        comparison.versions = json.loads(done.stdout)
    except (OSError, subprocess.SubprocessError, ValueError):
        _tell(f"peers: {python}: no environment of the peers; `make peers` makes it. Going on without them")
    for each in CONTESTANTS:
        if each.key in comparison.contestants and (package := missing_package(each, comparison.versions)):
            comparison.absent[each.key] = f"{package} is not installed"
            _tell(f"peers: {each.name}: {comparison.absent[each.key]}; going on without it")


@contextmanager
def _plan(options: argparse.Namespace, python: Path) -> Iterator[Plan]:
    with (
        tempfile.TemporaryDirectory(prefix="deepfake-peers-") as name,
        checkpoint_of(options.model, options.repository) as checkpoint,
    ):
        _tell(f"Exporting {checkpoint.model_id} in {' and '.join(options.precisions)}")
        # In a process of its own: torch's memory and threads are not to be this one's.
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process:
            prepared = process.submit(prepare, checkpoint, options.repository, options.precisions, Path(name)).result()
        yield Plan(prepared, checkpoint.folder, python, cores(), options.callers, options.seconds)


def _round(plan: Plan, comparison: Comparison, number: int) -> None:
    """Every server in each precision, in an order that no two rounds share; and the bare model."""
    asked = [each for each in CONTESTANTS if each.key in comparison.contestants and each.key not in comparison.absent]
    servers = [[each for each in asked if each.is_triton], *([each] for each in asked if not each.is_triton)]
    measured = []
    for precision in comparison.precisions:
        visits = [ways for ways in servers if ways and not (ways[0].fp32_only and precision != "fp32")]
        start = number * max(len(visits) // comparison.rounds_wanted, 1) % max(len(visits), 1)
        for ways in visits[start:] + visits[:start]:
            server = "embedded Triton" if ways[0].is_triton else ways[0].name
            _tell(f"Round {number + 1} of {comparison.rounds_wanted}, {precision}: {server}")
            first = not any(each.key in comparison.wire for each in ways)
            try:
                visited = visit(plan, ways, precision, number + 1, _tell, wire=first)
            except ServerError as error:
                comparison.absent[f"{ways[0].key} {precision}"] = str(error)
                _tell(f"peers: {server}, {precision}: {error}; going on without it in this round")
                continue
            measured += visited.measured
            comparison.wire.update(visited.wire)
        batch, rate = _ceiling(plan, precision)
        _tell(f"  bare model, {precision}, batches of {batch}: {rate:.2f} images/s")
        comparison.ceiling.setdefault(precision, []).append(rate)
        comparison.ceiling_batch[precision] = batch
    comparison.measured += measured


def _ceiling(plan: Plan, precision: str) -> tuple[int, float]:
    """Best batch size of the bare model, and its images per second."""
    model = plan.prepared.repositories[precision] / MODEL_NAME / str(FIRST_VERSION) / MODEL_FILE
    with bare_model(model) as bare:
        rates = {
            batch: bare.ask(
                _BARE_TIMEOUT_SECONDS, batch=batch, seconds=plan.seconds / len(_BARE_BATCHES), threads=plan.threads
            )["images_per_second"]
            for batch in _BARE_BATCHES
        }
    best = max(rates, key=lambda batch: rates[batch])
    return best, rates[best]


def _write(comparison: Comparison, folder: Path) -> None:
    """peers.md, peers.png and peers.json, each beside its old version first."""
    folder.mkdir(parents=True, exist_ok=True)
    picture = draw(comparison)
    beside = folder / ".peers.png.new"
    beside.write_bytes(picture)
    beside.replace(folder / "peers.png")
    write_report(folder / "peers.json", [json.dumps(comparison.to_dict(), indent=1, allow_nan=False)])
    write_report(folder / "peers.md", render(comparison, judge(comparison)))


def _conclude(comparison: Comparison, folder: Path) -> int:
    findings = judge(comparison)
    for each in findings:
        print(each.sentence)
    for key, reason in comparison.absent.items():
        print(f"{key}: not measured, or not in every round ({reason})")
    print(folder / "peers.md")
    if not findings:
        _tell("peers: nothing was compared: no peer was measured with 8 callers or more beside triton-image")
    return 0 if findings and all(each.ahead for each in findings) else 1


def _tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)

"""The embedded Triton beside other servers of the same checkpoint: the card's own app, FastAPI, LitServe, BentoML, Ray Serve.

    python -m loadtests.studies.peers [--rounds 3] [--seconds 5] [--only triton-image,fastapi] [--model FOLDER]

`make peers` installs the peers into an environment of their own first. Each round visits every server in turn, starts
it, checks its answers against transformers, measures it with 1, 8 and 32 callers, and stops it; in fp32, and in the
precision that is fastest here. After each round peers.md and peers.json in `--output` are written anew. Exit
code 0 when the embedded Triton is ahead of every peer, 1 when not or when one could not be compared, 2 for wrong usage.
"""

from __future__ import annotations

import argparse
import asyncio
import io
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from deepfake_deploy.embedded import EmbeddedTritonError
from deepfake_deploy.export import FIRST_VERSION, MODEL_FILE, MODEL_NAME, STAND_IN, ExportError, Precision
from deepfake_deploy.export.checkpoint import open_checkpoint
from PIL import Image

from loadtests.capacity.resources import cores
from loadtests.studies.peers.callers import Caller, CallError, JudgingSender, check_known, open_caller
from loadtests.studies.peers.comparison import judge, page
from loadtests.studies.peers.contestants import CONTESTANTS, Contestant, ServerError, running
from loadtests.studies.serving import Silent, export, memory_mib
from loadtests.studies.table import Result, circumstances, seconds, study_parser, tell, write_result
from loadtests.studies.worker import bare_model, card_code
from loadtests.traffic.answers import drawn
from loadtests.traffic.loops import answers_per_second, closed_loop, percentile
from loadtests.traffic.pool import KnownAnswer

_BARE_BATCHES = (1, 4, 8)
_STARTING_SECONDS = 120.0
_MEMORY_EVERY_SECONDS = 1.0
_REQUIREMENTS = Path(__file__).with_name("requirements.txt")


@dataclass(frozen=True, slots=True)
class Plan:
    """What is alike for all visits."""

    checkpoint: Path
    repositories: dict[str, Path]
    """Model repository by precision."""
    known: Sequence[KnownAnswer]
    """Images with the scores that transformers gives them in fp32."""
    python: Path
    """Of the peers' environment."""
    callers: Sequence[int]
    seconds: float


def main() -> None:
    options = _parse()
    python = options.environment.absolute() / "bin" / "python"
    try:
        with _plan(options, python) as plan:
            result = _empty(options, plan)
            for number in range(options.rounds):
                _round(plan, result, number)
                write_result("peers", options.output, result, page)
    except (EmbeddedTritonError, ExportError, ChildProcessError, OSError) as error:
        tell(f"peers: {error}")
        sys.exit(1)
    except KeyboardInterrupt:
        tell("peers: interrupted; the rounds that were finished are in the result")
        sys.exit(130)
    findings = judge(result)
    for each in findings:
        print(each.sentence)
    print(options.output / "peers.md")
    if not findings:
        tell("peers: nothing was compared: no peer was measured with 8 callers or more beside triton-image")
    sys.exit(0 if findings and all(each.ahead for each in findings) else 1)


def _parse() -> argparse.Namespace:
    parser = study_parser(__doc__, rounds=3)
    add = parser.add_argument
    add("--seconds", type=seconds, default=5.0, help="of each figure, at least (default: %(default)s; 1 caller: half)")
    add("--callers", type=_numbers, default=[1, 8, 32], help="(default: 1,8,32)")
    add("--precisions", type=_precisions, default=["fp32", "auto"], help="fp32, bf16, fp16, auto (default: fp32,auto)")
    add("--only", type=_contestants, default=list(CONTESTANTS), help=f"some of {','.join(CONTESTANTS)}")
    add("--environment", type=Path, default=Path(".venv/peers"), help="of the peers, with peers/requirements.txt")
    return parser.parse_args()


def _numbers(text: str) -> list[int]:
    found = sorted({int(each) for each in text.split(",")})
    if found[0] < 1 or found[-1] > 256:
        raise argparse.ArgumentTypeError("numbers from 1 to 256, separated by commas")
    return found


def _precisions(text: str) -> list[str]:
    named = text.split(",")
    if not set(named) <= {"fp32", "bf16", "fp16", "auto"}:
        raise argparse.ArgumentTypeError("fp32, bf16, fp16 or auto, separated by commas")
    return named


def _contestants(text: str) -> list[str]:
    named = text.split(",")
    if unknown := [each for each in named if each not in CONTESTANTS]:
        raise argparse.ArgumentTypeError(f"{unknown[0]}: not one of {', '.join(CONTESTANTS)}")
    return [key for key in CONTESTANTS if key in named]


@contextmanager
def _plan(options: argparse.Namespace, python: Path) -> Iterator[Plan]:
    labels = options.repository / MODEL_NAME / "labels.txt"
    names = labels.read_text(encoding="utf-8").splitlines()
    with (
        tempfile.TemporaryDirectory(prefix="deepfake-peers-") as name,
        open_checkpoint(options.model, options.revision, names, Silent()) as checkpoint,
    ):
        folder, model = Path(name), str(checkpoint.folder)
        repositories: dict[str, Path] = {}
        for asked in options.precisions:
            tell(f"Exporting {options.model} in {asked}")
            wanted = None if asked == "auto" else Precision(asked)
            _, precision = export(model, None, wanted, options.repository, folder / asked)
            repositories.setdefault(precision.value, folder / asked)
        known = _known_answers(model, labels, folder)
        yield Plan(checkpoint.folder, repositories, known, python, options.callers, options.seconds)


def _known_answers(model: str, labels: Path, folder: Path) -> list[KnownAnswer]:
    paths = []
    for number, png in enumerate(drawn()):
        paths.append(folder / f"{number}.jpg")
        Image.open(io.BytesIO(png)).save(paths[-1], "JPEG", quality=90)
    with card_code(model, None, labels) as card:
        probabilities = card.ask(paths=[str(path) for path in paths])["probabilities"]
    names = labels.read_text(encoding="utf-8").splitlines()
    return [
        KnownAnswer(path.read_bytes(), dict(zip(names, scores, strict=True)))
        for path, scores in zip(paths, probabilities, strict=True)
    ]


def _empty(options: argparse.Namespace, plan: Plan) -> Result:
    model = "seeded random numbers in the model's full size (stand-in)" if options.model == STAND_IN else options.model
    return {
        "circumstances": circumstances("peers", model),
        "rounds_wanted": options.rounds,
        "rounds": 0,
        "seconds": options.seconds,
        "callers": options.callers,
        "precisions": list(plan.repositories),
        "contestants": options.only,
        "versions": [line.partition(" ")[0] for line in _REQUIREMENTS.read_text().splitlines() if "==" in line],
        "absent": {},
        "measured": [],
        "ceiling": {precision: [] for precision in plan.repositories},
        "ceiling_batch": {},
    }


def _round(plan: Plan, result: Result, number: int) -> None:
    """Every server in each precision, in an order that no two rounds share; and the bare model."""
    asked = [CONTESTANTS[key] for key in result["contestants"]]
    measured = []
    for precision, repository in plan.repositories.items():
        visits = [each for each in asked if not (each.fp32_only and precision != "fp32")]
        start = number * max(len(visits) // result["rounds_wanted"], 1) % max(len(visits), 1)
        for each in visits[start:] + visits[:start]:
            tell(f"Round {number + 1} of {result['rounds_wanted']}, {precision}: {each.name}")
            try:
                with running(each, plan.python, plan.checkpoint, repository, precision, cores()) as (url, pid):
                    found = asyncio.run(_measure(plan, each, url, pid))
            except ServerError as error:
                result["absent"][f"{each.key} {precision}"] = str(error)
                tell(f"peers: {each.name}, {precision}: {error}; is it installed (`make peers`)? Going on without it")
                continue
            common = {"contestant": each.key, "precision": precision, "round": number + 1}
            measured += [common | figures for figures in found]
        batch, rate = _ceiling(plan, repository)
        tell(f"  bare model, {precision}, batches of {batch}: {rate:.2f} images/s")
        result["ceiling"][precision].append(rate)
        result["ceiling_batch"][precision] = batch
    result["measured"] += measured
    result["rounds"] = number + 1


def _ceiling(plan: Plan, repository: Path) -> tuple[int, float]:
    """Best batch size of the bare model, and its images per second."""
    with bare_model(repository / MODEL_NAME / str(FIRST_VERSION) / MODEL_FILE) as bare:
        share = plan.seconds / len(_BARE_BATCHES)
        rates = {batch: bare.ask(batch=batch, seconds=share)["images_per_second"] for batch in _BARE_BATCHES}
    best = max(rates, key=lambda batch: rates[batch])
    return best, rates[best]


async def _measure(plan: Plan, contestant: Contestant, url: str, pid: int) -> list[Result]:
    """Figures for each number of callers, of a server whose answers were checked first."""
    caller = await _open_and_check(plan, contestant, url)
    peak = 0.0

    async def watch() -> None:
        nonlocal peak
        while True:
            peak = max(peak, await asyncio.to_thread(memory_mib, pid))
            await asyncio.sleep(_MEMORY_EVERY_SECONDS)

    watching, found = asyncio.create_task(watch()), []
    try:
        for callers in plan.callers:
            share = plan.seconds if callers > 1 else plan.seconds / 2
            sample = await closed_loop(JudgingSender(caller, plan.known), callers, share)
            latencies = sample.latencies_ms
            figures = {
                "callers": callers,
                "images_per_second": answers_per_second(sample.answered_at),
                "p50_ms": percentile(latencies, len(latencies), 0.50) if latencies else None,
                "p99_ms": percentile(latencies, len(latencies), 0.99) if latencies else None,
                "answers": len(latencies),
                "errors": dict(sample.failures),
                "memory_mib": peak,
            }
            found.append(figures)
            failed = f", {sample.failures.total()} failed" if sample.failures else ""
            tell(f"  {callers} callers: {figures['images_per_second']:.2f} images/s{failed}")
    finally:
        watching.cancel()
        await caller.close()
    return found


async def _open_and_check(plan: Plan, contestant: Contestant, url: str) -> Caller:
    """A caller whose known images were answered rightly: one while the server loads and warms up, then all at a time."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + _STARTING_SECONDS
    while True:
        caller = None
        try:
            caller = await open_caller(contestant.call, url)
            for _ in range(1 + contestant.warm_up_requests):
                await check_known(caller, plan.known[:1])
            await check_known(caller, plan.known)
            return caller
        except CallError as error:  # a server that listens may still load its model
            if caller is not None:
                await caller.close()
            if str(error).startswith("wrong answer") or loop.time() > deadline:
                raise ServerError(str(error)) from None
            await asyncio.sleep(0.5)


if __name__ == "__main__":
    main()

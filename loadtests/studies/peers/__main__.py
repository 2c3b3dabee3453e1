"""The embedded Triton beside other servers of the same checkpoint: FastAPI, LitServe, BentoML.

`make peers` installs the peers into an environment of their own first. Each round starts every server,
measures it with 1, 8 and 32 callers, and stops it. Some images have known scores, and a wrong answer is an error.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import time
from collections.abc import Awaitable, Callable, Collection, Sequence
from functools import partial
from pathlib import Path

import aiohttp
import numpy as np
from deepfake_client.preprocessing import load_image
from deepfake_deploy.export import Precision
from deepfake_deploy.export.contract import read_labels

from loadtests.studies.serving import card_code, exported, memory_mib, precisions
from loadtests.studies.table import Result, circumstances, in_turns, run_study, study_parser, tell
from loadtests.traffic.answers import SCORE_TOLERANCE, drawn, wrong
from loadtests.traffic.loops import answers_per_second, closed_loop, percentile
from loadtests.traffic.pool import Item, Stream, encoded

from .comparison import judge, page
from .contestants import CONTESTANTS, Contestant, Send, serving

CALLERS = (1, 8, 32)
# BentoML's dispatcher learns from the first eleven batches, and waits for more meanwhile.
_WARM_UP_REQUESTS = 12
_WARM_UP_SECONDS = 120.0
_REQUIREMENTS = Path(__file__).with_name("requirements.txt")


def main() -> None:
    parser = study_parser(__doc__, rounds=3, seconds=5.0, model=True)
    parser.add_argument("--only", nargs="+", choices=CONTESTANTS, default=list(CONTESTANTS), help="these servers")
    parser.add_argument("--environment", type=Path, default=Path(".venv/peers"), help="of the peers")
    run_study("peers", parser, measure, page)


def measure(options: argparse.Namespace, folder: Path) -> Result:
    python = options.environment.absolute() / "bin" / "python"
    requirements = _REQUIREMENTS.read_text(encoding="utf-8").splitlines()
    absent: dict[str, str] = {}
    with exported(options, precisions(), folder) as (checkpoint, repositories):
        known = known_answers(checkpoint, read_labels(options.repository))

        def visit(key: str, precision: Precision) -> list[Result]:
            contestant = CONTESTANTS[key]
            tell(f"{precision.value}: {contestant.name}")
            server = serving(contestant, python, checkpoint, repositories[precision], precision.value)
            try:
                with server as (url, pid):
                    return asyncio.run(figures(contestant, url, pid, known, options.seconds))
            except ChildProcessError as error:
                absent[f"{key} {precision.value}"] = str(error)
                tell(f"{contestant.name}: {error}; is it installed (`make peers`)? Going on without it")
                return []

        visits = {each: partial(visit, *each) for each in itertools.product(options.only, repositories)}
        found = in_turns(visits, options.rounds)
    result: Result = {
        "circumstances": circumstances("peers", options.model),
        "rounds": options.rounds,
        "seconds": options.seconds,
        "callers": CALLERS,
        "precisions": [precision.value for precision in repositories],
        "contestants": options.only,
        "versions": [line.split()[0] for line in requirements if "==" in line],
        "absent": absent,
        "measured": [
            {"contestant": key, "precision": precision.value, "round": number} | of_callers
            for (key, precision), rounds in found.items()
            for number, found_then in enumerate(rounds, 1)
            for of_callers in found_then
        ],
    }
    return result | {"missed": judge(result)}


def known_answers(checkpoint: Path, labels: list[str]) -> list[Item]:
    """JPEG files with the scores that transformers gives them in fp32."""
    probabilities = card_code(checkpoint)
    files = [encoded(np.asarray(load_image(png))) for png in drawn()]
    return [Item(file, dict(zip(labels, probabilities(file), strict=True))) for file in files]


async def figures(contestant: Contestant, url: str, pid: int, known: Sequence[Item], seconds: float) -> list[Result]:
    await warm_up(contestant, url, known[0].payload)
    stream, found = Stream("image", known=known, known_rate=0.05), []
    async with contestant.caller(url) as send:
        for callers in CALLERS:
            sample = await closed_loop(stream.next, judging(send, known[0].scores), callers, seconds)
            answers, rate = len(sample.latencies_ms), answers_per_second(sample.answered_at)
            if not rate:
                raise ChildProcessError(f"no right answer: {dict(sample.failures)}")
            tell(f"  {callers} callers: {rate:.2f} images/s, {sample.failures.total()} failed")
            found.append(
                {
                    "callers": callers,
                    "images_per_second": rate,
                    "p50_ms": percentile(sample.latencies_ms, answers, 0.50),
                    "p99_ms": percentile(sample.latencies_ms, answers, 0.99),
                    "answers": answers,
                    "errors": dict(sample.failures),
                    "memory_mib": memory_mib(pid),
                }
            )
    return found


def judging(send: Send, labels: Collection[str]) -> Callable[[Item], Awaitable[str | None]]:
    """Sends an item; the cause of a failure or of a wrong answer, else None."""

    async def judged(item: Item) -> str | None:
        try:
            return wrong(await send(item.payload), item.scores, frozenset(labels), SCORE_TOLERANCE)
        except aiohttp.ClientResponseError as error:
            return f"HTTP {error.status}"
        except Exception as error:  # each library raises its own, and all of them count
            return type(error).__name__

    return judged


async def warm_up(contestant: Contestant, url: str, file: bytes) -> None:
    """One request after the other; a server that listens may still load its model."""
    deadline = time.monotonic() + _WARM_UP_SECONDS
    while True:
        try:
            async with contestant.caller(url) as send:
                for _ in range(_WARM_UP_REQUESTS):
                    await send(file)
                return
        except Exception as error:  # each library raises its own
            if time.monotonic() > deadline:
                raise ChildProcessError(f"no answer in time: {type(error).__name__}: {error}") from None
            await asyncio.sleep(0.5)


if __name__ == "__main__":
    main()

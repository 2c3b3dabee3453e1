"""Processes that load a server through this project's asyncio client."""

from __future__ import annotations

import asyncio
import contextlib
import multiprocessing
import os
import signal
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Literal

from deepfake_cli.options import CredentialFiles
from deepfake_client import AsyncDeepfakeClient, DeepfakeError

from .answers import SCORE_TOLERANCE, cause_of, wrong
from .loops import Arrivals, Sample, Schedule, closed_loop, open_loop
from .options import client_options
from .pool import Item, Stream

_START_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Load:
    url: str
    labels: frozenset[str]
    payload: Literal["pixels", "image"] = "pixels"
    image_side: int = 512
    known: tuple[Item, ...] = ()
    known_rate: float = 0.0
    score_tolerance: float = SCORE_TOLERANCE
    deadline_seconds: float = 60.0
    credentials: CredentialFiles = field(default_factory=CredentialFiles)
    gives_way: bool = False
    """Only takes what others leave of the processors, as if it ran on another machine (Linux)."""


class Generators:
    """Some generator processes, as a context manager; each is ready once it has its images and a connection.

    Raises:
        ChildProcessError: one ended, or took too long; by every method, and on entering.
    """

    def __init__(self, load: Load, count: int = 1) -> None:
        self._load = load
        context = multiprocessing.get_context("spawn")  # gRPC does not survive a fork
        self._workers: list[tuple[Any, Connection]] = []
        for _ in range(count):
            ours, theirs = context.Pipe()
            process = context.Process(target=_serve, args=(theirs, load), daemon=True)
            process.start()
            theirs.close()
            self._workers.append((process, ours))

    def closed_loop(self, callers: int, seconds: float) -> list[Sample]:
        for _, pipe in self._workers:
            pipe.send((closed_loop, max(1, callers // len(self._workers)), seconds))
        return self.collect(seconds + 3 * self._load.deadline_seconds)

    def begin(
        self, rate: float, begin: float, measure_from: float, end: float, seed: int = 0, arrivals: Arrivals = "poisson"
    ) -> None:
        """Tells all to offer `rate` requests per second together, in an open loop; `collect` brings what they saw.

        `begin`, `measure_from` and `end` are of time.monotonic(), which the processes of a machine share.
        """
        for index, (_, pipe) in enumerate(self._workers):
            schedule = Schedule(rate / len(self._workers), arrivals, begin, seed * 1000 + index)
            pipe.send((open_loop, schedule, measure_from, end))

    def collect(self, timeout_seconds: float) -> list[Any]:
        return [_receive(pipe, timeout_seconds) for _, pipe in self._workers]

    def __enter__(self) -> Generators:
        try:
            self.collect(_START_SECONDS)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for process, pipe in self._workers:
            pipe.close()  # which ends it
            process.join(timeout=5)
            process.kill()
            process.join()


def _receive(pipe: Connection, timeout_seconds: float) -> Any:
    try:
        if pipe.poll(timeout_seconds):
            return pipe.recv()
    except (EOFError, OSError):
        raise ChildProcessError("a load generator ended by itself; see its error above") from None
    raise ChildProcessError(f"a load generator did not answer within {timeout_seconds:.0f} s")


def _serve(pipe: Connection, load: Load) -> None:
    """What a generator process does: a loop for each order, until the other end of the pipe closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches this process, too, which leaves it to the other
    if load.gives_way:
        os.setsid()  # Linux shares the processors out among sessions first (sched_autogroup_enabled)
        with contextlib.suppress(FileNotFoundError):
            Path("/proc/self/autogroup").write_text("19", encoding="utf-8")
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    with contextlib.suppress(EOFError, OSError):
        asyncio.run(_obey(pipe, load))


async def _obey(pipe: Connection, load: Load) -> None:
    stream = Stream(load.payload, load.image_side, load.known, load.known_rate)
    options = client_options(load.payload, load.deadline_seconds, load.credentials)
    async with AsyncDeepfakeClient(load.url, **options) as client:

        async def send(item: Item) -> str | None:
            image = isinstance(item.payload, bytes)
            try:
                verdict = await (client.classify if image else client.classify_pixels)(item.payload)
            except DeepfakeError as error:
                return cause_of(error)
            return wrong(verdict.scores, item.scores, load.labels, load.score_tolerance)

        await send(stream.next())  # opens the connection
        pipe.send(None)
        while True:
            loop, *order = pipe.recv()  # between two loops nothing else runs here
            pipe.send(await loop(stream.next, send, *order))

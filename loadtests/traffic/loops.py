"""Closed and open loops of requests, what they saw, and processes that run them with this project's asyncio client.

In an open loop a latency counts from when its request was due, whether or not it could leave at that moment: a server
that stalls is felt by all who would have called meanwhile (otherwise «coordinated omission», Gil Tene).
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import multiprocessing
import os
import random
import signal
import time
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Literal

from deepfake_cli.options import CredentialFiles
from deepfake_client import AsyncDeepfakeClient, DeepfakeError

from .answers import SCORE_TOLERANCE, cause_of, wrong
from .options import client_options
from .pool import Item, Stream

_START_SECONDS = 60.0
#: Answers of one batch come within this time.
TOGETHER_SECONDS = 0.05
# A server that refuses at once must not be asked in a tight loop, which would take its processor.
_PAUSE_AFTER_FAILURE_SECONDS = 0.2

Arrivals = Literal["poisson", "constant"]
#: Makes a request ready, before its clock starts.
Prepare = Callable[[], Any]
#: Sends a request and judges the answer: the cause of a failure, None when it was right.
Send = Callable[[Any], Awaitable[str | None]]


@dataclass(slots=True)
class Sample:
    """What a loop saw while it was measured."""

    answered_at: list[float] = field(default_factory=list)
    """time.monotonic() of right answers. In a closed loop the first is the moment from which on answers count."""
    latencies_ms: list[float] = field(default_factory=list)
    """Of right answers."""
    failed_ms: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    """By cause, how long each failure took."""
    late_ms: list[float] = field(default_factory=list)
    """Open loop: how long after they were due requests left."""

    @property
    def failures(self) -> Counter[str]:
        return Counter({cause: len(each) for cause, each in self.failed_ms.items()})

    def add(self, cause: str | None, milliseconds: float) -> None:
        (self.latencies_ms if cause is None else self.failed_ms[cause]).append(milliseconds)


class Schedule:
    """Due times of one source of `rate` requests per second, from `start` on, by whatever clock that is.

    They arrive "poisson", as many independent callers do, or "constant", at a fixed interval.
    """

    def __init__(self, rate: float, arrivals: Arrivals, start: float, seed: int | None = None) -> None:
        self._rate, self._arrivals = rate, arrivals
        self._random = random.Random(seed)  # noqa: S311 - a load, not a secret
        # With a fixed interval, sources that begin together must not send together.
        self.due = start + (self._interval() if arrivals == "poisson" else self._random.random() / rate)

    def advance(self) -> None:
        """Goes on to the next request. One that could not leave in time does not put off those behind it."""
        self.due += self._interval()

    def _interval(self) -> float:
        return self._random.expovariate(self._rate) if self._arrivals == "poisson" else 1 / self._rate


async def closed_loop(prepare: Prepare, send: Send, callers: int, seconds: float) -> Sample:
    """Callers that each send the next request when they have the answer to the last.

    Answers count after as many as there are callers: until then the queue fills, and who is at its head waits less. It
    goes on for `seconds`, or longer until as many have come again. What is under way at the end is waited for.
    """
    sample, ended, end = Sample(), 0, math.inf

    async def call() -> None:
        nonlocal ended, end
        while time.monotonic() < end:
            request = prepare()
            began = time.monotonic()
            cause = await send(request)
            now = time.monotonic()
            ended += 1
            if ended == 2 * callers:
                end = max(sample.answered_at[0] + seconds, now)
            if ended == callers:
                sample.answered_at.append(now)
            # A batch that begins to be answered before the end counts as a whole.
            elif ended > callers and now <= max(end, sample.answered_at[-1] + TOGETHER_SECONDS):
                sample.add(cause, 1000 * (now - began))
                if cause is None:
                    sample.answered_at.append(now)
            if cause is not None:
                await asyncio.sleep(_PAUSE_AFTER_FAILURE_SECONDS)

    await asyncio.gather(*(call() for _ in range(callers)))
    return sample


async def open_loop(prepare: Prepare, send: Send, schedule: Schedule, measure_from: float, end: float) -> Sample:
    """Requests that leave when they are due, until `end`; from `measure_from` on they count. By time.monotonic()."""
    sample = Sample()

    async def call(request: Any, due: float) -> None:
        left = time.monotonic()
        cause = await send(request)
        now = time.monotonic()
        if cause is None and measure_from <= now < end:
            sample.answered_at.append(now)
        if due >= measure_from:
            sample.late_ms.append((left - due) * 1000)
            sample.add(cause, (now - (due if cause is None else left)) * 1000)

    calls = []
    while schedule.due < end:
        request = prepare()
        await asyncio.sleep(max(schedule.due - time.monotonic(), 0))
        calls.append(asyncio.create_task(call(request, schedule.due)))
        schedule.advance()
    await asyncio.gather(*calls)
    return sample


def answers_per_second(answered_at: Sequence[float]) -> float:
    """Answers per second from the first to the last, without the first one's batch, whose answers came together."""
    first, last = min(answered_at, default=0.0), max(answered_at, default=0.0)
    later = sum(at > first + TOGETHER_SECONDS for at in answered_at)
    return later / (last - first) if later else 0.0


def percentile(latencies: Sequence[float], requests: int, share: float) -> float:
    """Of `requests` requests, of which those without a latency are the slowest: infinite when it falls among them."""
    rank = math.ceil(requests * share)
    return sorted(latencies)[rank - 1] if 0 < rank <= len(latencies) else math.inf


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

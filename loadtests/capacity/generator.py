"""Processes that offer a load: open loop, Poisson arrivals, latency from when a request was due."""

from __future__ import annotations

import asyncio
import multiprocessing
import signal
import time
from collections import Counter
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import Any, Literal

from deepfake_cli.connection import CredentialFiles
from deepfake_client import AsyncDeepfakeClient, DeepfakeError

from loadtests.traffic.arrivals import Schedule
from loadtests.traffic.causes import cause_of, wrong
from loadtests.traffic.known_answers import KnownAnswer
from loadtests.traffic.pool import pool_for
from loadtests.traffic.stream import Item, Stream

_CONNECTIONS = 100_000
_START_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Load:
    """What every step sends."""

    url: str
    payload: Literal["pixels", "image"]
    image_side: int
    known: tuple[KnownAnswer, ...]
    known_rate: float
    labels: frozenset[str]
    score_tolerance: float
    deadline_seconds: float
    credentials: CredentialFiles = field(default_factory=CredentialFiles)


@dataclass(frozen=True, slots=True)
class Order:
    """One step, for one process. Times are those of time.monotonic(), which processes of a machine share."""

    rate: float
    begin: float
    measure_from: float
    end: float
    seed: int


@dataclass(frozen=True, slots=True)
class Probe:
    """A closed loop for an estimate: so many callers, each with one request at a time."""

    callers: int
    measure_from: float
    end: float


@dataclass(slots=True)
class Sample:
    """What one process saw of a step: of requests that were due from `measure_from` on."""

    latencies_ms: list[float] = field(default_factory=list)
    """Of right answers."""
    failures: Counter[str] = field(default_factory=Counter)
    completed: int = 0
    """Right answers that came between `measure_from` and `end`, whenever their request was due."""
    answered_at: list[float] = field(default_factory=list)
    """When each of these came, by time.monotonic()."""
    late_ms: list[float] = field(default_factory=list)
    """How long after they were due requests left."""
    cpu_share: float = 0.0
    """Of one core, between `measure_from` and `end`."""


class Generators:
    """Some generator processes, as a context manager."""

    def __init__(self, load: Load, count: int) -> None:
        self._context = multiprocessing.get_context("spawn")  # gRPC does not survive a fork
        self._workers: list[tuple[Any, Connection]] = []
        # Ctrl-C reaches the processes, too, which leave it to this one; they inherit that it is ignored.
        handler = signal.signal(signal.SIGINT, signal.SIG_IGN)
        try:
            for _ in range(count):
                ours, theirs = self._context.Pipe()
                process = self._context.Process(target=_serve, args=(theirs, load), daemon=True)
                process.start()
                theirs.close()
                self._workers.append((process, ours))
        finally:
            signal.signal(signal.SIGINT, handler)

    @property
    def count(self) -> int:
        return len(self._workers)

    @property
    def pids(self) -> list[int]:
        return [process.pid for process, _ in self._workers]

    def wait_until_ready(self) -> None:
        """Returns once each has its images and a connection.

        Raises:
            ChildProcessError: one ended, or took too long.
        """
        for _, pipe in self._workers:
            self._receive(pipe, _START_SECONDS)

    def begin(self, rate: float, begin: float, measure_from: float, end: float, seed: int) -> None:
        """Tells all to offer `rate` requests per second together."""
        for index, (_, pipe) in enumerate(self._workers):
            pipe.send(Order(rate / self.count, begin, measure_from, end, seed * 1000 + index))

    def probe(self, callers: int, measure_from: float, end: float) -> None:
        """Tells each to send from so many callers of its own."""
        for _, pipe in self._workers:
            pipe.send(Probe(callers, measure_from, end))

    def collect(self, timeout_seconds: float) -> list[Sample]:
        """What they saw, once the last request has its answer.

        Raises:
            ChildProcessError: one ended, or took too long.
        """
        return [self._receive(pipe, timeout_seconds) for _, pipe in self._workers]

    def __enter__(self) -> Generators:
        return self

    def __exit__(self, *_: object) -> None:
        for process, pipe in self._workers:
            pipe.close()  # which ends it
            process.join(timeout=5)
            if process.is_alive():
                process.kill()
                process.join()

    @staticmethod
    def _receive(pipe: Connection, timeout_seconds: float) -> Any:
        try:
            if pipe.poll(timeout_seconds):
                return pipe.recv()
        except (EOFError, OSError):
            raise ChildProcessError("a load generator ended by itself; see its error above") from None
        raise ChildProcessError(f"a load generator did not answer within {timeout_seconds:.0f} s")


def _serve(pipe: Connection, load: Load) -> None:
    """What a generator process does: a step for each order, until the other end of the pipe closes."""
    loop = asyncio.new_event_loop()
    process = _Process(load)
    loop.run_until_complete(process.connect())
    try:
        pipe.send(None)
        while True:
            order = pipe.recv()
            pipe.send(
                loop.run_until_complete(process.probe(order) if isinstance(order, Probe) else process.step(order))
            )
    except (EOFError, OSError):  # the search has ended
        loop.run_until_complete(process.client.close())
    finally:
        loop.close()


class _Process:
    def __init__(self, load: Load) -> None:
        self._load = load
        self._stream = Stream(
            pool_for(load.payload, load.image_side), load.known, repeat_rate=0.0, known_rate=load.known_rate
        )

    async def connect(self) -> None:
        self.client = AsyncDeepfakeClient(
            self._load.url,
            decode="server" if self._load.payload == "image" else "client",
            timeout=self._load.deadline_seconds,
            tls=self._load.credentials.tls,
            token=self._load.credentials.token,
            max_retries=0,
            max_connections=_CONNECTIONS,
        )
        await self._ask(self._stream.next())

    async def step(self, order: Order) -> Sample:
        sample = Sample()
        schedule = Schedule(order.rate, "poisson", order.begin, order.seed)
        calls = []
        watch = asyncio.create_task(_cpu_share(order))
        while schedule.due < order.end:
            item = self._stream.next()
            await asyncio.sleep(max(schedule.due - time.monotonic(), 0))
            calls.append(asyncio.create_task(self._call(item, schedule.due, order, sample)))
            schedule.advance()
        await asyncio.gather(*calls)
        sample.cpu_share = await watch
        return sample

    async def probe(self, order: Probe) -> Sample:
        sample = Sample()

        async def caller() -> None:
            while (now := time.monotonic()) < order.end:
                await self._call(self._stream.next(), now, order, sample)

        await asyncio.gather(*(caller() for _ in range(order.callers)))
        return sample

    async def _call(self, item: Item, due: float, order: Order | Probe, sample: Sample) -> None:
        left = time.monotonic()
        try:
            verdict = await self._ask(item)
            cause = wrong(verdict, item.known, self._load.labels, self._load.score_tolerance)
        except DeepfakeError as error:
            cause = cause_of(error)
        now = time.monotonic()
        if cause is None and order.measure_from <= now < order.end:
            sample.completed += 1
            sample.answered_at.append(now)
        if due < order.measure_from:
            return
        sample.late_ms.append((left - due) * 1000)
        if cause is None:
            sample.latencies_ms.append((now - due) * 1000)
        else:
            sample.failures[cause] += 1

    async def _ask(self, item: Item) -> Any:
        payload = item.payload
        return await (
            self.client.classify(payload) if isinstance(payload, bytes) else self.client.classify_pixels(payload)
        )


async def _cpu_share(order: Order) -> float:
    await asyncio.sleep(max(order.measure_from - time.monotonic(), 0))
    began, used = time.monotonic(), time.process_time()
    await asyncio.sleep(max(order.end - time.monotonic(), 0))
    return (time.process_time() - used) / max(time.monotonic() - began, 1e-9)

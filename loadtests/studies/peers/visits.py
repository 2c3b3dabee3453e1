"""One visit to a server: start it, check its answers, measure it with each number of callers, stop it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

from deepfake_deploy.embedded import EmbeddedTriton

from loadtests.traffic.rate import answers_per_second

from .callers import Caller, CallError, open_caller
from .closed_loop import check_known, closed_loop, distinct_files
from .contestants import Contestant
from .preparation import Prepared
from .relay import CountingRelay
from .result import Measurement, Wire
from .server_process import PeakMemory, ServerError, running

_WIRE_REQUESTS = 4
_STARTING_SECONDS = 120.0


@dataclass(frozen=True, slots=True)
class Plan:
    """What is alike for all visits."""

    prepared: Prepared
    checkpoint: Path
    python: Path
    """Of the peers' environment."""
    threads: int
    callers: Sequence[int]
    seconds: float


@dataclass(frozen=True, slots=True)
class Visited:
    """What one visit brought."""

    measured: list[Measurement]
    wire: dict[str, Wire]


def visit(
    plan: Plan,
    ways: Sequence[Contestant],
    precision: str,
    round_number: int,
    tell: Callable[[str], None],
    *,
    wire: bool,
) -> Visited:
    """Measures the ways of one server, one after the other, on one process.

    Args:
        ways: one peer, or some of the embedded Triton's.
        wire: whether to count bytes, too.

    Raises:
        ServerError: it does not start, or does not give transformers' scores.
        EmbeddedTritonError: the same of ours.
    """
    with _server(plan, ways[0], precision) as (urls, pid), PeakMemory(pid) as memory:
        return asyncio.run(_measure(plan, ways, precision, round_number, urls, memory, tell, wire))


def _server(plan: Plan, way: Contestant, precision: str) -> AbstractContextManager[tuple[dict[str, str], int]]:
    return _triton(plan.prepared.repositories[precision]) if way.is_triton else _peer(plan, way, precision)


@contextmanager
def _triton(repository: Path) -> Iterator[tuple[dict[str, str], int]]:
    server = EmbeddedTriton(repository)
    server.start()
    try:
        yield {"triton-image": server.http_url, "triton-pixels": server.grpc_url}, server.pid
    finally:
        server.kill()


@contextmanager
def _peer(plan: Plan, way: Contestant, precision: str) -> Iterator[tuple[dict[str, str], int]]:
    with running(way, plan.python, plan.checkpoint, precision, plan.threads) as (url, pid):
        yield {way.key: url}, pid


async def _measure(
    plan: Plan,
    ways: Sequence[Contestant],
    precision: str,
    round_number: int,
    urls: dict[str, str],
    memory: PeakMemory,
    tell: Callable[[str], None],
    wire: bool,
) -> Visited:
    visited, files = Visited([], {}), distinct_files()
    for way in ways:
        caller = await _open_and_check(plan, way, urls[way.key])
        try:
            if wire:
                visited.wire[way.key] = await _count(way, urls[way.key], files)
            for callers in plan.callers:
                last = way is ways[-1] and callers == plan.callers[-1]
                seconds = plan.seconds if callers > 1 else plan.seconds / 2
                seen = await closed_loop(caller, callers, seconds, files, plan.prepared.known, drain=not last)
                found = Measurement(
                    way.key,
                    precision,
                    callers,
                    round_number,
                    answers_per_second(seen.answered_at),
                    seen.percentile_ms(50),
                    seen.percentile_ms(99),
                    len(seen.latencies_ms),
                    dict(seen.errors),
                    memory.mib,
                )
                visited.measured.append(found)
                failed = f", {seen.errors.total()} failed" if seen.errors else ""
                p99 = "–" if found.p99_ms is None else f"{found.p99_ms:.0f} ms"
                tell(f"  {way.name}, callers {callers}: {found.images_per_second:.2f} images/s, p99 {p99}{failed}")
        finally:
            await caller.close()
    return visited


async def _open_and_check(plan: Plan, way: Contestant, url: str) -> Caller:
    """A caller whose known images were answered rightly: one while the server loads and warms up, then all at a time."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + _STARTING_SECONDS
    known = plan.prepared.known
    while True:
        caller = None
        try:
            caller = await open_caller(way.call, url)
            await check_known(caller, known[:1])  # a server that listens may still load its model
            break
        except CallError as error:
            if caller is not None:
                await caller.close()
            if str(error).startswith("wrong answer") or loop.time() > deadline:
                raise ServerError(str(error)) from None
            await asyncio.sleep(0.5)
    try:
        for _ in range(way.warm_up_requests):
            await check_known(caller, known[:1])
        await check_known(caller, known)
    except CallError as error:
        await caller.close()
        raise ServerError(str(error)) from None
    return caller


async def _count(way: Contestant, url: str, files: Iterator[bytes]) -> Wire:
    """Means over some requests, after two on the same connections."""
    async with CountingRelay(url) as relay:
        caller = await open_caller(way.call, relay.url)
        try:
            for number in range(2 + _WIRE_REQUESTS):
                if number == 2:
                    relay.reset()
                await caller.send(caller.prepare(next(files)))
            return Wire(relay.sent_bytes / _WIRE_REQUESTS, relay.received_bytes / _WIRE_REQUESTS)
        except CallError as error:
            raise ServerError(f"through a relay: {error}") from None
        finally:
            await caller.close()

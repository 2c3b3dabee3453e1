"""What a server does at several times its capacity: goodput, speed of its refusals, memory, and the request after.

    python -m loadtests.studies.overload [--seconds 60] [--factor 4] [--repository model_repository]

Starts an embedded Triton of its own, so that its memory can be read and nobody else is in the way. For each protocol
it measures the capacity with a fixed number of callers, then offers `--factor` times as much at fixed intervals,
whether or not answers come, each request with an image of its own and without retries. The load comes from a process that
only gets what the server leaves of the processors, as if it ran on another machine. Exits with 1 when the goodput
is below 90 % of the capacity measured just before, when at the 99th percentile a full queue took longer than 100 ms to
say so, when a request that waited was refused later than a second after its queue timeout, or when the memory of the
server still grows after its queue has filled.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import multiprocessing
import os
import platform
import statistics
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import psutil
from deepfake_client import AsyncDeepfakeClient, DeepfakeError, OverloadedError
from deepfake_deploy.embedded import EmbeddedTriton
from numpy.typing import NDArray

from loadtests.traffic.rate import answers_per_second

CALLERS = 32
IMAGES = 512
GOODPUT_SHARE = 0.9
REFUSAL_SECONDS = 0.1
QUEUE_TIMEOUT_SECONDS = 30.0  # configs/cpu.pbtxt, default_timeout_microseconds
LATENESS_SECONDS = 1.0
DEADLINE_SECONDS = 60.0
# On two cores some 640 images, 92 MiB, are refused between the two times compared: to keep every seventh shows.
GROWTH_MIB = 12.0


@dataclass
class Outcomes:
    """How the requests of one phase ended."""

    answered_at: list[float] = field(default_factory=list)
    full_seconds: list[float] = field(default_factory=list)
    """Refused because the queue was full: how long that took to hear."""
    waited_seconds: list[float] = field(default_factory=list)
    """Refused after waiting in the queue."""
    errors: Counter[str] = field(default_factory=Counter)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repository", type=Path, default=Path("model_repository"))
    parser.add_argument("--seconds", type=float, default=60.0, help="of overload (default: %(default)s)")
    parser.add_argument("--factor", type=float, default=4.0, help="times the capacity (default: %(default)s)")
    options = parser.parse_args()
    good = True
    print(
        f"{platform.processor() or platform.machine()}, {psutil.cpu_count()} cores, Triton and the load on the same machine"
    )
    for protocol in ("grpc", "http"):
        with (
            EmbeddedTriton(options.repository) as server,
            multiprocessing.get_context("spawn").Pool(1, _give_way) as load,
        ):
            url = server.grpc_url if protocol == "grpc" else server.http_url
            good &= load.apply(_run, (url, server.pid, options.seconds, options.factor))
    sys.exit(0 if good else 1)


def _give_way() -> None:
    """This process runs when the server leaves a processor idle: callers on another machine would take nothing from it."""
    os.setsid()  # Linux shares the processors out among sessions first (sched_autogroup_enabled)
    with contextlib.suppress(FileNotFoundError):
        Path("/proc/self/autogroup").write_text("19")
    os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))


def _run(url: str, pid: int, seconds: float, factor: float) -> bool:
    images = np.random.default_rng(0).integers(0, 256, (IMAGES, 224, 224, 3), dtype=np.uint8)
    return asyncio.run(_measure(url, pid, images, seconds, factor))


async def _measure(url: str, pid: int, images: NDArray[np.uint8], seconds: float, factor: float) -> bool:
    async with AsyncDeepfakeClient(url, max_retries=0, timeout=DEADLINE_SECONDS, max_connections=2048) as client:
        await client.classify_pixels(images[0])  # learns the labels
        capacity = await _capacity(client, images, max(seconds / 2, 5.0))
        # Listed once: to look for children reads all of /proc, which ten times a second was as much work as the load.
        server = psutil.Process(pid)
        processes = [server, *server.children(recursive=True)]
        memory_before = _resident_mib(processes)
        outcomes, began = Outcomes(), time.monotonic()
        watch = asyncio.create_task(_watch_memory(processes, seconds))
        await _overload(client, images, capacity * factor, seconds, outcomes)
        memory = await watch
        # The first moments fill the queue and the last ones empty it; in between the server is at its limit.
        goodput = answers_per_second([at for at in outcomes.answered_at if seconds * 0.1 <= at - began <= seconds])
        verdict = await client.classify_pixels(images[0])
    full, waited = outcomes.full_seconds, max(outcomes.waited_seconds, default=0.0)
    slowest = statistics.quantiles(full, n=100)[98] if len(full) > 1 else 0.0
    print(f"{url.split(':')[0]}: capacity {capacity:.1f} images/s, offered {capacity * factor:.1f} for {seconds:.0f} s")
    print(f"  goodput {goodput:.1f} images/s, {goodput / capacity:.0%} of the capacity")
    print(f"  refused by a full queue {len(full)}, 99th percentile {slowest * 1000:.1f} ms")
    print(f"  refused at the end of the queue timeout {len(outcomes.waited_seconds)}, the last after {waited:.1f} s")
    print(f"  other errors {dict(outcomes.errors) or 'none'}")
    # The queue fills in the first quarter, and holds its images from then on.
    quarter = len(memory) // 4
    filled, late = statistics.median(memory[quarter : 2 * quarter]), statistics.median(memory[-quarter:])
    print(
        f"  memory of the server {memory_before:.0f} MiB before, {filled:.0f} MiB in the second quarter, "
        f"{late:.0f} MiB in the last"
    )
    print(f"  the next request: {verdict.label}", flush=True)
    in_time = slowest <= REFUSAL_SECONDS and waited <= QUEUE_TIMEOUT_SECONDS + LATENESS_SECONDS
    flat = late <= filled + GROWTH_MIB
    return goodput >= GOODPUT_SHARE * capacity and in_time and flat and bool(full) and not outcomes.errors


async def _capacity(client: AsyncDeepfakeClient, images: NDArray[np.uint8], seconds: float) -> float:
    """Images per second with `CALLERS` callers, each with one request at a time."""
    began = time.monotonic()
    end = began + seconds
    answered: list[float] = []

    async def call(first: int) -> None:
        number = first
        while time.monotonic() < end:
            await client.classify_pixels(images[number % IMAGES])
            answered.append(time.monotonic())
            number += CALLERS

    await asyncio.gather(*(call(first) for first in range(CALLERS)))
    return answers_per_second([at for at in answered if began + seconds * 0.1 <= at <= end])


async def _overload(
    client: AsyncDeepfakeClient, images: NDArray[np.uint8], rate: float, seconds: float, outcomes: Outcomes
) -> None:
    """`rate` requests per second, sent when their time has come."""

    async def call(number: int) -> None:
        began = time.monotonic()
        try:
            await client.classify_pixels(images[number % IMAGES])
            outcomes.answered_at.append(time.monotonic())
        except OverloadedError as error:
            waited = "timeout expired" in error.reason
            (outcomes.waited_seconds if waited else outcomes.full_seconds).append(time.monotonic() - began)
        except DeepfakeError as error:
            outcomes.errors[type(error).__name__] += 1

    began = time.monotonic()
    tasks = []  # Python 3.10 has no TaskGroup
    for number in range(int(rate * seconds)):
        pause = began + number / rate - time.monotonic()
        if pause > 0:
            await asyncio.sleep(pause)
        tasks.append(asyncio.create_task(call(number)))
    await asyncio.gather(*tasks)


async def _watch_memory(processes: list[psutil.Process], seconds: float) -> list[float]:
    """MiB in use, twice a second."""
    samples, end = [], time.monotonic() + seconds
    while time.monotonic() < end:
        samples.append(_resident_mib(processes))
        await asyncio.sleep(0.5)
    return samples


def _resident_mib(processes: list[psutil.Process]) -> float:
    return sum(process.memory_info().rss for process in processes) / 2**20


if __name__ == "__main__":
    main()

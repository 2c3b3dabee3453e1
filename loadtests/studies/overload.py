"""What a server does at several times its capacity: goodput, speed of its refusals, memory, and the request after.

    python -m loadtests.studies.overload [--seconds 60] [--factor 4]

For each protocol it starts an embedded Triton, measures the capacity with a fixed number of callers, then offers
`--factor` times as much at fixed intervals, whether or not answers come, each request with an image of its own and
without retries. The load only gets what the server leaves of the processors, as if it ran on another machine. Exit code 1
when the goodput is below 90 % of the capacity, when at the 99th percentile a full queue took longer than 100 ms to say
so, when a request that waited was refused later than a second after its queue timeout, or when the memory of the server
still grows after its queue has filled.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Sequence
from pathlib import Path

import psutil
from deepfake_client import DeepfakeClient
from deepfake_deploy.embedded import EmbeddedTriton

from loadtests.capacity.resources import family
from loadtests.studies import table
from loadtests.studies.serving import configuration_path, read_configuration
from loadtests.traffic.answers import REJECTED_FULL, REJECTED_WAITED
from loadtests.traffic.generator import Generators, Load
from loadtests.traffic.loops import Sample, answers_per_second, percentile
from loadtests.traffic.pool import PixelPool

CALLERS = 32
GOODPUT_SHARE = 0.9
REFUSAL_MS = 100.0
LATENESS_SECONDS = 1.0
# On two cores some 640 images, 92 MiB, are refused between the two times compared: to keep every seventh shows.
GROWTH_MIB = 12.0
# The first moments fill the queue.
_SETTLE_SHARE = 0.1


def main() -> None:
    parser = table.study_parser(__doc__, rounds=1, model=False)
    parser.add_argument("--seconds", type=table.seconds, default=60.0, help="of overload (default: %(default)s)")
    parser.add_argument("--factor", type=table.seconds, default=4.0, help="times the capacity (default: %(default)s)")
    table.run_study("overload", parser.parse_args(), measure, page)


def measure(options: argparse.Namespace, _: Path) -> table.Result:
    config = read_configuration(configuration_path(options.repository))
    timeout = config.dynamic_batching.default_queue_policy.default_timeout_microseconds / 1e6
    protocols, weights = {}, "unknown"
    for protocol in ("grpc", "http"):
        with EmbeddedTriton(options.repository) as server, DeepfakeClient(server.grpc_url) as client:
            if (provenance := client.provenance()) is not None:
                weights = f"{'stand-in' if provenance.stand_in else provenance.model_id}, {provenance.precision}"
            url = server.grpc_url if protocol == "grpc" else server.http_url
            load = Load(url, frozenset(client.model_info().labels), gives_way=True)
            with Generators(load) as generators:
                protocols[protocol] = _overload(generators, server.pid, options)
            client.classify_pixels(PixelPool().image(0))  # the one after all that gets its answer
    return {
        "circumstances": table.circumstances("overload", weights),
        "seconds": options.seconds,
        "protocols": protocols,
        "missed": judge(protocols, timeout),
    }


def _overload(generators: Generators, server: int, options: argparse.Namespace) -> table.Result:
    (calm,) = generators.closed_loop(CALLERS, max(options.seconds / 2, 5.0))
    capacity = answers_per_second(calm.answered_at)
    # Listed once: to look for children reads all of /proc.
    processes = family(server)
    memory_before, memory = _resident_mib(processes), []
    begin = time.monotonic()
    end = begin + options.seconds
    table.tell(f"capacity {capacity:.1f} images/s, offering {capacity * options.factor:.1f} for {options.seconds:g} s")
    generators.begin(
        capacity * options.factor, begin, begin + options.seconds * _SETTLE_SHARE, end, arrivals="constant"
    )
    while time.monotonic() < end:
        memory.append(_resident_mib(processes))
        time.sleep(0.5)
    (sample,) = generators.collect(3 * 60.0)
    return outcome(capacity, capacity * options.factor, sample, memory_before, memory)


def outcome(
    capacity: float, offered: float, sample: Sample, memory_before: float, memory: Sequence[float]
) -> table.Result:
    """What an overload came to; milliseconds, seconds and MiB as named."""
    full, waited = sample.failed_ms.get(REJECTED_FULL, []), sample.failed_ms.get(REJECTED_WAITED, [])
    # The queue fills in the first quarter, and holds its images from then on.
    quarter = len(memory) // 4
    goodput = answers_per_second(sample.answered_at)
    return {
        "capacity": capacity,
        "offered": offered,
        "goodput": goodput,
        "kept": goodput / capacity,
        "refused_full": len(full),
        "refused_full_p99_ms": percentile(full, len(full), 0.99) if full else None,
        "refused_waited": len(waited),
        "refused_waited_last_seconds": max(waited, default=0.0) / 1000,
        "other_errors": {
            cause: count for cause, count in sample.failures.items() if cause not in (REJECTED_FULL, REJECTED_WAITED)
        },
        "memory_before_mib": memory_before,
        "memory_filled_mib": statistics.median(memory[quarter : 2 * quarter]),
        "memory_last_mib": statistics.median(memory[-quarter:]),
    }


def judge(protocols: dict[str, table.Result], queue_timeout_seconds: float) -> list[str]:
    """What was promised and not kept."""
    missed = []
    for protocol, found in protocols.items():
        share = found["kept"]
        grown = found["memory_last_mib"] - found["memory_filled_mib"]
        waited = found["refused_waited_last_seconds"]
        reasons = {
            f"the goodput is {share:.0%} of the capacity, under {GOODPUT_SHARE:.0%}": share < GOODPUT_SHARE,
            "the queue was never full": not found["refused_full"],
            f"a full queue took {found['refused_full_p99_ms'] or 0:.0f} ms to say so": (
                (found["refused_full_p99_ms"] or 0) > REFUSAL_MS
            ),
            f"a request waited for {waited:.1f} s": waited > queue_timeout_seconds + LATENESS_SECONDS,
            f"memory grew by {grown:.0f} MiB": grown > GROWTH_MIB,
            f"other errors: {found['other_errors']}": bool(found["other_errors"]),
        }
        missed += [f"{protocol}: {reason}" for reason, holds in reasons.items() if holds]
    return missed


def page(result: table.Result) -> list[str]:
    rows = [
        [
            protocol,
            f"{found['capacity']:.1f}",
            f"{found['offered']:.1f}",
            f"{found['goodput']:.1f}",
            f"{found['kept']:.0%}",
            f"{found['refused_full']} in {found['refused_full_p99_ms'] or 0:.0f} ms",
            f"{found['refused_waited']} in {found['refused_waited_last_seconds']:.1f} s",
            str(sum(found["other_errors"].values())),
            " / ".join(f"{found[f'memory_{when}_mib']:.0f}" for when in ("before", "filled", "last")),
        ]
        for protocol, found in result["protocols"].items()
    ]
    header = [
        "protocol",
        "capacity",
        "offered",
        "goodput",
        "kept",
        "queue full",
        "waited",
        "other errors",
        "memory, MiB",
    ]
    return table.page_of(
        f"Too much to do, for {result['seconds']:g} s",
        result,
        table.markdown_table(header, rows),
        f"Images per second; capacity is that of {CALLERS} callers just before. Queue full: refusals, and their 99th "
        "percentile. Waited: refusals at the end of the queue timeout, and the latest. Memory of the server: before, in the "
        "second quarter, and in the last.",
        kept="Kept: 90 % of the capacity, and all limits.",
    )


def _resident_mib(processes: Sequence[psutil.Process]) -> float:
    return sum(process.memory_info().rss for process in processes) / 2**20


if __name__ == "__main__":
    main()

"""What a server does at four times its capacity: goodput, speed of its refusals, memory, and the request after.

Over each protocol: the capacity with 32 callers, then an open loop at fixed intervals, without retries. The load only
gets what the server leaves of the processors, as if it ran on another machine.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from deepfake_client import DeepfakeClient
from deepfake_deploy.embedded import EmbeddedTriton

from loadtests.capacity.resources import family, weights
from loadtests.studies import table
from loadtests.studies.serving import read_configuration
from loadtests.traffic.answers import REJECTED_FULL, REJECTED_WAITED
from loadtests.traffic.loops import Generators, Load, Sample, answers_per_second, percentile
from loadtests.traffic.pool import PixelPool

CALLERS = 32
FACTOR = 4.0
GOODPUT_SHARE = 0.9
REFUSAL_MS = 100.0
LATENESS_SECONDS = 1.0
# On two cores some 640 images, 92 MiB, are refused between the two times compared: to keep every seventh shows.
GROWTH_MIB = 12.0
_SETTLE_SHARE = 0.1  # the first moments fill the queue
_FILLED_SHARE = 0.4


def main() -> None:
    table.run_study("overload", table.study_parser(__doc__, seconds=60.0), measure, page)


def measure(options: argparse.Namespace, _: Path) -> table.Result:
    policy = read_configuration(options.repository).dynamic_batching.default_queue_policy
    protocols = {}
    for protocol in ("grpc", "http"):
        with EmbeddedTriton(options.repository) as server, DeepfakeClient(server.grpc_url) as client:
            served = weights(client)
            url = server.grpc_url if protocol == "grpc" else server.http_url
            load = Load(url, frozenset(client.model_info().labels), gives_way=True)
            with Generators(load) as generators:
                protocols[protocol] = _overload(generators, server.pid, options.seconds)
            client.classify_pixels(PixelPool().image(0))  # the one after all that gets its answer
    return {
        "circumstances": table.circumstances("overload", served),
        "seconds": options.seconds,
        "protocols": protocols,
        "missed": judge(protocols, policy.default_timeout_microseconds / 1e6),
    }


def _overload(generators: Generators, server: int, seconds: float) -> table.Result:
    (calm,) = generators.closed_loop(CALLERS, max(seconds / 2, 5.0))
    capacity = answers_per_second(calm.answered_at)
    processes = family(server)  # listed once: to look for children reads all of /proc

    def resident_mib() -> float:
        return sum(process.memory_info().rss for process in processes) / 2**20

    table.tell(f"capacity {capacity:.1f} images/s, offering {FACTOR * capacity:.1f} for {seconds:g} s")
    begin, memory = time.monotonic(), {"before": resident_mib()}
    end = begin + seconds
    generators.begin(FACTOR * capacity, begin, begin + seconds * _SETTLE_SHARE, end, arrivals="constant")
    time.sleep(seconds * _FILLED_SHARE)
    memory["filled"] = resident_mib()
    time.sleep(max(end - time.monotonic(), 0.0))
    memory["last"] = resident_mib()
    (sample,) = generators.collect(3 * 60.0)
    return outcome(capacity, sample) | {f"memory_{when}_mib": found for when, found in memory.items()}


def outcome(capacity: float, sample: Sample) -> table.Result:
    """What an overload came to; milliseconds and seconds as named."""
    full, waited = sample.failed_ms.pop(REJECTED_FULL, []), sample.failed_ms.pop(REJECTED_WAITED, [])
    goodput = answers_per_second(sample.answered_at)
    return {
        "capacity": capacity,
        "offered": FACTOR * capacity,
        "goodput": goodput,
        "kept": goodput / capacity,
        "refused_full": len(full),
        "refused_full_p99_ms": percentile(full, len(full), 0.99) if full else 0.0,
        "refused_waited": len(waited),
        "refused_waited_last_seconds": max(waited, default=0.0) / 1000,
        "other_errors": dict(sample.failures),
    }


def judge(protocols: dict[str, table.Result], queue_timeout_seconds: float) -> list[str]:
    missed = []
    for protocol, found in protocols.items():
        share, full_ms = found["kept"], found["refused_full_p99_ms"]
        grown = found["memory_last_mib"] - found["memory_filled_mib"]
        waited = found["refused_waited_last_seconds"]
        reasons = {
            f"the goodput is {share:.0%} of the capacity, under {GOODPUT_SHARE:.0%}": share < GOODPUT_SHARE,
            "the queue was never full": not found["refused_full"],
            f"a full queue took {full_ms:.0f} ms to say so": full_ms > REFUSAL_MS,
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
            *(f"{found[name]:.1f}" for name in ("capacity", "offered", "goodput")),
            f"{found['kept']:.0%}",
            f"{found['refused_full']} in {found['refused_full_p99_ms']:.0f} ms",
            f"{found['refused_waited']} in {found['refused_waited_last_seconds']:.1f} s",
            str(sum(found["other_errors"].values())),
            " / ".join(f"{found[f'memory_{when}_mib']:.0f}" for when in ("before", "filled", "last")),
        ]
        for protocol, found in result["protocols"].items()
    ]
    header = ["protocol", "capacity", "offered", "goodput", "kept", "queue full", "waited", "other errors", "memory"]
    title = f"Too much to do, for {result['seconds']:g} s"
    return table.page_of(title, result, table.markdown_table(header, rows))


if __name__ == "__main__":
    main()

"""NVIDIA's perf_analyzer against the project's Locust users: do both measure the same on the same server?

In turns. Both are counted from the first request to the last answer. The server keeps no answers: perf_analyzer sends
the same pixels in every request.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import itertools
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from deepfake_client import DeepfakeClient
from deepfake_deploy.embedded import EmbeddedTriton
from deepfake_deploy.export import MODEL_NAME

from loadtests.capacity.resources import weights
from loadtests.studies import table

CALLERS = (8, 32)
TOLERANCE = 0.1
_LOCUSTFILE = Path(__file__).resolve().parents[1] / "locustfile.py"
#: The libraries that the binary names, and how the embedded Triton's wheel calls its own copies of them.
_LIBRARIES = {"libb64.so.0d": "libb64-*.so*", "libcudart.so.12": "libcudart-*.so.12*"}
# Its record of the requests repeats their pixels as text, half a megabyte each.
_MOST_REQUESTS = 300
_WARM_UP_SECONDS = 4

#: `throughput` in images per second, and `p50_ms`.
Run = Mapping[str, float]


def main() -> None:
    parser = table.study_parser(__doc__, rounds=3, seconds=8)
    default = Path(".venv/perf_analyzer/bin/perf_analyzer")
    parser.add_argument("--perf-analyzer", type=Path, default=default, help="the binary")
    table.run_study("referee", parser, measure, page)


def measure(options: argparse.Namespace, folder: Path) -> table.Result:
    prepare(options.perf_analyzer, folder)
    with EmbeddedTriton(options.repository, response_cache_bytes=0) as server:
        with DeepfakeClient(server.grpc_url) as client:
            served = weights(client)
        rate = run_locust(server.grpc_url, CALLERS[0], _WARM_UP_SECONDS)["throughput"]
        theirs = partial(run_perf_analyzer, options.perf_analyzer, folder, rate=rate, seconds=options.seconds)
        measures = {}
        for url, callers in itertools.product((server.grpc_url, server.http_url), CALLERS):
            load = f"{url.partition('://')[0]}, {callers} callers"
            measures[load, "perf_analyzer"] = partial(theirs, url, callers)
            measures[load, "locust"] = partial(run_locust, url, callers, options.seconds)
        found = table.in_turns(measures, options.rounds)
    loads = {load: compare(found[load, "perf_analyzer"], found[load, "locust"]) for load, _ in found}
    return {
        "circumstances": table.circumstances("referee", served),
        "tolerance": TOLERANCE,
        "loads": loads,
        "missed": judge(loads),
    }


def compare(perf_analyzer: Sequence[Run], locust: Sequence[Run]) -> table.Result:
    theirs, ours = table.figures(perf_analyzer), table.figures(locust)
    return {
        name: {
            "perf_analyzer": theirs[name],
            "locust": ours[name],
            "ratio": theirs[name]["median"] / ours[name]["median"],
        }
        for name in ours
    }


def judge(loads: Mapping[str, table.Result]) -> list[str]:
    """Figures that are further apart than 1 ± the tolerance, whichever tool is taken for the base."""
    return [
        f"{load}: {name}, ratio {each['ratio']:.3f}"
        for load, found in loads.items()
        for name, each in found.items()
        if max(each["ratio"], 1 / each["ratio"]) > 1 + TOLERANCE
    ]


def page(result: table.Result) -> list[str]:
    rows = [
        [load, name, table.shown(each["perf_analyzer"]), table.shown(each["locust"]), f"{each['ratio']:.3f}"]
        for load, found in result["loads"].items()
        for name, each in (("images/s", found["throughput"]), ("p50 ms", found["p50_ms"]))
    ]
    header = ["load", "figure", "perf_analyzer", "Locust", "ratio"]
    return table.page_of("perf_analyzer beside Locust", result, table.markdown_table(header, rows, words=2))


def run_locust(url: str, callers: int, seconds: float) -> Run:
    """A closed loop of `callers` that all begin at once, new pixels in every request."""
    command = [
        *(sys.executable, "-m", "locust", "-f", str(_LOCUSTFILE), "--headless", "--json"),
        *("--host", url, "-u", str(callers), "-r", str(callers), "-t", f"{seconds:.0f}s", "--known-rate", "0"),
    ]
    return read_statistics(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout)  # noqa: S603 - no shell


def read_statistics(text: str | bytes) -> Run:
    """Of Locust's JSON, which, unlike its CSV files, has the requests that were on their way at the end."""
    (row,) = json.loads(text)
    # Its clock starts with the first answer, which met an empty queue and so took the least time.
    elapsed = row["last_request_timestamp"] - row["start_time"] + row["min_response_time"] / 1000
    latencies = [float(value) for value, count in row["response_times"].items() for _ in range(count)]
    return {"throughput": row["num_requests"] / elapsed, "p50_ms": statistics.median_low(latencies)}


def prepare(perf_analyzer: Path, folder: Path) -> None:
    """Puts into the folder the libraries that perf_analyzer misses."""
    if not perf_analyzer.is_file():
        raise ValueError(f"{perf_analyzer}: no perf_analyzer there; `make referee` installs it")
    bundled = Path(str(importlib.metadata.distribution("nvidia-pytriton").locate_file("nvidia_pytriton.libs")))
    for wanted, pattern in _LIBRARIES.items():
        (folder / wanted).symlink_to(next(bundled.glob(pattern)).resolve())


def run_perf_analyzer(binary: Path, folder: Path, url: str, callers: int, rate: float, seconds: float) -> Run:
    """A closed loop of `callers` for at most `seconds` at a server that does about `rate` images per second."""
    protocol, _, address = url.partition("://")
    record = folder / "requests.json"
    record.unlink(missing_ok=True)  # it does not write over one
    requests = max(round(min(rate * seconds, _MOST_REQUESTS)), callers)
    command = [
        *(str(binary), "-m", MODEL_NAME, "-i", protocol, "-u", address, "--concurrency-range", str(callers)),
        *("--request-count", str(requests), "--profile-export-file", str(record)),
    ]
    environment = os.environ | {"LD_LIBRARY_PATH": str(folder)}
    subprocess.run(command, env=environment, stdout=subprocess.DEVNULL, check=True)  # noqa: S603 - no shell
    return read_record(json.loads(record.read_text(encoding="utf-8")))


def read_record(record: Mapping[str, Any]) -> Run:
    requests = [each for experiment in record["experiments"] for each in experiment["requests"]]
    began = min(each["timestamp"] for each in requests)
    ended = max(each["response_timestamps"][-1] for each in requests)
    latencies = [(each["response_timestamps"][-1] - each["timestamp"]) / 1e6 for each in requests]
    return {"throughput": len(requests) / (ended - began) * 1e9, "p50_ms": statistics.median(latencies)}


if __name__ == "__main__":
    main()

"""NVIDIA's perf_analyzer against the project's Locust users: do both measure the same on the same server?

    python -m loadtests.studies.referee --perf-analyzer .venv/perf_analyzer/bin/perf_analyzer [--rounds 3] [--seconds 8]

`make referee` installs perf_analyzer and runs this. It starts an embedded Triton, and in turns lets perf_analyzer and
Locust send new pixels in every request from the same number of callers, over gRPC and HTTP. Both are counted from the
first request to the last answer. Exit code 1 when the medians of throughput or of the median latency are more than
`--tolerance` apart, or a run failed.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import importlib.metadata
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from deepfake_client import DeepfakeClient
from deepfake_deploy.embedded import EmbeddedTriton

from loadtests.studies import table
from loadtests.traffic.pool import PixelPool, numbers

MODEL = "deepfake_vs_real"
_ROOT = Path(__file__).resolve().parents[2]
_BINARY = _ROOT / ".venv/perf_analyzer/bin/perf_analyzer"
#: The libraries that the binary names, and how the embedded Triton's wheel calls its own copies of them.
_LIBRARIES = {"libb64.so.0d": "libb64-*.so*", "libcudart.so.12": "libcudart-*.so.12*"}
_BUNDLED = "nvidia_pytriton.libs"
_WINDOWS = 3  # as many as it joins to one result
# Its record of the requests repeats their pixels as text, half a megabyte each; and its images do not repeat.
_MOST_REQUESTS = 300
_USERS = {"grpc": "GrpcUser", "http": "HttpUser"}
_WARM_UP_SECONDS = 4


class RunError(ValueError):
    """A run that measured nothing to compare; str() says why, and the way out."""


@dataclass(frozen=True, slots=True)
class Run:
    """One run of one tool."""

    throughput: float
    """Images per second."""
    p50_ms: float


def main() -> None:
    parser = table.study_parser(__doc__, rounds=3, model=False)
    parser.add_argument("--perf-analyzer", type=Path, default=_BINARY, help="default: %(default)s")
    parser.add_argument("--callers", type=int, nargs="+", default=[8, 32], help="default: 8 32")
    parser.add_argument("--seconds", type=int, default=8, help="of each run, about (default: %(default)s)")
    parser.add_argument("--tolerance", type=float, default=0.1, help="default: %(default)s")
    options = parser.parse_args()
    if min(options.seconds, *options.callers) < 1 or not 0 < options.tolerance < 1:
        parser.error("--seconds and --callers must be 1 or more, --tolerance between 0 and 1")
    table.run_study("referee", options, measure, page)


def measure(options: argparse.Namespace, _: Path) -> table.Result:
    with prepared(options.perf_analyzer) as perf_analyzer, EmbeddedTriton(options.repository) as server:
        rate = run_locust(server.grpc_url, options.callers[0], _WARM_UP_SECONDS).throughput
        rounds: dict[str, dict[str, list[Run]]] = {}
        for number in range(1, options.rounds + 1):
            for url in (server.grpc_url, server.http_url):
                for callers in options.callers:
                    load = f"{url.partition('://')[0]}, {callers} callers"
                    table.tell(f"round {number} of {options.rounds}: {load}")
                    runs = rounds.setdefault(load, {"perf_analyzer": [], "locust": []})
                    runs["perf_analyzer"].append(perf_analyzer.run(url, callers, rate, options.seconds))
                    runs["locust"].append(run_locust(url, callers, options.seconds))
        with DeepfakeClient(server.grpc_url) as client:
            provenance = client.provenance()
    weights = "unknown" if provenance is None else f"{provenance.model_id}, {provenance.precision}"
    loads = {load: compare(runs) for load, runs in rounds.items()}
    return {
        "circumstances": table.circumstances("referee", weights),
        "tolerance": options.tolerance,
        "loads": loads,
        "missed": judge(loads, options.tolerance),
    }


def compare(runs: Mapping[str, Sequence[Run]]) -> table.Result:
    """Both tools' figures for one load, and the ratio of their medians."""
    found: table.Result = {}
    for name in ("throughput", "p50_ms"):
        tools = {tool: table.figure([asdict(run)[name] for run in each]) for tool, each in runs.items()}
        found[name] = {**tools, "ratio": tools["perf_analyzer"]["median"] / tools["locust"]["median"]}
    return found


def judge(loads: Mapping[str, table.Result], tolerance: float) -> list[str]:
    """Figures that are further apart than 1 ± `tolerance`, whichever tool is taken for the base."""
    return [
        f"{load}: {name}, ratio {each['ratio']:.3f}"
        for load, found in loads.items()
        for name, each in found.items()
        if max(each["ratio"], 1 / each["ratio"]) > 1 + tolerance
    ]


def page(result: table.Result) -> list[str]:
    rows = [
        [load, name, table.shown(each["perf_analyzer"]), table.shown(each["locust"]), f"{each['ratio']:.3f}"]
        for load, found in result["loads"].items()
        for name, each in (("images/s", found["throughput"]), ("p50 ms", found["p50_ms"]))
    ]
    return table.page_of(
        "perf_analyzer beside Locust",
        result,
        table.markdown_table(["load", "figure", "perf_analyzer", "Locust", "ratio"], rows, words=2),
        "Medians of the rounds (lowest–highest), no two requests with the same image. Both are counted from the first request "
        "to the last answer. What they print themselves differs: perf_analyzer's windows end at whole seconds, between two "
        "batches, and Locust's clock starts with the first answer.",
        kept=f"They agree within {result['tolerance']:.0%} in throughput and median latency.",
    )


def run_locust(url: str, callers: int, run_seconds: int) -> Run:
    """A closed loop of `callers` that all begin at once, new pixels in every request."""
    command = [
        *(sys.executable, "-m", "locust", "-f", str(_ROOT / "loadtests" / "locustfile.py"), "--headless", "--json"),
        *("--host", url, "-u", str(callers), "-r", str(callers), "-t", f"{run_seconds}s", "--known-rate", "0"),
        _USERS[url.partition("://")[0]],
    ]
    return read_statistics(_output_of("Locust", command, run_seconds, {}))


def read_statistics(text: str) -> Run:
    """The figures of Locust's JSON, which, unlike its CSV files, has the requests that were on their way at the end."""
    try:
        (row,) = json.loads(text)
        requests, failures = int(row["num_requests"]), int(row["num_failures"])
        # Its clock starts with the first answer, which met an empty queue and so took the least time.
        elapsed = row["last_request_timestamp"] - row["start_time"] + row["min_response_time"] / 1000
        latencies = [float(value) for value, count in row["response_times"].items() for _ in range(count)]
        found = Run(requests / elapsed, statistics.median_low(latencies))
    except (ValueError, KeyError, TypeError, ZeroDivisionError):
        raise RunError("Locust made no request, or its statistics have another form than expected") from None
    if failures:
        raise RunError(f"{failures} of Locust's {requests} requests failed")
    return found


@dataclass(frozen=True, slots=True)
class PerfAnalyzer:
    """A perf_analyzer that can be run, and its images; from `prepared`."""

    binary: Path
    libraries: Path
    images: Path

    def run(self, url: str, callers: int, rate: float, run_seconds: float) -> Run:
        """A closed loop of `callers` for at most `run_seconds` at a server that does about `rate` images per second."""
        protocol, _, address = url.partition("://")
        # It goes on for some four seconds more than its windows.
        wanted = min(rate * run_seconds, _MOST_REQUESTS - callers - 4 * rate)
        with tempfile.TemporaryDirectory(prefix="referee-") as folder:
            record = Path(folder) / "requests.json"
            command = [
                *(str(self.binary), "-m", MODEL, "-i", protocol, "-u", address, "--concurrency-range", str(callers)),
                *("--input-data", str(self.images), "--profile-export-file", str(record)),
                *("--measurement-mode", "count_windows"),
                *("--measurement-request-count", str(max(round(wanted / _WINDOWS), 1))),
                # Its first windows are taken, steady or not: so it counts the same part of a run as Locust does.
                *("--stability-percentage", "999", "--max-trials", str(_WINDOWS)),
            ]
            _output_of("perf_analyzer", command, run_seconds, {"LD_LIBRARY_PATH": str(self.libraries)})
            return read_record(json.loads(record.read_text()))


def read_record(record: Mapping[str, Any]) -> Run:
    """The figures of perf_analyzer's record of every request, from the first request to the last answer."""
    requests = [each for experiment in record["experiments"] for each in experiment["requests"]]
    if not requests:
        raise RunError("perf_analyzer recorded no requests")
    images = {hashlib.sha256(bytes(each["request_inputs"]["pixels"])).digest() for each in requests}
    if len(images) < len(requests):
        raise RunError(f"perf_analyzer sent {len(requests)} requests with only {len(images)} different images")
    began = min(each["timestamp"] for each in requests)
    ended = max(each["response_timestamps"][-1] for each in requests)
    latencies = [(each["response_timestamps"][-1] - each["timestamp"]) / 1e6 for each in requests]
    return Run(len(requests) / (ended - began) * 1e9, statistics.median(latencies))


@contextmanager
def prepared(binary: Path) -> Iterator[PerfAnalyzer]:
    """perf_analyzer with 300 images of its own, ready to run."""
    if not binary.is_file():
        raise RunError(f"{binary}: no perf_analyzer there; `make referee` installs it")
    bundled = Path(str(importlib.metadata.distribution("nvidia-pytriton").locate_file(_BUNDLED)))
    with tempfile.TemporaryDirectory(prefix="referee-") as name:
        folder = Path(name)
        for wanted, pattern in _LIBRARIES.items():
            found = sorted(bundled.glob(pattern))
            if not found:
                raise RunError(f"{bundled}: no {pattern} in it, which perf_analyzer needs as {wanted}")
            (folder / wanted).symlink_to(found[0].resolve())
        pool = PixelPool()
        entries = [
            {"pixels": {"b64": base64.b64encode(pool.image(number).tobytes()).decode(), "shape": [224, 224, 3]}}
            for number in islice(numbers(), _MOST_REQUESTS)
        ]
        images = folder / "images.json"
        images.write_text(json.dumps({"data": entries}))
        yield PerfAnalyzer(binary, folder, images)


def _output_of(tool: str, command: Sequence[str], run_seconds: float, environment: Mapping[str, str]) -> str:
    timeout_seconds = run_seconds * 6 + 60
    try:
        done = subprocess.run(  # noqa: S603 - Locust, or the binary that `make referee` installed; no shell
            command,
            env={**os.environ, **environment},
            capture_output=True,
            text=True,
            timeout=timeout_seconds,
            stdin=subprocess.DEVNULL,
        )
    except subprocess.TimeoutExpired:
        raise RunError(f"{tool} did not end within {timeout_seconds:.0f} s") from None
    if done.returncode:
        said = (done.stderr.strip() or done.stdout.strip() or "nothing").splitlines()[-1]
        raise RunError(f"{tool} failed with exit status {done.returncode}: {said}")
    return done.stdout


if __name__ == "__main__":
    main()

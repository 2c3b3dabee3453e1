"""NVIDIA's perf_analyzer: found, fed with images of which no two are alike, run, and read."""

from __future__ import annotations

import base64
import csv
import hashlib
import importlib.metadata
import json
import os
import statistics
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

from deepfake_client.preprocessing import IMAGE_SIZE

from loadtests.traffic.pool import PixelPool, numbers

from .figures import Figures, RunError

MODEL = "deepfake_vs_real"
#: The libraries that the binary names, and how the embedded Triton's wheel calls its own copies of them.
_LIBRARIES = {"libb64.so.0d": "libb64-*.so*", "libcudart.so.12": "libcudart-*.so.12*"}
_BUNDLED = "nvidia_pytriton.libs"
_WINDOWS = 3  # as many as it joins to one result
# Its record of the requests repeats their pixels as text, half a megabyte each.
_MAX_RECORDED = 300
_TIMEOUT_FACTOR, _TIMEOUT_SECONDS = 6, 60


class PerfAnalyzer:
    """A perf_analyzer that can be run, and its images; from `prepared`."""

    def __init__(self, binary: Path, libraries: Path, images: Path, count: int) -> None:
        self._binary, self._libraries, self._images, self._count = binary, libraries, images, count

    def run(self, url: str, callers: int, rate: float, seconds: float) -> Figures:
        """A closed loop of `callers` for about `seconds` at a server that does about `rate` images per second.

        Its requests are recorded one by one where they are few. Where they are many, the windows that it prints are
        exact enough, and the images may come round again: the server's cache is off.

        Raises:
            RunError: it failed, or sent an image twice.
        """
        protocol, _, address = url.partition("://")
        recorded = rate * (seconds + 4) + callers <= min(_MAX_RECORDED, self._count)
        with tempfile.TemporaryDirectory(prefix="referee-") as folder:
            report, record = Path(folder) / "report.csv", Path(folder) / "requests.json"
            self._call(
                [
                    *("-m", MODEL, "-i", protocol, "-u", address, "--concurrency-range", str(callers)),
                    *("--input-data", str(self._images), "-f", str(report), "--verbose-csv"),
                    *("--measurement-mode", "count_windows"),
                    *("--measurement-request-count", str(max(round(rate * seconds / _WINDOWS), 1))),
                    # Its first windows are taken, steady or not: so it counts the same part of a run as Locust does.
                    *("--stability-percentage", "999", "--max-trials", str(_WINDOWS)),
                    *(("--profile-export-file", str(record)) if recorded else ()),
                ],
                seconds * _TIMEOUT_FACTOR + _TIMEOUT_SECONDS,
            )
            printed = read_report(report.read_text())
            return from_record(json.loads(record.read_text()), printed) if recorded else printed

    def _call(self, arguments: list[str], timeout_seconds: float) -> None:
        environment = {**os.environ, "LD_LIBRARY_PATH": str(self._libraries)}
        try:
            done = subprocess.run(  # noqa: S603 - the binary that `make referee` installed, no shell
                [self._binary, *arguments],
                env=environment,
                capture_output=True,
                text=True,
                timeout=timeout_seconds,
                stdin=subprocess.DEVNULL,
            )
        except subprocess.TimeoutExpired:
            raise RunError(
                f"perf_analyzer did not end within {timeout_seconds:.0f} s; is the server answering?"
            ) from None
        except OSError as error:
            raise RunError(f"{self._binary}: cannot be run ({error.strerror}); `make referee` installs it") from None
        if done.returncode:
            said = (done.stderr.strip() or done.stdout.strip() or "nothing").splitlines()[-1]
            raise RunError(f"perf_analyzer failed with exit status {done.returncode}: {said}")


@contextmanager
def prepared(binary: Path, images: int) -> Iterator[PerfAnalyzer]:
    """perf_analyzer with `images` images of their own, ready to run.

    Raises:
        RunError: the binary or a library that it needs is not there.
    """
    if not binary.is_file():
        raise RunError(f"{binary}: no perf_analyzer there; `make referee` installs it")
    with tempfile.TemporaryDirectory(prefix="referee-") as name:
        folder = Path(name)
        _link_libraries(folder)
        data = folder / "images.json"
        data.write_text(json.dumps({"data": list(_entries(images))}))
        yield PerfAnalyzer(binary, folder, data, images)


def _link_libraries(folder: Path) -> None:
    try:
        site_packages = Path(str(importlib.metadata.distribution("nvidia-pytriton").locate_file("")))
    except importlib.metadata.PackageNotFoundError:
        raise RunError("nvidia-pytriton is not installed; pip install 'deepfake-vs-real[serve]'") from None
    for wanted, pattern in _LIBRARIES.items():
        found = sorted((site_packages / _BUNDLED).glob(pattern))
        if not found:
            raise RunError(f"{site_packages / _BUNDLED}: no {pattern} in it, which perf_analyzer needs as {wanted}")
        (folder / wanted).symlink_to(found[0].resolve())


def _entries(count: int) -> Iterator[dict[str, Any]]:
    pool = PixelPool()
    for number in islice(numbers(), count):
        content = base64.b64encode(pool.image(number).tobytes()).decode()
        yield {"pixels": {"b64": content, "shape": [IMAGE_SIZE, IMAGE_SIZE, 3]}}


def read_report(text: str) -> Figures:
    """The figures of its CSV report.

    Raises:
        RunError: it is not one of a single load.
    """
    rows = list(csv.DictReader(text.splitlines()))
    try:
        (row,) = rows
        throughput = float(row["Inferences/Second"])
        p50, mean = float(row["p50 latency"]) / 1000, float(row["Avg latency"]) / 1000
    except (ValueError, KeyError):
        raise RunError("perf_analyzer's report has not the one row that was expected") from None
    return Figures(None, throughput, p50, mean, throughput)


def from_record(record: dict[str, Any], printed: Figures) -> Figures:
    """The figures of its record of every request, counted as Locust counts: from the first request to the last answer.

    Raises:
        RunError: it has no requests, or two with the same image.
    """
    requests = [each for experiment in record["experiments"] for each in experiment["requests"]]
    if not requests:
        raise RunError("perf_analyzer recorded no requests")
    images = {hashlib.sha256(bytes(each["request_inputs"]["pixels"])).digest() for each in requests}
    if len(images) < len(requests):
        raise RunError(f"perf_analyzer sent {len(requests)} requests with only {len(images)} different images")
    began = min(each["timestamp"] for each in requests)
    ended = max(each["response_timestamps"][-1] for each in requests)
    latencies = [(each["response_timestamps"][-1] - each["timestamp"]) / 1e6 for each in requests]
    return Figures(
        distinct_images=len(images),
        throughput=len(requests) / (ended - began) * 1e9,
        p50_ms=statistics.median(latencies),
        mean_ms=statistics.fmean(latencies),
        printed_throughput=printed.throughput,
    )

"""Locust, headless, with the project's locustfile, and what it counted."""

from __future__ import annotations

import json
import subprocess
import sys
from itertools import accumulate
from pathlib import Path

from .figures import Figures, RunError

_LOCUSTFILE = Path(__file__).resolve().parents[2] / "locustfile.py"
_USERS = {"grpc": "GrpcUser", "http": "HttpUser"}
_TIMEOUT_FACTOR, _TIMEOUT_SECONDS = 6, 60


def run_locust(url: str, callers: int, seconds: int) -> Figures:
    """A closed loop of `callers` that all begin at once, new pixels in every request, for `seconds`.

    Raises:
        RunError: it failed, or a request did.
    """
    timeout_seconds = seconds * _TIMEOUT_FACTOR + _TIMEOUT_SECONDS
    command = [
        *(sys.executable, "-m", "locust", "-f", str(_LOCUSTFILE), "--headless", "--json", "--host", url),
        *("-u", str(callers), "-r", str(callers), "-t", f"{seconds}s", "--known-rate", "0"),
        _USERS[url.partition("://")[0]],
    ]
    try:
        done = subprocess.run(  # noqa: S603 - this Python and fixed words
            command, capture_output=True, text=True, timeout=timeout_seconds, stdin=subprocess.DEVNULL
        )
    except subprocess.TimeoutExpired:
        raise RunError(f"Locust did not end within {timeout_seconds:.0f} s") from None
    if done.returncode:
        said = (done.stderr.strip() or "nothing").splitlines()[-1]
        raise RunError(f"Locust failed with exit status {done.returncode}: {said}")
    return read_statistics(done.stdout)


def read_statistics(text: str) -> Figures:
    """The figures of its JSON, which, unlike its CSV files, has the requests that were on their way at the end.

    Raises:
        RunError: it has not the one row that was expected, requests failed, or none was made.
    """
    try:
        (row,) = json.loads(text)
        requests, failures = int(row["num_requests"]), int(row["num_failures"])
        # Its clock starts with the first answer, which met an empty queue and so took the least time.
        began = row["start_time"] - row["min_response_time"] / 1000
        seconds = row["last_request_timestamp"] - began
        mean_ms = row["total_response_time"] / requests
        latencies = sorted((float(value), count) for value, count in row["response_times"].items())
    except (ValueError, KeyError, TypeError, ZeroDivisionError):
        raise RunError("Locust made no request, or its statistics have another form than expected") from None
    if failures:
        raise RunError(f"{failures} of Locust's {requests} requests failed")
    reached = zip(latencies, accumulate(count for _, count in latencies), strict=True)
    return Figures(
        distinct_images=requests,  # by the pool's numbers, see traffic/pool.py
        throughput=requests / seconds,
        p50_ms=next(value for (value, _), so_far in reached if 2 * so_far >= requests),
        mean_ms=mean_ms,
        printed_throughput=requests / (row["last_request_timestamp"] - row["start_time"]),
    )

"""What perf_analyzer and Locust report is read rightly, and judged; and both run against a real server."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from deepfake_deploy.embedded import EmbeddedTriton

from loadtests.studies.referee.figures import Figures, RunError, compare, table
from loadtests.studies.referee.locust_run import read_statistics
from loadtests.studies.referee.perf_analyzer import from_record, prepared, read_report
from tests.support.metrics import metric
from tests.support.project import ROOT

BINARY = ROOT / ".venv" / "perf_analyzer" / "bin" / "perf_analyzer"
PRINTED = Figures(None, 8.0, 850.0, 900.0, 8.0)


def report(throughput: str = "8.5") -> str:
    return f"Concurrency,Inferences/Second,p50 latency,Avg latency\n8,{throughput},850000,900000\n"


def record(*requests: tuple[float, float, int]) -> dict[str, Any]:
    """Of (sent, answered, image), in seconds."""
    rows = [
        {
            "timestamp": int(sent * 1e9),
            "response_timestamps": [int(answered * 1e9)],
            "request_inputs": {"pixels": [image, 2, 3]},
        }
        for sent, answered, image in requests
    ]
    return {"experiments": [{"requests": rows}]}


def statistics(**changes: Any) -> str:
    row = {
        "num_requests": 4,
        "num_failures": 0,
        "start_time": 100.5,  # of the first answer
        "min_response_time": 500.0,
        "last_request_timestamp": 102.0,
        "total_response_time": 2000.0,
        "response_times": {"900": 1, "300": 2, "500": 1},
    }
    return json.dumps([row | changes])


def runs(throughput: float, p50_ms: float) -> list[Figures]:
    return [Figures(10, throughput * factor, p50_ms, p50_ms, throughput) for factor in (0.5, 1.0, 3.0)]


def test_the_summary_of_perf_analyzer_is_in_microseconds() -> None:
    assert read_report(report()) == Figures(None, 8.5, 850.0, 900.0, 8.5)


@pytest.mark.parametrize("text", ["", report().splitlines()[0], report("fast")])
def test_a_summary_without_its_row_is_an_error(text: str) -> None:
    with pytest.raises(RunError, match="one row"):
        read_report(text)


def test_its_record_is_counted_from_the_first_request_to_the_last_answer() -> None:
    figures = from_record(record((10, 11, 1), (10, 12, 2), (11, 12, 3)), PRINTED)
    assert (figures.throughput, figures.p50_ms) == (1.5, 1000)
    assert figures.mean_ms == pytest.approx(4000 / 3)
    assert (figures.printed_throughput, figures.distinct_images) == (8.0, 3)


def test_an_image_that_it_sent_twice_is_an_error() -> None:
    with pytest.raises(RunError, match="3 requests with only 2 different images"):
        from_record(record((10, 11, 1), (10, 12, 2), (11, 12, 1)), PRINTED)


def test_locusts_figures_are_those_of_all_its_requests() -> None:
    assert read_statistics(statistics()) == Figures(4, 2.0, 300.0, 500.0, pytest.approx(4 / 1.5))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (statistics(num_failures=1), "1 of Locust's 4 requests failed"),
        (statistics(num_requests=0), "made no request"),
        ("[]", "made no request"),
        ("no JSON", "made no request"),
    ],
)
def test_a_run_that_measured_nothing_is_an_error(text: str, reason: str) -> None:
    with pytest.raises(RunError, match=reason):
        read_statistics(text)


@pytest.mark.parametrize(("referee", "agrees"), [(1.0, True), (1.1, True), (1.11, False), (0.91, True), (0.9, False)])
def test_they_agree_within_the_tolerance_in_both_directions(referee: float, agrees: bool) -> None:
    assert compare([referee], [1.0], 0.1).agrees == agrees


def test_the_medians_of_the_rounds_are_judged_and_what_is_apart_is_named() -> None:
    rounds = {"grpc, 8 callers": (runs(8.5, 850), runs(8.6, 860)), "http, 8 callers": (runs(8.5, 850), runs(8.6, 1000))}
    lines, apart = table(rounds, 0.1)
    assert apart == ["http, 8 callers: p50 ms, ratio 0.850"]
    assert sum("APART" in line for line in lines) == 1
    assert "8.5 (4.25 to 25.5)" in lines[1]


def test_without_perf_analyzer_it_says_how_to_get_it(tmp_path: Path) -> None:
    script = [sys.executable, "-m", "loadtests.studies.referee", "--perf-analyzer", str(tmp_path / "missing")]
    run = subprocess.run(script, capture_output=True, text=True, timeout=60)
    assert run.returncode == 1
    assert run.stderr == f"referee: {tmp_path / 'missing'}: no perf_analyzer there; `make referee` installs it\n"


@pytest.mark.skipif(not BINARY.is_file(), reason="perf_analyzer is not installed; `make referee` does it")
def test_perf_analyzer_runs_over_both_protocols(triton: EmbeddedTriton) -> None:
    with prepared(BINARY, 20) as perf_analyzer:
        for url in (triton.grpc_url, triton.http_url):
            before = metric(triton.metrics_url, "nv_inference_request_success")
            figures = perf_analyzer.run(url, callers=2, rate=6.0, seconds=1.0)
            assert figures.throughput > 0
            assert 0 < figures.p50_ms < 60_000
            assert metric(triton.metrics_url, "nv_inference_request_success") > before

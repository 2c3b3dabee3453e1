"""The capacity search as a person runs it, against a real Triton."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from deepfake_deploy.embedded import EmbeddedTriton

from loadtests.capacity.__main__ import main
from loadtests.capacity.resources import MODEL, scrape
from tests.support.metrics import metric

FILES = {"report.html", "report.json"}


def run_capacity(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "loadtests.capacity", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=90)


@pytest.mark.slow
def test_a_target_out_of_reach_is_reported_with_what_was_measured(repository: Path, tmp_path: Path) -> None:
    folder = tmp_path / "report"
    # The batcher alone waits for 10 ms, so that the search ends after its lightest loads.
    options = ["--slo-p95-ms", "1", "--step-seconds", "1", "--output", str(folder)]
    done = run_capacity("--repository", str(repository), *options)
    assert done.returncode == 1
    assert done.stdout.startswith("No load was found at which 95 % of the requests are answered within 1 ms.")
    assert {path.name for path in folder.iterdir()} == FILES
    document = json.loads((folder / "report.json").read_text())
    assert document["capacity"] is None
    assert document["recommendation"] is None
    assert document["circumstances"]["server_is_here"] is True
    steps = document["steps"]
    assert steps
    assert all(step["met"] is False and step["failures"] == {} for step in steps)
    heaviest = max(steps, key=lambda step: step["offered"])
    assert heaviest["batch"] >= 1
    assert heaviest["compute_ms"] > 0
    assert heaviest["queue_ms"] > 0
    assert heaviest["pending"] >= 0
    assert heaviest["p50_ms"] >= 1


@pytest.mark.parametrize(
    ("arguments", "status", "reason"),
    [
        (["--slo-p95-ms", "0"], 2, "--slo-p95-ms: must be above 0"),
        (["--url", "triton:8001"], 2, "--url must begin with grpc://"),
        (["--url", "grpc://127.0.0.1:9"], 1, "connection refused"),
        (["--url", "grpc://127.0.0.1:9", "--metrics-url", "http://127.0.0.1:9"], 1, "http://127.0.0.1:9: "),
        (["--metrics-url", "file:///etc/passwd"], 2, "--metrics-url must begin with http://"),
        (["--metrics-url", "http://127.0.0.1:9"], 2, "are for a server that --url names"),
    ],
)
def test_what_cannot_be_measured_is_told_in_one_line(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    status: int,
    reason: str,
) -> None:
    monkeypatch.setattr(sys, "argv", ["capacity.py", *arguments, "--output", str(tmp_path / "report")])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == status
    told = capsys.readouterr()
    assert reason in told.err
    assert len([line for line in told.err.splitlines() if not line.startswith(("usage:", " "))]) == 1
    assert told.out == ""
    assert not (tmp_path / "report").exists()


def test_the_counters_are_those_of_the_metrics_endpoint(triton: EmbeddedTriton) -> None:
    before = scrape(triton.metrics_url)
    assert before.models[MODEL].requests == metric(triton.metrics_url, "nv_inference_request_success")
    assert before.models[MODEL].compute_us == metric(triton.metrics_url, "nv_inference_compute_infer_duration_us")
    assert before.pending == 0


def test_an_endpoint_that_is_no_tritons_is_named(triton: EmbeddedTriton) -> None:
    with pytest.raises(OSError, match="no metrics of a Triton there"):
        scrape(f"{triton.http_url}/v2")
    with pytest.raises(OSError, match=r"http://127\.0\.0\.1:9/metrics: .*refused"):
        scrape("http://127.0.0.1:9/metrics")

"""`make observe`, but for the installation and the size of the weights."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import psutil
import pytest
from click.testing import CliRunner

from loadtests.observability.observe import observe
from loadtests.observability.prometheus import Prometheus
from tests.support.programs import require_program
from tests.support.prometheus import evaluated_rules
from tests.support.rules_files import OBSERVABILITY, alerts

PATIENCE_SECONDS = 60


@pytest.mark.slow
def test_it_shows_the_metrics_and_the_rules_and_leaves_nothing_behind(repository: Path) -> None:
    require_program("prometheus")
    command = [sys.executable, "-m", "loadtests.observability.observe", "--repository", str(repository)]
    with subprocess.Popen(
        [*command, "--rules", str(OBSERVABILITY)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            assert process.stdout is not None
            printed = {}
            for line in process.stdout:
                name, url = re.split(r"\s{2,}", line.strip(), maxsplit=1)
                printed[name] = url
                if name == "Your own images":
                    break
            assert b"nv_inference_request_success" in urllib.request.urlopen(printed["Triton's metrics"]).read()
            prometheus = Prometheus(printed["Prometheus"])
            assert {rule["name"] for rule in evaluated_rules(prometheus.url) if rule["type"] == "alerting"} == set(
                alerts()
            )
            deadline = time.monotonic() + PATIENCE_SECONDS
            answered = 'sum(nv_inference_request_success{model="deepfake_vs_real_image",namespace="deepfake"}) > 0'
            while not prometheus.query(answered) and time.monotonic() < deadline:
                time.sleep(0.2)
            assert prometheus.query(answered)
            assert all(
                urllib.request.urlopen(printed[page]).status == 200 for page in ("Prometheus", "Alerts", "Rules")
            )
            children = psutil.Process(process.pid).children(recursive=True)
            assert {"tritonserver", "prometheus"} <= {child.name() for child in children}
            process.send_signal(signal.SIGTERM)
            _, complaints = process.communicate(timeout=PATIENCE_SECONDS)
        finally:
            process.kill()
    assert process.returncode == 0, complaints
    assert complaints.endswith("Sending images for 120 s; Ctrl-C stops it all\nStopping\n")
    assert psutil.wait_procs(children, timeout=10)[1] == []


def refusal(*arguments: str) -> str:
    """The one line that it ends with before anything has started."""
    result = CliRunner().invoke(observe, [*arguments])
    assert result.exit_code == 1, result.output
    assert result.stdout == ""
    assert result.stderr.count("\n") == 1, result.stderr
    return result.stderr


def test_without_prometheus_it_says_what_to_install(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    assert refusal("--repository", str(repository), "--rules", str(OBSERVABILITY)) == (
        "deepfake: prometheus is not installed; on Debian and Ubuntu: apt-get install prometheus\n"
    )


def test_a_folder_without_rules_is_named(repository: Path, tmp_path: Path) -> None:
    require_program("prometheus")
    assert refusal("--repository", str(repository), "--rules", str(tmp_path)) == (
        f"deepfake: {tmp_path}: no *-prometheusrule.yaml in it; name the project's deploy/observability\n"
    )

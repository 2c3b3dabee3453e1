"""alertmanager.yaml in a real Alertmanager: what of each fault's alerts reaches whom."""

from __future__ import annotations

import json
import re
import subprocess
import time
import urllib.error
import urllib.request
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import pytest
from deepfake_deploy.embedded.ports import reserved_ports

from loadtests.observability.faults import FAULTS
from tests.support.programs import require_program
from tests.support.rules_files import OBSERVABILITY, alerts

CONFIGURATION = OBSERVABILITY / "alertmanager.yaml"
PATIENCE_SECONDS = 30
#: Besides loadtests/observability/faults.py, whose Triton 2.51 has no histogram of latencies and stays ready.
ALERTS = {name: fault.fires for name, fault in FAULTS.items()} | {
    "overload-with-histogram": ("TritonQueueFull", "TritonLatencyBudgetBurnsFast"),
    "hanging-until-full": ("TritonModelHangs", "TritonQueueFull"),
    "unready-replica": ("TritonReplicaNotReady",),
}
#: Fault → who is told what.
TOLD = {
    "overload": {"pager": ["TritonQueueFull"]},
    "killed-worker": {"pager": ["TritonErrorBudgetBurnsFast"], "tickets": ["TritonModelFails"]},
    "stopped-server": {"pager": ["TritonNoReadyReplica"]},
    "broken-model": {"tickets": ["TritonReplicaNotScraped"]},
    "unready-replica": {"tickets": ["TritonReplicaNotReady"]},
    "hanging-decoder": {"pager": ["TritonModelHangs"]},
    "overload-with-histogram": {"pager": ["TritonQueueFull"]},
    "hanging-until-full": {"pager": ["TritonModelHangs"]},
}


class Alertmanager:
    """The API of a running one."""

    def __init__(self, url: str) -> None:
        self._url = url

    def ready(self) -> bool:
        try:
            return urllib.request.urlopen(f"{self._url}/-/ready", timeout=5).status == 200
        except urllib.error.URLError:
            return False

    def post(self, *labels: dict[str, str]) -> None:
        body = json.dumps([{"labels": one} for one in labels]).encode()
        headers = {"Content-Type": "application/json"}
        request = urllib.request.Request(f"{self._url}/api/v2/alerts", body, headers)
        assert urllib.request.urlopen(request, timeout=5).status == 200

    def told(self, namespace: str) -> dict[str, list[str]]:
        """Receiver → alerts of `namespace` that are not held back."""
        query = f"?filter=namespace%3D%22{namespace}%22&active=true&inhibited=false&silenced=false"
        answer: list[dict[str, Any]] = json.load(urllib.request.urlopen(f"{self._url}/api/v2/alerts{query}", timeout=5))
        told = defaultdict(list)
        for alert in answer:
            for receiver in alert["receivers"]:
                told[receiver["name"]].append(alert["labels"]["alertname"])
        return {receiver: sorted(names) for receiver, names in told.items()}


@pytest.fixture(scope="module")
def alertmanager(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Alertmanager]:
    program = require_program("prometheus-alertmanager")
    with reserved_ports("127.0.0.1", {"alertmanager": 0}) as ports:
        folder = tmp_path_factory.mktemp("alertmanager")
        # Nobody is to be written to from a test.
        configuration = folder / "alertmanager.yaml"
        configuration.write_text(
            re.sub(r"https://\w+\.example\.com/", "http://127.0.0.1:9/", CONFIGURATION.read_text())
        )
        arguments = [f"--config.file={configuration}", f"--storage.path={folder}", "--cluster.listen-address="]
        with (folder / "log").open("wb") as log:
            process = subprocess.Popen(
                [program, *arguments, f"--web.listen-address=127.0.0.1:{ports['alertmanager']}"], stdout=log, stderr=log
            )
            running = Alertmanager(f"http://127.0.0.1:{ports['alertmanager']}")
            try:
                deadline = time.monotonic() + PATIENCE_SECONDS
                while not running.ready():
                    assert process.poll() is None, (folder / "log").read_text()
                    assert time.monotonic() < deadline, (folder / "log").read_text()
                    time.sleep(0.05)
                yield running
            finally:
                process.kill()
                process.wait()


def test_every_fault_is_spoken_of() -> None:
    assert set(TOLD) == set(ALERTS)


@pytest.mark.slow
@pytest.mark.parametrize("fault", TOLD)
def test_a_fault_is_one_page_at_the_most_and_what_follows_from_it_is_held_back(
    alertmanager: Alertmanager, fault: str
) -> None:
    namespace = fault
    severities = {name: rule["labels"]["severity"] for name, rule in alerts().items()}
    alertmanager.post(
        *(
            {"alertname": name, "severity": severities[name], "namespace": namespace, "pod": "triton-a", "model": "m"}
            for name in ALERTS[fault]
        )
    )
    deadline = time.monotonic() + PATIENCE_SECONDS
    while alertmanager.told(namespace) != TOLD[fault] and time.monotonic() < deadline:
        time.sleep(0.05)
    assert alertmanager.told(namespace) == TOLD[fault]


@pytest.mark.slow
def test_a_model_that_hangs_holds_back_nothing_of_another_replica(alertmanager: Alertmanager) -> None:
    critical = {"severity": "critical", "namespace": "two-replicas", "model": "m"}
    alertmanager.post(
        {"alertname": "TritonModelHangs", "pod": "triton-a", **critical},
        {"alertname": "TritonQueueFull", "pod": "triton-a", **critical},
        {"alertname": "TritonQueueFull", "pod": "triton-b", **critical},
    )
    told = {"pager": ["TritonModelHangs", "TritonQueueFull"]}
    deadline = time.monotonic() + PATIENCE_SECONDS
    while alertmanager.told("two-replicas") != told and time.monotonic() < deadline:
        time.sleep(0.05)
    assert alertmanager.told("two-replicas") == told


@pytest.mark.slow
def test_nothing_of_one_installation_holds_back_anything_of_another(alertmanager: Alertmanager) -> None:
    alertmanager.post(
        {"alertname": "TritonNoReadyReplica", "severity": "critical", "namespace": "down"},
        {"alertname": "TritonModelFails", "severity": "warning", "namespace": "down"},
        {"alertname": "TritonGpuError", "severity": "warning", "namespace": "down"},
        {"alertname": "TritonModelFails", "severity": "warning", "namespace": "up"},
    )
    told = {
        "down": {"pager": ["TritonNoReadyReplica"], "tickets": ["TritonGpuError"]},
        "up": {"tickets": ["TritonModelFails"]},
    }
    deadline = time.monotonic() + PATIENCE_SECONDS
    while (found := {name: alertmanager.told(name) for name in told}) != told and time.monotonic() < deadline:
        time.sleep(0.05)
    assert found == told


def test_alerts_that_it_names_exist() -> None:
    named = re.findall(r'alertname="(\w+)"', CONFIGURATION.read_text())
    assert named
    assert set(named) <= set(alerts())
    for pattern in re.findall(r'alertname=~"([^"]+)"', CONFIGURATION.read_text()):
        for part in re.split(r"\|(?![^(]*\))", pattern):
            assert any(re.fullmatch(part, name) for name in alerts()), part

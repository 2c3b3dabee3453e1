"""A Prometheus of its own on loopback, from the system's package, with the rules of deploy/observability."""

from __future__ import annotations

import http.client
import json
import re
import shutil
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import yaml
from deepfake_deploy.embedded.ports import reserved_ports

from loadtests.programs import running

#: Of a machine without a GPU, as components/monitoring-cpu has it. The latency objective has no effect on Triton 2.51.
CPU_OBJECTIVES = {"deepfake:queue_limit:requests": 256.0}

_WINDOW = re.compile(r"\[(\w+)\]")
_MILLISECONDS = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
_ANSWER_SECONDS = 10.0
_READY_SECONDS = 60.0


class PrometheusError(Exception):
    """Prometheus cannot run or answer, or has no rules: one sentence with the thing, the reason and the way out."""


def target(metrics_url: str, pod: str = "triton-local") -> dict[str, Any]:
    """A static_config: what is scraped, with the labels that the PodMonitor `triton` gives in a cluster."""
    labels = {"namespace": "deepfake", "pod": pod, "job": "deepfake-vs-real"}
    return {"targets": [urllib.parse.urlsplit(metrics_url).netloc], "labels": labels}


def require_prometheus() -> str:
    """Path of the program; raises PrometheusError when it is not installed."""
    program = shutil.which("prometheus")
    if program is None:
        raise PrometheusError("prometheus is not installed; on Debian and Ubuntu: apt-get install prometheus")
    return program


class Prometheus:
    """The HTTP API of a Prometheus at `url`. Every method raises PrometheusError when it does not answer."""

    def __init__(self, url: str) -> None:
        self.url = url

    def query(self, expression: str, moment: float | None = None) -> list[tuple[dict[str, str], float]]:
        """Labels and value of each series at `moment` (seconds since 1970) or now."""
        data = self._get("query", query=expression, time=moment or time.time())
        return [(series["metric"], float(series["value"][1])) for series in data["result"]]

    def firing(self) -> dict[str, str]:
        """Name → "(severity): description" of the alerts that fire now."""
        return {
            alert["labels"]["alertname"]: f"({alert['labels']['severity']}): {alert['annotations']['description']}"
            for alert in self._get("alerts")["alerts"]
            if alert["state"] == "firing"
        }

    def _get(self, name: str, **parameters: str | float) -> Any:
        url = f"{self.url}/api/v1/{name}?{urllib.parse.urlencode(parameters)}"
        try:
            with urllib.request.urlopen(url, timeout=_ANSWER_SECONDS) as response:  # noqa: S310 - http on loopback
                return json.load(response)["data"]
        except urllib.error.HTTPError as error:
            raise PrometheusError(f"prometheus refuses {parameters}: {error.read().decode()}") from None
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise PrometheusError(f"prometheus at {self.url} does not answer ({error})") from None


@contextmanager
def local_prometheus(
    targets: Sequence[Mapping[str, Any]],
    groups: Sequence[Mapping[str, Any]],
    *,
    scrape_interval: str = "15s",
    faster: int = 1,
) -> Iterator[Prometheus]:
    """A Prometheus that has tried every target once; it and its data end with the block.

    Args:
        targets: what it scrapes, as `target` has it.
        groups: of rules, as read_groups has them.
        faster: divides the scrape interval and the reach of an instant query, so that at 60 a minute is a second long.

    Raises:
        PrometheusError: it is not installed, refuses its configuration, or does not answer in time.
    """
    program, interval = require_prometheus(), shortened(scrape_interval, faster)
    configuration = {
        "global": {"scrape_interval": interval, "scrape_timeout": interval},
        "rule_files": ["rules.yml"],
        # Labels that a target's own series carry win, as with the exporters' usual settings in a cluster.
        "scrape_configs": [{"job_name": "all", "honor_labels": True, "static_configs": targets}],
    }
    with (
        reserved_ports("127.0.0.1", {"prometheus": 0}) as ports,
        TemporaryDirectory(prefix="deepfake-prometheus-") as folder,
    ):
        address = f"127.0.0.1:{ports['prometheus']}"
        # JSON is YAML.
        for file, content in (("rules.yml", {"groups": groups}), ("prometheus.yml", configuration)):
            Path(folder, file).write_text(json.dumps(content), encoding="utf-8")
        command = [
            program,
            f"--config.file={folder}/prometheus.yml",
            f"--storage.tsdb.path={folder}/data",
            f"--web.listen-address={address}",
            f"--query.lookback-delta={shortened('5m', faster)}",
            "--log.level=warn",
        ]
        prometheus = Prometheus(f"http://{address}")

        def scraped() -> bool:
            with suppress(PrometheusError):  # not listening, or not ready yet
                return len(prometheus.query("up")) == len(targets)
            return False

        with ExitStack() as stack:
            try:
                stack.enter_context(running(command, scraped, _READY_SECONDS))
            except ChildProcessError as error:
                raise PrometheusError(f"prometheus did not start: {error}") from None
            yield prometheus


def read_groups(folder: Path, objectives: Mapping[str, float] | None = None, faster: int = 1) -> list[dict[str, Any]]:
    """The groups of every *-prometheusrule.yaml in `folder`, taken out of their Kubernetes resources.

    Args:
        objectives: recorded series → value in place of that of objectives-prometheusrule.yaml.
        faster: divides every window, `for` and interval; the expressions stay as they are.

    Raises:
        PrometheusError: there is none.
    """
    paths = sorted(folder.glob("*-prometheusrule.yaml"))
    if not paths:
        raise PrometheusError(f"{folder}: no *-prometheusrule.yaml in it; name the project's deploy/observability")
    groups = [group for path in paths for group in yaml.safe_load(path.read_text(encoding="utf-8"))["spec"]["groups"]]
    for group in groups:
        group["interval"] = shortened(group["interval"], faster)
        for rule in group["rules"]:
            if objectives and rule.get("record") in objectives:
                rule["expr"] = f"vector({objectives[rule['record']]})"
            rule["expr"] = _WINDOW.sub(lambda window: f"[{shortened(window[1], faster)}]", rule["expr"])
            if "for" in rule:
                rule["for"] = shortened(rule["for"], faster)
    return groups


def shortened(duration: str, faster: int) -> str:
    """`duration` ("5m") divided by `faster`, in milliseconds."""
    number, unit = re.fullmatch(r"(\d+)([a-z]+)", duration).groups()  # type: ignore[union-attr]
    return f"{int(number) * _MILLISECONDS[unit] // faster}ms"

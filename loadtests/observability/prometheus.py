"""A Prometheus of its own on loopback, from the system's package, and what its API answers."""

from __future__ import annotations

import http.client
import json
import shutil
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from deepfake_deploy.embedded.end_with_parent import ending_with_this_process
from deepfake_deploy.embedded.ports import reserved_ports

from loadtests.observability.rules import PrometheusError, read_groups, shortened

_ANSWER_SECONDS = 10.0
_READY_SECONDS = 60.0


@dataclass(frozen=True)
class Target:
    """What is scraped, http://host:port/metrics, with the labels that the PodMonitor `triton` gives in a cluster."""

    metrics_url: str
    pod: str = "triton-local"
    job: str = "deepfake-vs-real"

    def configuration(self) -> dict[str, Any]:
        labels = {"namespace": "deepfake", "pod": self.pod, "job": self.job}
        return {"targets": [urllib.parse.urlsplit(self.metrics_url).netloc], "labels": labels}


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

    def query_range(
        self, expression: str, start: float, end: float, step_seconds: float
    ) -> list[tuple[dict[str, str], list[tuple[float, float]]]]:
        """Labels of each series, and its times (seconds since 1970) and values between `start` and `end`."""
        data = self._get("query_range", query=expression, start=start, end=end, step=step_seconds)
        return [
            (series["metric"], [(float(moment), float(value)) for moment, value in series["values"]])
            for series in data["result"]
        ]

    def firing(self) -> dict[str, str]:
        """Name → "(severity): description" of the alerts that fire now."""
        return {
            alert["labels"]["alertname"]: f"({alert['labels']['severity']}): {alert['annotations']['description']}"
            for alert in self._get("alerts")["alerts"]
            if alert["state"] == "firing"
        }

    def rules(self) -> list[dict[str, Any]]:
        """Every rule as Prometheus describes it, with `name`, `health` and, where it failed, `lastError`."""
        return [rule for group in self._get("rules")["groups"] for rule in group["rules"]]

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
    targets: Sequence[Target],
    rules_folder: Path,
    *,
    objectives: Mapping[str, float] | None = None,
    scrape_interval: str = "15s",
    faster: int = 1,
) -> Iterator[Prometheus]:
    """A Prometheus that has tried every target once, with the rules of `rules_folder`; it and its data end with the block.

    Args:
        targets: what it scrapes; it takes up new ones every five seconds.
        objectives, faster: as in rules.read_groups. `faster` also divides the scrape interval and the reach of an instant
            query, so that at 60 a minute is a second long.

    Raises:
        PrometheusError: it is not installed, refuses its configuration, or does not answer in time.
    """
    program = require_prometheus()
    interval = shortened(scrape_interval, faster)
    configuration = {
        "global": {"scrape_interval": interval, "scrape_timeout": interval},
        "rule_files": ["rules.yml"],
        # Labels that a target's own series carry win, as with the exporters' usual settings in a cluster.
        "scrape_configs": [
            {"job_name": "all", "honor_labels": True, "static_configs": [target.configuration() for target in targets]}
        ],
    }
    with (
        reserved_ports("127.0.0.1", {"prometheus": 0}) as ports,
        TemporaryDirectory(prefix="deepfake-prometheus-") as name,
    ):
        folder, address = Path(name), f"127.0.0.1:{ports['prometheus']}"
        # JSON is YAML.
        rules = {"groups": read_groups(rules_folder, objectives, faster)}
        for file, content in (("rules.yml", rules), ("prometheus.yml", configuration)):
            (folder / file).write_text(json.dumps(content), encoding="utf-8")
        arguments = [
            f"--config.file={folder / 'prometheus.yml'}",
            f"--storage.tsdb.path={folder / 'data'}",
            f"--web.listen-address={address}",
            f"--query.lookback-delta={shortened('5m', faster)}",
            "--log.level=warn",
        ]
        with (folder / "prometheus.log").open("wb") as log:
            process = subprocess.Popen(  # noqa: S603 - the system's program with our own arguments
                ending_with_this_process([program, *arguments]),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C reaches us alone, and we stop it in order
            )
        try:
            prometheus = Prometheus(f"http://{address}")
            _wait_until_scraped(prometheus, len(targets), process, folder / "prometheus.log")
            yield prometheus
        finally:
            process.kill()
            process.wait()


def _wait_until_scraped(prometheus: Prometheus, targets: int, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + _READY_SECONDS
    while process.poll() is None and time.monotonic() < deadline:
        with suppress(PrometheusError):  # not listening, or not ready yet
            if len(prometheus.query("up")) == targets:
                return
        time.sleep(0.1)
    last = (log.read_text(encoding="utf-8", errors="replace").strip().splitlines() or ["no answer"])[-1]
    raise PrometheusError(f"prometheus did not start: {last}")

"""A real Prometheus that scrapes one Triton as a PodMonitor would have it scraped."""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import yaml
from deepfake_deploy.embedded.ports import reserved_ports

from tests.support.programs import require_program

START_SECONDS = 60
# 10 in the PodMonitor; a test has less time.
SCRAPE_SECONDS = 1


@dataclass(frozen=True)
class Prometheus:
    url: str

    def query(self, expression: str) -> dict[str, float]:
        """Value of an instant query by the label `pod`, "" where the answer has none; {} when nothing answers it."""
        parameters = urllib.parse.urlencode({"query": expression})
        try:
            with urllib.request.urlopen(f"{self.url}/api/v1/query?{parameters}", timeout=30) as response:
                answer = json.load(response)
        except urllib.error.HTTPError as error:
            raise AssertionError(f"{expression}: {error.read().decode()}") from None
        return {found["metric"].get("pod", ""): float(found["value"][1]) for found in answer["data"]["result"]}


@contextlib.contextmanager
def scraping(metrics_url: str, labels: dict[str, str], job: str, folder: Path) -> Iterator[Prometheus]:
    """Scrape `metrics_url` with the labels that its pod would have, until the end of the block."""
    folder.mkdir()
    with reserved_ports("127.0.0.1", {"web": 0}) as ports:
        target = {"targets": [urllib.parse.urlsplit(metrics_url).netloc], "labels": labels}
        configuration = {
            "global": {"scrape_interval": f"{SCRAPE_SECONDS}s", "scrape_timeout": f"{SCRAPE_SECONDS}s"},
            "scrape_configs": [{"job_name": job, "static_configs": [target]}],
        }
        (folder / "prometheus.yml").write_text(yaml.safe_dump(configuration))
        with (folder / "log").open("w") as log:
            process = subprocess.Popen(
                [
                    require_program("prometheus"),
                    f"--config.file={folder / 'prometheus.yml'}",
                    f"--storage.tsdb.path={folder / 'data'}",
                    f"--web.listen-address=127.0.0.1:{ports['web']}",
                ],
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        found = Prometheus(f"http://127.0.0.1:{ports['web']}")
        try:
            _wait_until_ready(found, process, folder / "log")
            yield found
        finally:
            process.kill()
            process.wait()
            shutil.rmtree(folder)


def _wait_until_ready(found: Prometheus, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while True:
        with contextlib.suppress(OSError):
            urllib.request.urlopen(f"{found.url}/-/ready", timeout=5).close()
            return
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.1)

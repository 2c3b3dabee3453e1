"""A real Prometheus that scrapes Tritons as a PodMonitor would have them scraped."""

from __future__ import annotations

import contextlib
import http.server
import json
import subprocess
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from deepfake_deploy.embedded.ports import reserved_ports

from tests.support.programs import require_program

START_SECONDS = 60
# 10 in the PodMonitor; a test has less time.
SCRAPE_SECONDS = 1


@dataclass(frozen=True)
class Prometheus:
    url: str

    def query(self, expression: str, ago_seconds: float = 0) -> dict[str, float]:
        """Value of an instant query by the label `pod`, "" where the answer has none; {} when nothing answers it."""
        parameters = urllib.parse.urlencode({"query": expression, "time": time.time() - ago_seconds})
        try:
            with urllib.request.urlopen(f"{self.url}/api/v1/query?{parameters}", timeout=30) as response:
                answer = json.load(response)
        except urllib.error.HTTPError as error:
            raise AssertionError(f"{expression}: {error.read().decode()}") from None
        return {found["metric"].get("pod", ""): float(found["value"][1]) for found in answer["data"]["result"]}


def evaluated_rules(url: str) -> list[dict[str, Any]]:
    """Every rule as a Prometheus describes it, with `name`, `health` and, where it failed, `lastError`."""
    with urllib.request.urlopen(f"{url}/api/v1/rules", timeout=30) as response:
        return [rule for group in json.load(response)["data"]["groups"] for rule in group["rules"]]


@contextlib.contextmanager
def scraping(pods: Sequence[tuple[str, dict[str, str]]], folder: Path) -> Iterator[Prometheus]:
    """Scrape each metrics' URL of `pods` with the labels that the pod would have, until the end of the block."""
    program, configuration, log = require_program("prometheus"), folder / "prometheus.yml", folder / "log"
    folder.mkdir()
    targets = [{"targets": [urllib.parse.urlsplit(url).netloc], "labels": labels} for url, labels in pods]
    interval = f"{SCRAPE_SECONDS}s"
    settings = {
        "global": {"scrape_interval": interval, "scrape_timeout": interval},
        "scrape_configs": [{"job_name": "deepfake-vs-real", "static_configs": targets}],
    }
    configuration.write_text(yaml.safe_dump(settings))
    with reserved_ports("127.0.0.1", {"web": 0}) as ports, log.open("w") as output:
        address = f"127.0.0.1:{ports['web']}"
        command = [program, f"--config.file={configuration}", f"--storage.tsdb.path={folder / 'data'}"]
        process = subprocess.Popen([*command, f"--web.listen-address={address}"], stdout=output, stderr=output)
        try:
            _wait_until_ready(f"http://{address}/-/ready", process, log)
            yield Prometheus(f"http://{address}")
        finally:
            process.kill()
            process.wait()


def _wait_until_ready(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while True:
        with contextlib.suppress(OSError):
            urllib.request.urlopen(url, timeout=5).close()
            return
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.1)


@contextlib.contextmanager
def exporting(series: Callable[[], str]) -> Iterator[str]:
    """http:// URL at which each scrape gets what `series` gives at that moment."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = series().encode()
            with contextlib.suppress(ConnectionError):  # a scrape that had no more patience
                self.send_response(200)
                self.send_header("Content-Type", "text/plain; version=0.0.4")
                self.end_headers()
                self.wfile.write(body)

        def log_message(self, *_: object) -> None: ...

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, name="exporter").start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/metrics"
        finally:
            server.shutdown()

"""A Prometheus of its own on loopback, from the system's package, as a context manager."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType

from deepfake_deploy.embedded.end_with_parent import ending_with_this_process
from deepfake_deploy.embedded.ports import reserved_ports

from .api import LOOPBACK, PrometheusApi, PrometheusError
from .configuration import Target, write_configuration
from .rules import shortened

_READY_SECONDS = 60.0
_STOP_SECONDS = 10.0


def require_prometheus() -> str:
    """Path of the program.

    Raises:
        PrometheusError: it is not installed.
    """
    program = shutil.which("prometheus")
    if program is None:
        raise PrometheusError("prometheus is not installed; on Debian and Ubuntu: apt-get install prometheus")
    return program


class LocalPrometheus(PrometheusApi):
    """A running Prometheus that scrapes `targets` and evaluates the rules of `rules_folder`; its data goes with it.

    Args:
        targets: what to scrape.
        rules_folder: deploy/observability.
        objectives: recorded series → value in place of that of objectives-prometheusrule.yaml.
        scrape_interval: as Prometheus writes it.
        faster: divides every duration, the scrape interval and the reach of an instant query included: at 60 a minute is
            a second long.
    """

    def __init__(
        self,
        targets: Sequence[Target],
        rules_folder: Path,
        *,
        objectives: Mapping[str, float] | None = None,
        scrape_interval: str = "15s",
        faster: int = 1,
    ) -> None:
        super().__init__(port=0)
        self._targets = targets
        self._rules_folder = rules_folder
        self._objectives = objectives or {}
        self._scrape_interval = shortened(scrape_interval, faster)
        self._faster = faster
        self._resources = contextlib.ExitStack()

    def start(self) -> None:
        """Start it, and return once it has tried every target (it takes up new ones every five seconds).

        Raises:
            PrometheusError: it is not installed, refuses its configuration, or does not answer in time.
        """
        program = require_prometheus()
        with reserved_ports(LOOPBACK, {"prometheus": 0}) as ports, contextlib.ExitStack() as resources:
            self.port = ports["prometheus"]
            folder = Path(resources.enter_context(tempfile.TemporaryDirectory(prefix="deepfake-prometheus-")))
            configuration = write_configuration(
                folder, self._targets, self._rules_folder, self._objectives, self._scrape_interval, self._faster
            )
            log = folder / "prometheus.log"
            process = subprocess.Popen(  # noqa: S603 - the system's program with our own arguments
                ending_with_this_process(
                    [
                        program,
                        f"--config.file={configuration}",
                        f"--storage.tsdb.path={folder / 'data'}",
                        f"--web.listen-address={LOOPBACK}:{self.port}",
                        f"--query.lookback-delta={shortened('5m', self._faster)}",
                        "--log.level=warn",
                    ]
                ),
                stdin=subprocess.DEVNULL,
                stdout=resources.enter_context(log.open("wb")),
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C reaches us alone, and we stop it in order
            )
            resources.callback(_end, process)
            self._wait_until_scraped(process, log)
            self._resources = resources.pop_all()

    def stop(self) -> None:
        """End it and remove its data."""
        self._resources.close()

    def __enter__(self) -> LocalPrometheus:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    def _wait_until_scraped(self, process: subprocess.Popen[bytes], log: Path) -> None:
        deadline = time.monotonic() + _READY_SECONDS
        while process.poll() is None and time.monotonic() < deadline:
            if self.ready() and len(self.query("up")) == len(self._targets):
                return
            time.sleep(0.1)
        last = (log.read_text(errors="replace").strip().splitlines() or ["no answer"])[-1]
        raise PrometheusError(f"prometheus did not start: {last}")


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(_STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()

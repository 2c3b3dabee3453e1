"""Start the embedded Triton, a Prometheus with the project's rules and a short load, and print where to look.

python -m loadtests.observability.observe [--load-seconds 120]
"""

from __future__ import annotations

import os
import signal
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import click
from deepfake_cli.console import INTERRUPTED, StepProgress, fail, say, tell, waiting
from deepfake_cli.demo import prepare_weights
from deepfake_deploy.embedded import EmbeddedTriton, EmbeddedTritonError
from deepfake_deploy.embedded.installation import cuda_device_count
from deepfake_deploy.export import ExportError

from loadtests.observability.load import Callers
from loadtests.observability.prometheus import (
    CPU_OBJECTIVES,
    Prometheus,
    PrometheusError,
    local_prometheus,
    read_groups,
    require_prometheus,
    target,
)


@click.command()
@click.option("--repository", type=click.Path(path_type=Path), default=Path("model_repository"), show_default=True)
@click.option("--rules", type=click.Path(path_type=Path), default=Path("deploy/observability"), show_default=True)
@click.option(
    "--load-seconds",
    type=click.IntRange(0, 86400),
    default=120,
    show_default=True,
    help="How long to send images; the rules look at the last two to five minutes.",
)
def observe(repository: Path, rules: Path, load_seconds: int) -> None:
    """See Triton's metrics and the project's rules move, until Ctrl-C or SIGTERM."""
    try:
        require_prometheus()
        groups = read_groups(rules, {} if cuda_device_count() else CPU_OBJECTIVES)
        server = EmbeddedTriton(repository, latency_summaries=True, drain_seconds=10)
        with ExitStack() as running:
            running.callback(server.stop)
            running.callback(_handle_signals, signal.SIG_IGN)  # a second one must not leave half of it running
            _handle_signals(signal.default_int_handler)
            status = INTERRUPTED
            try:
                prometheus = _start(server, running, repository, groups)
                status = 0  # from here on a signal is what should end it
                _print_addresses(server, prometheus.url)
                with Callers(server.grpc_url, mixed=True):
                    say(f"Sending images for {load_seconds} s; Ctrl-C stops it all")
                    _wait(server, load_seconds)
                say("The load is over; Triton and Prometheus stay until Ctrl-C")
                _wait(server)
            except KeyboardInterrupt:
                say("Stopping")
                sys.exit(status)
    except (ExportError, EmbeddedTritonError, PrometheusError) as error:
        fail(str(error))


def _start(server: EmbeddedTriton, running: ExitStack, repository: Path, groups: list[dict[str, Any]]) -> Prometheus:
    with StepProgress() as progress:
        say(prepare_weights(repository, progress)[1])
    with waiting("Starting Triton and loading the model"):
        server.start()
    with waiting("Starting Prometheus"):
        return running.enter_context(local_prometheus([target(server.metrics_url)], groups, scrape_interval="5s"))


def _handle_signals(handler: Any) -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, handler)


def _print_addresses(server: EmbeddedTriton, prometheus: str) -> None:
    command = os.path.relpath(Path(sys.executable).with_name("deepfake"))
    addresses = {
        "Triton's metrics": server.metrics_url,
        "Prometheus": prometheus,
        "Alerts": f"{prometheus}/classic/alerts",  # the pages that Debian's package has
        "Rules": f"{prometheus}/classic/rules",
        "Your own images": f"{command} classify PATH... --url {server.grpc_url}",
    }
    for name, address in addresses.items():
        tell(f"{name:<25}{address}")
    sys.stdout.flush()


def _wait(server: EmbeddedTriton, seconds: float = float("inf")) -> None:
    """For so long; raises EmbeddedTritonError when the server is not well."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        time.sleep(0.5)
        if server.wait(timeout_seconds=0) is not None:
            raise EmbeddedTritonError("Triton ended by itself; the lines above are its log")
        if server.lost_workers():
            raise EmbeddedTritonError("a worker process of the server died; start it again")


if __name__ == "__main__":
    observe()

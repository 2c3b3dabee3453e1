"""Start the embedded Triton, a Prometheus with the project's rules and a short load, and print where to look."""

from __future__ import annotations

import signal
import sys
import time
from pathlib import Path

import click
from deepfake_cli.console import INTERRUPTED, fail, say, waiting
from deepfake_cli.demo_weights import prepare_weights
from deepfake_cli.here import deepfake_command
from deepfake_cli.progress import StepProgress
from deepfake_deploy.embedded import EmbeddedTriton, EmbeddedTritonError
from deepfake_deploy.embedded.installation import cuda_device_count
from deepfake_deploy.export import ExportError

from .api import PrometheusError
from .configuration import Target
from .load import Load
from .prometheus import LocalPrometheus, require_prometheus
from .rules import CPU_OBJECTIVES, read_groups

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
# What a newcomer may want to ask, beside the pages that Prometheus itself offers.
QUERIES = {
    "Requests per second": "sum by (model) (rate(nv_inference_request_success[1m]))",
    "Mean time in the server": "namespace_model:nv_inference_request_duration_seconds:mean2m",
    "Requests that wait": "namespace_pod_model:nv_inference_pending_request_count:sum",
}


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
    server = EmbeddedTriton(repository, latency_summaries=True, drain_seconds=5)
    prometheus: LocalPrometheus | None = None
    status = INTERRUPTED
    handlers = {number: signal.signal(number, signal.default_int_handler) for number in _SIGNALS}
    try:
        require_prometheus()
        read_groups(rules, {}, faster=1)  # what is wrong with them is said before anything starts
        with StepProgress() as progress:
            say(prepare_weights(repository, progress)[1])
        with waiting("Starting Triton and loading the model"):
            server.start()
        target = Target(server.metrics_url.removeprefix("http://").removesuffix("/metrics"))
        objectives = {} if cuda_device_count() else CPU_OBJECTIVES
        prometheus = LocalPrometheus([target], rules, objectives=objectives, scrape_interval="5s")
        with waiting("Starting Prometheus"):
            prometheus.start()
        status = 0  # from here on a signal is what should end it
        _print_addresses(server, prometheus, load_seconds)
        with Load(server.grpc_url, load_seconds) as load:
            status = _wait(server, load)
    except KeyboardInterrupt:
        say("Stopping")
    except (ExportError, EmbeddedTritonError, PrometheusError) as error:
        fail(str(error))
    finally:
        for number in _SIGNALS:
            signal.signal(number, signal.SIG_IGN)  # a second one must not leave half of it running; this takes seconds
        if prometheus is not None:
            prometheus.stop()
        server.stop()
        for number, handler in handlers.items():
            signal.signal(number, handler)
    sys.exit(status)


def _print_addresses(server: EmbeddedTriton, prometheus: LocalPrometheus, load_seconds: int) -> None:
    addresses = {
        "Triton's metrics": server.metrics_url,
        "Prometheus": prometheus.url,
        "Alerts": f"{prometheus.url}/alerts",
        "Rules": f"{prometheus.url}/rules",
        **{name: prometheus.graph(expression) for name, expression in QUERIES.items()},
        "Your own images": deepfake_command(f"classify PATH… --url {server.grpc_url}"),
    }
    for name, address in addresses.items():
        click.echo(f"{name:<25}{address}")
    sys.stdout.flush()
    say(f"Sending two images a second for {load_seconds} s; Ctrl-C stops it all")


def _wait(server: EmbeddedTriton, load: Load) -> int:
    """Until the server ends by itself; a signal interrupts it."""
    told = False
    while True:
        time.sleep(0.5)
        if load.over and not told:
            told = True
            say("The load is over; Triton and Prometheus stay until Ctrl-C")
        if server.wait(timeout_seconds=0) is not None:
            say("deepfake: Triton ended by itself; the lines above are its log")
            return 1
        if server.lost_workers():
            say("deepfake: a worker process of the server died; start it again")
            return 1


if __name__ == "__main__":
    observe()

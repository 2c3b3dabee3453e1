"""`deepfake serve`."""

from __future__ import annotations

import re
import signal
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .console import fail, say, waiting
from .options import repository_option

if TYPE_CHECKING:
    from deepfake_deploy.embedded import EmbeddedTriton

_LOOPBACK = ("127.0.0.1", "localhost")
_PORT = click.IntRange(0, 65535)
_PEM_FILE = click.Path(exists=True, dir_okay=False, readable=True, path_type=Path)


_UNITS = {"": 1, "KIB": 1 << 10, "MIB": 1 << 20, "GIB": 1 << 30, "KB": 10**3, "MB": 10**6, "GB": 10**9}


class Size(click.ParamType[int]):
    """`256MiB`, `1GB`, `1048576`, as bytes."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        match = re.fullmatch(r"(\d+)\s*([A-Za-z]*)", str(value).strip())
        if match is None or match[2].upper() not in _UNITS:
            self.fail(f"{value!r} is no size; write it like 256MiB or 1GB", param, ctx)
        return int(match[1]) * _UNITS[match[2].upper()]


@click.command()
@repository_option("Model repository to serve.")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to bind to.")
@click.option("--http-port", type=_PORT, default=8000, show_default=True, help="0 picks a free one.")
@click.option("--grpc-port", type=_PORT, default=8001, show_default=True, help="0 picks a free one.")
@click.option("--metrics-port", type=_PORT, default=8002, show_default=True, help="0 picks a free one.")
@click.option(
    "--drain-seconds",
    type=click.IntRange(1, 3600),
    default=30,
    show_default=True,
    help="At a stop, how long requests in flight may take, and HTTP callers may stay connected.",
)
@click.option(
    "--response-cache",
    "response_cache_bytes",
    type=Size(),
    default="0",
    metavar="SIZE",
    help="Keep answers to answer equal requests with, in so much memory: 256MiB, say. Off by default.",
)
@click.option(
    "--grpc-tls-cert", type=_PEM_FILE, help="Certificate for TLS on gRPC. HTTP then answers health checks only."
)
@click.option("--grpc-tls-key", type=_PEM_FILE, help="Its key.")
@click.option("--grpc-tls-client-ca", type=_PEM_FILE, help="Callers must show a certificate of this CA (mutual TLS).")
@click.option(
    "--poll-seconds",
    type=click.IntRange(0, 86400),
    default=0,
    show_default=True,
    help="Look so often for new and removed model versions; 0 serves what is there at the start.",
)
@click.option(
    "--latency-summaries", is_flag=True, help="Quantiles of the time in the queue and in the model among the metrics."
)
@click.option(
    "--trace-otlp",
    "trace_otlp_url",
    metavar="URL",
    help="Send spans of requests with a W3C trace context to this OpenTelemetry collector: http://127.0.0.1:4318/v1/traces, say.",
)
@click.option("--verbose", is_flag=True, help="The server's whole log on stderr, not only its errors.")
def command(
    repository: Path,
    host: str,
    drain_seconds: int,
    grpc_tls_cert: Path | None,
    grpc_tls_key: Path | None,
    grpc_tls_client_ca: Path | None,
    trace_otlp_url: str | None,
    **options: Any,
) -> None:
    """Serve the model repository with the embedded Triton, in the foreground, until Ctrl-C or SIGTERM."""
    from deepfake_deploy.embedded import EmbeddedTriton, EmbeddedTritonError, TlsFiles

    if (grpc_tls_cert is None) != (grpc_tls_key is None) or (grpc_tls_client_ca and grpc_tls_cert is None):
        raise click.UsageError("--grpc-tls-cert and --grpc-tls-key go together, --grpc-tls-client-ca with both")
    if trace_otlp_url is not None and not re.fullmatch(r"https?://[^/\s]+/\S+", trace_otlp_url):
        raise click.UsageError(
            "--trace-otlp must be the URL of a collector's traces, as http://127.0.0.1:4318/v1/traces"
        )
    tls = TlsFiles(grpc_tls_cert, grpc_tls_key, grpc_tls_client_ca) if grpc_tls_cert and grpc_tls_key else None
    server = EmbeddedTriton(
        repository, host=host, drain_seconds=drain_seconds, tls=tls, trace_otlp_url=trace_otlp_url, **options
    )
    try:
        with waiting("Starting Triton and loading the model"):
            server.start()
    except EmbeddedTritonError as error:
        fail(str(error))
    if host not in _LOOPBACK and grpc_tls_client_ca is None:
        say(f"Listening on {host}: whoever reaches these ports can classify, there is no authentication.")
    sys.exit(_serve_until_stopped(server, drain_seconds))


def _serve_until_stopped(server: EmbeddedTriton, drain_seconds: int) -> int:
    """Wait for a signal or the server's own end; a second signal cuts the draining short."""
    stop = threading.Event()
    signals = 0

    def on_signal(*_: object) -> None:
        nonlocal signals
        signals += 1
        stop.set()

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, on_signal)
    say(f"Ready: {server.http_url}  {server.grpc_url}  {server.metrics_url}  (Ctrl-C stops)")
    try:
        while not stop.is_set():
            if (status := server.wait(timeout_seconds=0.5)) is not None:
                say(f"deepfake: Triton ended by itself with status {status}; --verbose shows its log")
                return 1
            if server.lost_workers():
                # Triton would stay «ready» and fail every request of that model; whoever runs us can start us anew.
                say("deepfake: a worker process of the server died, so it is ended; start it again")
                return 1
        say(f"Stopping; requests in flight and connected HTTP callers have {drain_seconds} s (again to stop at once)")
        server.begin_stop()
        while signals < 2 and server.wait(timeout_seconds=0.05) is None:
            pass
    finally:
        server.kill()
    say("Stopped")
    return 0

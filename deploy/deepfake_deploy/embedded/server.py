"""The embedded Triton as a process: start, wait until ready, drain, stop, and leave nothing behind."""

from __future__ import annotations

import contextlib
import http.client
import os
import secrets
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import IO

from .accelerator import cuda_device_count
from .command import ServerOptions, TlsFiles, server_arguments, server_environment, write_backend_directory
from .connections import refuse_further_requests
from .end_with_parent import ending_with_this_process
from .errors import EmbeddedTritonError
from .installation import Installation, find_installation
from .log import LogReader
from .ports import reserved_ports, resolve
from .repository import check_repository
from .workers import dead_workers

LOOPBACK = "127.0.0.1"


class EmbeddedTriton:
    """A real `tritonserver` of its own on this machine, as a context manager.

    Args:
        repository: model repository; its TorchScript models must have been exported.
        host: IPv4 address to bind to, or a name of one; loopback unless told otherwise.
        http_port, grpc_port, metrics_port: 0 picks a free one.
        drain_seconds: at a stop, how long requests in flight may take to finish.
        response_cache_bytes: memory for answers to requests that were answered before; 0 keeps none.
        tls: certificate and key for gRPC. HTTP, which has no TLS, then only tells whether the server is alive and ready.
        poll_seconds: how often to look for new and removed model versions; 0 serves what is there at the start.
        latency_summaries: quantiles of queue and compute time among the metrics.
        trace_otlp_url: http:// URL of an OpenTelemetry collector's traces (OTLP/HTTP), to which the spans of requests go
            that carry a W3C trace context; None traces nothing.
        verbose: pass the whole server log on, not only errors.
        log: where the server's log goes; stderr when None.

    A machine with a CUDA device reads each model's config.pbtxt, one without its configs/cpu.pbtxt.
    Start it from a thread that outlives it: the kernel ends the server together with that thread.
    """

    def __init__(
        self,
        repository: str | os.PathLike[str] = "model_repository",
        *,
        host: str = LOOPBACK,
        http_port: int = 0,
        grpc_port: int = 0,
        metrics_port: int = 0,
        drain_seconds: int = 30,
        response_cache_bytes: int = 0,
        tls: TlsFiles | None = None,
        poll_seconds: int = 0,
        latency_summaries: bool = False,
        trace_otlp_url: str | None = None,
        verbose: bool = False,
        log: IO[str] | None = None,
    ) -> None:
        self._repository = Path(repository)
        self._host = host
        self._wanted_ports = {"http": http_port, "grpc": grpc_port, "metrics": metrics_port}
        self._ports: dict[str, int] = {}
        self._drain_seconds = drain_seconds
        self._response_cache_bytes = response_cache_bytes
        self._tls = tls
        self._poll_seconds = poll_seconds
        self._latency_summaries = latency_summaries
        self._trace_otlp_url = trace_otlp_url
        self._verbose = verbose
        self._log_target = log if log is not None else sys.stderr
        self._log: LogReader | None = None
        self._process: subprocess.Popen[str] | None = None
        self._resources = contextlib.ExitStack()
        self._dead_workers: set[int] = set()
        self._stop_began: float | None = None
        self._shm_prefix = f"deepfake_{os.getpid()}_{secrets.token_hex(4)}"

    @property
    def http_url(self) -> str:
        """http://host:port of the inference API."""
        return f"http://{self._host}:{self._ports['http']}"

    @property
    def grpc_url(self) -> str:
        """grpc://host:port of the inference API; grpcs:// with TLS."""
        return f"{'grpc' if self._tls is None else 'grpcs'}://{self._host}:{self._ports['grpc']}"

    @property
    def metrics_url(self) -> str:
        """http://host:port/metrics, in Prometheus' format."""
        return f"http://{self._host}:{self._ports['metrics']}/metrics"

    @property
    def pid(self) -> int:
        """Process id of `tritonserver`, which is also its process group."""
        return self._running().pid

    def start(self, ready_timeout_seconds: float = 300.0) -> None:
        """Start the server and return once every model is loaded, warmed up and ready.

        The default allows for full-size weights on a slow disk and CPU.

        Raises:
            EmbeddedTritonError: it cannot run here, a port is taken, a model is missing or does not load.
        """
        check_repository(self._repository)
        installation = find_installation()
        if self._tls is not None:
            self._tls.check()
        self._host = resolve(self._host)
        with reserved_ports(self._host, self._wanted_ports) as self._ports:
            self._start(installation, time.monotonic() + ready_timeout_seconds)

    def _start(self, installation: Installation, deadline: float) -> None:
        options = ServerOptions(
            repository=self._repository.resolve(),
            host=self._host,
            ports=self._ports,
            gpu=cuda_device_count() > 0,
            drain_seconds=self._drain_seconds,
            response_cache_bytes=self._response_cache_bytes,
            tls=self._tls,
            poll_seconds=self._poll_seconds,
            latency_summaries=self._latency_summaries,
            trace_otlp_url=self._trace_otlp_url,
            verbose=self._verbose,
        )
        with contextlib.ExitStack() as resources:
            folder = resources.enter_context(tempfile.TemporaryDirectory(prefix="deepfake-triton-"))
            backends = write_backend_directory(Path(folder) / "backends", installation)
            resources.callback(self._remove_shared_memory)
            self._process = subprocess.Popen(  # noqa: S603 - the binary of the installed wheel, no shell
                ending_with_this_process(server_arguments(options, installation, backends, self._shm_prefix)),
                env=server_environment(installation, os.environ),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
                start_new_session=True,  # Ctrl-C reaches us alone, and we stop it in order
            )
            resources.callback(self._end_process)
            assert self._process.stdout is not None  # noqa: S101 - stdout=PIPE above
            self._log = LogReader(self._process.stdout, self._log_target, passing=self._verbose)
            self._wait_until_ready(deadline)
            self._log.pass_on()
            self._resources = resources.pop_all()

    def wait(self, timeout_seconds: float) -> int | None:
        """Exit status of the server once it has ended, or None when it still runs after the timeout."""
        process = self._running()
        if self._stop_began is not None:
            # A caller that sends one request after the other is given less of a pause the longer the drain has lasted.
            share = (time.monotonic() - self._stop_began) / self._drain_seconds
            quiet_milliseconds = 100 if share < 1 / 3 else 10 if share < 2 / 3 else 0
            refuse_further_requests(process.pid, self._ports["http"], quiet_milliseconds)
        try:
            return process.wait(timeout_seconds)
        except subprocess.TimeoutExpired:
            return None

    def lost_workers(self) -> bool:
        """Whether a model's worker process has died, by two calls in a row.

        The server stays ready then and fails that model's requests. One call alone may see a worker that the server
        ended itself and is about to take leave of.
        """
        before, self._dead_workers = self._dead_workers, dead_workers(self.pid)
        return bool(before & self._dead_workers)

    def begin_stop(self) -> None:
        """Ask the server to take no new connections, finish the requests in flight and exit; returns at once.

        `wait` then helps it to part from callers that keep their connections.
        """
        if self._process is not None and self._process.poll() is None:
            self._stop_began = time.monotonic()
            self._process.send_signal(signal.SIGTERM)

    def stop(self) -> None:
        """Drain for at most `drain_seconds`, then end the server and whatever processes it left."""
        self.begin_stop()
        # Triton ends itself when its own timeout runs out; the margin is for unloading the models after it.
        deadline = time.monotonic() + self._drain_seconds + 5
        while self._process is not None and self.wait(0.2) is None and time.monotonic() < deadline:
            pass
        self.kill()

    def kill(self) -> None:
        """End the server and its stubs at once, requests in flight or not."""
        self._resources.close()
        self._process = None

    def __enter__(self) -> EmbeddedTriton:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    def _running(self) -> subprocess.Popen[str]:
        if self._process is None:
            raise EmbeddedTritonError("the embedded Triton is not running; call start() first")
        return self._process

    def _wait_until_ready(self, deadline: float) -> None:
        process = self._running()
        while process.poll() is None:
            if self._answers_ready():
                return
            if time.monotonic() > deadline:
                raise EmbeddedTritonError("the embedded Triton was not ready in time; see its log with --verbose")
            time.sleep(0.1)
        raise EmbeddedTritonError(self._failure(process.returncode))

    def _answers_ready(self) -> bool:
        # The metrics are what the server opens last, and it ends where it cannot.
        return self._answers("http", "/v2/health/ready") and self._answers("metrics", "/metrics")

    def _answers(self, purpose: str, path: str) -> bool:
        connection = http.client.HTTPConnection(_reachable(self._host), self._ports[purpose], timeout=2)
        try:
            connection.request("GET", path)
            return connection.getresponse().status == 200
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()

    def _failure(self, status: int) -> str:
        log = self._log
        assert log is not None  # noqa: S101 - the process has been started
        log.join(timeout_seconds=5)
        if failure := log.load_failure():
            return f"a model did not load: {failure}; see the whole log with --verbose"
        how = f"killed by signal {-status}" if status < 0 else f"exit status {status}"
        reason = ", ".join(filter(None, [log.last_error(), how]))
        return f"the embedded Triton ended before it was ready: {reason}; see the whole log with --verbose"

    def _end_process(self) -> None:
        process = self._running()
        # The group outlives its leader while a stub does.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        if self._log is not None:
            self._log.join(timeout_seconds=5)
        if process.stdout is not None:
            process.stdout.close()

    def _remove_shared_memory(self) -> None:
        for region in Path("/dev/shm").glob(f"{self._shm_prefix}*"):  # noqa: S108 - the stub's own choice
            region.unlink(missing_ok=True)


def _reachable(host: str) -> str:
    """An address under which a server bound to `host` answers."""
    return LOOPBACK if host == "0.0.0.0" else host  # noqa: S104 - a comparison, nothing is bound

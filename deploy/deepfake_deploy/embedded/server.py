"""The embedded Triton as a process: start, wait until ready, drain, stop, and leave nothing behind."""

from __future__ import annotations

import contextlib
import http.client
import os
import re
import secrets
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from typing import IO

from .command import (
    LOOPBACK,
    TlsFiles,
    ending_with_this_process,
    server_arguments,
    server_environment,
    write_backend_directory,
)
from .installation import EmbeddedTritonError, Installation, cuda_device_count, find_installation
from .ports import reserved_ports, resolve

_READY_SECONDS = 300.0  # for full-size weights on a slow disk and CPU
_LOAD_FAILURE = re.compile(r"failed to load '([^']+)' version (\d+): (.*)")
_ERROR = re.compile(r"E\d{4} [^\]]*\] ?")
# Written at every orderly stop, and at every start, or start of an ensemble, without a GPU.
_EXPECTED = re.compile(
    r"Signal \(\d+\) received\.|.*unable to create stream for .*CUDA driver version is insufficient"
    r"|.*CudaDriverHelper has not been initialized"
)
_TORCHSCRIPT = re.compile(r'^\s*backend:\s*"pytorch"', re.MULTILINE)


@dataclass(eq=False, repr=False)
class EmbeddedTriton:
    """A real `tritonserver` of its own on this machine, as a context manager.

    A machine with a CUDA device reads each model's config.pbtxt, one without its configs/cpu.pbtxt.
    Start it from a thread that outlives it: the kernel ends the server together with that thread.
    """

    repository: str | os.PathLike[str] = "model_repository"
    _: KW_ONLY
    host: str = LOOPBACK
    """IPv4 address to bind to, or a name of one."""
    http_port: int = 0
    """0 picks a free one."""
    grpc_port: int = 0
    metrics_port: int = 0
    drain_seconds: int = 30
    """At a stop, how long requests in flight may take to finish, and HTTP callers may stay connected."""
    response_cache_bytes: int = 0
    """Memory for answers to requests that were answered before; 0 keeps none."""
    tls: TlsFiles | None = None
    """For gRPC. HTTP, which has no TLS, then only tells whether the server is alive and ready."""
    poll_seconds: int = 0
    """How often to look for new and removed model versions; 0 serves what is there at the start."""
    latency_summaries: bool = False
    """Quantiles of queue and compute time among the metrics."""
    trace_otlp_url: str | None = None
    """http:// URL of an OpenTelemetry collector (OTLP/HTTP), for requests that carry a W3C trace context."""
    verbose: bool = False
    """Pass the whole server log on, not only errors."""
    log: IO[str] | None = None
    """Where the server's log goes; stderr when None."""

    def __post_init__(self) -> None:
        self._log: LogReader | None = None
        self._process: subprocess.Popen[str] | None = None
        self._resources = contextlib.ExitStack()
        self._dead_workers: set[int] = set()
        self._shm_prefix = f"deepfake_{os.getpid()}_{secrets.token_hex(4)}"

    @property
    def http_url(self) -> str:
        return f"http://{self.host}:{self.http_port}"

    @property
    def grpc_url(self) -> str:
        return f"{'grpcs' if self.tls else 'grpc'}://{self.host}:{self.grpc_port}"

    @property
    def metrics_url(self) -> str:
        return f"http://{self.host}:{self.metrics_port}/metrics"

    @property
    def pid(self) -> int:
        """Process id of `tritonserver`, which is also its process group."""
        return self._running().pid

    def start(self) -> None:
        """Start the server and return once every model is loaded, warmed up and ready.

        Raises:
            EmbeddedTritonError: it cannot run here, a port is taken, a model is missing or does not load.
        """
        deadline = time.monotonic() + _READY_SECONDS
        check_repository(Path(self.repository))
        installation = find_installation()
        if self.tls is not None:
            self.tls.check()
        self.host = resolve(self.host)
        wanted = {"http": self.http_port, "grpc": self.grpc_port, "metrics": self.metrics_port}
        with reserved_ports(self.host, wanted) as ports:
            self.http_port, self.grpc_port, self.metrics_port = (ports[purpose] for purpose in wanted)
            self._start(installation, deadline)

    def _start(self, installation: Installation, deadline: float) -> None:
        with contextlib.ExitStack() as resources:
            folder = resources.enter_context(tempfile.TemporaryDirectory(prefix="deepfake-triton-"))
            backends = write_backend_directory(Path(folder) / "backends", installation)
            gpu = cuda_device_count() > 0
            repository = _plain_path(Path(self.repository).resolve(), Path(folder))
            arguments = server_arguments(self, installation, repository, backends, self._shm_prefix, gpu=gpu)
            resources.callback(self._remove_shared_memory)
            self._process = subprocess.Popen(  # noqa: S603 - the binary of the installed wheel, no shell
                ending_with_this_process(arguments),
                env=server_environment(installation, os.environ),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                encoding="utf-8",
                errors="replace",
                start_new_session=True,  # Ctrl-C reaches us alone, and we stop it in order
            )
            resources.callback(self._end_process)
            assert self._process.stdout is not None  # noqa: S101 - stdout=PIPE above
            self._log = LogReader(self._process.stdout, self.log or sys.stderr, passing=self.verbose)
            self._wait_until_ready(deadline)
            self._log.passing = True  # a quiet server only writes what somebody should see
            self._resources = resources.pop_all()

    def wait(self, timeout_seconds: float) -> int | None:
        """Exit status of the server once it has ended, or None when it still runs after the timeout."""
        try:
            return self._running().wait(timeout_seconds)
        except subprocess.TimeoutExpired:
            return None

    def lost_workers(self) -> bool:
        """Whether a model's worker process has died, by two calls in a row.

        The server stays ready then and fails that model's requests. One call alone may see a worker that the server
        ended itself and is about to take leave of.
        """
        before, self._dead_workers = self._dead_workers, _dead_children(self.pid)
        return bool(before & self._dead_workers)

    def begin_stop(self) -> None:
        """Ask the server to take no new connections, finish the requests in flight and exit; returns at once."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)

    def stop(self) -> None:
        """Drain for at most `drain_seconds`, then end the server and whatever processes it left."""
        self.begin_stop()
        if self._process is not None:
            # Triton ends itself when its own timeout runs out; the margin is for unloading the models after it.
            self.wait(self.drain_seconds + 5)
        self.kill()

    def kill(self) -> None:
        """End the server and its stubs at once, requests in flight or not."""
        self._resources.close()
        self._process = None

    def __enter__(self) -> EmbeddedTriton:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _running(self) -> subprocess.Popen[str]:
        if self._process is None:
            raise EmbeddedTritonError("the embedded Triton is not running; call start() first")
        return self._process

    def _wait_until_ready(self, deadline: float) -> None:
        process = self._running()
        while process.poll() is None:
            # The metrics are what the server opens last, and it ends where it cannot.
            if self._answers(self.http_port, "/v2/health/ready") and self._answers(self.metrics_port, "/metrics"):
                return
            if time.monotonic() > deadline:
                raise EmbeddedTritonError("the embedded Triton was not ready in time; see its log with --verbose")
            time.sleep(0.1)
        raise EmbeddedTritonError(self._failure(process.returncode))

    def _answers(self, port: int, path: str) -> bool:
        reachable = LOOPBACK if self.host == "0.0.0.0" else self.host  # noqa: S104 - a comparison, nothing is bound
        connection = http.client.HTTPConnection(reachable, port, timeout=2)
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
        how = f"killed by signal {-status}" if status < 0 else f"exit status {status}"
        reason = ", ".join(filter(None, [log.failure(), how]))
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


class LogReader:
    """Reads the server's output in a thread, so that its pipe never fills.

    Lines go to `target` once `passing` is true. Until then they are only kept, so that a failed start is told in one
    sentence.
    """

    KEPT_LINES = 200  # enough to hold a traceback of the stub; bounds the memory of a server that runs for months

    def __init__(self, stream: IO[str], target: IO[str], *, passing: bool) -> None:
        self.passing = passing
        self._lines: deque[str] = deque(maxlen=self.KEPT_LINES)
        self._target = target
        self._thread = threading.Thread(target=self._read, args=(stream,), name="triton-log", daemon=True)
        self._thread.start()

    def join(self, timeout_seconds: float) -> None:
        """Wait for the end of the stream."""
        self._thread.join(timeout_seconds)

    def failure(self) -> str | None:
        """In one line the first model that did not load, else the last error."""
        lines = [line for line in self._lines.copy() if not _EXPECTED.match(line)]  # the thread may still write to it
        for match in filter(None, map(_LOAD_FAILURE.search, lines)):
            # The server escapes the line ends of what a stub raised; a traceback follows after the first ones.
            reason = match[3].split("\\n", 1)[0].strip('"; ')
            return f"a model did not load: {match[1]} version {match[2]}: {reason}"
        errors = [line for line in lines if _ERROR.match(line)]
        return _ERROR.sub("", errors[-1]).split("\\n", 1)[0].strip(' \n"') if errors else None

    def _read(self, stream: IO[str]) -> None:
        for line in stream:
            self._lines.append(line.rstrip("\n"))
            if self.passing and not _EXPECTED.match(line):
                try:
                    self._target.write(line)
                    self._target.flush()
                except (OSError, ValueError):
                    # Whoever read our stderr has gone; the server must not stop for want of a reader.
                    self.passing = False


def _plain_path(repository: Path, folder: Path) -> Path:
    """The repository, by a link in `folder` where its path has spaces, quotes or no ASCII.

    Triton 2.51 gives the path to a shell without quotes, and to a Python whose locale may be ASCII.
    """
    if re.fullmatch(r"[\w/.,:=@%+-]+", str(repository), re.ASCII):
        return repository
    link = folder / "model_repository"
    link.symlink_to(repository)
    return link


def check_repository(repository: Path) -> None:
    """Refuse a repository without models, or with a TorchScript model whose weights were never exported."""
    if not repository.is_dir():
        raise EmbeddedTritonError(
            f"{repository}: no such folder; start this in the project's folder, or name one with --repository"
        )
    configurations = sorted(repository.glob("*/config.pbtxt"))
    if not configurations:
        raise EmbeddedTritonError(f"{repository}: not a model repository (no folder in it has a config.pbtxt)")
    for configuration in configurations:
        model = configuration.parent
        try:
            torchscript = _TORCHSCRIPT.search(configuration.read_text(encoding="utf-8", errors="replace"))
        except OSError as error:
            raise EmbeddedTritonError(f"{configuration}: {error.strerror}; it must be a readable file") from None
        if torchscript and not any(path.parent.name.isdigit() for path in model.glob("*/model.pt")):
            raise EmbeddedTritonError(
                f"{model / '1' / 'model.pt'}: not there; write it with `deepfake export` (or, where the weights cannot "
                "be had, `deepfake export --model stand-in`)"
            )


def _dead_children(pid: int) -> set[int]:
    """Stubs of `tritonserver` process `pid` that ended and that it has not taken leave of.

    Triton 2.51 does not start a stub again that died (server #7230, #8604). It takes leave at once of those that it
    ended itself, say with an old version of a model.
    """
    dead: set[int] = set()
    for children in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):  # a thread or child that has just ended
            for child in children.read_text(encoding="utf-8").split():
                status = Path(f"/proc/{child}/stat").read_text(encoding="utf-8", errors="replace")
                if status.rpartition(")")[2].split()[0] == "Z":  # the name in brackets may hold brackets too
                    dead.add(int(child))
    return dead

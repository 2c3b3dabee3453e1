"""Who is measured, how each is set up and called, and its server as a process that leaves nothing behind."""

from __future__ import annotations

import ast
import contextlib
import os
import re
import secrets
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import psutil
from deepfake_deploy.embedded import EmbeddedTriton
from deepfake_deploy.embedded.end_with_parent import ending_with_this_process

from loadtests.capacity.resources import family

from .callers import Call

HOST = "127.0.0.1"
_SERVERS = Path(__file__).with_name("servers")
_READY_SECONDS = 180.0
_STOP_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Contestant:
    """One way to have an image classified."""

    key: str
    """For `--only`, and in peers.json."""
    name: str
    call: Call
    program: str = ""
    """Of servers/; empty for the embedded Triton."""
    fp32_only: bool = False
    warm_up_requests: int = 2
    """One after the other, before it is measured."""

    @property
    def is_triton(self) -> bool:
        return not self.program

    @property
    def setup(self) -> str:
        """One line for the table: what its program says of itself."""
        if not self.is_triton:
            return (ast.get_docstring(ast.parse((_SERVERS / self.program).read_text())) or "").partition("\n")[0]
        return "model_repository/ as it is; " + ("image bytes over HTTP" if self.key == OURS else "pixels over gRPC")


#: What is judged against the peers: it takes what all of them take.
OURS = "triton-image"
_ALL = (
    Contestant(OURS, "embedded Triton, image bytes", "triton-image"),
    Contestant("triton-pixels", "embedded Triton, pixels", "triton-pixels"),
    Contestant("card", "the card's Gradio app", "gradio", "card_app.py", fp32_only=True),
    Contestant("fastapi", "FastAPI + transformers", "file", "fastapi_app.py"),
    Contestant("litserve", "LitServe", "file", "litserve_app.py"),
    # Its dispatcher learns from the first eleven batches, and waits for more meanwhile.
    Contestant("bentoml", "BentoML", "files", "bentoml_app.py", warm_up_requests=12),
    Contestant("ray", "Ray Serve", "body", "ray_app.py"),
)
CONTESTANTS = {each.key: each for each in _ALL}


class ServerError(Exception):
    """A server did not start, or ended, or answers wrongly; the message is one line."""


@contextlib.contextmanager
def running(
    contestant: Contestant, python: Path, checkpoint: Path, repository: Path, precision: str, threads: int
) -> Iterator[tuple[str, int]]:
    """URL and pid of a server, from when it listens until it and all its processes are gone.

    Args:
        python: of the peers' environment.
        repository: of the embedded Triton.
    """
    if not contestant.is_triton:
        with _peer(contestant, python, checkpoint, precision, threads) as found:
            yield found
        return
    server = EmbeddedTriton(repository)
    server.start()
    try:
        yield server.http_url if contestant.key == OURS else server.grpc_url, server.pid
    finally:
        server.kill()


@contextlib.contextmanager
def _peer(
    contestant: Contestant, python: Path, checkpoint: Path, precision: str, threads: int
) -> Iterator[tuple[str, int]]:
    with socket.socket() as listener:
        listener.bind((HOST, 0))
        port = listener.getsockname()[1]
    program = _SERVERS / contestant.program
    command = [str(python), str(program)]
    if contestant.key == "bentoml":
        where = ["--host", HOST, "--port", str(port)]
        command = [str(python), "-m", "bentoml", "serve", f"{program.stem}:Service", *where]
    # A short path: Ray makes sockets under it, whose names the kernel limits to 107 characters.
    with (
        tempfile.TemporaryDirectory(prefix="peers-", ignore_cleanup_errors=True) as folder,
        tempfile.TemporaryFile("w+", errors="replace") as log,
    ):
        environment = {
            **{name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")},
            "PATH": f"{python.parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
            "PEER_CHECKPOINT": str(checkpoint),
            "PEER_PRECISION": precision,
            "PEER_PORT": str(port),
            "PEER_THREADS": str(threads),
            "HF_HUB_OFFLINE": "1",
            "GRADIO_ANALYTICS_ENABLED": "False",
            "GRADIO_TEMP_DIR": f"{folder}/gradio",
            "BENTOML_DO_NOT_TRACK": "True",
            "BENTOML_HOME": f"{folder}/bentoml",
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_TMPDIR": folder,
            "RAY_AUTH_TOKEN": secrets.token_hex(32),  # else it keeps one in the home folder
        }
        process = subprocess.Popen(  # noqa: S603 - programs of this folder, no shell
            ending_with_this_process(command),
            cwd=_SERVERS,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            _wait_until_listening(process, port, log)
            yield f"http://{HOST}:{port}", process.pid
        finally:
            _end(process)


def _wait_until_listening(process: subprocess.Popen[bytes], port: int, log: IO[str]) -> None:
    deadline = time.monotonic() + _READY_SECONDS
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise ServerError(f"it ended with status {process.returncode}: {_last_words(log)}")
        with contextlib.suppress(OSError), socket.create_connection((HOST, port), timeout=1):
            return
        time.sleep(0.2)
    raise ServerError(f"it did not listen within {_READY_SECONDS:.0f} s: {_last_words(log)}")


def _last_words(log: IO[str]) -> str:
    """The last line that looks like a reason, or the last at all."""
    log.seek(0)
    lines = [line.strip() for line in log if line.strip()]
    reasons = [line for line in lines if re.match(r"[\w.]*(Error|Exception)\b", line)]
    return (reasons or lines or ["it said nothing"])[-1][:300]


def _end(process: subprocess.Popen[bytes]) -> None:
    """Asks it to end, waits, and kills what is left: descendants, and orphans in its process group."""
    before = family(process.pid)
    process.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(_STOP_SECONDS)
    rest = {*before, *family(process.pid)}
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    for each in rest:
        with contextlib.suppress(psutil.Error):
            each.kill()
    psutil.wait_procs(list(rest), timeout=_STOP_SECONDS)
    process.wait()

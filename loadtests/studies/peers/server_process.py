"""A server as a process with all that it starts: begun, watched for its memory, and ended without a rest."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import psutil
from deepfake_deploy.embedded import end_with_parent

from .contestants import Contestant

HOST = "127.0.0.1"
_SERVERS = Path(__file__).with_name("servers")
_READY_SECONDS = 180.0
_STOP_SECONDS = 10.0
_MEMORY_EVERY_SECONDS = 1.0


class ServerError(Exception):
    """A server did not start, or ended; the message is one line."""


@contextlib.contextmanager
def running(
    contestant: Contestant, python: Path, checkpoint: Path, precision: str, threads: int
) -> Iterator[tuple[str, int]]:
    """URL and pid of a peer's server, from when it listens until it and all its processes are gone.

    Args:
        python: of the peers' environment.

    Raises:
        ServerError: it ended, or does not listen in time.
    """
    port = _free_port()
    program = _SERVERS / contestant.program
    command = [str(python), str(program)]
    if contestant.key == "bentoml":
        command = [
            str(python),
            "-m",
            "bentoml",
            "serve",
            f"{program.stem}:Service",
            "--host",
            HOST,
            "--port",
            str(port),
        ]
    # A short path: Ray makes sockets under it, whose names the kernel limits to 107 characters.
    with tempfile.TemporaryDirectory(prefix="peers-", ignore_cleanup_errors=True) as folder:
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
        with tempfile.TemporaryFile("w+", errors="replace") as log:
            process = subprocess.Popen(  # noqa: S603 - programs of this folder, no shell
                [str(python), "-I", "-S", end_with_parent.__file__, str(os.getpid()), *command],
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


class PeakMemory:
    """The most memory that a process and its descendants held together, looked at once a second, as a context manager.

    Counted is the proportional set size: a page that several processes share counts once. Looking at it costs some
    milliseconds.
    """

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self.mib = 0.0

    def __enter__(self) -> PeakMemory:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _watch(self) -> None:
        while True:
            self.mib = max(self.mib, tree_mib(self._pid))
            if self._ended.wait(_MEMORY_EVERY_SECONDS):
                return


def tree_mib(pid: int) -> float:
    """Proportional set size of a process and its descendants."""
    total = 0
    for each in tree(pid):
        with contextlib.suppress(psutil.Error):
            total += each.memory_full_info().pss
    return total / 2**20


def tree(pid: int) -> list[psutil.Process]:
    """A process and its descendants, as far as they run."""
    try:
        first = psutil.Process(pid)
        return [first, *first.children(recursive=True)]
    except psutil.Error:
        return []


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind((HOST, 0))
        port: int = listener.getsockname()[1]
        return port


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
    """Asks it to end, waits, and ends what is left of it: its session, and descendants with sessions of their own."""
    family = tree(process.pid)
    process.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(_STOP_SECONDS)
    family += [each for each in (*tree(process.pid), *_session(process.pid)) if each not in family]
    for each in family:
        with contextlib.suppress(psutil.Error):
            each.kill()
    psutil.wait_procs(family, timeout=_STOP_SECONDS)
    process.wait()


def _session(leader: int) -> list[psutil.Process]:
    """Processes of a session, whose leader may have ended and left them to nobody."""
    found = []
    for pid in psutil.pids():
        with contextlib.suppress(OSError, psutil.Error):
            if os.getsid(pid) == leader:
                found.append(psutil.Process(pid))
    return found

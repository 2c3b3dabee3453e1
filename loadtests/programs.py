"""A program in a process of its own, from when it is ready until it and all its descendants are gone."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from typing import IO, Any

import psutil
from deepfake_deploy.embedded.command import ending_with_this_process

from loadtests.capacity.resources import family

_STOP_SECONDS = 10.0


@contextlib.contextmanager
def running(
    command: Sequence[str], ready: Callable[[], bool], patience_seconds: float, **options: Any
) -> Iterator[subprocess.Popen[bytes]]:
    """Starts a program with the options of subprocess.Popen, and asks `ready` until it is.

    Raises:
        ChildProcessError: it ended, or was not ready in time; with the last line of its log, an error if there is one.
    """
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as log:
        process = subprocess.Popen(  # noqa: S603 - the callers' own programs, no shell
            ending_with_this_process(command),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C reaches us alone, and we end it in order
            **options,
        )
        try:
            deadline = time.monotonic() + patience_seconds
            while not ready():
                if process.poll() is not None or time.monotonic() > deadline:
                    raise ChildProcessError(_failure(process, log))
                time.sleep(0.1)
            yield process
        finally:
            _end(process)


def _failure(process: subprocess.Popen[bytes], log: IO[str]) -> str:
    what = "was not ready in time" if process.poll() is None else f"ended with status {process.returncode}"
    log.seek(0)
    lines = [line.strip() for line in log if line.strip()]
    reasons = [line for line in lines if "Error" in line] or lines or ["it said nothing"]
    return f"it {what}: {reasons[-1][:300]}"


def _end(process: subprocess.Popen[bytes]) -> None:
    """Asks it to end, waits, and kills what is left: descendants, and orphans in its process group."""
    processes = family(process.pid)
    process.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(_STOP_SECONDS)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    for each in processes:
        with contextlib.suppress(psutil.Error):
            each.kill()
    psutil.wait_procs(processes, timeout=_STOP_SECONDS)
    process.wait()

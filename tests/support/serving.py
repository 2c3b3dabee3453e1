"""`deepfake serve` as a process of its own, and what it leaves behind."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

DEADLINE_SECONDS = 60


class Serving:
    """A running `deepfake serve`, from its ready line on."""

    def __init__(self, repository: Path, *arguments: str) -> None:
        command = [sys.executable, "-m", "deepfake_cli", "serve", "--repository", str(repository)]
        ports = ["--http-port", "0", "--grpc-port", "0", "--metrics-port", "0"]
        self.process = subprocess.Popen(
            [*command, *ports, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        self.ready_line = self.read_until(r"^Ready: ")
        self.http_url, self.grpc_url, self.metrics_url = re.findall(r"\S+://\S+", self.ready_line)
        self.children = psutil.Process(self.process.pid).children(recursive=True)

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def end(self) -> tuple[int, str, str]:
        """Exit status and what was written to stdout and stderr since the ready line."""
        stdout, stderr = self.process.communicate(timeout=DEADLINE_SECONDS)
        return self.process.returncode, stdout, stderr

    def remains(self) -> list[psutil.Process]:
        """Processes of the server that are still there a few seconds after its end."""
        return list(psutil.wait_procs(self.children, timeout=10)[1])

    def read_until(self, pattern: str) -> str:
        """The first line on stderr from here that matches."""
        assert self.process.stderr is not None
        seen = []
        for line in self.process.stderr:
            seen.append(line)
            if re.search(pattern, line):
                return line
        raise AssertionError("".join(seen))


@contextmanager
def serving(repository: Path, *arguments: str) -> Iterator[Serving]:
    server = Serving(repository, *arguments)
    try:
        yield server
    finally:
        server.process.kill()
        server.process.communicate()


def shared_memory(pid: int) -> set[str]:
    """Regions in /dev/shm of the server that process `pid` started."""
    return {path.name for path in Path("/dev/shm").glob(f"deepfake_{pid}_*")}

"""`deepfake page` as a process of its own."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

DEADLINE_SECONDS = 60
_AUDIT = """
import os, sys

def note(event, arguments):
    if event in ("socket.connect", "socket.sendto", "socket.getaddrinfo"):
        address = arguments[0] if event == "socket.getaddrinfo" else arguments[1]
        host = address[0] if isinstance(address, tuple) else address
        with open(os.environ["AUDIT_FILE"], "a") as file:
            file.write(f"{host}\\n")

sys.addaudithook(note)
"""


class PageProcess:
    """A running page, from its ready line on; `url` and `folder`, where it would put temporary files."""

    def __init__(self, folder: Path, *arguments: str) -> None:
        self.folder = folder
        command = [sys.executable, "-m", "deepfake_cli", "page", "--port", "0", *arguments]
        # As another gradio app on the same machine would have it.
        meant_for_others = {
            "GRADIO_RUN_HISTORY": "True",
            "GRADIO_ANALYTICS_ENABLED": "True",
            "GRADIO_MCP_SERVER": "True",
        }
        audit = folder.with_name(f"{folder.name}-audit")
        audit.mkdir()
        (audit / "sitecustomize.py").write_text(_AUDIT)
        self._hosts = audit / "hosts.txt"
        self._hosts.touch()
        environment = {"TMPDIR": str(folder), "PYTHONPATH": str(audit), "AUDIT_FILE": str(self._hosts)}
        self.process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, **meant_for_others, **environment},
        )
        self.lines: list[str] = []
        self._ready = threading.Event()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        assert self._ready.wait(DEADLINE_SECONDS), self.lines
        found = re.search(r"^Ready: (http://\S+)  \(Ctrl-C stops\)$", "".join(self.lines), re.MULTILINE)
        assert found, self.lines
        self.url = found[1]

    @property
    def log(self) -> str:
        """All that it has written to stderr."""
        return "".join(self.lines)

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Exit status after a signal."""
        self.process.send_signal(number)
        status = self.process.wait(DEADLINE_SECONDS)
        self._reader.join(DEADLINE_SECONDS)
        return status

    def files(self) -> list[Path]:
        """What lies where it could have put a file."""
        return [path for path in self.folder.rglob("*") if not path.is_dir()]

    def hosts(self) -> set[str]:
        """Names and addresses that its Python code has looked up or connected to."""
        return set(self._hosts.read_text().split())

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.lines.append(line)
            if line.startswith("Ready: "):
                self._ready.set()
        self._ready.set()


@contextmanager
def page_process(folder: Path, *arguments: str) -> Iterator[PageProcess]:
    page = PageProcess(folder, *arguments)
    try:
        yield page
    finally:
        page.process.kill()
        page.process.communicate()

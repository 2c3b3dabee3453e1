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

def note(kind, what):
    with open(os.environ["AUDIT_FILE"], "a") as file:
        file.write(f"{kind} {what}\\n")

def hook(event, arguments):
    if event == "socket.getaddrinfo":
        note("host", arguments[0])
    elif event in ("socket.connect", "socket.sendto"):
        address = arguments[1]
        note("host", address[0] if isinstance(address, tuple) else address)
    elif event == "os.mkdir":
        note("folder", os.fsdecode(arguments[0]))
    elif event == "open" and arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
        path = arguments[0]
        if path != os.environ["AUDIT_FILE"] and not isinstance(path, int):
            note("file", os.fsdecode(path))
    elif event in ("os.rename", "os.link"):
        note("file", os.fsdecode(arguments[1]))

sys.addaudithook(hook)
"""


class PageProcess:
    """A running page, from its ready line on; `url` and `folder`, its own TMPDIR."""

    def __init__(self, folder: Path, *arguments: str) -> None:
        self.folder = folder
        audit = folder.with_name(f"{folder.name}-audit")
        audit.mkdir()
        (audit / "sitecustomize.py").write_text(_AUDIT)
        self._audit = audit / "audit.txt"
        self._audit.touch()
        environment = {
            "TMPDIR": str(folder),
            "PYTHONPATH": str(audit),
            "PYTHONDONTWRITEBYTECODE": "1",
            "AUDIT_FILE": str(self._audit),
            # As another gradio app on the same machine would have it.
            "GRADIO_RUN_HISTORY": "True",
            "GRADIO_ANALYTICS_ENABLED": "True",
            "GRADIO_MCP_SERVER": "True",
        }
        self.process = subprocess.Popen(
            [sys.executable, "-m", "deepfake_cli", "page", "--port", "0", *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, **environment},
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

    @property
    def memory(self) -> Path:
        """Its folder in memory."""
        (folder,) = (Path(made) for made in self._audited("folder") if Path(made).name.startswith("deepfake-page-"))
        return folder

    def files(self) -> list[Path]:
        """What lies where it could have put a file, in memory or not."""
        return [path for folder in (self.folder, self.memory) for path in folder.rglob("*")]

    def written(self) -> set[Path]:
        """Files outside of its folder in memory that its Python code has ever opened for writing."""
        paths = {Path(path) for path in self._audited("file")}
        return {path for path in paths if not path.is_relative_to(self.memory)}

    def hosts(self) -> set[str]:
        """Names and addresses that its Python code has looked up or connected to."""
        return self._audited("host")

    def _audited(self, kind: str) -> set[str]:
        lines = (line.partition(" ") for line in self._audit.read_text().splitlines())
        return {what for found, _, what in lines if found == kind}

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

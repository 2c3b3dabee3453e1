"""`deepfake page` as a process of its own."""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

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


def file_data(path: str, name: str | None = None) -> dict[str, Any]:
    """An upload as gradio names it."""
    return {"path": path, "orig_name": name, "meta": {"_type": "gradio.FileData"}}


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
        paths = (path for folder in (self.folder, self.memory) for path in folder.rglob("*"))
        return [path for path in paths if not path.is_dir()]

    def files_at_last(self) -> list[Path]:
        """The same, once a request that was answered has ended as well."""
        deadline = time.monotonic() + DEADLINE_SECONDS
        while self.files() and time.monotonic() < deadline:
            time.sleep(0.05)
        return self.files()

    def written(self) -> set[Path]:
        """Files outside of its folder in memory that its Python code has ever opened for writing."""
        paths = {Path(path) for path in self._audited("file")}
        return {path for path in paths if not path.is_relative_to(self.memory)}

    def hosts(self) -> set[str]:
        """Names and addresses that its Python code has looked up or connected to."""
        return self._audited("host")

    def upload(self, path: Path) -> str:
        """Where gradio has put an upload."""
        status, answer = self.post((path.name, path.read_bytes()))
        assert status == 200
        return str(json.loads(answer)[0])

    def post(
        self,
        *files: tuple[str, bytes],
        content_type: str = "",
        headers: Mapping[str, str] | None = None,
        field: str = "files",
        address: str = "upload",
    ) -> tuple[int, str]:
        """Status and text of the answer to files."""
        boundary = secrets.token_hex(8)
        parts = [
            f'--{boundary}\r\nContent-Disposition: form-data; name="{field}"; filename="{name}"\r\n\r\n'.encode()
            + content
            + b"\r\n"
            for name, content in files
        ]
        body = b"".join(parts) + f"--{boundary}--\r\n".encode()
        kind = {"Content-Type": content_type or f"multipart/form-data; boundary={boundary}"}
        return self.call(address, body, {**kind, **(headers or {})})

    def call(self, address: str, body: object, headers: Mapping[str, str] | None = None) -> tuple[int, str]:
        """Status and text of the answer to a POST; `body` is sent as JSON where it is not bytes."""
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        request = urllib.request.Request(
            f"{self.url}/gradio_api/{address}",
            data=data,
            headers={"Content-Type": "application/json", **(headers or {})},
        )
        try:
            with urllib.request.urlopen(request, timeout=DEADLINE_SECONDS) as response:
                return response.status, response.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()

    def join(self, name: str, data: Any, session: str) -> dict[str, Any]:
        """Output of one event of the page in a visitor's session, as the browser asks for it."""
        with urllib.request.urlopen(f"{self.url}/config", timeout=DEADLINE_SECONDS) as response:
            events = json.load(response)["dependencies"]
        index = next(each["id"] for each in events if each["api_name"] == name)
        body = {"data": [data], "fn_index": index, "session_hash": session}
        assert self.call("queue/join", body)[0] == 200
        output: dict[str, Any] = {}
        stream = f"{self.url}/gradio_api/queue/data?session_hash={session}"
        with urllib.request.urlopen(stream, timeout=DEADLINE_SECONDS) as response:
            for line in response:
                message = json.loads(line.removeprefix(b"data: ") if line.strip() else b"{}")
                if message.get("msg") in ("process_generating", "process_completed") and message["output"].get("data"):
                    output = message["output"]
                elif message.get("msg") == "process_completed":
                    output = output or message["output"]
        return output

    def status_of(self, address: str) -> int:
        """HTTP status of a GET."""
        try:
            with urllib.request.urlopen(f"{self.url}{address}", timeout=DEADLINE_SECONDS) as response:
                return int(response.status)
        except urllib.error.HTTPError as error:
            with error:
                return error.code

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
        shutil.rmtree(page.memory, ignore_errors=True)

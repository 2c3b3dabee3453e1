"""A Hugging Face Hub on loopback, with as much of its API as a download uses."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class FakeHub(ThreadingHTTPServer):
    """Serves one folder as `someone/faces`, whose branch `main` is at `COMMIT`.

    `requested` collects the files that were fetched. `cut` names a file whose body ends midway. `status` answers
    everything with an HTTP error.
    """

    daemon_threads = True

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.folder = folder
        self.requested: set[str] = set()
        self.cut: str | None = None
        self.status: int | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


@contextmanager
def fake_hub(folder: Path) -> Iterator[FakeHub]:
    with FakeHub(folder) as hub:
        thread = threading.Thread(target=hub.serve_forever, daemon=True)
        thread.start()
        try:
            yield hub
        finally:
            hub.shutdown()
            thread.join()


class _Handler(BaseHTTPRequestHandler):
    server: FakeHub
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def _answer(self) -> None:
        parts = unquote(self.path.split("?")[0]).strip("/").split("/")
        if self.server.status is not None:
            self._error(self.server.status, "")
        elif parts[:2] == ["api", "models"]:
            self._api("/".join(parts[2:4]), parts[4:])
        elif len(parts) >= 5 and parts[2] == "resolve":
            self._file(parts[3], "/".join(parts[4:]))
        else:
            self._error(404, "EntryNotFound")

    def _api(self, model: str, rest: list[str]) -> None:
        if model != "someone/faces":
            self._error(401, "RepoNotFound")
        elif rest[1:2] not in ([], ["main"], [COMMIT]):
            self._error(404, "RevisionNotFound")
        elif rest[:1] == ["tree"]:
            files = sorted(self.server.folder.iterdir())
            entries = [
                {"type": "file", "path": file.name, "size": file.stat().st_size, "oid": file.name} for file in files
            ]
            self._send(json.dumps(entries))
        else:
            names = [path.name for path in self.server.folder.iterdir()]
            self._send(json.dumps({"id": model, "sha": COMMIT, "siblings": [{"rfilename": name} for name in names]}))

    def _file(self, revision: str, name: str) -> None:
        path = self.server.folder / name
        if revision not in ("main", COMMIT) or not path.is_file():
            self._error(404, "EntryNotFound")
            return
        content = path.read_bytes()
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
        self.send_header("X-Repo-Commit", COMMIT)
        self.end_headers()
        if self.command == "GET":
            self.server.requested.add(name)
            if name == self.server.cut:
                self.wfile.write(content[: len(content) // 2])
                self.close_connection = True
            else:
                self.wfile.write(content)

    def _error(self, status: int, code: str) -> None:
        self.send_response(status)
        self.send_header("X-Error-Code", code)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def _send(self, text: str) -> None:
        body = text.encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Nothing to the terminal."""

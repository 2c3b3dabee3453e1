"""An HTTP proxy before Triton that counts images, and can stop to answer or refuse."""

from __future__ import annotations

import http.client
import threading
from contextlib import closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

_PIXELS_BYTES = 150_528
_DROPPED = ("connection", "transfer-encoding", "content-length", "host")


class _Server(ThreadingHTTPServer):
    def handle_error(self, *_: Any) -> None:
        """A client that was killed does not wait for its answer."""


class InferenceProxy:
    """Passes requests on to the server at `url` while it is entered.

    Attributes:
        images: requests with pixels so far, the question for the labels left out.
        limit: of images that are passed on; None for no limit.
        beyond: what happens to others: "stall" keeps them waiting, "refuse" answers 503.
    """

    def __init__(self, url: str) -> None:
        self.images = 0
        self.limit: int | None = None
        self.beyond = "refuse"
        self._ended = threading.Event()
        self._lock = threading.Lock()
        self._server = _Server(("127.0.0.1", 0), self._handler(urlsplit(url).netloc))
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> InferenceProxy:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def _admit(self, body: bytes) -> bool:
        with self._lock:
            # A black image asks for the labels.
            if len(body) < _PIXELS_BYTES or not any(body[-_PIXELS_BYTES:]):
                return True
            self.images += 1
            return self.limit is None or self.images <= self.limit

    def _handler(proxy, target: str) -> type[BaseHTTPRequestHandler]:  # noqa: N805 - `self` is the handler's below
        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def _pass_on(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                if not proxy._admit(body):
                    if proxy.beyond == "stall":
                        proxy._ended.wait()
                    self._answer(503, {}, b"")
                    return
                headers = {name: value for name, value in self.headers.items() if name.lower() not in _DROPPED}
                with closing(http.client.HTTPConnection(target)) as connection:
                    connection.request(self.command, self.path, body, headers)
                    response = connection.getresponse()
                    self._answer(response.status, dict(response.getheaders()), response.read())

            def _answer(self, status: int, headers: dict[str, str], content: bytes) -> None:
                self.send_response(status)
                for name, value in headers.items():
                    if name.lower() not in _DROPPED:
                        self.send_header(name, value)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            do_GET = do_POST = _pass_on  # noqa: N815 - the base class's names

            def log_message(self, *_: Any) -> None:
                """Says nothing."""

        return Handler

"""A receiver of traces, and what came in."""

from __future__ import annotations

import http.server
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any


@dataclass
class TraceCollector:
    """An OTLP/HTTP receiver on loopback, as far as Triton speaks with one (JSON)."""

    url: str
    spans: list[dict[str, Any]] = field(default_factory=list)

    def spans_of(self, trace_id: str, count: int, patience_seconds: float = 30) -> dict[str, dict[str, Any]]:
        """The spans of a trace by their names, once `count` of them have come; none when they have not."""
        deadline = time.monotonic() + patience_seconds
        while time.monotonic() < deadline:
            found = [span for span in list(self.spans) if span["traceId"] == trace_id]
            if len(found) == count:
                return {span["name"]: span for span in found}
            time.sleep(0.1)
        return {}


@contextmanager
def collecting() -> Iterator[TraceCollector]:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            for resource in body["resourceSpans"]:
                for scope in resource["scopeSpans"]:
                    collector.spans += [{**span, "resource": resource["resource"]} for span in scope["spans"]]
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None: ...

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        collector = TraceCollector(f"http://127.0.0.1:{server.server_port}/v1/traces")
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield collector
        server.shutdown()
        thread.join()

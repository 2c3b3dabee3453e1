"""A Triton's metrics as a GPU has them: each series of the classifier twice, with and without `gpu_uuid`."""

from __future__ import annotations

import contextlib
import re
import threading
import urllib.request
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

#: What a GPU's instance counts, in its own series (core: infer_stats.cc). The model's have what waits (infer_request.cc),
#: and, not shown here, what was refused or came from the cache.
_OF_THE_INSTANCE = re.compile(r"nv_inference_(request_success|count|exec_count|\w+_duration_us)$")
_SERIES = re.compile(r'^(nv_inference_\w+)\{(model="deepfake_vs_real",[^}]*)\} (\S+)$', re.MULTILINE)


def with_twins(scrape: str) -> str:
    """`scrape`, with a twin of each series of the classifier that has `gpu_uuid`; without refusals one of two stays 0."""

    def twins(series: re.Match[str]) -> str:
        name, labels, value = series.groups()
        model, instance = ("0", value) if _OF_THE_INSTANCE.match(name) else (value, "0")
        return f'{name}{{{labels}}} {model}\n{name}{{gpu_uuid="GPU-1",{labels}}} {instance}'

    return _SERIES.sub(twins, scrape)


@contextlib.contextmanager
def gpu_shaped(metrics_url: str) -> Iterator[str]:
    """URL of the metrics at `metrics_url` in the shape that they would have on a GPU."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            with urllib.request.urlopen(metrics_url, timeout=10) as response:
                body = with_twins(response.read().decode()).encode()
            self.send_response(200)
            self.send_header("Content-Type", "text/plain; version=0.0.4")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/metrics"
        finally:
            server.shutdown()
            thread.join()

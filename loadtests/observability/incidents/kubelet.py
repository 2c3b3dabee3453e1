"""The servers' own readiness, under the names that kube-state-metrics gives it once a kubelet has probed them."""

from __future__ import annotations

import http.client
import http.server
import threading
import urllib.parse
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress

_PROBE_SECONDS = 1.0  # the kubelet's timeoutSeconds by default


@contextmanager
def watching(pods: Mapping[str, str]) -> Iterator[str]:
    """host:port of an exporter that asks each pod (name → http:// URL) for its readiness at each scrape."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            ready = {pod: int(_ready(url)) for pod, url in pods.items()}
            lines = [
                f'kube_deployment_status_replicas_available{{namespace="deepfake",deployment="triton"}} {sum(ready.values())}',
                *(
                    f'kube_pod_status_ready{{namespace="deepfake",pod="{pod}",condition="true"}} {value}'
                    for pod, value in ready.items()
                ),
            ]
            with suppress(ConnectionError):  # a scrape that had no more patience
                self.send_response(200)
                self.send_header("Content-Type", "text/plain; version=0.0.4")
                self.end_headers()
                self.wfile.write(("\n".join(lines) + "\n").encode())

        def log_message(self, *_: object) -> None: ...

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, name="kubelet")
        thread.start()
        try:
            yield f"127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def _ready(url: str) -> bool:
    connection = http.client.HTTPConnection(urllib.parse.urlsplit(url).netloc, timeout=_PROBE_SECONDS)
    try:
        connection.request("GET", "/v2/health/ready")
        return connection.getresponse().status == http.client.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()

"""What a cluster's exporters would say, under their names, on a machine that has neither GPU nor Kubernetes."""

from __future__ import annotations

import http.server
import threading
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress

_PROBE_SECONDS = 1.0  # the kubelet's timeoutSeconds by default
_GPU = 'gpu="0",UUID="GPU-0",Hostname="node-1",namespace="deepfake",pod="triton-local",container="triton"'
_HPA = 'namespace="deepfake",horizontalpodautoscaler="keda-hpa-triton"'
_AVAILABLE = 'kube_deployment_status_replicas_available{namespace="deepfake",deployment="triton"}'

#: Names and labels as dcgm-exporter, kube-state-metrics and KEDA document them; the values are made up.
MADE_UP_SERIES = f"""\
DCGM_FI_DEV_GPU_UTIL{{{_GPU}}} 71
DCGM_FI_DEV_XID_ERRORS{{{_GPU}}} 0
{_AVAILABLE} 1
kube_horizontalpodautoscaler_status_desired_replicas{{{_HPA}}} 1
kube_horizontalpodautoscaler_spec_min_replicas{{{_HPA}}} 1
kube_horizontalpodautoscaler_spec_max_replicas{{{_HPA}}} 8
keda_scaler_metrics_value{{namespace="keda",exported_namespace="deepfake",scaledObject="triton",metric="s0-prometheus"}} 3
"""


def readiness_series(pods: Mapping[str, str]) -> str:
    """What kube-state-metrics says once a kubelet has asked each pod (name → http:// URL) whether it is ready."""
    ready = {pod: int(_ready(url)) for pod, url in pods.items()}
    lines = [f'kube_pod_status_ready{{namespace="deepfake",pod="{pod}",condition="true"}} {ready[pod]}' for pod in pods]
    return "\n".join([f"{_AVAILABLE} {sum(ready.values())}", *lines, ""])


def _ready(url: str) -> bool:
    with suppress(OSError), urllib.request.urlopen(f"{url}/v2/health/ready", timeout=_PROBE_SECONDS):  # noqa: S310
        return True
    return False


@contextmanager
def exporting(series: Callable[[], str]) -> Iterator[str]:
    """http:// URL at which each scrape gets what `series` gives at that moment."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = series().encode()
            with suppress(ConnectionError):  # a scrape that had no more patience
                self.send_response(200)
                self.send_header("Content-Type", "text/plain; version=0.0.4")
                self.end_headers()
                self.wfile.write(body)

        def log_message(self, *_: object) -> None: ...

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, name="exporter").start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/metrics"
        finally:
            server.shutdown()

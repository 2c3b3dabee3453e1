"""What a cluster's exporters would say, for expressions that no machine without GPU and Kubernetes can give a series.

Names and labels are those of dcgm-exporter (default-counters.csv, with the pod's labels), kube-state-metrics, KEDA's
operator and cert-manager, as documented; the values are made up. Nothing here stands for Triton: its own series are real in
every test.
"""

from __future__ import annotations

import http.server
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

_GPU = 'gpu="0",UUID="GPU-0",device="nvidia0",modelName="NVIDIA H200",Hostname="node-1",namespace="deepfake",pod="triton-local",container="triton"'
_HPA = 'namespace="deepfake",horizontalpodautoscaler="keda-hpa-triton"'
_KEDA = 'namespace="deepfake",scaledObject="triton",scaler="prometheusScaler",triggerName="",triggerIndex="0",metric="s0-prometheus",type="scaledobject"'

SERIES = f"""\
DCGM_FI_DEV_GPU_UTIL{{{_GPU}}} 71
DCGM_FI_PROF_PIPE_TENSOR_ACTIVE{{{_GPU}}} 0.42
DCGM_FI_DEV_FB_USED{{{_GPU}}} 4100
DCGM_FI_DEV_FB_FREE{{{_GPU}}} 139000
DCGM_FI_DEV_POWER_USAGE{{{_GPU}}} 430
DCGM_FI_DEV_GPU_TEMP{{{_GPU}}} 55
DCGM_FI_DEV_XID_ERRORS{{{_GPU}}} 0
DCGM_FI_DEV_ROW_REMAP_FAILURE{{{_GPU}}} 0
kube_deployment_status_replicas_available{{namespace="deepfake",deployment="triton"}} 1
kube_pod_status_ready{{namespace="deepfake",pod="triton-local",uid="1",condition="true"}} 1
kube_pod_container_status_restarts_total{{namespace="deepfake",pod="triton-local",uid="1",container="triton"}} 0
kube_horizontalpodautoscaler_status_current_replicas{{{_HPA}}} 1
kube_horizontalpodautoscaler_status_desired_replicas{{{_HPA}}} 1
kube_horizontalpodautoscaler_spec_min_replicas{{{_HPA}}} 1
kube_horizontalpodautoscaler_spec_max_replicas{{{_HPA}}} 8
kube_horizontalpodautoscaler_status_condition{{{_HPA},condition="ScalingActive",status="false"}} 0
keda_scaler_metrics_value{{{_KEDA}}} 3
keda_scaled_object_errors_total{{namespace="deepfake",scaledObject="triton"}} 0
certmanager_certificate_expiration_timestamp_seconds{{namespace="deepfake",name="triton-grpc"}} 4102444800
"""


@contextmanager
def exporting() -> Iterator[str]:
    """host:port of a server that exports SERIES."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            with suppress(ConnectionError):  # a scrape that had no more patience
                self.send_response(200)
                self.send_header("Content-Type", "text/plain; version=0.0.4")
                self.end_headers()
                self.wfile.write(SERIES.encode())

        def log_message(self, *_: object) -> None: ...

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()

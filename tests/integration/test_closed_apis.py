"""What an outsider must not reach is closed over both protocols."""

from __future__ import annotations

import urllib.error
import urllib.request

import pytest
import tritonclient.grpc
from deepfake_deploy.embedded import EmbeddedTriton
from tritonclient.utils import InferenceServerException


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/v2/repository/index"),
        ("POST", "/v2/repository/models/deepfake_vs_real/load"),
        ("POST", "/v2/repository/models/deepfake_vs_real/unload"),
        ("GET", "/v2/systemsharedmemory/status"),
        ("POST", "/v2/systemsharedmemory/region/any/register"),
        ("GET", "/v2/cudasharedmemory/status"),
        ("GET", "/v2/trace/setting"),
        ("POST", "/v2/trace/setting"),
        ("GET", "/v2/logging"),
        ("POST", "/v2/logging"),
    ],
)
def test_admin_apis_are_closed_over_http(triton: EmbeddedTriton, method: str, path: str) -> None:
    request = urllib.request.Request(
        f"{triton.http_url}{path}", data=b"{}" if method == "POST" else None, method=method
    )
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(request)
    refused.value.close()
    assert refused.value.code == 403


@pytest.mark.parametrize(
    "call",
    [
        lambda client: client.get_model_repository_index(),
        lambda client: client.load_model("deepfake_vs_real"),
        lambda client: client.unload_model("deepfake_vs_real"),
        lambda client: client.get_system_shared_memory_status(),
        lambda client: client.register_system_shared_memory("any", "/any", 8),
        lambda client: client.get_cuda_shared_memory_status(),
        lambda client: client.get_trace_settings(),
        lambda client: client.update_trace_settings(settings={"trace_level": ["TIMESTAMPS"]}),
        lambda client: client.get_log_settings(),
        lambda client: client.update_log_settings({"log_verbose_level": 1}),
    ],
)
def test_admin_apis_are_closed_over_grpc(triton: EmbeddedTriton, call: object) -> None:
    client = tritonclient.grpc.InferenceServerClient(triton.grpc_url.removeprefix("grpc://"))
    with pytest.raises(InferenceServerException, match="This protocol is restricted"):
        call(client)  # type: ignore[operator]
    client.close()

"""The real tritonserver takes the arguments of the rendered Deployments, and starts, answers and stops as they assume."""

from __future__ import annotations

import contextlib
import http.client
import json
import re
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import numpy as np
import pytest
import tritonclient.grpc
from deepfake_client._transports.grpc import CHANNEL_OPTIONS
from tritonclient.utils import InferenceServerException

from tests.support.certificates import Authority
from tests.support.metrics import metric, settled
from tests.support.name_server import name_server
from tests.support.pods import Pod, running_pod
from tests.support.rendering import Rendering, argument, render

pytestmark = pytest.mark.slow  # it starts three servers of its own, and drains one

EXIT_TIMEOUT_SECONDS = 8
CONNECTION_AGE_SECONDS = 2
SHORTER = {
    "--exit-timeout-secs": EXIT_TIMEOUT_SECONDS,
    "--grpc-max-connection-age": CONNECTION_AGE_SECONDS * 1000,
}
ADDRESSES = ["127.0.0.1", "127.0.0.2"]
# As any gRPC library does it: a call that met the end of its connection before the server began it is sent once more,
# if it has less than 256 KiB, as one image has.
TRANSPARENT_RETRIES = [(name, 1 if name == "grpc.enable_retries" else value) for name, value in CHANNEL_OPTIONS]
DEADLINE_SECONDS = 60


@pytest.fixture(scope="module")
def pods(cpu: Rendering, repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Pod, Pod]]:
    """Two replicas of the overlay `cpu`, with the same port on two addresses, as pods have."""
    folder, args = tmp_path_factory.mktemp("pods"), cpu.triton["args"]
    with running_pod(args, repository, folder / "0", address=ADDRESSES[0], replace=SHORTER) as first:
        port = first.ports["grpc"]
        with running_pod(
            args, repository, folder / "1", address=ADDRESSES[1], grpc_port=port, replace=SHORTER
        ) as second:
            yield first, second


def test_the_probes_succeed_when_the_models_are_loaded_and_not_before(pods: tuple[Pod, Pod]) -> None:
    for pod in pods:
        # Until then Triton has no port open, which a startup probe counts as a failure and a Service as no endpoint.
        assert set(pod.before_ready) == {"ConnectionRefusedError"}
        assert pod.probe("/v2/health/live") == pod.probe("/v2/health/ready") == 200
        for model in ("deepfake_vs_real", "deepfake_vs_real_image", "image_decoder", "provenance"):
            assert pod.probe(f"/v2/models/{model}/ready") == 200


def test_the_server_is_the_containers_first_process_and_its_keys_are_drawn(pods: tuple[Pod, Pod]) -> None:
    keys = set()
    for pod in pods:
        # Not a child of a shell, which would keep SIGTERM from it.
        assert Path(pod.command_line[0]).name == "tritonserver"
        found = re.findall(r":closed=(\S+)", " ".join(pod.command_line))
        assert len(found) == 2
        assert all(re.fullmatch(r"[0-9a-f-]{36}", key) for key in found)
        keys |= set(found)
    assert len(keys) == 2


def test_admin_apis_are_closed(pods: tuple[Pod, Pod]) -> None:
    pod = pods[0]
    for path in ("/v2/systemsharedmemory/status", "/v2/cudasharedmemory/status", "/v2/trace/setting", "/v2/logging"):
        assert pod.probe(path) == 403
    client = tritonclient.grpc.InferenceServerClient(f"{pod.address}:{pod.ports['grpc']}")
    with pytest.raises(InferenceServerException, match="This protocol is restricted"):
        client.get_model_repository_index(headers={"closed": "@random"})
    client.close()


def test_mutual_tls_and_the_response_cache(
    repository: Path, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    authority = Authority(tmp_path)
    certificate, key = authority.issue("server")
    files = {"--grpc-server-cert": certificate, "--grpc-server-key": key, "--grpc-root-cert": authority.ca_file}
    scratch = tmp_path_factory.mktemp("mutual")
    args = render(scratch, "cpu", "grpc-mtls", "response-cache").triton["args"]
    with running_pod(args, repository, tmp_path / "pod", replace=files) as pod:
        assert pod.probe("/v2/health/ready") == pod.probe("/v2/health/live") == 200
        for path in ("/v2", "/v2/models/deepfake_vs_real", "/v2/models/stats"):
            assert pod.probe(path) == 403
        shown = authority.issue("caller")
        for _ in range(2):
            classify(pod, root_certificates=authority.ca_file, certificate_chain=shown[0], private_key=shown[1])
        hits = "nv_cache_num_hits_per_model"
        assert settled(lambda: metric(pod.metrics_url, hits), 1) == 1
        with pytest.raises(InferenceServerException, match="UNAVAILABLE"):
            classify(pod, root_certificates=authority.ca_file)


def classify(pod: Pod, **files: Path) -> None:
    credentials = grpc.ssl_channel_credentials(**{name: path.read_bytes() for name, path in files.items()})
    client = tritonclient.grpc.InferenceServerClient(f"{pod.address}:{pod.ports['grpc']}", ssl=True, creds=credentials)
    try:
        client.infer("deepfake_vs_real", [pixels(1)], client_timeout=20)
    finally:
        client.close()


def pixels(images: int) -> tritonclient.grpc.InferInput:
    tensor = tritonclient.grpc.InferInput("pixels", [images, 224, 224, 3], "UINT8")
    tensor.set_data_from_numpy(np.zeros((images, 224, 224, 3), np.uint8))
    return tensor


class Caller:
    """One call after the other over a name that resolves to the pods, until told to stop; a failure is not tried again."""

    def __init__(self, target: str) -> None:
        self.answered = 0
        self.failures: list[str] = []
        self._client = tritonclient.grpc.InferenceServerClient(target, channel_args=TRANSPARENT_RETRIES)
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        while not self._stopped.is_set():
            try:
                self._client.infer("deepfake_vs_real", [pixels(1)], client_timeout=DEADLINE_SECONDS)
                self.answered += 1
            except InferenceServerException as error:
                self.failures.append(str(error))

    def stop(self) -> None:
        self._stopped.set()
        self._thread.join(DEADLINE_SECONDS)
        self._client.close()


def open_connection(pod: Pod) -> http.client.HTTPConnection:
    """A kept-alive HTTP connection that has had one answer, so that Triton has taken it."""
    connection = http.client.HTTPConnection(pod.address, pod.ports["http"], timeout=DEADLINE_SECONDS)
    connection.request("GET", "/v2/health/live")
    response = connection.getresponse()
    response.read()
    assert response.status == 200
    return connection


def send(connection: http.client.HTTPConnection, images: int) -> None:
    """Put a request on its way, whose answer nobody reads yet."""
    tensor = np.zeros((images, 224, 224, 3), np.uint8).tobytes()
    parameters = {"binary_data_size": len(tensor)}
    shape = [images, 224, 224, 3]
    inputs = [{"name": "pixels", "datatype": "UINT8", "shape": shape, "parameters": parameters}]
    header = json.dumps({"inputs": inputs}).encode()
    connection.request(
        "POST",
        "/v2/models/deepfake_vs_real/infer",
        header + tensor,
        {"Inference-Header-Content-Length": str(len(header))},
    )


def wait_until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.1)


def answered(pod: Pod) -> float:
    return metric(pod.metrics_url, "nv_inference_request_success")


# Last, since it ends a pod.
def test_a_pod_is_deleted_under_load_with_idle_connections_and_no_request_fails(
    cpu: Rendering, pods: tuple[Pod, Pod]
) -> None:
    leaving, staying = pods
    names = list(ADDRESSES)
    with name_server(names) as server, contextlib.ExitStack() as resources:
        callers = [Caller(f"dns://{server}/triton-headless.test:{leaving.ports['grpc']}") for _ in range(4)]
        for caller in callers:
            resources.callback(caller.stop)
        wait_until(lambda: all(caller.answered >= 4 for caller in callers), "the callers got no answers")
        assert answered(leaving) > 0
        idle, requests = ([open_connection(leaving) for _ in range(5)] for _ in range(2))
        for connection in [*idle, *requests]:
            resources.callback(connection.close)

        # The pod is deleted: it leaves the name, and preStop keeps it serving until callers have looked again.
        names.remove(leaving.address)
        wait_until(lambda: not busy(leaving, seconds=2), "callers did not leave the pod")
        assert leaving.probe("/v2/health/ready") == 200

        # preStop is over. Requests over HTTP are on their way, one after the other through the model.
        for connection in requests:
            send(connection, 8)
        leaving.terminate()
        began = time.monotonic()
        assert [connection.getresponse().status for connection in requests] == [200] * len(requests)
        assert leaving.process.poll() is None, "idle connections hold the stop, so it was not over when they were"
        assert leaving.probe("/v2/health/ready") != 200, "whoever connects now is sent away"
        # No status is asserted: with idle connections Triton 2.51 ends itself when the timeout runs out, and exits 1.
        leaving.process.wait(DEADLINE_SECONDS)
        took = time.monotonic() - began

        before = [caller.answered for caller in callers]
        wait_until(
            lambda: all(caller.answered > count for caller, count in zip(callers, before, strict=True)),
            "the callers were not served by the pod that stayed",
        )
    assert [caller.failures for caller in callers] == [[]] * len(callers)
    assert staying.process.poll() is None
    # The manifest's grace period leaves as much room after its own exit timeout.
    pause = cpu.triton["lifecycle"]["preStop"]["sleep"]["seconds"]
    exit_timeout = int(argument(cpu.triton, "--exit-timeout-secs"))
    unloading = cpu.triton_pod["terminationGracePeriodSeconds"] - pause - exit_timeout
    assert took < EXIT_TIMEOUT_SECONDS + unloading


def busy(pod: Pod, seconds: float) -> bool:
    before = answered(pod)
    time.sleep(seconds)
    return answered(pod) > before

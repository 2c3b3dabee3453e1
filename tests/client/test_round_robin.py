"""One gRPC name that resolves to several servers, as that of a headless service does."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from deepfake_client._endpoint import Endpoint
from deepfake_deploy.embedded import EmbeddedTriton

from tests.support.metrics import metric, settled
from tests.support.name_server import name_server
from tests.support.variants import AnyClient

pytestmark = pytest.mark.slow  # it starts two servers
ADDRESSES = ("127.0.0.1", "127.0.0.2")


@pytest.fixture(scope="module")
def pods(repository: Path) -> Iterator[tuple[EmbeddedTriton, EmbeddedTriton]]:
    """Two servers with the same gRPC port on two addresses of loopback, as two pods have."""
    with EmbeddedTriton(repository, host=ADDRESSES[0]) as first:
        port = int(first.grpc_url.rsplit(":", 1)[1])
        with EmbeddedTriton(repository, host=ADDRESSES[1], grpc_port=port) as second:
            yield first, second


def test_calls_take_the_servers_behind_a_name_in_turn(
    pods: tuple[EmbeddedTriton, EmbeddedTriton],
    make_client: Callable[..., AnyClient],
    kind: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    port = pods[0].grpc_url.rsplit(":", 1)[1]
    with name_server(ADDRESSES) as names:

        def target_of(endpoint: Endpoint) -> str:
            return f"dns://{names}/{endpoint.authority}"  # as always, but asking our name server

        monkeypatch.setattr("deepfake_client._transports.grpc.target_of", target_of)
        asked_before = sum(answered(pod) for pod in pods)
        client = make_client(f"grpc://deepfake-headless.test:{port}", timeout=20)
        client.classify_pixels(np.zeros((224, 224, 3), np.uint8))  # connects, and learns the labels
        settled(lambda: sum(answered(pod) for pod in pods), asked_before + 2)
        before = [answered(pod) for pod in pods]
        for value in range(40):
            client.classify_pixels(np.full((224, 224, 3), value, np.uint8))
        assert settled(lambda: sum(answered(pod) for pod in pods), sum(before) + 40) == sum(before) + 40
        asked = [answered(pod) - count for pod, count in zip(pods, before, strict=True)]
    assert min(asked) >= 10, f"{kind}: {asked}"


def answered(pod: EmbeddedTriton) -> float:
    return metric(pod.metrics_url, "nv_inference_count")

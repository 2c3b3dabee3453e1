"""TLS and mutual TLS on gRPC, and what HTTP still says then."""

from __future__ import annotations

import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import grpc
import numpy as np
import pytest
import tritonclient.grpc
from tritonclient.utils import InferenceServerException

from tests.support.calls import BareClient
from tests.support.certificates import Authority
from tests.support.serving import Serving, serving


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def mutual(repository: Path, authority: Authority) -> Iterator[Serving]:
    certificate, key = authority.issue("server")
    files = ["--grpc-tls-cert", str(certificate), "--grpc-tls-key", str(key), "--grpc-tls-client-ca"]
    with serving(repository, *files, str(authority.ca_file)) as server:
        yield server


def classify(server: Serving, **files: Path) -> np.ndarray:
    credentials = {name: path.read_bytes() for name, path in files.items()}
    client = tritonclient.grpc.InferenceServerClient(
        server.grpc_url.removeprefix("grpcs://"),
        ssl=True,
        creds=grpc.ssl_channel_credentials(**credentials),
    )
    tensor = tritonclient.grpc.InferInput("pixels", [1, 224, 224, 3], "UINT8")
    tensor.set_data_from_numpy(np.zeros((1, 224, 224, 3), np.uint8))
    try:
        return client.infer("deepfake_vs_real", [tensor], client_timeout=20).as_numpy("probabilities")
    finally:
        client.close()


@pytest.mark.slow
def test_a_caller_with_a_certificate_is_served(mutual: Serving, authority: Authority) -> None:
    assert mutual.grpc_url.startswith("grpcs://")
    certificate, key = authority.issue("caller")
    answer = classify(mutual, root_certificates=authority.ca_file, private_key=key, certificate_chain=certificate)
    assert answer.shape == (1, 2)


@pytest.mark.slow
def test_a_caller_without_one_is_not(mutual: Serving, authority: Authority) -> None:
    with pytest.raises(InferenceServerException, match="UNAVAILABLE"):
        classify(mutual, root_certificates=authority.ca_file)


@pytest.mark.slow
def test_nor_is_one_of_another_authority(mutual: Serving, authority: Authority, tmp_path: Path) -> None:
    certificate, key = Authority(tmp_path).issue("caller")
    with pytest.raises(InferenceServerException, match="UNAVAILABLE"):
        classify(mutual, root_certificates=authority.ca_file, private_key=key, certificate_chain=certificate)


@pytest.mark.slow
def test_nor_is_one_in_the_clear(mutual: Serving) -> None:
    with (
        BareClient(mutual.grpc_url.replace("grpcs", "grpc")) as client,
        pytest.raises(InferenceServerException, match="UNAVAILABLE"),
    ):
        client.classify_pixels(np.zeros((1, 224, 224, 3), np.uint8))


@pytest.mark.slow
def test_http_then_only_says_whether_the_server_is_alive_and_ready(mutual: Serving) -> None:
    for path in ("live", "ready"):
        assert urllib.request.urlopen(f"{mutual.http_url}/v2/health/{path}").status == 200
    for path in ("", "/models/deepfake_vs_real", "/models/deepfake_vs_real/config", "/models/stats"):
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(f"{mutual.http_url}/v2{path}")
        refused.value.close()
        assert refused.value.code == 403
    with (
        BareClient(mutual.http_url) as client,
        pytest.raises(InferenceServerException, match="restricted"),
    ):
        client.classify_pixels(np.zeros((1, 224, 224, 3), np.uint8))


def test_a_certificate_without_its_key_is_wrong_usage(authority: Authority) -> None:
    command = [sys.executable, "-m", "deepfake_cli", "serve", "--grpc-tls-cert", str(authority.ca_file)]
    run = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert run.returncode == 2
    assert "--grpc-tls-cert and --grpc-tls-key go together" in run.stderr

"""TLS and mutual TLS on gRPC, and what HTTP still says then."""

from __future__ import annotations

import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import grpc
import numpy as np
import pytest
import tritonclient.grpc
import trustme
from calls import BareClient
from serving import Serving, serving
from tritonclient.utils import InferenceServerException


@dataclass(frozen=True)
class Certificates:
    """PEM files of a certificate authority, a server and a client."""

    ca: Path
    server_cert: Path
    server_key: Path
    client_cert: Path
    client_key: Path


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    folder = tmp_path_factory.mktemp("certificates")
    authority = trustme.CA()
    server, client = authority.issue_cert("127.0.0.1", "localhost"), authority.issue_cert("caller.example")
    names = Certificates(*(folder / f"{name}.pem" for name in ("ca", "server", "server-key", "client", "client-key")))
    authority.cert_pem.write_to_path(names.ca)
    server.cert_chain_pems[0].write_to_path(names.server_cert)
    server.private_key_pem.write_to_path(names.server_key)
    client.cert_chain_pems[0].write_to_path(names.client_cert)
    client.private_key_pem.write_to_path(names.client_key)
    return names


@pytest.fixture(scope="module")
def mutual(repository: Path, certificates: Certificates) -> Iterator[Serving]:
    arguments = ["--grpc-tls-cert", str(certificates.server_cert), "--grpc-tls-key", str(certificates.server_key)]
    with serving(repository, *arguments, "--grpc-tls-client-ca", str(certificates.ca)) as server:
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


def test_a_caller_with_a_certificate_is_served(mutual: Serving, certificates: Certificates) -> None:
    assert mutual.grpc_url.startswith("grpcs://")
    answer = classify(
        mutual,
        root_certificates=certificates.ca,
        private_key=certificates.client_key,
        certificate_chain=certificates.client_cert,
    )
    assert answer.shape == (1, 2)


def test_a_caller_without_one_is_not(mutual: Serving, certificates: Certificates) -> None:
    with pytest.raises(InferenceServerException, match="UNAVAILABLE"):
        classify(mutual, root_certificates=certificates.ca)


def test_nor_is_one_of_another_authority(mutual: Serving, certificates: Certificates, tmp_path: Path) -> None:
    other = trustme.CA().issue_cert("caller.example")
    other.private_key_pem.write_to_path(tmp_path / "key.pem")
    other.cert_chain_pems[0].write_to_path(tmp_path / "cert.pem")
    with pytest.raises(InferenceServerException, match="UNAVAILABLE"):
        classify(
            mutual,
            root_certificates=certificates.ca,
            private_key=tmp_path / "key.pem",
            certificate_chain=tmp_path / "cert.pem",
        )


def test_nor_is_one_in_the_clear(mutual: Serving) -> None:
    with (
        BareClient(mutual.grpc_url.replace("grpcs", "grpc")) as client,
        pytest.raises(InferenceServerException, match="UNAVAILABLE"),
    ):
        client.classify_pixels(np.zeros((1, 224, 224, 3), np.uint8))


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


def test_a_certificate_without_its_key_is_wrong_usage(certificates: Certificates) -> None:
    command = [sys.executable, "-m", "deepfake_client.cli", "serve", "--grpc-tls-cert", str(certificates.server_cert)]
    run = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert run.returncode == 2
    assert "--grpc-tls-cert and --grpc-tls-key go together" in run.stderr

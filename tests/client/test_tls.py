"""TLS and mutual TLS over gRPC and HTTP, ended by a proxy before a real Triton."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from deepfake_client import ConnectionFailedError, DeepfakeError, TLSConfig, TLSError
from deepfake_client.preprocessing import Pixels

from tests.support.certificates import Authority
from tests.support.chaos_proxy import ChaosProxy
from tests.support.variants import AnyClient

Make = Callable[..., AnyClient]


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def served(authority: Authority) -> tuple[Path, Path]:
    return authority.issue("server")


@pytest.fixture
def tls_url(url: str, served: tuple[Path, Path]) -> Iterator[str]:
    """The session's Triton behind TLS."""
    with ChaosProxy(url, tls=_context(*served)) as proxy:
        yield proxy.url


@pytest.fixture
def mutual_url(url: str, served: tuple[Path, Path], authority: Authority) -> Iterator[str]:
    """The session's Triton behind TLS that wants a client certificate of the same authority."""
    context = _context(*served)
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(authority.ca_file)
    with ChaosProxy(url, tls=context) as proxy:
        yield proxy.url


def _context(certificate: Path, key: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    context.set_alpn_protocols(["h2", "http/1.1"])
    return context


def test_a_server_of_a_private_authority_is_reached(
    make_client: Make, tls_url: str, authority: Authority, pixels: Pixels
) -> None:
    client = make_client(tls_url, tls=TLSConfig(ca_file=authority.ca_file), token=lambda: "t0k3n")
    assert client.classify_pixels(pixels).ok
    assert client.ready()


def test_a_certificate_that_is_not_trusted_is_refused_and_not_retried(
    make_client: Make, tls_url: str, pixels: Pixels
) -> None:
    with pytest.raises(TLSError, match="ca_file") as raised:
        make_client(tls_url).classify_pixels(pixels)
    assert raised.value.attempts == 1


def test_a_certificate_of_another_name_is_refused(
    make_client: Make, tls_url: str, authority: Authority, pixels: Pixels
) -> None:
    other = tls_url.replace("127.0.0.1", "127.0.0.2")
    with pytest.raises(DeepfakeError):
        make_client(other, tls=TLSConfig(ca_file=authority.ca_file), max_retries=0).classify_pixels(pixels)


def test_mutual_tls_needs_and_takes_the_clients_certificate(
    make_client: Make, mutual_url: str, authority: Authority, pixels: Pixels
) -> None:
    certificate, key = authority.issue("client")
    mutual = TLSConfig(ca_file=authority.ca_file, cert_file=certificate, key_file=key)
    assert make_client(mutual_url, tls=mutual).classify_pixels(pixels).ok
    with pytest.raises(ConnectionFailedError):
        make_client(mutual_url, tls=TLSConfig(ca_file=authority.ca_file), max_retries=1).classify_pixels(pixels)


def test_tls_to_a_port_without_it_is_said_to_be_that(make_client: Make, url: str, pixels: Pixels) -> None:
    secure = url.replace("://", "s://", 1)
    with pytest.raises(ConnectionFailedError):
        make_client(secure, max_retries=1, timeout=10).classify_pixels(pixels)

"""Ports that the embedded server is given: nobody else gets them while it starts, and it is ready once it has all."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from deepfake_deploy.embedded import EmbeddedTriton, EmbeddedTritonError, server
from deepfake_deploy.embedded.ports import reserved_ports

HOST = "127.0.0.1"


def test_a_reserved_port_can_be_listened_on_by_whom_it_is_for_and_is_given_to_nobody_else() -> None:
    with reserved_ports(HOST, {"http": 0, "grpc": 0}) as ports:
        assert ports["http"] != ports["grpc"]
        with socket.socket() as somebody, pytest.raises(OSError, match="in use"):
            somebody.bind((HOST, ports["http"]))
        with (
            socket.create_server((HOST, ports["http"])),  # sets SO_REUSEADDR
            socket.create_connection((HOST, ports["http"]), timeout=5),
        ):
            pass


def test_a_server_without_its_metrics_is_not_ready(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Triton opens them last, when it already answers over HTTP and gRPC, and ends where it cannot."""

    @contextlib.contextmanager
    def then_taken(host: str, wanted: Mapping[str, int]) -> Iterator[dict[str, int]]:
        with reserved_ports(host, wanted) as ports, socket.create_server((host, ports["metrics"])):
            yield ports

    monkeypatch.setattr(server, "reserved_ports", then_taken)
    triton = EmbeddedTriton(repository)
    with pytest.raises(EmbeddedTritonError, match=r"ended before it was ready: .* in use"):
        triton.start()

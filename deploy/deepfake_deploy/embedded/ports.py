"""Ports of the embedded server: free ones on request, and a clear word about taken ones."""

from __future__ import annotations

import errno
import socket
from collections.abc import Mapping

from .errors import EmbeddedTritonError


def resolve(host: str) -> str:
    """The IPv4 address of `host`: Triton takes a name for HTTP as 255.255.255.255, and an IPv6 address for a taken port.

    Raises:
        EmbeddedTritonError: it has none.
    """
    try:
        found = socket.getaddrinfo(host, None, family=socket.AF_INET, type=socket.SOCK_STREAM)
    except (socket.gaierror, UnicodeError):
        raise EmbeddedTritonError(
            f"host {host}: no IPv4 address or name of one; use 127.0.0.1, 0.0.0.0 or an address of this machine"
        ) from None
    return str(found[0][4][0])


def choose_ports(host: str, wanted: Mapping[str, int]) -> dict[str, int]:
    """Check that each port can be bound on `host`; 0 picks a free one.

    Args:
        host: IPv4 address to bind to.
        wanted: purpose ("http", "grpc", "metrics") → port.

    Raises:
        EmbeddedTritonError: a port is taken, named twice or not allowed, or the host is not one of this machine's.
    """
    chosen: dict[str, int] = {}
    probes: list[socket.socket] = []
    try:
        for purpose, port in wanted.items():
            if port and port in chosen.values():
                raise EmbeddedTritonError(f"port {port} is given twice; choose another with --{purpose}-port")
            probe = _bind(host, port, purpose)
            probes.append(probe)  # held until all are chosen, or two purposes could get the same free port
            chosen[purpose] = probe.getsockname()[1]
    finally:
        for probe in probes:
            probe.close()
    return chosen


def _bind(host: str, port: int, purpose: str) -> socket.socket:
    probe = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        # As the servers do, so that connections lingering after a restart do not count as taken.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind((host, port))
        return probe
    except OSError as error:
        probe.close()
        if error.errno == errno.EADDRINUSE:
            raise EmbeddedTritonError(
                f"port {port} on {host} is taken; stop what listens there, or choose another with --{purpose}-port "
                "(0 picks a free one)"
            ) from None
        if error.errno == errno.EADDRNOTAVAIL:
            raise EmbeddedTritonError(f"host {host} is no address of this machine; use 127.0.0.1 or 0.0.0.0") from None
        raise EmbeddedTritonError(
            f"port {port} on {host}: {error.strerror}; choose another with --{purpose}-port"
        ) from None

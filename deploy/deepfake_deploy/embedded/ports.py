"""Ports of the embedded server: free ones on request, and a clear word about taken ones."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator, Mapping

from .installation import EmbeddedTritonError


def resolve(host: str) -> str:
    """The IPv4 address of `host`: Triton takes a name for HTTP as 255.255.255.255, and an IPv6 address for a taken port."""
    try:
        found = socket.getaddrinfo(host, None, family=socket.AF_INET, type=socket.SOCK_STREAM)
    except (socket.gaierror, UnicodeError):
        raise EmbeddedTritonError(
            f"host {host}: no IPv4 address or name of one; use 127.0.0.1, 0.0.0.0 or an address of this machine"
        ) from None
    return str(found[0][4][0])


@contextlib.contextmanager
def reserved_ports(host: str, wanted: Mapping[str, int]) -> Iterator[dict[str, int]]:
    """Ports that each can be bound on `host`, kept until the end of the block for servers that are started in it.

    Until its server listens, which takes Triton as long as its models take to load, the kernel gives a port that nobody
    holds to the next process that asks for any. Bound here without listening, a port is given to nobody, and a server
    that sets SO_REUSEADDR, as all here do, can still bind it by its number.

    `wanted` is purpose ("http", "grpc", "metrics") → port; 0 picks a free one.
    """
    chosen: dict[str, int] = {}
    with contextlib.ExitStack() as held:
        for purpose, port in wanted.items():
            another = f"choose another with --{purpose}-port (0 picks a free one)"
            if port and port in chosen.values():
                raise EmbeddedTritonError(f"port {port} is given twice; {another}")
            reserved = held.enter_context(socket.socket(socket.AF_INET, socket.SOCK_STREAM))
            # As the servers do: both may then bind it, and connections lingering after a restart do not count as taken.
            reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                reserved.bind((host, port))
            except OSError as error:
                raise EmbeddedTritonError(
                    f"port {port} on {host} cannot be bound ({error.strerror}); stop what listens there, or {another}, "
                    "or another --host"
                ) from None
            chosen[purpose] = reserved.getsockname()[1]
        yield chosen

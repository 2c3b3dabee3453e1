"""A DNS server on loopback that knows one name."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

_A = 1


@contextmanager
def name_server(addresses: Sequence[str]) -> Iterator[str]:
    """host:port of a server that answers every question for an A record with `addresses`, and others with nothing."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))
        thread = threading.Thread(target=_answer, args=(server, addresses), daemon=True)
        thread.start()
        yield f"127.0.0.1:{server.getsockname()[1]}"
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as last:
            last.sendto(b"", server.getsockname())
        thread.join()


def _answer(server: socket.socket, addresses: Sequence[str]) -> None:
    while True:
        query, asker = server.recvfrom(512)
        if not query:
            return
        end = 12  # after the header comes the name, a length before each of its parts, 0 at its end
        while query[end]:
            end += query[end] + 1
        question = query[12 : end + 5]
        (kind,) = struct.unpack_from(">H", query, end + 1)
        found = addresses if kind == _A else ()
        header = query[:2] + struct.pack(">HHHHH", 0x8180, 1, len(found), 0, 0)
        # 0xC00C points back to the name in the question.
        answers = (struct.pack(">HHHIH", 0xC00C, _A, 1, 1, 4) + socket.inet_aton(address) for address in found)
        server.sendto(header + question + b"".join(answers), asker)

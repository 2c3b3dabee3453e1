"""A TCP proxy that resets, delays and cuts the connections it carries, ends TLS before a server and counts bytes."""

from __future__ import annotations

import contextlib
import random
import selectors
import socket
import ssl
import struct
import threading
import time
from dataclasses import dataclass, field
from urllib.parse import urlsplit

_TICK_SECONDS = 0.02  # how soon a thread sees that its connection is to end
_DEADLINE_SECONDS = 5.0  # of a handshake, and of one read or write


@dataclass
class Mischief:
    """How likely each of the things is that go wrong, for each piece of data carried (up to 64 KiB)."""

    reset: float = 0.0
    cut: float = 0.0
    delay: float = 0.0
    longest_delay_seconds: float = 0.05
    resets_forgotten: bool = False  # as some balancers answer to a flow that they have forgotten
    source: random.Random = field(default_factory=lambda: random.Random(1))


class ChaosProxy:
    """Carries connections from a port of its own to the server of `url`, in threads, until it is left."""

    def __init__(self, url: str, mischief: Mischief | None = None, tls: ssl.SSLContext | None = None) -> None:
        parts = urlsplit(url)
        self.target = (parts.hostname, parts.port or 0)
        self.tls = tls
        self.mischief = mischief or Mischief()
        self.resets = 0
        self.cuts = 0
        self.sent_bytes = self.received_bytes = 0  # to the server and from it, without the headers of TCP and IP
        self._scheme = parts.scheme + ("s" if tls else "")
        self._carried: list[_Connection] = []
        self._ended = False
        self._thread = threading.Thread(target=self._accept, daemon=True)

    @property
    def url(self) -> str:
        return f"{self._scheme}://127.0.0.1:{self._listener.getsockname()[1]}"

    @property
    def connections(self) -> int:
        return len(self._carried)

    def reset_all(self) -> None:
        """Resets every connection that is open now."""
        is_open = [connection for connection in self._carried if connection.is_alive()]
        self.resets += len(is_open)
        for connection in is_open:
            connection.doomed.set()
        for connection in is_open:
            connection.join(2 * _DEADLINE_SECONDS)

    def forget_all(self) -> None:
        """Carries nothing more over the connections that are open now, and does not say so; new ones work."""
        for connection in self._carried:
            connection.forgotten = True

    def __enter__(self) -> ChaosProxy:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.settimeout(_TICK_SECONDS)
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._ended = True
        self._thread.join()
        self._listener.close()
        self.reset_all()

    def _accept(self) -> None:
        while not self._ended:
            with contextlib.suppress(TimeoutError):
                connection = _Connection(self, self._listener.accept()[0])
                self._carried.append(connection)
                connection.start()


class _Connection(threading.Thread):
    """One connection that is carried, to its end."""

    def __init__(self, proxy: ChaosProxy, client: socket.socket) -> None:
        super().__init__(daemon=True)
        self.doomed = threading.Event()
        self.forgotten = False
        self._proxy = proxy
        self._client = client

    def run(self) -> None:
        sockets = [self._client]
        try:
            self._client.settimeout(_DEADLINE_SECONDS)
            if self._proxy.tls:
                sockets[0] = self._proxy.tls.wrap_socket(self._client, server_side=True)
            sockets.append(socket.create_connection(self._proxy.target, timeout=_DEADLINE_SECONDS))
            self._carry(*sockets)
        except OSError:
            for each in sockets:
                with contextlib.suppress(OSError):  # RST in place of FIN, when it is closed
                    each.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        finally:
            for each in sockets:
                each.close()

    def _carry(self, client: socket.socket, server: socket.socket) -> None:
        with selectors.DefaultSelector() as selector:
            selector.register(client, selectors.EVENT_READ, server)
            selector.register(server, selectors.EVENT_READ, client)
            while not self.doomed.is_set():
                for key, _ in selector.select(_TICK_SECONDS):
                    source, target = key.fileobj, key.data
                    assert isinstance(source, socket.socket)
                    if not (data := source.recv(65_536)):
                        return
                    while isinstance(source, ssl.SSLSocket) and source.pending():  # which no selector sees
                        data += source.recv(65_536)
                    if target is server:
                        self._proxy.sent_bytes += len(data)
                    else:
                        self._proxy.received_bytes += len(data)
                    if not self._carries(data, target):
                        return
        raise ConnectionResetError

    def _carries(self, data: bytes, target: socket.socket) -> bool:
        """Whether the connection goes on after what befell this piece of data; raises ConnectionResetError."""
        mischief = self._proxy.mischief
        if self.forgotten:
            if not mischief.resets_forgotten:
                self.doomed.wait()
            raise ConnectionResetError
        if mischief.source.random() < mischief.delay:
            time.sleep(mischief.source.uniform(0, mischief.longest_delay_seconds))
        if mischief.source.random() < mischief.reset:
            self._proxy.resets += 1
            raise ConnectionResetError
        if mischief.source.random() < mischief.cut:
            self._proxy.cuts += 1
            target.sendall(data[: len(data) // 2])
            return False
        target.sendall(data)
        return True

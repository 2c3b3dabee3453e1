"""Kept-alive HTTP connections that threads share.

On http.client alone: the layers of a general pool above it cost a third more time for each request, and of what they do
(redirects, retries, proxies) nothing is wanted here.
"""

from __future__ import annotations

import http.client
import select
import socket
import ssl
import threading
import time

from ._errors import ClientClosedError, DeadlineExceededError


class ConnectionPool:
    """At most `limit` connections to one host; the one used last is taken first, so that idle ones can go."""

    def __init__(self, host: str, port: int, context: ssl.SSLContext | None, limit: int) -> None:
        self._host, self._port, self._context, self._limit = host, port, context, limit
        self._idle: list[http.client.HTTPConnection] = []
        self._busy: set[http.client.HTTPConnection] = set()
        self._changed = threading.Condition()
        self._closed = False

    def acquire(self, deadline: float) -> http.client.HTTPConnection:
        """A connection of the caller's own until `release`; one that is not open yet has no `sock`.

        Raises:
            DeadlineExceededError: all were busy until `deadline`, by time.monotonic().
            ClientClosedError: the pool was closed.
        """
        with self._changed:
            while len(self._busy) >= self._limit and not self._closed:
                if not self._changed.wait(max(deadline - time.monotonic(), 0)):
                    raise DeadlineExceededError("no connection was free before the deadline: raise max_connections")
            if self._closed:
                raise ClientClosedError("the client was closed")
            connection = self._idle.pop() if self._idle else self._new()
            self._busy.add(connection)
        if connection.sock is not None and _has_ended(connection.sock):
            connection.close()
        return connection

    def release(self, connection: http.client.HTTPConnection, *, reusable: bool) -> None:
        """Give a connection back; one that is not `reusable` is closed."""
        with self._changed:
            self._busy.discard(connection)
            if reusable and not self._closed:
                self._idle.append(connection)
            else:
                connection.close()
            self._changed.notify()

    def close(self) -> None:
        """Close all connections, also those in use, whose calls then fail."""
        with self._changed:
            self._closed = True
            for connection in self._idle:
                connection.close()
            for connection in self._busy:
                # Only shut down: the thread that uses it closes it, or the descriptor could be another's by then.
                if (sock := connection.sock) is not None:
                    _shut_down(sock)
            self._idle.clear()
            self._changed.notify_all()

    def _new(self) -> http.client.HTTPConnection:
        if self._context is None:
            return http.client.HTTPConnection(self._host, self._port)
        return http.client.HTTPSConnection(self._host, self._port, context=self._context)


def _has_ended(sock: socket.socket) -> bool:
    """Whether an idle connection was closed by the other side; there is nothing else that it could say."""
    poll = select.poll()  # and not select(), which takes no descriptor above 1023
    poll.register(sock, select.POLLIN)
    return bool(poll.poll(0))


def _shut_down(sock: socket.socket) -> None:
    try:
        sock.shutdown(socket.SHUT_RDWR)
    except OSError:
        return  # it has just ended by itself

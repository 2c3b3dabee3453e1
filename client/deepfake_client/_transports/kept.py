"""Connections that are kept between calls: how long one may stay silent, and how a dead one is replaced.

A NAT, a balancer or a node may drop a connection without a word. Then nothing comes back, and nothing says so.
"""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from .._errors import ClientClosedError, InvalidArgumentError
from .base import StaleConnectionError

T = TypeVar("T")

#: A connection that nothing went over for so long is not used again.
IDLE_SECONDS = 60.0
_RECENT_SECONDS = 60.0

# What a platform does not have is left out; TCP_KEEPALIVE is macOS' name for TCP_KEEPIDLE. Data that the peer's
# machine has not confirmed after 20 s ends the connection, as in gRPC.
_TCP_OPTIONS = {
    "TCP_NODELAY": 1,
    "TCP_KEEPIDLE": 30,
    "TCP_KEEPALIVE": 30,
    "TCP_KEEPINTVL": 5,
    "TCP_KEEPCNT": 3,
    "TCP_USER_TIMEOUT": 20_000,
}
#: (level, name, value) of each option that the sockets of HTTP get.
SOCKET_OPTIONS: list[tuple[int, int, int | bytes]] = [
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    *(
        (socket.IPPROTO_TCP, getattr(socket, name), value)
        for name, value in _TCP_OPTIONS.items()
        if hasattr(socket, name)
    ),
]


class Patience:
    """How long a kept connection may stay silent before a call gives it up. A fresh one has all of the call's time.

    gRPC's channels and aiohttp's sessions count as one connection, which is kept once it has answered.
    """

    def __init__(self) -> None:
        self._longest = 0.0
        self._seen_at = 0.0

    def seconds(self, timeout: float) -> float:
        """A fifth of `timeout`, so that two dead connections in a row leave most of it.

        It is more where the server has been slow: one that is overloaded is not to be asked everything twice.
        """
        recent = time.monotonic() - self._seen_at < _RECENT_SECONDS
        return min(timeout, max(timeout / 5, 2 * self._longest if recent else 0))

    def answered(self, seconds: float) -> None:
        """An answer came after `seconds`."""
        now = time.monotonic()
        if seconds >= self._longest or now - self._seen_at >= _RECENT_SECONDS:
            self._longest, self._seen_at = seconds, now


def silent(seconds: float) -> StaleConnectionError:
    return StaleConnectionError(f"a kept connection stayed silent for {seconds:.1f} s")


@dataclass(eq=False, slots=True)
class Lease(Generic[T]):
    """A channel or session, as the calls that run over it share it."""

    value: T
    calls: int = 0
    answered: bool = False


class Shared(Generic[T]):
    """Lends one channel or session to all calls. It is made at the first call, and again after `replace`.

    One that was replaced serves the calls that it has until they end.
    """

    def __init__(self, make: Callable[[], T]) -> None:
        self._make = make
        self._lock = threading.Lock()
        self._current: Lease[T] | None = None
        self._leases: set[Lease[T]] = set()
        self.closed = False

    def enter(self) -> Lease[T]:
        """What the next call goes over; hand it to `leave` afterwards."""
        with self._lock:
            if self.closed:
                raise ClientClosedError("the client was closed")
            if self._current is None:
                self._current = Lease(self._make())
                self._leases.add(self._current)
            self._current.calls += 1
            return self._current

    def replace(self, lease: Lease[T]) -> None:
        """Calls from now on go over another than `lease`."""
        with self._lock:
            if self._current is lease:
                self._current = None

    def leave(self, lease: Lease[T]) -> T | None:
        """A call has ended; results in what no call will use any more, to be closed."""
        with self._lock:
            lease.calls -= 1
            if lease.calls or lease is self._current or lease not in self._leases:
                return None
            self._leases.remove(lease)
            return lease.value

    def take(self) -> list[T]:
        """All that is open, to be closed; nothing can be had afterwards."""
        with self._lock:
            self.closed = True
            taken = [lease.value for lease in self._leases]
            self._leases.clear()
            self._current = None
            return taken


def running_loop() -> asyncio.AbstractEventLoop:
    """The event loop that the caller runs in."""
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        raise InvalidArgumentError("no asyncio event loop runs here: use DeepfakeClient, which needs none") from None


def cancelled_from_outside() -> bool:
    """Whether somebody cancelled the task that runs; False on Python 3.10, which does not tell."""
    task = asyncio.current_task()
    return task is not None and hasattr(task, "cancelling") and task.cancelling() > 0


class LoopBound(Shared[T]):
    """`Shared` for asyncio; made inside the running loop, so that a client can be made before there is one."""

    _loop: asyncio.AbstractEventLoop | None = None

    def enter(self) -> Lease[T]:
        """Also refused in another loop than at the first use."""
        loop = running_loop()
        if self._loop is None:
            self._loop = loop
        elif loop is not self._loop and not self.closed:
            raise InvalidArgumentError("this client belongs to another event loop: make one for each loop")
        return super().enter()

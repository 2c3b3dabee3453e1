"""Holds what belongs to one event loop, and says so when it is used from another."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Generic, TypeVar

from ._errors import ClientClosedError, InvalidArgumentError

T = TypeVar("T")


class LoopBound(Generic[T]):
    """Makes a value at its first use, inside the running loop, so that a client can be made before there is one."""

    def __init__(self, make: Callable[[], T]) -> None:
        self._make = make
        self._value: T | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self.closed = False

    def get(self) -> T:
        """The value.

        Raises:
            ClientClosedError: after `take`.
            InvalidArgumentError: in another loop than at the first use.
        """
        if self.closed:
            raise ClientClosedError("the client was closed")
        loop = asyncio.get_running_loop()
        if self._value is None:
            self._value, self._loop = self._make(), loop
        elif loop is not self._loop:
            raise InvalidArgumentError("this client belongs to another event loop: make one for each loop")
        return self._value

    def take(self) -> T | None:
        """The value, to be closed, where there is one; nothing can be had afterwards."""
        self.closed = True
        value, self._value = self._value, None
        return value

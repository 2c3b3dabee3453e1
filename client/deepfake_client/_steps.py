"""What the core of a call asks of the outside world.

A call is a generator that yields these steps and is sent their results (or has their errors thrown in). The sync and
the async client differ in how they carry the steps out and in nothing else, so they cannot drift apart.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Any, TypeAlias, TypeVar

from ._messages import InferRequest, Method, ModelQuery

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Send:
    """Call `method` of `transport`; results in its answer."""

    transport: Any
    method: Method
    message: InferRequest | ModelQuery
    timeout: float


@dataclass(frozen=True, slots=True)
class Pause:
    """Wait; results in None."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Work:
    """Run something that keeps a core busy or a disk waiting; results in what it returns."""

    run: Callable[[], Any]


@dataclass(frozen=True, slots=True)
class Lock:
    """Acquire the lock that lets one call at a time ask for what all calls share, as the labels; results in whether it was had in time.

    The core itself releases it.
    """

    timeout: float


Steps: TypeAlias = Generator["Send | Pause | Work | Lock", Any, T]

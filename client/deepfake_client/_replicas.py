"""Which replica a request goes to, and for how long one that failed is left out."""

from __future__ import annotations

import itertools
import logging
import math
import random
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Generic, TypeVar

from ._errors import ConnectionFailedError, DeadlineExceededError, DeepfakeError, NotReadyError

T = TypeVar("T")
_log = logging.getLogger("deepfake_client")

# A pod that restarts takes some seconds: the first check comes early, in case a single connection was cut.
FIRST_ABSENCE_SECONDS = 1.0
LONGEST_ABSENCE_SECONDS = 30.0
_ABSENT = (ConnectionFailedError, NotReadyError)


@dataclass(slots=True, eq=False)
class Replica(Generic[T]):
    """One endpoint, and what is known of its health."""

    transport: T
    endpoint: str
    failures: int = 0
    failed_at: float = -math.inf
    absent_until: float = -math.inf
    on_trial: bool = False


@dataclass(frozen=True, slots=True)
class Choice(Generic[T]):
    """A replica that was chosen for an attempt, and when."""

    replica: Replica[T]
    began_at: float


class ReplicaSet(Generic[T]):
    """Takes the replicas in turn, from a random one on, and leaves out those that failed.

    A replica that refused or lost a connection, or said that it is not ready, is left out for 1 s, doubled with each
    further failure up to 30 s. Then a single request tries it; the others follow once that one has succeeded. With
    all replicas out, the one that is due soonest is asked all the same, and so is an only one.
    """

    def __init__(self, transports: Iterable[tuple[str, T]], clock: Callable[[], float]) -> None:
        self.all = [Replica(transport, endpoint) for endpoint, transport in transports]
        self._clock = clock
        self._lock = threading.Lock()
        self._turn = itertools.count(random.randrange(len(self.all)))  # noqa: S311

    def choose(self) -> Choice[T]:
        """The replica for the next attempt; hand it to `report` or `abandon` afterwards."""
        with self._lock:
            now = self._clock()
            return Choice(self._next(now), now)

    def report(self, choice: Choice[T], error: DeepfakeError | None) -> None:
        """What came of the attempt; an error that is the request's own speaks for the replica."""
        replica = choice.replica
        if isinstance(error, _ABSENT):
            self._failed(choice, error)
        elif isinstance(error, DeadlineExceededError):
            # It may be dead, or the caller's deadline may be short.
            self.abandon(choice)
        elif replica.failures:
            with self._lock:
                # A server that stops answers what it has taken on before and refuses the rest: the answer to an
                # older request does not mean that it is back.
                back = choice.began_at > replica.failed_at
                if back:
                    replica.failures, replica.on_trial = 0, False
            if back and len(self.all) > 1:
                _log.warning("%s answers again", replica.endpoint)

    def abandon(self, choice: Choice[T]) -> None:
        """The attempt ended without telling anything about the replica."""
        if choice.began_at > choice.replica.failed_at:
            choice.replica.on_trial = False

    def _next(self, now: float) -> Replica[T]:
        start = next(self._turn)
        ordered = [self.all[(start + step) % len(self.all)] for step in range(len(self.all))]
        for replica in ordered:
            if replica.failures == 0:
                return replica
            if not replica.on_trial and replica.absent_until <= now:
                replica.on_trial = True
                return replica
        return min(ordered, key=lambda replica: replica.absent_until)

    def _failed(self, choice: Choice[T], error: DeepfakeError) -> None:
        replica = choice.replica
        with self._lock:
            # Requests that were on their way together fail together: that is one failure, not hundreds.
            if choice.began_at <= replica.failed_at:
                return
            absence = min(LONGEST_ABSENCE_SECONDS, FIRST_ABSENCE_SECONDS * 2 ** min(replica.failures, 16))
            replica.failures += 1
            replica.on_trial = False
            replica.failed_at = self._clock()
            replica.absent_until = replica.failed_at + absence
        if len(self.all) > 1:
            _log.warning("%s is left out for %.0f s: %s", replica.endpoint, absence, error.reason)

    def has_another(self, replica: Replica[T]) -> bool:
        """Whether one other than `replica` has not failed since it last answered."""
        return any(each.failures == 0 for each in self.all if each is not replica)

    def can_replace(self, replica: Replica[T], error: DeepfakeError) -> bool:
        """Whether `error` is of `replica` alone, and another one has not failed since it last answered."""
        return isinstance(error, _ABSENT) and self.has_another(replica)

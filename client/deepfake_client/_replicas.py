"""Which replica a request goes to, and for how long one that failed is left out."""

from __future__ import annotations

import itertools
import logging
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
    absent_until: float = 0.0
    on_trial: bool = False


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

    def choose(self) -> Replica[T]:
        """The replica for the next attempt; hand it to `report` or `abandon` afterwards."""
        if len(self.all) == 1:
            return self.all[0]
        with self._lock:
            now = self._clock()
            start = next(self._turn)
            ordered = [self.all[(start + step) % len(self.all)] for step in range(len(self.all))]
            for replica in ordered:
                if replica.failures == 0:
                    return replica
                if not replica.on_trial and replica.absent_until <= now:
                    replica.on_trial = True
                    return replica
            return min(ordered, key=lambda replica: replica.absent_until)

    def report(self, replica: Replica[T], error: DeepfakeError | None) -> None:
        """What came of the attempt at `replica`; an error that is the request's own speaks for the replica."""
        if isinstance(error, _ABSENT):
            self._failed(replica, error)
        elif isinstance(error, DeadlineExceededError):
            # It may be dead, or the caller's deadline may be short.
            self.abandon(replica)
        elif replica.failures:
            with self._lock:
                replica.failures, replica.on_trial = 0, False
            _log.warning("%s answers again", replica.endpoint)

    def abandon(self, replica: Replica[T]) -> None:
        """The attempt ended without telling anything about `replica`."""
        replica.on_trial = False

    def _failed(self, replica: Replica[T], error: DeepfakeError) -> None:
        with self._lock:
            now = self._clock()
            # Requests that were on their way together fail together: that is one failure, not hundreds.
            counts = replica.on_trial or replica.absent_until <= now
            replica.on_trial = False
            if counts:
                absence = min(LONGEST_ABSENCE_SECONDS, FIRST_ABSENCE_SECONDS * 2 ** min(replica.failures, 16))
                replica.failures += 1
                replica.absent_until = now + absence
        if counts:
            _log.warning("%s is left out for %.0f s: %s", replica.endpoint, absence, error.reason)

    def can_replace(self, replica: Replica[T], error: DeepfakeError) -> bool:
        """Whether `error` is of `replica` alone, and another one has not failed since it last answered."""
        return isinstance(error, _ABSENT) and any(each.failures == 0 for each in self.all if each is not replica)

"""When a call is tried again: a pure state machine, without a clock or a sleep of its own."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

from ._errors import DeadlineExceededError, DeepfakeError, OverloadedError, ServerError
from ._transports.base import StaleConnectionError

# The first pause is about the time of one batch on a GPU's queue, so that a full queue has moved; the last one keeps a
# waiting client from missing a server that came back.
FIRST_PAUSE_SECONDS = 0.1
LONGEST_PAUSE_SECONDS = 8.0


@dataclass(slots=True)
class RetryState:
    """The retries of one call.

    Attributes:
        max_retries: attempts after the first; the deadline may end them earlier.
        also: kinds of errors that are retried for this call though they usually are not.
        replicas: each may have a dead connection to be renewed.
    """

    max_retries: int
    also: tuple[type[DeepfakeError], ...] = ()
    replicas: int = 1
    _retries: int = 0
    _last: DeepfakeError | None = field(default=None)
    _renewals: int = 0

    def pause_after(self, error: DeepfakeError, remaining_seconds: float, *, failover: bool) -> float | None:
        """Seconds until the next attempt, or None when there is none and `cause_of(error)` is to be raised.

        The pause doubles from 0.1 s to 8 s, and is cut to between half and all of that at random, so that clients
        that were refused together do not return together. A longer `Retry-After` of the server is kept to.

        Args:
            remaining_seconds: time to the deadline. A pause that would reach it is not begun: the caller learns now
                what is wrong, not later that time ran out.
            failover: another replica stands ready; it is asked at once.
        """
        if isinstance(error, StaleConnectionError) and self._renewals < self.replicas:
            # The connection is to blame, not the server: no pause, and not one of the retries.
            self._renewals += 1
            return 0.0
        previous, self._last = self._last, error
        if not (error.retryable or isinstance(error, self.also)) or self._retries >= self.max_retries:
            if isinstance(error, DeadlineExceededError):
                self._last = previous
            return None
        longest = min(LONGEST_PAUSE_SECONDS, FIRST_PAUSE_SECONDS * 2 ** min(self._retries, 16))
        pause = 0.0 if failover else longest * random.uniform(0.5, 1.0)  # noqa: S311
        if not failover and isinstance(error, ServerError) and error.retry_after_seconds is not None:
            pause = max(pause, error.retry_after_seconds)
        if pause >= remaining_seconds:
            return None
        self._retries += 1
        return pause

    def cause_of(self, error: DeepfakeError) -> DeepfakeError:
        """What to raise when `error` ended the call.

        A last attempt that ran into the deadline, made because the server had refused those before it as too many,
        is an overload to the caller, who may shed load on it.
        """
        if isinstance(error, DeadlineExceededError) and isinstance(self._last, OverloadedError):
            return self._last
        return error

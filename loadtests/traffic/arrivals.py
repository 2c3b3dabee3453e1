"""When requests are due in an open loop.

Callers do not wait for each other: while a server stalls, requests go on arriving. A load generator that only sends the
next request once it has an answer stops asking just then, and measures the stall once instead of once for each caller
that would have met it («coordinated omission», Gil Tene). So arrivals follow a clock, and a latency counts from when its
request was due, whether or not it could leave at that moment.
"""

from __future__ import annotations

import random
from typing import Literal


class Schedule:
    """Due times of one source of requests.

    Args:
        rate: requests per second, above 0.
        arrivals: "poisson", the times of many independent callers, or "constant", a fixed interval.
        start: when the source begins, on the clock that due times are read by.
        seed: of the intervals; None draws one.
    """

    def __init__(
        self, rate: float, arrivals: Literal["poisson", "constant"], start: float, seed: int | None = None
    ) -> None:
        self._rate, self._arrivals = rate, arrivals
        self._random = random.Random(seed)  # noqa: S311 - a load, not a secret
        # With a fixed interval, sources that begin together must not send together.
        self.due = start + (self._interval() if arrivals == "poisson" else self._random.random() / rate)

    def advance(self) -> None:
        """Goes on to the next request. One that could not leave in time does not put off those behind it."""
        self.due += self._interval()

    def _interval(self) -> float:
        return self._random.expovariate(self._rate) if self._arrivals == "poisson" else 1 / self._rate

"""How the number of users changes over a run: steps, a spike, a soak, a day.

`--users` is the top and `--run-time` the length of each. With `--rate` every user is a source of so many requests per
second, so that a shape of users is a shape of the offered load.
"""

from __future__ import annotations

import math
from argparse import Namespace
from collections.abc import Callable

from locust import LoadTestShape

DEFAULT_SECONDS = {"steps": 300.0, "spike": 300.0, "soak": 3600.0, "diurnal": 600.0}
# Locust's tick comes every second; over 100 users a second it warns that spawning is no longer even.
_MOST_SPAWNED_PER_SECOND = 100
_SOAK_RAMP = 0.05


def steps(progress: float, count: int) -> float:
    """Share of the users at `progress` (0 to 1) of the run: `count` equal steps up to all of them."""
    return (min(int(progress * count), count - 1) + 1) / count


def spike(progress: float, base: float, share: float) -> float:
    """`base`, then all in the middle `share` of the run, then `base` again: does it recover?"""
    return 1.0 if abs(progress - 0.5) * 2 < share else base


def soak(progress: float) -> float:
    """All, for all of the run but a short ramp: does memory grow, does latency creep?"""
    return min(progress / _SOAK_RAMP, 1.0)


def diurnal(progress: float, base: float, days: int) -> float:
    """From `base` at midnight to all at noon and back, `days` times: does the autoscaler follow?"""
    return base + (1 - base) * (1 - math.cos(2 * math.pi * progress * days)) / 2


def share_of_users(options: Namespace) -> Callable[[float], float]:
    """The function from progress to the share of users, for the shape in `options`."""
    functions: dict[str, Callable[[float], float]] = {
        "steps": lambda progress: steps(progress, options.shape_steps),
        "spike": lambda progress: spike(progress, options.shape_base, options.spike_share),
        "soak": soak,
        "diurnal": lambda progress: diurnal(progress, options.shape_base, options.shape_days),
    }
    return functions[options.shape]


class Shape(LoadTestShape):
    """The shape that the options name."""

    # Kept out of the locustfile's own classes: a shape that Locust finds there is used in every run.
    abstract = True
    use_common_options = True

    def __init__(self, options: Namespace) -> None:
        super().__init__()
        self._options = options
        self._share = share_of_users(options)

    def tick(self) -> tuple[int, float] | None:
        """(users, users spawned per second) for now, or None at the end."""
        top = self._options.num_users or 1
        progress = self.get_run_time() / float(self._options.run_time or DEFAULT_SECONDS[self._options.shape])
        if progress >= 1:
            return None
        return max(1, round(top * self._share(progress))), float(min(top, _MOST_SPAWNED_PER_SECOND))

"""How the number of users changes over a run: steps, a spike, a soak, a day.

`--users` is the top and `--run-time` the length of each. With `--rate` a shape of users is one of the offered load.
"""

from __future__ import annotations

import math
from argparse import Namespace

from locust import LoadTestShape

_DEFAULT_SECONDS = {"steps": 300.0, "spike": 300.0, "soak": 3600.0, "diurnal": 600.0}
# Locust's tick comes every second; over 100 users a second it warns that spawning is no longer even.
_MOST_SPAWNED_PER_SECOND = 100
_SOAK_RAMP = 0.05


class Shape(LoadTestShape):
    abstract = True  # a shape that Locust finds in the locustfile is used in every run
    use_common_options = True

    def __init__(self, options: Namespace) -> None:
        super().__init__()
        self._options = options

    def tick(self) -> tuple[int, float] | None:
        """(users, users spawned per second) for now, or None at the end."""
        top = self._options.num_users or 1
        progress = self.get_run_time() / float(self._options.run_time or _DEFAULT_SECONDS[self._options.shape])
        if progress >= 1:
            return None
        return max(1, round(top * self._share(progress))), float(min(top, _MOST_SPAWNED_PER_SECOND))

    def _share(self, progress: float) -> float:
        """Share of the users at `progress` (0 to 1) of the run."""
        options = self._options
        if options.shape == "steps":
            return (int(progress * options.shape_steps) + 1) / options.shape_steps
        if options.shape == "spike":
            return 1.0 if abs(progress - 0.5) * 2 < options.spike_share else options.shape_base
        if options.shape == "soak":
            return min(progress / _SOAK_RAMP, 1.0)
        night = (1 + math.cos(2 * math.pi * progress * options.shape_days)) / 2
        return 1 - (1 - options.shape_base) * night

"""Which load holds the target: steps upward until it breaks, one between, and repetitions of the best."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from .step import Step

# Shares of what the server does at most. The knee lies above a half of it for every target that is a few times the time
# of one image, and there the steps are closer.
LADDER = (0.25, 0.5, 0.65, 0.8, 0.9, 1.0, 1.1, 1.25)
_GROWTH = 1.25
_MOST_STEPS = 24
_LEAST_SHARE = 0.05


@dataclass(frozen=True, slots=True)
class Found:
    """The outcome of a search."""

    steps: tuple[Step, ...]
    """In the order in which they were run."""
    capacity: float | None
    """The highest load, in requests per second, that held the target each time; None when none did."""

    @property
    def at_capacity(self) -> tuple[Step, ...]:
        """All runs of the load that is the capacity."""
        return tuple(step for step in self.steps if step.offered == self.capacity)

    @property
    def broken(self) -> Step | None:
        """The lightest load that did not hold the target."""
        return min((step for step in self.steps if not step.met), key=lambda step: step.offered, default=None)

    @property
    def limiting(self) -> Step:
        """That, or else the heaviest that did."""
        return self.broken or max(self.steps, key=lambda step: step.offered)


def search(offer: Callable[[float], Step], most: float, repeats: int) -> Found:
    """Looks for the knee.

    Args:
        offer: runs a step of so many requests per second.
        most: estimate of what the server does at most, in requests per second.
        repeats: how often the load that holds is offered in all, and how often it must hold.
    """
    steps: list[Step] = []

    def held(rate: float) -> bool:
        steps.append(offer(rate))
        return steps[-1].met

    good, bad = _climb(held, most)
    # Where the lightest broke it, the target is hardly within reach, or out of it.
    while not good and bad / 2 >= most * _LEAST_SHARE:
        bad /= 2
        if held(bad):
            good, bad = bad, bad * 2
    if good and bad and held(between := (good + bad) / 2):
        good = between
    while good:
        broken = {step.offered for step in steps if not step.met}
        if good in broken:
            good = max({step.offered for step in steps if step.offered < good} - broken, default=0.0)
        elif sum(step.offered == good for step in steps) < repeats and len(steps) < _MOST_STEPS:
            held(good)
        else:
            break
    return Found(tuple(steps), good or None)


def _climb(held: Callable[[float], bool], most: float) -> tuple[float, float]:
    """(highest load that held, lowest that did not), 0 for none."""
    good = 0.0
    # The estimate is too low where the first callers met a server that had yet to warm up, so that it goes on above.
    shares = [*LADDER, *(LADDER[-1] * _GROWTH**power for power in range(1, _MOST_STEPS // 2))]
    for load in (most * share for share in shares):
        if not held(load):
            return good, load
        good = load
    return good, 0.0

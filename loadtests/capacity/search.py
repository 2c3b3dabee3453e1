"""Which load holds the target: steps upward until it breaks, one between, and repetitions of the best.

A step is a load that is offered for some seconds, and everything that is measured meanwhile.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass
from statistics import fmean
from typing import Any

from loadtests.traffic.loops import Generators, percentile

from .resources import DECODER, MODEL, Scrape, scrape

_SAMPLE_SECONDS = 0.2
_LEAD_SECONDS = 0.3  # for the orders to arrive before the step begins
_SETTLE_SHARE = 0.1

# Shares of what the server does at most. The knee lies above a half of it for every target that is a few times the time
# of one image, and there the steps are closer.
LADDER = (0.25, 0.5, 0.65, 0.8, 0.9, 1.0, 1.1, 1.25)
_GROWTH = 1.25
_MOST_STEPS = 24
_LEAST_SHARE = 0.05


@dataclass(frozen=True, slots=True)
class Setup:
    """What stays the same over all steps."""

    slo_p95_ms: float
    step_seconds: float
    metrics_url: str | None

    @property
    def deadline_seconds(self) -> float:
        """How long a request waits for its answer."""
        return max(5 * self.slo_p95_ms / 1000, 10.0)

    @property
    def settle_seconds(self) -> float:
        """Load before the measurement, so that it does not begin with an empty queue."""
        return max(self.step_seconds * _SETTLE_SHARE, 0.5)


@dataclass(frozen=True, slots=True)
class Step:
    """What came of one offered load. Times in ms, rates per second, shares from 0 to 1; None where it is unknown."""

    offered: float
    sent: int
    answered: float
    """Right answers per second."""
    p50_ms: float
    p95_ms: float
    p99_ms: float
    """Percentiles over all requests, infinite where failed ones fall into them."""
    failures: dict[str, int]
    met: bool
    """Whether 95 % of all requests were answered, and rightly, within the target."""
    late_p99_ms: float
    """How late the load generators were at the 99th percentile; part of the latencies."""
    gpu: float | None = None
    batch: float | None = None
    queue_ms: float | None = None
    compute_ms: float | None = None
    decode_ms: float | None = None
    """Queue and compute time of the decoder together, where it was used."""
    pending: float | None = None
    """Mean of the requests waiting in the server's queues."""
    busy: float | None = None
    """Share of the time in which the classifier was computing; instances that compute at once add up."""

    def to_dict(self) -> dict[str, Any]:
        """For JSON, which has no infinity."""
        return {name: None if value == math.inf else value for name, value in asdict(self).items()}


def run_step(generators: Generators, setup: Setup, offered: float, seed: int) -> Step:
    begin = time.monotonic() + _LEAD_SECONDS
    measure_from = begin + setup.settle_seconds
    end = measure_from + setup.step_seconds
    generators.begin(offered, begin, measure_from, end, seed)
    time.sleep(max(measure_from - time.monotonic(), 0))
    scrapes = _scrape(setup)
    while time.monotonic() < end:
        time.sleep(_SAMPLE_SECONDS)
        scrapes += _scrape(setup)
    samples = generators.collect(setup.settle_seconds + setup.step_seconds + setup.deadline_seconds + 30)
    latencies = sorted(latency for sample in samples for latency in sample.latencies_ms)
    late = [value for sample in samples for value in sample.late_ms]
    failures = sum((sample.failures for sample in samples), Counter[str]())
    sent = len(latencies) + failures.total()
    p50, p95, p99 = (percentile(latencies, sent, share) for share in (0.50, 0.95, 0.99))
    return Step(
        offered=offered,
        sent=sent,
        answered=sum(len(sample.answered_at) for sample in samples) / setup.step_seconds,
        p50_ms=p50,
        p95_ms=p95,
        p99_ms=p99,
        failures=dict(failures),
        met=sent > 0 and p95 <= setup.slo_p95_ms,
        late_p99_ms=percentile(late, len(late), 0.99) if late else 0.0,
        **_seen(scrapes, setup.step_seconds),
    )


def _scrape(setup: Setup) -> list[Scrape]:
    """None also when the endpoint does not answer now: a search of minutes does not end for that."""
    if setup.metrics_url:
        with contextlib.suppress(OSError):
            return [scrape(setup.metrics_url)]
    return []


def _seen(scrapes: list[Scrape], seconds: float) -> dict[str, float | None]:
    if not scrapes:
        return {}
    model, decoder = (scrapes[-1].models[name].since(scrapes[0].models[name]) for name in (MODEL, DECODER))
    gpu, busy = [each.gpu for each in scrapes if each.gpu is not None], model.busy(seconds)
    return {
        "gpu": fmean(gpu) if gpu else None,
        "batch": model.batch,
        "queue_ms": model.queue_ms,
        "compute_ms": model.compute_ms,
        "decode_ms": None if decoder.compute_ms is None else decoder.compute_ms + (decoder.queue_ms or 0.0),
        "pending": fmean(each.pending for each in scrapes),
        "busy": None if busy is None else min(busy, 1.0),
    }


@dataclass(frozen=True, slots=True)
class Found:
    steps: tuple[Step, ...]
    """In the order in which they were run."""
    capacity: float | None
    """The highest load, in requests per second, that held the target each time; None when none did."""

    @property
    def at_capacity(self) -> tuple[Step, ...]:
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

    good = bad = 0.0
    # The estimate is too low where the first callers met a server that had yet to warm up, so that it goes on above.
    above = (LADDER[-1] * _GROWTH**power for power in range(1, _MOST_STEPS // 2))
    for rate in (most * share for share in (*LADDER, *above)):
        if not held(rate):
            bad = rate
            break
        good = rate
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

"""One step: a load offered for some seconds, and everything that was measured meanwhile."""

from __future__ import annotations

import math
import time
from collections import Counter
from dataclasses import asdict, dataclass
from typing import Any

from .generator import Generators, Sample
from .resources import Usage
from .triton_metrics import DECODER, MODEL, ModelCounters, Scrape, scrape

_SAMPLE_SECONDS = 0.2
_LEAD_SECONDS = 0.3  # for the orders to arrive before the step begins


@dataclass(frozen=True, slots=True)
class Setup:
    """What stays the same over all steps."""

    slo_p95_ms: float
    settle_seconds: float
    """Load before the measurement, so that it does not begin with an empty queue."""
    step_seconds: float
    deadline_seconds: float
    metrics_url: str | None
    server: int | None
    """Process id of the server, where it is on this machine."""


@dataclass(frozen=True, slots=True)
class Step:
    """What came of one offered load. Times in ms, rates per second, shares from 0 to 1; None where it is unknown."""

    offered: float
    repeat: bool
    """Whether this load was offered before."""
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
    generator_cpu: float
    """Of one core, the busiest load generator."""
    server_cores: float | None
    other_cores: float
    """Cores kept busy by neither the server nor the load; with a server elsewhere, by anything but the load."""
    gpu: float | None
    batch: float | None
    queue_ms: float | None
    compute_ms: float | None
    decode_ms: float | None
    """Queue and compute time of the decoder together, where it was used."""
    queue_to_compute: float | None
    pending: float | None
    """Mean of the requests waiting in the server's queues."""
    busy: float | None
    """Share of the time in which the classifier was computing, with instances that take turns."""
    cache_hits: float

    def to_dict(self) -> dict[str, Any]:
        """For JSON, which has no infinity."""
        return {
            name: None if isinstance(value, float) and not math.isfinite(value) else value
            for name, value in asdict(self).items()
        }


def run_step(generators: Generators, setup: Setup, offered: float, seed: int, *, repeat: bool) -> Step:
    """Offers `offered` requests per second.

    Raises:
        ChildProcessError: a load generator ended.
    """
    begin = time.monotonic() + _LEAD_SECONDS
    measure_from = begin + setup.settle_seconds
    end = measure_from + setup.step_seconds
    generators.begin(offered, begin, measure_from, end, seed)
    _sleep_until(measure_from)
    usage, before = Usage(setup.server, generators.pids), _scrape(setup)
    pending, gpu = [], []
    while time.monotonic() < end:
        if (now := _scrape(setup)) is not None:
            pending.append(now.pending)
            gpu.append(now.gpu)
        time.sleep(_SAMPLE_SECONDS)
    (server, others), after = usage.seconds(), _scrape(setup)
    samples = generators.collect(setup.settle_seconds + setup.step_seconds + setup.deadline_seconds + 30)
    model, decoder = _growth(before, after, MODEL), _growth(before, after, DECODER)
    latencies = sorted(latency for sample in samples for latency in sample.latencies_ms)
    failures = sum((sample.failures for sample in samples), Counter[str]())
    sent = len(latencies) + failures.total()
    p50, p95, p99 = (_percentile(latencies, sent, share) for share in (0.50, 0.95, 0.99))
    known_gpu = [value for value in gpu if value is not None]
    return Step(
        offered=offered,
        repeat=repeat,
        sent=sent,
        answered=sum(sample.completed for sample in samples) / setup.step_seconds,
        p50_ms=p50,
        p95_ms=p95,
        p99_ms=p99,
        failures=dict(failures),
        met=sent > 0 and p95 <= setup.slo_p95_ms,
        late_p99_ms=_late(samples),
        generator_cpu=max(sample.cpu_share for sample in samples),
        server_cores=None if server is None else server / setup.step_seconds,
        other_cores=others / setup.step_seconds,
        gpu=sum(known_gpu) / len(known_gpu) if known_gpu else None,
        batch=model.batch,
        queue_ms=model.queue_ms,
        compute_ms=model.compute_ms,
        decode_ms=None if decoder.compute_ms is None else decoder.compute_ms + (decoder.queue_ms or 0.0),
        queue_to_compute=model.queue_to_compute,
        pending=sum(pending) / len(pending) if pending else None,
        busy=_busy(model, setup.step_seconds),
        cache_hits=model.cache_hits,
    )


def _percentile(latencies: list[float], sent: int, share: float) -> float:
    """Of `sent` requests, of which those without a latency are the slowest."""
    rank = math.ceil(sent * share)
    return latencies[rank - 1] if 0 < rank <= len(latencies) else math.inf


def _late(samples: list[Sample]) -> float:
    late = sorted(value for sample in samples for value in sample.late_ms)
    return _percentile(late, len(late), 0.99) if late else 0.0


def _busy(model: ModelCounters, seconds: float) -> float | None:
    """Executions times the mean time of one; the mean is over requests, and so of the larger batches a little more."""
    if model.compute_ms is None:
        return None
    return min(model.executions * model.compute_ms / 1000 / seconds, 1.0)


def _growth(before: Scrape | None, after: Scrape | None, model: str) -> ModelCounters:
    if before is None or after is None:
        return ModelCounters()
    return after.models[model].since(before.models[model])


def _scrape(setup: Setup) -> Scrape | None:
    """None also when the endpoint does not answer now: a search of minutes does not end for that."""
    try:
        return scrape(setup.metrics_url) if setup.metrics_url else None
    except OSError:
        return None


def _sleep_until(moment: float) -> None:
    time.sleep(max(moment - time.monotonic(), 0))

"""Steps of a capacity search as they might have been measured."""

from __future__ import annotations

import dataclasses
from typing import Any

from loadtests.capacity.step import Step

_QUIET = Step(
    offered=10.0,
    repeat=False,
    sent=200,
    answered=10.0,
    p50_ms=50.0,
    p95_ms=80.0,
    p99_ms=90.0,
    failures={},
    met=True,
    late_p99_ms=1.0,
    generator_cpu=0.1,
    server_cores=0.5,
    other_cores=0.0,
    gpu=None,
    batch=1.5,
    queue_ms=10.0,
    compute_ms=40.0,
    decode_ms=None,
    queue_to_compute=0.25,
    pending=0.5,
    busy=0.4,
    cache_hits=0.0,
)


def step(**changes: Any) -> Step:
    """A step on a machine of two cores that holds a target of 100 ms, but for the changes."""
    return dataclasses.replace(_QUIET, **changes)

"""What makes a run fail.

A failed request never met the target, so it counts as slower than any: percentiles over the answers alone look best
when a server refuses nearly everything at once. Locust's own columns show the answers alone, since a refusal's few
milliseconds are no latency of the model.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from locust.stats import StatsEntry

_SHARE = 0.95


def p95_ms(answered: Mapping[int, int], requests: int) -> float:
    """95th percentile of the response times of `requests` requests, infinite when too many have none.

    Args:
        answered: how many requests were answered rightly after so many milliseconds.
        requests: all, with those that failed.
    """
    left = math.ceil(requests * _SHARE)
    for milliseconds in sorted(answered):
        left -= answered[milliseconds]
        if left <= 0:
            return milliseconds
    return math.inf


def broken(total: StatsEntry, slo_p95_ms: float, max_failure_rate: float) -> list[str]:
    """The thresholds that a run did not keep, each in a few words; none when it passed."""
    if total.num_requests == 0:
        return ["no request was made"]
    found = []
    if total.fail_ratio > max_failure_rate:
        found.append(f"{total.fail_ratio:.2%} of the requests failed, over --max-failure-rate {max_failure_rate:.2%}")
    p95 = p95_ms(total.response_times, total.num_requests)
    if slo_p95_ms and p95 > slo_p95_ms:
        shown = f"{p95:.0f} ms" if math.isfinite(p95) else "beyond measure, since over 5 % of the requests failed"
        found.append(f"p95 is {shown}, over --slo-p95-ms {slo_p95_ms:.0f}")
    return found


def kept(total: StatsEntry, slo_p95_ms: float) -> str:
    """One line about a run that passed."""
    p95 = p95_ms(total.response_times, total.num_requests)
    target = f" of at most {slo_p95_ms:.0f}" if slo_p95_ms else ""
    return f"p95 {p95:.0f}{target} ms, {total.num_failures} of {total.num_requests} requests failed"

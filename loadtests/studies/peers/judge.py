"""Whether this server is ahead of every peer, at equal precision and with callers enough to fill batches."""

from __future__ import annotations

from dataclasses import dataclass

from .contestants import CONTESTANTS, OURS
from .result import Comparison

#: One caller at a time never fills a batch; what counts there is the model alone.
FEWEST_CALLERS = 8
_NAMES = {each.key: each.name for each in CONTESTANTS}


@dataclass(frozen=True, slots=True)
class Finding:
    """One comparison with one peer."""

    ahead: bool
    sentence: str


def judge(comparison: Comparison) -> list[Finding]:
    """A finding for each peer, precision and number of callers: throughput higher and p99 no worse, by the medians of
    the rounds, and none of our answers wrong or missing.

    Both serve image files over HTTP and decode them. Empty when nothing could be compared.
    """
    peers = [each.key for each in CONTESTANTS if not each.is_triton]
    return [
        found
        for precision in comparison.precisions
        for callers in comparison.callers
        if callers >= FEWEST_CALLERS
        for peer in peers
        if (found := _compare(comparison, peer, precision, callers))
    ]


def _compare(comparison: Comparison, peer: str, precision: str, callers: int) -> Finding | None:
    ours, theirs = (comparison.summary(key, precision, callers) for key in (OURS, peer))
    if ours is None or theirs is None:
        return None
    reasons = []
    rate, their_rate = ours.images_per_second.median, theirs.images_per_second.median
    if ours.errors:
        reasons.append(f"{ours.errors.total()} of our requests failed")
    if rate <= their_rate:
        reasons.append(f"{their_rate:.2f} images/s against our {rate:.2f}")
    if ours.p99_ms is None or (theirs.p99_ms is not None and ours.p99_ms.median > theirs.p99_ms.median):
        p99 = [f"{each.p99_ms.median:.0f} ms" if each.p99_ms else "none" for each in (theirs, ours)]
        reasons.append(f"p99 {p99[0]} against our {p99[1]}")
    where = f"{_NAMES[peer]}, {precision}, {callers} callers"
    if reasons:
        return Finding(False, f"{where}: not behind ({'; '.join(reasons)})")
    how = f"we do {rate / their_rate:.2f} times its images per second" if their_rate else "it answered nothing"
    return Finding(True, f"{where}: behind; {how}")

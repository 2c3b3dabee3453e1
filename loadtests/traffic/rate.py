"""Answers per second of a server that answers in batches."""

from __future__ import annotations

from collections.abc import Sequence

_TOGETHER_SECONDS = 0.05


def answers_per_second(answered_at: Sequence[float], together_seconds: float = _TOGETHER_SECONDS) -> float:
    """Answers per second from the first to the last, without those that came in the first one's batch.

    The answers of a batch come together. To count what fell into a fixed window would be wrong by up to a batch at
    either end, on two cores that compute eight images in 0.9 s by a tenth of the figure.

    Args:
        answered_at: times in seconds, in any order.
        together_seconds: within which the answers of one batch come.
    """
    first, last = min(answered_at, default=0.0), max(answered_at, default=0.0)
    later = sum(at > first + together_seconds for at in answered_at)
    return later / (last - first) if later else 0.0

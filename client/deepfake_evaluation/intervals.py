"""Confidence intervals of 95 % for what is measured on a sample of images."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.stats import rankdata

CONFIDENCE = 0.95
_Z = 1.959963984540054  # the normal distribution's quantile of 97.5 %


class Interval(NamedTuple):
    """A measured value between the ends of its confidence interval, and the method that gave these."""

    value: float
    low: float
    high: float
    method: str

    def __format__(self, _: str) -> str:
        return f"{self.value:.4f} (95 % CI {self.low:.4f}–{self.high:.4f})"


def proportion(hits: int, total: int) -> Interval:
    """A share, with Wilson's score interval, which keeps its coverage for few images and for shares near 0 and 1.

    E. B. Wilson, «Probable inference, the law of succession, and statistical inference», JASA 22 (1927).
    """
    share = hits / total
    middle = (share + _Z**2 / (2 * total)) / (1 + _Z**2 / total)
    half = _Z / (1 + _Z**2 / total) * float(np.sqrt(share * (1 - share) / total + _Z**2 / (4 * total**2)))
    # At its ends the formula is exact but for rounding.
    return Interval(share, 0.0 if hits == 0 else middle - half, 1.0 if hits == total else middle + half, "Wilson")


def area_under_roc(truth: NDArray[np.bool_], scores: NDArray[np.float32]) -> Interval:
    """The share of pairs of a positive and a negative image that the scores put in order; ties count half.

    The interval takes DeLong's variance (E. R. DeLong et al., Biometrics 44, 1988), which assumes no distribution of the
    scores, through the logit (M. S. Pepe, «The Statistical Evaluation of Medical Tests», 2003, 5.2), so that it stays
    within 0 and 1: near 1, and for the few dozens of images that people have, the plain one covers far less than 95 %.
    Where the sample shows no variance, as when the classes are perfectly separated, it says nothing of what more images
    would show, and R. G. Newcombe's score interval takes its place (Statistics in Medicine 25, 2006, method 5). That one is
    the more cautious, so a sample without an error can have the wider interval than one with a single one.

    Args:
        truth: shape (N,), True for the positive class; both classes occur.
        scores: shape (N,), higher for the positive class.
    """
    positives, negatives = int(truth.sum()), int((~truth).sum())
    ranks = rankdata(scores)
    above = (ranks[truth] - rankdata(scores[truth])) / negatives  # for each positive: share of negatives below it
    below = 1 - (ranks[~truth] - rankdata(scores[~truth])) / positives
    area = float(above.mean())
    variance = 0.0
    if min(positives, negatives) > 1:
        variance = float(above.var(ddof=1) / positives + below.var(ddof=1) / negatives)
    if variance <= 0 or area in (0, 1):
        return _score_interval(area, positives, negatives)
    half = _Z * variance**0.5 / (area * (1 - area))
    logit = np.log(area / (1 - area))
    low, high = float(1 / (1 + np.exp(half - logit))), float(1 / (1 + np.exp(-half - logit)))
    return Interval(area, low, high, "DeLong, logit")


def _score_interval(area: float, positives: int, negatives: int) -> Interval:
    """The areas from which `area` is just within the expected deviation."""
    others = (positives + negatives) / 2 - 1

    def excess(true: float, side: int) -> float:
        spread = true * (1 - true) * (1 + others * (1 - true) / (2 - true) + others * true / (1 + true))
        return side * (area - true) - _Z * float(np.sqrt(spread / (positives * negatives)))

    tiny = 1e-9
    low = float(brentq(excess, tiny, min(area, 1 - tiny), args=(1,))) if area > 0 else 0.0
    high = float(brentq(excess, max(area, tiny), 1 - tiny, args=(-1,))) if area < 1 else 1.0
    return Interval(area, low, high, "Newcombe, method 5")

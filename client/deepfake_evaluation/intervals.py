"""What a sample of images says about all images like them: confidence intervals of 95 %, and bounds of error rates."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.special import expit, logit
from scipy.stats import binom, binomtest, norm, rankdata

CONFIDENCE = 0.95
_Z = float(norm.ppf((1 + CONFIDENCE) / 2))


class Interval(NamedTuple):
    """A measured value between the ends of its confidence interval, and the method that gave these."""

    value: float
    low: float
    high: float
    method: str

    def __format__(self, _: str) -> str:
        return f"{self.value:.4f} (95 % CI {self.low:.4f}–{self.high:.4f})"


def proportion(hits: int, total: int) -> Interval:
    """A share, with Wilson's score interval, which keeps its coverage for few images and for shares near 0 and 1."""
    ends = binomtest(hits, total).proportion_ci(CONFIDENCE, method="wilson")
    return Interval(hits / total, float(ends.low), float(ends.high), "Wilson")


def area_under_roc(truth: NDArray[np.bool_], scores: NDArray[np.floating[Any]]) -> Interval:
    """The share of pairs of a positive and a negative image that the scores put in order; ties count half.

    The interval takes DeLong's variance (E. R. DeLong et al., Biometrics 44, 1988) through the logit (M. S. Pepe, «The
    Statistical Evaluation of Medical Tests», 2003, 5.2), so that it stays within 0 and 1. Where the sample shows no
    variance, as when the classes are perfectly separated, R. G. Newcombe's score interval takes its place (Statistics
    in Medicine 25, 2006, method 5). That one is wider, so a sample without an error can have the wider interval than
    one with a single error.

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
        return _newcombe(area, positives, negatives)
    half = _Z * variance**0.5 / (area * (1 - area))
    return Interval(area, float(expit(logit(area) - half)), float(expit(logit(area) + half)), "DeLong, logit")


def _newcombe(area: float, positives: int, negatives: int) -> Interval:
    """The areas from which `area` is just within the expected deviation."""
    others = (positives + negatives) / 2 - 1

    def excess(true: float, side: int) -> float:
        spread = true * (1 - true) * (1 + others * (1 - true) / (2 - true) + others * true / (1 + true))
        return side * (area - true) - _Z * math.sqrt(spread / (positives * negatives))

    tiny = 1e-9
    low = float(brentq(excess, tiny, min(area, 1 - tiny), args=(1,))) if area > 0 else 0.0
    high = float(brentq(excess, max(area, tiny), 1 - tiny, args=(-1,))) if area < 1 else 1.0
    return Interval(area, low, high, "Newcombe, method 5")


def upper_bound(errors: int, images: int) -> float:
    """The error rate that is exceeded with 5 % probability at most (Clopper and Pearson 1934, one-sided, exact)."""
    return float(binomtest(errors, images, alternative="less").proportion_ci(CONFIDENCE, method="exact").high)


def images_needed(rate: float) -> int:
    """How many images without a single error show that the rate is at most `rate`: 299 for 1 %."""
    return math.ceil(math.log(1 - CONFIDENCE) / math.log1p(-rate))


def allowed_errors(images: int, rate: float) -> int:
    """The most errors whose `upper_bound` is still at most `rate`; −1 where there are too few images for none.

    The bound is at most `rate` just when so few errors, or fewer, are seen with 5 % probability at most at that rate.
    """
    errors = int(binom.ppf(1 - CONFIDENCE, images, rate))
    return errors if binom.cdf(errors, images, rate) <= 1 - CONFIDENCE else errors - 1

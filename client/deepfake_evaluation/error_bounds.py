"""What a number of errors among a number of images says about the rate at which they are made."""

from __future__ import annotations

import math

from scipy.stats import beta, binom

CONFIDENCE = 0.95


def upper_bound(errors: int, images: int) -> float:
    """The rate that is exceeded with 5 % probability at most (Clopper and Pearson 1934, one-sided); exact, not normal."""
    return 1.0 if errors >= images else float(beta.ppf(CONFIDENCE, errors + 1, images - errors))


def images_needed(rate: float) -> int:
    """How many images without a single error show that the rate is at most `rate`: 299 for 1 %."""
    return math.ceil(math.log(1 - CONFIDENCE) / math.log1p(-rate))


def allowed_errors(images: int, rate: float) -> int:
    """The most errors whose upper bound is still at most `rate`; −1 where there are too few images for none.

    The bound is at most `rate` just when so few errors, or fewer, are seen with 5 % probability at most at that rate.
    """
    errors = int(binom.ppf(1 - CONFIDENCE, images, rate))
    return errors if binom.cdf(errors, images, rate) <= 1 - CONFIDENCE else errors - 1

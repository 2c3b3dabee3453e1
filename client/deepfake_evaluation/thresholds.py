"""From which probability on to decide, so that neither kind of image is taken for the other too often."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .error_bounds import CONFIDENCE, allowed_errors, images_needed
from .errors import InputError

# At one half exactly the label is the first one, "Deepfake".
_BELOW_HALF = float(np.nextafter(0.5, 0))


def require_enough(kind: str, images: int, rate: float) -> None:
    """Refuse a rate that no threshold could be shown to keep.

    Raises:
        InputError: naming how many images are needed, and the rate that these can show.
    """
    if images < images_needed(rate):
        possible = -np.expm1(np.log1p(-CONFIDENCE) / images) if images else 1.0
        enough = f", or ask for --false-positive-rate {np.ceil(possible * 1e4) / 1e4:g}" if possible < 0.5 else ""
        raise InputError(
            f"{images} images of «{kind}» cannot show an error rate of {rate:g} with {100 * CONFIDENCE:.0f} % confidence; "
            f"{images_needed(rate)} are needed{enough}"
        )


def choose_thresholds(
    probabilities: NDArray[np.float64], is_deepfake: NDArray[np.bool_], rate: float
) -> tuple[float | None, float | None]:
    """The lowest threshold for "Deepfake" and the highest for "Real one" that are shown to keep the rate.

    Of n photos the k highest may be called deepfakes, k being the most errors of n whose upper confidence bound is at
    most `rate`. The threshold is the first probability seen above the photo that comes next. Chosen by rank in this
    way, the bound holds for the threshold although it was chosen on the same images: it is a one-sided tolerance limit
    (Wilks 1941). The other way round likewise.

    Where the two thresholds cross, they change places: between them both kinds could be called either, and seldom were
    seen. And neither crosses one half, so that a decision is the verdict's label or none.

    Args:
        probabilities: calibrated, of "Deepfake".
        is_deepfake: the truth; enough of each kind (`require_enough`).
        rate: highest share of photos called "Deepfake", and of deepfakes called "Real one".

    Returns:
        Both thresholds, as `DecisionPolicy` has them; None where even the highest, or lowest, probabilities are of the
        wrong kind too often.
    """
    photos, deepfakes = np.sort(probabilities[~is_deepfake]), np.sort(probabilities[is_deepfake])
    seen = np.unique(probabilities)
    above = seen[seen > photos[-1 - allowed_errors(len(photos), rate)]]
    below = seen[seen < deepfakes[allowed_errors(len(deepfakes), rate)]]
    upper = float(above[0]) if len(above) else None
    lower = float(below[-1]) if len(below) else None
    if upper is not None and lower is not None and lower > upper:
        upper, lower = lower, upper
    return None if upper is None else max(upper, 0.5), None if lower is None else min(lower, _BELOW_HALF)

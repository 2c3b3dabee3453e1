"""What one generator sends, one request after the other: new images, some repeated, some whose answer is known."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from .known_answers import KnownAnswer
from .pool import Payload, Pool, numbers

# Recent enough to be in any cache that holds 32 images, and more than are in flight at a time from most callers.
_RECENT = 32


@dataclass(frozen=True, slots=True)
class Item:
    """One request to be made."""

    payload: Payload
    repeated: bool
    """Whether the same image was sent before, on purpose."""
    known: KnownAnswer | None


class Stream:
    """Requests without an end.

    Args:
        repeat_rate: share of requests, 0 to 1, that send an image again which was one of the last 32 new ones.
        known_rate: share of requests that send an image with a known answer.
        seed: of the order of these; the images themselves never repeat, whatever the seed.
    """

    def __init__(
        self,
        pool: Pool,
        known: Sequence[KnownAnswer],
        *,
        repeat_rate: float,
        known_rate: float,
        seed: int | None = None,
    ) -> None:
        self._pool, self._known = pool, known
        self._repeat_rate, self._known_rate = repeat_rate, known_rate if known else 0.0
        self._random = random.Random(seed)  # noqa: S311 - a load, not a secret
        self._numbers = numbers()
        self._recent: deque[int] = deque(maxlen=_RECENT)

    def next(self) -> Item:
        """The next request; preparing it takes well under a millisecond, and belongs before the clock starts."""
        dice = self._random.random()
        if dice < self._known_rate:
            known = self._random.choice(self._known)
            return Item(known.payload, False, known)
        if self._recent and dice < self._known_rate + self._repeat_rate:
            return Item(self._pool.image(self._random.choice(self._recent)), True, None)
        number = next(self._numbers)
        self._recent.append(number)
        return Item(self._pool.image(number), False, None)

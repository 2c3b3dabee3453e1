"""Callers that each send the next request when they have the answer to the last, and what they saw."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from loadtests.traffic.known_answers import SCORE_TOLERANCE
from loadtests.traffic.pool import JpegPool, numbers

from .callers import DEADLINE_SECONDS, Caller, CallError

# A server that refuses at once must not be asked in a tight loop, which would take its processor.
_PAUSE_AFTER_ERROR_SECONDS = 0.2
_TOGETHER_SECONDS = 0.05


@dataclass(frozen=True, slots=True)
class KnownImage:
    """An image file and the scores that transformers gives it in fp32."""

    file: bytes
    scores: Mapping[str, float]


@dataclass(slots=True)
class Seen:
    """The answers that came while it was measured."""

    answered_at: list[float] = field(default_factory=list)
    """time.monotonic() of right answers, and before them of the answer from which on they count: a rate is taken between
    the first and the last, and the answers of a slow server may all come in one batch."""
    latencies_ms: list[float] = field(default_factory=list)
    errors: Counter[str] = field(default_factory=Counter)

    def percentile_ms(self, percent: int) -> float | None:
        """Of the latencies, between the two nearest; None without any."""
        if len(self.latencies_ms) < 2:
            return self.latencies_ms[0] if self.latencies_ms else None
        return statistics.quantiles(self.latencies_ms, n=100, method="inclusive")[percent - 1]


def distinct_files(side: int = 512) -> Iterator[bytes]:
    """JPEG files of which no two are alike, without an end."""
    pool = JpegPool(side)
    return (pool.image(number) for number in numbers())


async def check_known(caller: Caller, known: Sequence[KnownImage]) -> None:
    """Asks for all at a time, so that they meet in batches.

    Raises:
        CallError: one has no scores, or others than transformers gives.
    """
    answers = await asyncio.gather(*(caller.send(caller.prepare(each.file)) for each in known))
    for image, scores in zip(known, answers, strict=True):
        if not _agree(scores, image.scores):
            shown = ", ".join(f"{label} {score:.3f}" for label, score in scores.items())
            expected = ", ".join(f"{label} {score:.3f}" for label, score in image.scores.items())
            raise CallError(f"wrong answer: {shown or 'nothing'} in place of {expected}")


async def closed_loop(
    caller: Caller, callers: int, seconds: float, files: Iterator[bytes], known: Sequence[KnownImage], *, drain: bool
) -> Seen:
    """What `callers` saw in `seconds`, or longer until as many requests as there are callers have ended, after as many
    that do not count.

    While those end, the queue fills, and who is at its head waits less than everyone who comes later. Every twentieth request is
    for a known image, and a wrong answer is an error.

    Args:
        drain: whether the requests on their way at the end are waited for; otherwise they are given up, which is for a
            server that is stopped next.
    """
    seen = Seen()
    ended, sent = 0, 0
    measure_from = end = float("inf")

    async def call() -> None:
        nonlocal ended, sent, measure_from, end
        while time.monotonic() < end:
            sent += 1
            image = known[sent // 20 % len(known)] if known and sent % 20 == 0 else None
            request = caller.prepare(image.file if image else next(files))
            began = time.monotonic()
            failure = None
            try:
                scores = await caller.send(request)
                if image is not None and not _agree(scores, image.scores):
                    failure = "wrong answer: not the known scores"
                elif abs(sum(scores.values()) - 1) > SCORE_TOLERANCE:
                    failure = "wrong answer: no probabilities"
            except CallError as error:
                failure = str(error)
            now = time.monotonic()
            ended += 1
            if ended == 2 * callers:
                end = max(measure_from + seconds, now)
            if ended == callers:
                measure_from = now
                seen.answered_at.append(now)
            # A batch that begins to be answered before the end counts as a whole.
            elif ended > callers and now <= max(end, seen.answered_at[-1] + _TOGETHER_SECONDS):
                if failure is not None:
                    seen.errors[failure] += 1
                else:
                    seen.answered_at.append(now)
                    seen.latencies_ms.append(1000 * (now - began))
            if failure is not None:
                await asyncio.sleep(_PAUSE_AFTER_ERROR_SECONDS)

    tasks = [asyncio.create_task(call()) for _ in range(callers)]
    while not all(task.done() for task in tasks) and (drain or time.monotonic() < end + _TOGETHER_SECONDS):
        await asyncio.wait(tasks, timeout=0.1, return_when=asyncio.ALL_COMPLETED)
    for task in tasks:
        task.cancel()
    for outcome in await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), DEADLINE_SECONDS):
        if isinstance(outcome, Exception):
            raise outcome
    return seen


def _agree(scores: Mapping[str, float], expected: Mapping[str, float]) -> bool:
    return set(scores) == set(expected) and all(
        abs(scores[label] - score) <= SCORE_TOLERANCE for label, score in expected.items()
    )

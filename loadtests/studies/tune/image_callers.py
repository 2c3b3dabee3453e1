"""Eight callers who each send an image file when they have the answer to the last: what they wait for."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass, field
from pathlib import Path

from deepfake_deploy.embedded import EmbeddedTriton

from loadtests.capacity.triton_metrics import MODEL, scrape
from loadtests.studies.model_speed.figures import Figure
from loadtests.studies.model_speed.repositories import write_repository
from loadtests.studies.peers.callers import TritonCaller
from loadtests.studies.peers.closed_loop import Seen, closed_loop, distinct_files
from loadtests.traffic.rate import answers_per_second

from .rows import ServedRow
from .sweep import tell

CALLERS = 8


@dataclass
class ImageResult:
    """One row's rounds."""

    row: ServedRow
    rates: list[float] = field(default_factory=list)
    seen: list[Seen] = field(default_factory=list)
    batches: list[float] = field(default_factory=list)

    def percentile_ms(self, percent: int) -> Figure:
        """One for each round, since a single disturbance would be the 99th of all rounds together."""
        return Figure(tuple(seen.percentile_ms(percent) or 0.0 for seen in self.seen))


def sweep_image_callers(
    rows: list[ServedRow],
    model: Path,
    repository: Path,
    folder: Path,
    rounds: int,
    seconds: float,
) -> list[ImageResult]:
    """Each row's server `rounds` times for `seconds`; all run side by side, and only one is asked at a time.

    Raises:
        EmbeddedTritonError: a server does not start.
        ValueError: a request failed.
    """
    results = [ImageResult(row) for row in rows]
    with contextlib.ExitStack() as stack:
        servers = []
        for index, row in enumerate(rows):
            tell(f"embedded Triton {index + 1} of {len(rows)} starts")
            target = write_repository(repository, folder / f"images-{index}", model, row.settings, gpu=False)
            servers.append(stack.enter_context(EmbeddedTriton(target)))
        for number in range(rounds):
            for index, (server, result) in enumerate(zip(servers, results, strict=True)):
                tell(f"image files, round {number + 1} of {rounds}, row {index + 1} of {len(results)}")
                before = scrape(server.metrics_url).models[MODEL]
                seen = asyncio.run(_round(server.http_url, seconds))
                result.batches.append(scrape(server.metrics_url).models[MODEL].since(before).batch or 0.0)
                result.rates.append(answers_per_second(seen.answered_at))
                result.seen.append(seen)
    return results


async def _round(url: str, seconds: float) -> Seen:
    caller = TritonCaller(url, decode="server")
    try:
        seen = await closed_loop(caller, CALLERS, seconds, distinct_files(), [], drain=True)
    finally:
        await caller.close()
    if seen.errors:
        raise ValueError(f"a request failed under load ({next(iter(seen.errors))}); see the server's log")
    return seen

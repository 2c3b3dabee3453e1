"""Runs the rows in alternation: each once, then each again, so that a slow minute of the machine meets all of them."""

from __future__ import annotations

import contextlib
import sys
from dataclasses import dataclass, field
from pathlib import Path

from loadtests.studies.model_speed.bare import bare_model
from loadtests.studies.model_speed.figures import Figure
from loadtests.studies.model_speed.repositories import configuration_path, read_configuration, write_repository
from loadtests.studies.model_speed.served import Served, ServedRun, serve_saturated
from loadtests.studies.model_speed.variants import Models, Variant
from loadtests.studies.model_speed.worker import Worker

from .rows import BareRow, ServedRow

_ANSWER_SECONDS = 600.0


@dataclass
class BareResult:
    row: BareRow
    rates: list[float] = field(default_factory=list)
    faults_per_image: list[float] = field(default_factory=list)
    memory_mib: float = 0.0

    @property
    def figure(self) -> Figure:
        return Figure(tuple(self.rates))


@dataclass
class ServedResult:
    row: ServedRow
    runs: list[ServedRun] = field(default_factory=list)

    @property
    def figure(self) -> Figure:
        return Figure(tuple(run.images_per_second for run in self.runs))

    def mean(self, name: str) -> float:
        return sum(getattr(run, name) for run in self.runs) / len(self.runs)


def sweep_bare(rows: list[BareRow], models: Models, rounds: int, seconds: float) -> list[BareResult]:
    """Each row `rounds` times, for `seconds` and at least two passes."""
    results = [BareResult(row) for row in rows]
    paths = {row.variant: models.write(row.variant) for row in rows}
    models.release()
    with contextlib.ExitStack() as stack:
        processes: dict[object, Worker] = {}
        for row in rows:
            if row.process not in processes:
                process = bare_model(paths[row.variant], keep_memory=row.keep_memory, environment=dict(row.environment))
                processes[row.process] = stack.enter_context(process)
        for number in range(rounds):
            for index, result in enumerate(results):
                tell(f"bare model, round {number + 1} of {rounds}, row {index + 1} of {len(results)}")
                row = result.row
                answer = processes[row.process].ask(
                    _ANSWER_SECONDS, batch=row.batch, seconds=seconds, threads=row.threads, attention=row.attention
                )
                result.rates.append(answer["images_per_second"])
                result.faults_per_image.append(answer["faults_per_image"])
                result.memory_mib = answer["memory_mib"]
    return results


def sweep_served(
    rows: list[ServedRow], models: Models, shipped: Variant, repository: Path, folder: Path, rounds: int, seconds: float
) -> list[ServedResult]:
    """Each row's server `rounds` times for `seconds`; all run side by side, and only one is asked at a time."""
    results = [ServedResult(row) for row in rows]
    model = models.write(shipped)
    with contextlib.ExitStack() as stack:
        servers: list[Served] = []
        for index, row in enumerate(rows):
            tell(f"embedded Triton {index + 1} of {len(rows)} starts")
            target = write_repository(repository, folder / f"repository-{index}", model, row.settings, gpu=False)
            size = read_configuration(configuration_path(target, gpu=False)).max_batch_size
            # Two instances at once have two batches in work.
            size *= 2 if row.settings.at_once else 1
            servers.append(stack.enter_context(serve_saturated(target, size, environment=row.environment)))
        for number in range(rounds):
            for index, (server, result) in enumerate(zip(servers, results, strict=True)):
                tell(f"served model, round {number + 1} of {rounds}, row {index + 1} of {len(results)}")
                result.runs.append(server.measure(seconds))
    return results


def tell(progress: str) -> None:
    """Progress, on a terminal only."""
    if sys.stderr.isatty():
        print(f"\r\033[K{progress}", end="", file=sys.stderr, flush=True)

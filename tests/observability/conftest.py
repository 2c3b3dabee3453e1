"""One Triton for the tests of this folder, with everything on that can be seen."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from deepfake_deploy.embedded import EmbeddedTriton

from tests.support.changed_repository import limit_queues, write_failing_model
from tests.support.trace_collector import TraceCollector, collecting


@pytest.fixture(scope="session")
def collector() -> Iterator[TraceCollector]:
    """Where the traces of `observed` go."""
    with collecting() as collector:
        yield collector


@pytest.fixture(scope="session")
def observed(
    repository: Path, collector: TraceCollector, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[EmbeddedTriton]:
    """A Triton with summaries, traces, a response cache, short queues, and one more model, which fails."""
    folder = Path(shutil.copytree(repository, tmp_path_factory.mktemp("observed") / "model_repository"))
    limit_queues(folder)
    write_failing_model(folder)
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("OTEL_BSP_SCHEDULE_DELAY", "200")  # milliseconds; five seconds by default
        server = EmbeddedTriton(
            folder, latency_summaries=True, response_cache_bytes=1 << 25, trace_otlp_url=collector.url
        )
        server.start()
    try:
        yield server
    finally:
        server.stop()

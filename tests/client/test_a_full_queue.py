"""More requests than the server's queue holds: the client backs off, and says overload when there is no time."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from deepfake_client import OverloadedError, RequestOutcome, Verdict
from deepfake_client.preprocessing import Pixels
from deepfake_deploy.embedded import EmbeddedTriton

from tests.support.variants import AnyClient, ask_at_once

# A server of its own. Thirty threads have to fill its queue before it has answered: late by nature on a busy machine.
pytestmark = [pytest.mark.slow, pytest.mark.flaky(reruns=2)]
REQUESTS = 30


@pytest.fixture(scope="module")
def narrow(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedTriton]:
    """A server whose queue holds two requests, and which takes them one by one."""
    folder = tmp_path_factory.mktemp("narrow") / "model_repository"
    shutil.copytree(repository / "deepfake_vs_real", folder / "deepfake_vs_real")
    for config in [folder / "deepfake_vs_real" / "config.pbtxt", *folder.glob("deepfake_vs_real/configs/*.pbtxt")]:
        text = config.read_text()
        text = re.sub(r"max_queue_size: \d+", "max_queue_size: 2", text)
        text = re.sub(r"max_batch_size: \d+", "max_batch_size: 1", text)
        text = re.sub(r"max_queue_delay_microseconds: \d+", "max_queue_delay_microseconds: 0", text)
        text = re.sub(r"preferred_batch_size: \[[^]]*\]", "", text)
        text = re.sub(r"(?m)^model_warmup \[.*?^\]", "", text, flags=re.DOTALL)
        config.write_text(text)
    server = EmbeddedTriton(folder)
    server.start()
    yield server
    server.kill()


@pytest.mark.parametrize("protocol", ["grpc", "http"])
def test_all_succeed_within_the_deadline_by_backing_off(
    make_client: Callable[..., AnyClient], narrow: EmbeddedTriton, protocol: str, pixels: Pixels
) -> None:
    outcomes: list[RequestOutcome] = []
    url = narrow.grpc_url if protocol == "grpc" else narrow.http_url
    client = make_client(url, on_request=outcomes.append, timeout=60, max_retries=60)
    verdicts = ask_at_once(client, [pixels] * REQUESTS, threads=REQUESTS)
    assert all(isinstance(verdict, Verdict) for verdict in verdicts), verdicts
    assert sum(outcome.attempts - 1 for outcome in outcomes) > 5


@pytest.mark.parametrize("protocol", ["grpc", "http"])
def test_with_a_short_deadline_it_is_an_overload(
    make_client: Callable[..., AnyClient], narrow: EmbeddedTriton, protocol: str, pixels: Pixels
) -> None:
    url = narrow.grpc_url if protocol == "grpc" else narrow.http_url
    client = make_client(url)
    client.classify_pixels(pixels)
    answers = ask_at_once(client, [pixels] * REQUESTS, threads=REQUESTS, timeout=0.1)
    refused = [answer for answer in answers if isinstance(answer, OverloadedError)]
    assert refused
    assert any("queue" in error.reason for error in refused)

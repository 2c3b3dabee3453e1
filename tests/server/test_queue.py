"""A queue with an end, and with two levels of priority."""

from __future__ import annotations

import functools
import queue
import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from deepfake_deploy.embedded import EmbeddedTriton
from tritonclient.utils import InferenceServerException

from tests.support.calls import BareClient
from tests.support.pictures import encoded, photo_like
from tests.support.servers import running

INTERACTIVE, BULK = 1, 2

# Who is served before whom is seen in answers that are milliseconds apart: late by nature on a busy machine.
pytestmark = pytest.mark.flaky(reruns=2)


@pytest.fixture(scope="module")
def short_queue(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedTriton]:
    """A server of the same models whose queues hold 8 requests of each priority."""
    folder = Path(shutil.copytree(repository, tmp_path_factory.mktemp("short") / "model_repository"))
    for path in folder.glob("*/configs/cpu.pbtxt"):
        path.write_text(path.read_text().replace("max_queue_size: 256", "max_queue_size: 8"))
    with running(folder) as server:
        yield server


def send(server: EmbeddedTriton, requests: list[tuple[str, int]], model: str) -> list[tuple[str, str]]:
    """Send (name, priority) requests at once; (name, outcome) of each in the order in which they were answered."""
    answered: queue.Queue[tuple[str, str]] = queue.Queue()

    def answer(name: str, result: object, error: InferenceServerException | None) -> None:  # noqa: ARG001 - called by these names
        answered.put((name, error.message() if error else "ok"))

    with BareClient(server.grpc_url) as client:
        if model == "deepfake_vs_real":
            tensor = client.pixels(np.zeros((4, 224, 224, 3), np.uint8))
        else:
            tensor = client.image(*[encoded(photo_like(640, 480, 1), "JPEG")] * 4)
        for name, priority in requests:
            client.connection.async_infer(
                model,
                [tensor],
                callback=functools.partial(answer, name),
                priority=priority,
                client_timeout=30,
            )
        return [answered.get(timeout=30) for _ in requests]


@pytest.mark.parametrize("model", ["deepfake_vs_real", "deepfake_vs_real_image"])
def test_a_full_queue_refuses_and_serves_again_at_once(short_queue: EmbeddedTriton, model: str) -> None:
    outcomes = [outcome for _, outcome in send(short_queue, [("", INTERACTIVE)] * 64, model)]
    assert 8 <= outcomes.count("ok") < 64
    refused = {outcome for outcome in outcomes if outcome != "ok"}
    assert len(refused) == 1
    assert "Exceeds maximum queue size" in refused.pop()
    assert send(short_queue, [("", INTERACTIVE)], model) == [("", "ok")]


@pytest.mark.slow
def test_a_full_queue_does_not_keep_the_model_idle(short_queue: EmbeddedTriton) -> None:
    """Triton's batcher looks for a free instance every 500 ms unless something tells it, and a refused request does not: a
    single instance, without another that has its batch ready, gives 60 to 120 answers until the deadline."""
    wanted, deadline = 300, time.monotonic() + 30
    outcomes: list[bool] = []  # appended to by all

    def call() -> None:
        with BareClient(short_queue.grpc_url) as client:
            while sum(outcomes) < wanted and time.monotonic() < deadline:
                try:
                    client.classify_pixels(np.zeros((8, 224, 224, 3), np.uint8))  # a full batch
                    outcomes.append(True)
                except InferenceServerException:
                    outcomes.append(False)
                    time.sleep(0.01)

    callers = [threading.Thread(target=call) for _ in range(24)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert False in outcomes
    assert outcomes.count(True) >= wanted


@pytest.mark.slow
def test_images_are_decoded_while_the_model_is_busy(repository: Path) -> None:
    """Of the instances that have a batch, Triton's rate limiter starts the one that has executed least, weighed by its
    priority, and none while that one has to wait for its turn. Weighed alike, the decoder would stand still until both
    instances of a busy model have caught up with it: here for 300 batches."""
    stop, answered = threading.Event(), []  # a line for each batch, by all

    def keep_busy(server: EmbeddedTriton) -> None:
        with BareClient(server.grpc_url) as client:
            while not stop.is_set():
                client.classify_pixels(np.zeros((8, 224, 224, 3), np.uint8))  # a full batch
                answered.append(None)

    with running(repository) as server, BareClient(server.grpc_url) as client:
        image = encoded(photo_like(60, 40, 1), "JPEG")
        for _ in range(300):
            client.classify_image(image)
        callers = [threading.Thread(target=keep_busy, args=[server]) for _ in range(4)]
        for caller in callers:
            caller.start()
        try:
            deadline = time.monotonic() + 30
            while len(answered) < 8 and time.monotonic() < deadline:
                time.sleep(0.01)
            assert len(answered) >= 8  # else nothing keeps the model busy
            before = len(answered)
            client.classify_image(image)
            meanwhile = len(answered) - before
        finally:
            stop.set()
            for caller in callers:
                caller.join()
    assert meanwhile < 50


@pytest.mark.parametrize("model", ["deepfake_vs_real", "deepfake_vs_real_image"])
def test_interactive_callers_are_served_before_a_bulk_run_that_came_first(triton: EmbeddedTriton, model: str) -> None:
    answered = send(triton, [("bulk", BULK)] * 40 + [("interactive", INTERACTIVE)] * 4, model)
    assert all(outcome == "ok" for _, outcome in answered)
    order = [name for name, _ in answered]
    last_interactive = max(index for index, name in enumerate(order) if name == "interactive")
    assert last_interactive < 30  # sent last, of 44


def test_a_bulk_run_cannot_fill_the_queue_of_the_others(short_queue: EmbeddedTriton) -> None:
    requests = [("bulk", BULK)] * 40 + [("interactive", INTERACTIVE)] * 4
    answered = send(short_queue, requests, "deepfake_vs_real")
    assert any(name == "bulk" and outcome != "ok" for name, outcome in answered)
    assert all(outcome == "ok" for name, outcome in answered if name == "interactive")


def test_who_names_no_priority_is_interactive(triton: EmbeddedTriton) -> None:
    answered = send(triton, [("bulk", BULK)] * 40 + [("unnamed", 0)] * 4, "deepfake_vs_real")
    assert max(index for index, (name, _) in enumerate(answered) if name == "unnamed") < 30

"""What Triton's counters do and do not count. The rules of deploy/observability rest on it; so a newer server shows here."""

from __future__ import annotations

import queue
import re
import time
import urllib.request
from collections import Counter
from collections.abc import Callable

import numpy as np
import pytest
import tritonclient.grpc
import tritonclient.http
from deepfake_deploy.embedded import EmbeddedTriton
from tritonclient.utils import InferenceServerException

from tests.support.calls import BareClient
from tests.support.changed_repository import FAILING_MODEL, QUEUE_LIMIT
from tests.support.metrics import settled

# A server of its own, with short queues. Triton counts a request a moment after it answered it: late by nature.
pytestmark = [pytest.mark.slow, pytest.mark.flaky(reruns=1)]

MODEL, DECODER, ENSEMBLE = "deepfake_vs_real", "image_decoder", "deepfake_vs_real_image"
RANDOM = np.random.default_rng(1)


def pixels(images: int) -> np.ndarray:
    """Never the same twice, so that no cache answers."""
    return RANDOM.integers(0, 256, (images, 224, 224, 3), dtype=np.uint8)


class Counters:
    """Requests that a server has counted since this was made."""

    def __init__(self, server: EmbeddedTriton) -> None:
        self._url = server.metrics_url
        self._before = self._read()

    def failures(self, model: str, reason: str) -> int:
        return self._since()[model, reason]

    def successes(self, model: str) -> int:
        return self._since()[model, "success"]

    def _since(self) -> Counter[tuple[str, str]]:
        now = self._read()
        now.subtract(self._before)
        return now

    def _read(self) -> Counter[tuple[str, str]]:
        text = urllib.request.urlopen(self._url).read().decode()
        found: Counter[tuple[str, str]] = Counter()
        for labels, value in re.findall(r"^nv_inference_request_(?:failure|success)\{(.*)\} (\d+)$", text, re.M):
            pairs = dict(re.findall(r'(\w+)="([^"]*)"', labels))
            found[pairs["model"], pairs.get("reason", "success")] += int(value)
        return found


def flood(server: EmbeddedTriton, requests: int, meanwhile: Callable[[], None]) -> Counter[str]:
    """Send that many of eight images each, in bursts of three times what the queue holds, and see after each what happens
    meanwhile; how often each outcome came."""
    answered: queue.Queue[str] = queue.Queue()

    def answer(result: object, error: InferenceServerException | None) -> None:  # noqa: ARG001 - called by these names
        answered.put("ok" if error is None else error.message())

    with BareClient(server.grpc_url) as client:
        tensors = [client.pixels(pixels(8)) for _ in range(requests)]  # first, so that sending does not wait for it
        for number, tensor in enumerate(tensors, 1):
            client.connection.async_infer(MODEL, [tensor], callback=answer, client_timeout=60)
            if number % (3 * QUEUE_LIMIT) == 0:
                meanwhile()
        return Counter(answered.get(timeout=60) for _ in range(requests))


def test_a_request_that_finds_the_queue_full_is_counted_nowhere_but_the_queue_shows_it(
    observed: EmbeddedTriton,
) -> None:
    counters, seen = Counters(observed), [0]

    def look() -> None:
        text = urllib.request.urlopen(observed.metrics_url).read().decode()
        seen.append(int(re.findall(rf'^nv_inference_pending_request_count\{{model="{MODEL}".* (\d+)$', text, re.M)[0]))

    outcomes = flood(observed, 72, look)
    refused = sum(number for outcome, number in outcomes.items() if "Exceeds maximum queue size" in outcome)
    assert refused > 0
    assert outcomes["ok"] + refused == 72
    assert settled(lambda: counters.successes(MODEL), outcomes["ok"]) == outcomes["ok"]
    assert [counters.failures(MODEL, reason) for reason in ("REJECTED", "CANCELED", "BACKEND", "OTHER")] == [0] * 4
    assert max(seen) >= QUEUE_LIMIT  # and a batch more, which has left the queue and is not computed yet


def test_a_request_that_waited_too_long_is_rejected_once(observed: EmbeddedTriton) -> None:
    counters = Counters(observed)
    with BareClient(observed.grpc_url) as client, pytest.raises(InferenceServerException, match="timeout expired"):
        client.classify_pixels(pixels(1), timeout=1)  # microseconds: shorter than the batcher's delay
    assert settled(lambda: counters.failures(MODEL, "REJECTED"), 1) == 1


def test_an_ensemble_counts_a_failure_twice_and_never_says_why(observed: EmbeddedTriton) -> None:
    counters = Counters(observed)
    with BareClient(observed.grpc_url) as client, pytest.raises(InferenceServerException, match="not an image"):
        client.classify_image(b"no image")
    assert settled(lambda: counters.failures(ENSEMBLE, "OTHER"), 2) == 2
    assert counters.successes(DECODER) == 1  # it has answered, if only that the image is broken
    assert counters.failures(DECODER, "BACKEND") == 0


@pytest.mark.parametrize("protocol", ["grpc", "http"])
def test_a_model_that_fails_is_counted_as_such_and_tells_why(observed: EmbeddedTriton, protocol: str) -> None:
    counters = Counters(observed)
    module = tritonclient.grpc if protocol == "grpc" else tritonclient.http
    url = observed.grpc_url if protocol == "grpc" else observed.http_url
    number = module.InferInput("numbers", [1, 1], "FP32")
    number.set_data_from_numpy(np.full((1, 1), -1, np.float32))
    with (
        module.InferenceServerClient(url.partition("://")[2]) as client,
        pytest.raises(InferenceServerException, match="PyTorch execute failure") as failure,
    ):
        client.infer(FAILING_MODEL, [number])
    assert "a number below zero" in failure.value.message()
    assert failure.value.status() in ("StatusCode.INTERNAL", "500")
    assert settled(lambda: counters.failures(FAILING_MODEL, "BACKEND"), 1) == 1
    assert counters.successes(FAILING_MODEL) == 0


def test_a_request_that_its_caller_gave_up_is_cancelled(observed: EmbeddedTriton) -> None:
    counters = Counters(observed)
    with BareClient(observed.grpc_url) as client:
        # A caller may give up before the server has seen the request, or when it is answered already: so several try.
        for _ in range(20):
            give_up_while_waiting(client)
            if counters.failures(MODEL, "CANCELED") >= 1:
                break
    assert settled(lambda: counters.failures(MODEL, "CANCELED"), 1) >= 1
    # Those that were answered are counted a moment later, and not to be taken for the next test's.
    counted = -1.0
    while counted != counters.successes(MODEL):
        counted = counters.successes(MODEL)
        time.sleep(0.5)


def give_up_while_waiting(client: BareClient) -> None:
    """As many requests as the queue holds, all but the first cancelled as soon as they are sent."""
    ended: queue.Queue[object] = queue.Queue()
    tensors = [client.pixels(pixels(8)) for _ in range(QUEUE_LIMIT)]  # first, so that all wait in the queue at once
    calls = [
        client.connection.async_infer(
            MODEL,
            [tensor],
            callback=lambda result, error: ended.put(error),  # noqa: ARG005 - called by these names
        )
        for tensor in tensors
    ]
    for call in calls[1:]:
        call.cancel()
    for _ in calls:
        ended.get(timeout=60)


def test_what_is_no_request_to_a_model_is_counted_nowhere(observed: EmbeddedTriton) -> None:
    counters = Counters(observed)
    with BareClient(observed.grpc_url) as client:
        with pytest.raises(InferenceServerException, match="unexpected shape"):
            client.classify_pixels(np.zeros((1, 3, 3, 3), np.uint8))
        with pytest.raises(InferenceServerException, match="unknown model"):
            client.infer("nothing", client.pixels(pixels(1)), ())
        client.classify_pixels(pixels(1))
    assert settled(lambda: counters.successes(MODEL), 1) == 1
    assert sum(counters.failures(MODEL, reason) for reason in ("REJECTED", "CANCELED", "BACKEND", "OTHER")) == 0


def test_summaries_give_quantiles_of_the_time_in_the_queue_and_in_the_model(observed: EmbeddedTriton) -> None:
    with BareClient(observed.grpc_url) as client:
        client.classify_pixels(pixels(1))
    text = urllib.request.urlopen(observed.metrics_url).read().decode()
    for name in ("queue", "compute_infer"):
        assert re.search(rf'^nv_inference_{name}_summary_us\{{model="{MODEL}".*quantile="0.95"', text, re.MULTILINE)

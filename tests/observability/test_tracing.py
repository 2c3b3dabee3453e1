"""A caller's trace goes on in the server."""

from __future__ import annotations

import itertools
import subprocess
import sys
from typing import Any

import pytest
from deepfake_client import DeepfakeClient
from deepfake_deploy.embedded import EmbeddedTriton

from tests.support.pictures import encoded, photo_like
from tests.support.trace_collector import TraceCollector

CALLERS_SPAN = "1234567890abcdef"
# Triton 2.51 loses the whole trace of some requests over gRPC: 21 of 800 one after the other, and none of 400 over HTTP.
ATTEMPTS = {"grpc": 8, "http": 1}
# Each traced request has an image and a trace of its own: an answer from the response cache has fewer spans.
numbers = itertools.count(1)


def attributes(thing: dict[str, Any]) -> dict[str, str]:
    return {pair["key"]: next(iter(pair["value"].values())) for pair in thing["attributes"]}


@pytest.mark.slow
@pytest.mark.flaky(reruns=2)  # Triton 2.51 loses some traces of requests over gRPC
@pytest.mark.parametrize("protocol", ["grpc", "http"])
def test_a_request_with_a_trace_context_is_traced_through_the_ensemble(
    observed: EmbeddedTriton, collector: TraceCollector, protocol: str
) -> None:
    url = observed.grpc_url if protocol == "grpc" else observed.http_url
    spans: dict[str, dict[str, Any]] = {}
    with DeepfakeClient(url, decode="server") as client:
        client.classify(encoded(photo_like(90, 60, next(numbers)), "JPEG"))  # untraced; learns the labels
        for number in itertools.islice(numbers, ATTEMPTS[protocol]):
            trace_id = f"a{number:031x}"
            client.classify(
                encoded(photo_like(90, 60, number), "JPEG"),
                request_id=f"upload-{protocol}",
                traceparent=f"00-{trace_id}-{CALLERS_SPAN}-01",
            )
            # The name `compute` is that of two spans, one for each model.
            if spans := collector.spans_of(trace_id, 6, patience_seconds=5):
                break
    assert spans["InferRequest"]["parentSpanId"] == CALLERS_SPAN
    ensemble = spans["deepfake_vs_real_image"]
    assert ensemble["parentSpanId"] == spans["InferRequest"]["spanId"]
    assert spans["image_decoder"]["parentSpanId"] == ensemble["spanId"]
    assert spans["deepfake_vs_real"]["parentSpanId"] == ensemble["spanId"]
    assert attributes(ensemble)["triton.request_id"] == f"upload-{protocol}"
    assert attributes(ensemble["resource"])["service.name"] == "deepfake-vs-real"


@pytest.mark.slow
def test_requests_without_a_trace_context_are_not_traced(observed: EmbeddedTriton, collector: TraceCollector) -> None:
    with DeepfakeClient(observed.http_url) as client:
        client.classify(encoded(photo_like(90, 60, next(numbers)), "JPEG"))
        # Spans leave in order, so the later request's show that the earlier one has none.
        number = next(numbers)
        trace_id = f"b{number:031x}"
        client.classify(encoded(photo_like(90, 60, number), "JPEG"), traceparent=f"00-{trace_id}-{CALLERS_SPAN}-01")
    assert collector.spans_of(trace_id, 3)
    assert {span["traceId"][0] for span in collector.spans} <= set("ab")


def test_a_collector_is_given_as_a_url() -> None:
    run = subprocess.run(
        [sys.executable, "-m", "deepfake_cli", "serve", "--trace-otlp", "collector:4318"],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert run.returncode == 2
    assert "--trace-otlp must be the URL of a collector's traces, as http://127.0.0.1:4318/v1/traces" in run.stderr

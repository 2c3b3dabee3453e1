"""One behaviour over gRPC and HTTP, from threads and from asyncio, against a real Triton."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from deepfake_client import (
    AccessDeniedError,
    AsyncDeepfakeClient,
    ClientClosedError,
    ConnectionFailedError,
    DeadlineExceededError,
    DeepfakeError,
    InvalidArgumentError,
    OverloadedError,
    ProtocolError,
    RequestOutcome,
    RequestRejectedError,
    UnknownModelError,
    Verdict,
)
from deepfake_client.preprocessing import Pixels, to_pixels
from deepfake_deploy.embedded import EmbeddedTriton

from tests.support.pictures import encoded, photo_like
from tests.support.variants import AnyClient, ask_at_once

Make = Callable[..., AnyClient]


def test_an_image_gets_its_verdict(make_client: Make, url: str) -> None:
    client = make_client(url)
    verdict = client.classify(encoded(photo_like(300, 200, 1), "PNG"), source="a.png", request_id="id-7")
    assert list(verdict.scores) == ["Deepfake", "Real one"]
    assert verdict.label == max(verdict.scores, key=lambda label: verdict.scores[label])
    assert sum(verdict.scores.values()) == pytest.approx(1, abs=1e-6)
    assert (verdict.source, verdict.model, verdict.model_version, verdict.request_id) == (
        "a.png",
        "deepfake_vs_real",
        "1",
        "id-7",
    )


def test_pixels_and_images_get_the_same_verdict_alone_and_in_a_batch(make_client: Make, url: str) -> None:
    client = make_client(url)
    photos = [photo_like(100 + 30 * seed, 90, seed) for seed in range(5)]
    pixels = np.stack([to_pixels(photo) for photo in photos])
    alone = [client.classify(photo).scores["Deepfake"] for photo in photos]
    assert [client.classify_pixels(each).scores["Deepfake"] for each in pixels] == pytest.approx(alone, abs=1e-6)
    assert [each.scores["Deepfake"] for each in client.classify_batch(pixels)] == pytest.approx(alone, abs=1e-5)
    assert client.classify_pixels(pixels[0][::-1][::-1]).scores["Deepfake"] == pytest.approx(alone[0], abs=1e-6)


def test_the_model_describes_itself(make_client: Make, url: str) -> None:
    info = make_client(url).model_info()
    assert (info.name, info.version, info.labels) == ("deepfake_vs_real", "1", ("Deepfake", "Real one"))
    assert (info.input_shape, info.input_datatype, info.backend) == ((224, 224, 3), "UINT8", "pytorch")
    assert info.max_batch_size is not None
    assert info.max_batch_size >= 8
    assert info.max_queue_size


def test_a_served_model_is_ready_and_others_are_not(make_client: Make, url: str, nobody_listens: str) -> None:
    assert make_client(url).ready()
    assert not make_client(url, model="nope").ready()
    assert not make_client(url, model_version="7").ready()
    nowhere = f"{url.split(':')[0]}://{nobody_listens}"
    assert not make_client(nowhere).ready(timeout=1)
    assert make_client([nowhere, url]).ready()


@pytest.mark.parametrize("settings", [{"model": "nope"}, {"model_version": "7"}], ids=str)
def test_an_unknown_model_is_said_to_be_one_and_not_asked_for_again(
    make_client: Make, url: str, pixels: Pixels, settings: dict[str, str]
) -> None:
    client = make_client(url, **settings)
    for call in (lambda: client.classify_pixels(pixels), client.model_info):
        with pytest.raises(UnknownModelError) as raised:
            call()
        assert raised.value.attempts == 1
        assert raised.value.endpoint == url


def test_a_batch_over_the_maximum_is_refused_by_the_server(make_client: Make, url: str) -> None:
    client = make_client(url)
    size = (client.model_info().max_batch_size or 0) + 1
    with pytest.raises(RequestRejectedError, match="batch-size") as raised:
        client.classify_batch(np.zeros((size, 224, 224, 3), np.uint8))
    assert raised.value.attempts == 1


@pytest.mark.parametrize("shape", [(224, 224), (1, 224, 224, 3), (224, 223, 3), (3, 224, 224)], ids=str)
def test_pixels_of_another_shape_are_refused_before_they_are_sent(
    make_client: Make, url: str, shape: tuple[int, ...]
) -> None:
    client = make_client(url)
    with pytest.raises(InvalidArgumentError, match="shape"):
        client.classify_pixels(np.zeros(shape, np.uint8))
    with pytest.raises(InvalidArgumentError, match="float32"):
        client.classify_pixels(np.zeros((224, 224, 3), np.float32))


def test_a_deadline_that_cannot_be_kept_ends_in_time(make_client: Make, url: str, pixels: Pixels) -> None:
    client = make_client(url)
    client.classify_pixels(pixels)
    with pytest.raises((DeadlineExceededError, OverloadedError)) as raised:
        client.classify_pixels(pixels, timeout=0.001)
    assert isinstance(raised.value, (TimeoutError, OverloadedError))


def test_many_callers_at_once_get_their_own_answers(make_client: Make, url: str) -> None:
    client = make_client(url)
    photos = [to_pixels(photo_like(64, 64, seed)) for seed in range(12)]
    alone = [client.classify_pixels(photo).scores["Deepfake"] for photo in photos]
    verdicts = ask_at_once(client, photos * 8, threads=32)
    for index, verdict in enumerate(verdicts):
        assert isinstance(verdict, Verdict), verdict
        assert verdict.scores["Deepfake"] == pytest.approx(alone[index % 12], abs=1e-5)


def test_a_refused_connection_is_retried_and_then_reported(
    make_client: Make, url: str, nobody_listens: str, pixels: Pixels
) -> None:
    nowhere = f"{url.split(':')[0]}://{nobody_listens}"
    with pytest.raises(ConnectionFailedError, match="connection refused") as raised:
        make_client(nowhere, max_retries=2).classify_pixels(pixels)
    assert raised.value.attempts == 3
    assert raised.value.__cause__ is raised.value.__context__ is None


def test_a_name_that_does_not_resolve_is_said_to_be_one(make_client: Make, url: str, pixels: Pixels) -> None:
    client = make_client(f"{url.split(':')[0]}://triton.invalid", max_retries=0)
    with pytest.raises(ConnectionFailedError, match="does not resolve"):
        client.classify_pixels(pixels)


def test_the_port_of_the_other_protocol_is_a_typed_error(
    make_client: Make, url: str, triton: EmbeddedTriton, pixels: Pixels
) -> None:
    other = triton.http_url if url.startswith("grpc") else triton.grpc_url
    wrong = url.split(":")[0] + ":" + other.split(":", 1)[1]
    with pytest.raises((ConnectionFailedError, ProtocolError)):
        make_client(wrong, max_retries=1, timeout=5).classify_pixels(pixels)


def test_proxies_of_the_environment_are_not_used(
    make_client: Make, url: str, nobody_listens: str, pixels: Pixels, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "grpc_proxy", "HTTP_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, f"http://{nobody_listens}")
    monkeypatch.delenv("no_proxy", raising=False)
    assert make_client(url).classify_pixels(pixels).ok


def test_headers_and_trace_context_are_accepted_by_the_server(make_client: Make, url: str, pixels: Pixels) -> None:
    client = make_client(url, token=lambda: "t0k3n", headers={"X-Api-Key": "k"})
    traceparent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    assert client.classify_pixels(pixels, traceparent=traceparent).ok


def test_a_replica_that_is_down_costs_nothing_but_a_second_attempt(
    make_client: Make, url: str, nobody_listens: str, pixels: Pixels
) -> None:
    outcomes: list[RequestOutcome] = []
    nowhere = f"{url.split(':')[0]}://{nobody_listens}"
    client = make_client([nowhere, url], on_request=outcomes.append)
    assert all(client.classify_pixels(pixels).ok for _ in range(20))
    assert {outcome.endpoint for outcome in outcomes if not outcome.error} == {url}
    # Once at the start, and again by one request for each second it was left out.
    assert sum(outcome.attempts - 1 for outcome in outcomes) <= 5


def test_a_call_that_runs_while_the_client_closes_fails_with_a_typed_error(
    make_client: Make, url: str, pixels: Pixels
) -> None:
    client = make_client(url)
    client.classify_pixels(pixels)
    with ThreadPoolExecutor(16) as pool:
        running = [pool.submit(client.classify_pixels, pixels) for _ in range(64)]
        client.close()
        errors = [future.exception() for future in running]
    assert all(error is None or isinstance(error, (ClientClosedError, ConnectionFailedError)) for error in errors)


async def test_the_loop_goes_on_while_images_are_decoded(url: str) -> None:
    content = encoded(photo_like(1500, 1000, 1), "PNG", compress_level=1)
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    async with AsyncDeepfakeClient(url) as client:
        await client.classify(content)
        counting = asyncio.create_task(count())
        await client.classify(content)
        counting.cancel()
    assert turns > 20


async def test_a_cancelled_call_stops_and_the_client_goes_on(url: str, pixels: Pixels) -> None:
    async with AsyncDeepfakeClient(url) as client:
        for pause in (0, 0.001, 0.005, 0.02):
            task = asyncio.create_task(client.classify_pixels(pixels))
            await asyncio.sleep(pause)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        assert (await client.classify_pixels(pixels)).ok


def test_an_async_client_of_another_loop_is_refused(url: str, pixels: Pixels) -> None:
    client = AsyncDeepfakeClient(url)
    loop = asyncio.new_event_loop()
    try:
        assert loop.run_until_complete(client.classify_pixels(pixels)).ok

        async def from_another() -> DeepfakeError:
            with pytest.raises(InvalidArgumentError, match="one for each loop") as raised:
                await client.classify_pixels(pixels)
            return raised.value

        other = asyncio.new_event_loop()
        other.run_until_complete(from_another())
        other.close()
        loop.run_until_complete(client.close())
    finally:
        loop.run_until_complete(asyncio.sleep(0.05))
        loop.close()


def test_a_restricted_api_is_denied_and_not_retried(triton: EmbeddedTriton) -> None:
    # The embedded server restricts the repository API; the client has no call for it, so its codecs are asked.
    import grpc
    import urllib3
    from deepfake_client._transports import grpc_codec, http_codec
    from tritonclient.grpc import service_pb2, service_pb2_grpc

    with grpc.insecure_channel(triton.grpc_url.removeprefix("grpc://")) as channel:
        with pytest.raises(grpc.RpcError) as refused:
            service_pb2_grpc.GRPCInferenceServiceStub(channel).RepositoryIndex(service_pb2.RepositoryIndexRequest())
        error = grpc_codec.to_error(refused.value, closed=False)
    assert isinstance(error, AccessDeniedError)
    assert not error.retryable
    answer = urllib3.request("POST", f"{triton.http_url}/v2/repository/index", body=b"{}")
    assert isinstance(http_codec.to_error(answer.status, answer.headers, answer.data), AccessDeniedError)


def test_clients_made_and_closed_leave_no_socket_and_no_thread(kind: str, url: str, pixels: Pixels) -> None:
    import psutil

    from tests.support.variants import client_of

    process = psutil.Process()

    def round_trip() -> None:
        with client_of(kind, url) as client:
            assert client.classify_pixels(pixels).ok

    for _ in range(3):
        round_trip()
    before = process.num_fds()
    for _ in range(25):
        round_trip()
    # gRPC keeps a few descriptors for all channels of a process, and makes them when it likes.
    assert process.num_fds() <= before + 10

"""Connections that a NAT, a balancer or a node dropped without a word: they cost a moment, and no call."""

from __future__ import annotations

import contextlib
import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import urlsplit

import aiohttp.connector
import psutil
import pytest
from deepfake_client import DeadlineExceededError, RequestOutcome
from deepfake_client._transports import grpc
from deepfake_client._transports.grpc import CHANNEL_OPTIONS
from deepfake_client._transports.kept import Patience, Shared
from deepfake_client.preprocessing import Pixels
from deepfake_deploy.embedded import EmbeddedTriton

from tests.client.test_http_connections import Handler, serving
from tests.support.chaos_proxy import ChaosProxy, Mischief
from tests.support.fake_triton import fake_triton
from tests.support.variants import AnyClient

Make = Callable[..., AnyClient]
POOLED = 4
CALLS = 2 * POOLED


@pytest.fixture(params=["grpc", "http"])
def protocol(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def proxy(triton: EmbeddedTriton, protocol: str) -> Iterator[ChaosProxy]:
    with ChaosProxy(getattr(triton, f"{protocol}_url")) as proxy:
        yield proxy


@contextlib.contextmanager
def answering(protocol: str, seconds: Callable[[int], float]) -> Iterator[str]:
    """The URL of a server that takes `seconds(number)` for each image; those who ask for labels wait as well."""
    numbers = iter(range(1000))

    def respond(handler: Handler, body: bytes) -> None:
        time.sleep(seconds(next(numbers)))
        handler.answer(body)

    def behave(number: int, _context: Any) -> tuple[float, float]:
        time.sleep(seconds(number))
        return 0.75, 0.25

    if protocol == "http":
        with serving(respond) as server:
            yield server.url
    else:
        with fake_triton(behave) as url:
            yield url


def fill_pool(client: AnyClient, pixels: Pixels) -> None:
    """Leaves several connections open, where the protocol needs several."""
    client.classify_pixels(pixels)
    with ThreadPoolExecutor(POOLED) as threads:
        assert all(verdict.ok for verdict in threads.map(client.classify_pixels, [pixels] * 4 * POOLED))


@pytest.mark.slow
def test_with_the_default_deadline_no_call_fails_and_the_first_answer_comes_within_a_third_of_it(
    make_client: Make, proxy: ChaosProxy, pixels: Pixels
) -> None:
    outcomes: list[RequestOutcome] = []
    client = make_client(proxy.url, on_request=outcomes.append)
    fill_pool(client, pixels)
    outcomes.clear()
    proxy.forget_all()
    began = time.monotonic()
    assert client.classify_pixels(pixels).ok
    assert time.monotonic() - began < 10
    assert all(client.classify_pixels(pixels).ok for _ in range(CALLS))
    assert [outcome.attempts for outcome in outcomes] == [2] + [1] * CALLS


@pytest.mark.parametrize("resets", [False, True], ids=["silent", "reset"])
def test_pooled_connections_that_died_together_cost_one_attempt_and_no_retry(
    make_client: Make, proxy: ChaosProxy, pixels: Pixels, protocol: str, resets: bool
) -> None:
    proxy.mischief = Mischief(resets_forgotten=resets)
    outcomes: list[RequestOutcome] = []
    # gRPC makes a connection anew that was reset, by itself: that is an ordinary retry.
    client = make_client(
        proxy.url, timeout=6, max_retries=int(resets and protocol == "grpc"), on_request=outcomes.append
    )
    fill_pool(client, pixels)
    outcomes.clear()
    proxy.forget_all()
    assert all(client.classify_pixels(pixels).ok for _ in range(CALLS))
    assert [outcome.attempts for outcome in outcomes] == [2] + [1] * (CALLS - 1)


def test_calls_that_met_dead_connections_together_are_all_answered(
    make_client: Make, proxy: ChaosProxy, pixels: Pixels
) -> None:
    client = make_client(proxy.url, timeout=8)
    fill_pool(client, pixels)
    proxy.forget_all()
    with ThreadPoolExecutor(CALLS) as threads:
        assert all(verdict.ok for verdict in threads.map(client.classify_pixels, [pixels] * CALLS))


def test_a_dead_connection_does_not_make_a_server_look_unready(
    make_client: Make, proxy: ChaosProxy, pixels: Pixels
) -> None:
    client = make_client(proxy.url)
    fill_pool(client, pixels)
    proxy.forget_all()
    assert client.ready(timeout=5)


def test_two_replicas_behind_one_nat_cost_two_attempts(
    make_client: Make, triton: EmbeddedTriton, protocol: str, pixels: Pixels
) -> None:
    url = getattr(triton, f"{protocol}_url")
    outcomes: list[RequestOutcome] = []
    with ChaosProxy(url) as one, ChaosProxy(url) as other:
        client = make_client([one.url, other.url], timeout=6, on_request=outcomes.append)
        fill_pool(client, pixels)
        outcomes.clear()
        for proxy in (one, other):
            proxy.forget_all()
        assert all(client.classify_pixels(pixels).ok for _ in range(CALLS))
        assert sum(outcome.attempts - 1 for outcome in outcomes) == 2


def test_a_server_that_answers_slowly_is_not_asked_twice(make_client: Make, protocol: str, pixels: Pixels) -> None:
    outcomes: list[RequestOutcome] = []
    with answering(protocol, lambda _: 0.4) as url:
        client = make_client(url, timeout=1.5, max_retries=0, on_request=outcomes.append)
        assert all(client.classify_pixels(pixels).ok for _ in range(3))
    assert {outcome.attempts for outcome in outcomes} == {1}


def test_a_fresh_connection_has_all_the_time_of_its_call(make_client: Make, protocol: str, pixels: Pixels) -> None:
    with answering(protocol, lambda number: 0.8 if number == 0 else 0) as url:
        assert make_client(url, timeout=1.5, max_retries=0).classify_pixels(pixels).ok


def test_giving_up_one_call_leaves_the_others_alone(make_client: Make, protocol: str, pixels: Pixels) -> None:
    outcomes: list[RequestOutcome] = []
    asked = threading.Event()
    delays = {"http": {2: 1.5, 3: 1.5, 4: 1.5}, "grpc": {1: 1.5, 2: 1.5, 3: 1.5}}[protocol]  # the first asks for labels

    def seconds(number: int) -> float:
        if number in delays:
            asked.set()
        return delays.get(number, 0)

    with answering(protocol, seconds) as url, ThreadPoolExecutor(1) as threads:
        client = make_client(url, timeout=10, max_retries=0, on_request=outcomes.append)
        client.classify_pixels(pixels)
        outcomes.clear()
        patient = threads.submit(client.classify_pixels, pixels)
        assert asked.wait(5)
        with pytest.raises(DeadlineExceededError):
            client.classify_pixels(pixels, timeout=0.5)
        assert patient.result().ok
        assert client.classify_pixels(pixels).ok
    assert [outcome.attempts for outcome in outcomes][1:] == [1, 1]


@pytest.mark.parametrize(("idle_seconds", "connections"), [(50, 1), (61, 2)])
def test_a_connection_that_idled_for_over_a_minute_is_not_used(
    make_client: Make, pixels: Pixels, monkeypatch: pytest.MonkeyPatch, idle_seconds: float, connections: int
) -> None:
    with serving(Handler.answer) as server:
        client = make_client(server.url)
        client.classify_pixels(pixels)
        clock = time.monotonic
        for module in (time, aiohttp.connector):
            monkeypatch.setattr(module, "monotonic", lambda: clock() + idle_seconds)
        client.classify_pixels(pixels)
        assert server.connections == connections


def connected_to(url: str) -> list[socket.socket]:
    """Copies of this process' sockets that are connected to the port of `url`."""
    port, found = urlsplit(url).port, []
    for entry in os.listdir("/proc/self/fd"):  # noqa: PTH208 - numbers, not paths
        with contextlib.suppress(OSError, IndexError):  # not a socket, not connected, or no port
            descriptor = os.dup(int(entry))
            with contextlib.closing(socket.socket(fileno=descriptor)) as copy:
                if copy.getpeername()[1] == port:  # gRPC has the address as one of IPv6
                    found.append(copy.dup())
    return found


@pytest.mark.skipif(sys.platform != "linux", reason="it looks into /proc")
def test_the_kernel_watches_over_every_connection(
    make_client: Make, proxy: ChaosProxy, protocol: str, pixels: Pixels
) -> None:
    client = make_client(proxy.url)
    client.classify_pixels(pixels)
    sockets = connected_to(proxy.url)
    assert sockets
    with contextlib.ExitStack() as stack:
        for each in map(stack.enter_context, sockets):
            assert each.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 20_000
            assert each.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
            if protocol == "http":  # gRPC has pings of its own
                assert each.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
                assert each.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 30
                assert each.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL) == 5
                assert each.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT) == 3


def test_patience_is_a_fifth_of_the_time_and_more_while_the_server_is_slow(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    patience = Patience()
    assert patience.seconds(30) == 6
    patience.answered(4)
    patience.answered(1)
    assert (patience.seconds(30), patience.seconds(5)) == (8, 5)
    now += 61
    assert patience.seconds(30) == 6
    patience.answered(0.1)
    assert patience.seconds(30) == 6


def test_what_was_replaced_is_closed_with_its_last_call() -> None:
    shared = Shared(iter("ab").__next__)
    one, two = shared.enter(), shared.enter()
    shared.replace(one)
    shared.replace(two)  # a second call notices it as well
    three = shared.enter()
    assert (one.value, two.value, three.value) == ("a", "a", "b")
    assert shared.leave(one) is None
    assert shared.leave(two) == "a"
    assert shared.leave(three) is None
    assert shared.take() == ["b"]


def test_closing_closes_also_what_was_replaced() -> None:
    shared = Shared(iter("ab").__next__)
    shared.replace(shared.enter())
    shared.enter()
    assert sorted(shared.take()) == ["a", "b"]


def test_pings_come_before_clouds_forget_a_flow_and_as_rarely_as_the_embedded_server_wants(
    triton: EmbeddedTriton,
) -> None:
    arguments = psutil.Process(triton.pid).cmdline()
    least = next(each for each in arguments if each.startswith("--grpc-http2-min-recv-ping-interval-without-data="))
    assert int(least.partition("=")[2]) < dict(CHANNEL_OPTIONS)["grpc.keepalive_time_ms"] < 240_000
    assert "--grpc-keepalive-permit-without-calls=1" in arguments


@pytest.mark.slow
def test_a_server_that_takes_no_pings_costs_no_call(
    make_client: Make, triton: EmbeddedTriton, pixels: Pixels, monkeypatch: pytest.MonkeyPatch
) -> None:
    often = dict(CHANNEL_OPTIONS) | {"grpc.keepalive_time_ms": 500}  # gRPC makes it one each second
    monkeypatch.setattr(grpc, "CHANNEL_OPTIONS", list(often.items()))
    outcomes: list[RequestOutcome] = []
    with ChaosProxy(triton.grpc_url) as proxy:
        client = make_client(proxy.url, max_retries=0, on_request=outcomes.append)
        for _ in range(2):
            assert client.classify_pixels(pixels).ok
            time.sleep(7)  # until the server has had enough, and says GOAWAY
        assert client.classify_pixels(pixels).ok
        assert proxy.connections > 1
    assert {outcome.attempts for outcome in outcomes} == {1}

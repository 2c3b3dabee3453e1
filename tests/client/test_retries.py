"""What is tried again, when, and what the caller is told in the end."""

from __future__ import annotations

import io
import time
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from email.utils import format_datetime
from typing import Any

import pytest
from deepfake_client import (
    AccessDeniedError,
    ClientClosedError,
    ConnectionFailedError,
    DeadlineExceededError,
    DeepfakeError,
    InternalServerError,
    NotReadyError,
    OverloadedError,
    ProtocolError,
    RequestRejectedError,
    TLSError,
    UnknownModelError,
)
from deepfake_client._retry import RetryState
from deepfake_client._transports.base import StaleConnectionError
from deepfake_client._transports.errors import seconds_until
from deepfake_client.preprocessing import Pixels

from tests.support.pictures import encoded, photo_like
from tests.support.variants import AnyClient

Make = Callable[..., AnyClient]
Fake = Callable[..., Any]


@pytest.mark.parametrize("error", [ConnectionFailedError, NotReadyError, OverloadedError])
def test_what_passes_is_tried_again(make_client: Make, fake: Fake, pixels: Pixels, error: type[DeepfakeError]) -> None:
    transport = fake(errors=[error("passing"), error("passing")])
    assert make_client(transport=transport).classify_pixels(pixels).label == "Deepfake"
    assert len(transport.requests) == 3
    assert len({request.request_id for request in transport.requests}) == 1


@pytest.mark.parametrize(
    "error",
    [
        AccessDeniedError,
        DeadlineExceededError,
        InternalServerError,
        ProtocolError,
        RequestRejectedError,
        TLSError,
        UnknownModelError,
    ],
)
def test_what_stays_is_not_tried_again(
    make_client: Make, fake: Fake, pixels: Pixels, error: type[DeepfakeError]
) -> None:
    transport = fake(errors=[error("staying")] * 9)
    with pytest.raises(error, match="staying") as raised:
        make_client(transport=transport).classify_pixels(pixels, source="a.jpg", request_id="id-7")
    assert len(transport.requests) == 1
    found = raised.value
    assert (found.attempts, found.source, found.request_id, found.endpoint) == (1, "a.jpg", "id-7", "fake://server")


def test_the_number_of_retries_is_kept_to(make_client: Make, fake: Fake, pixels: Pixels) -> None:
    transport = fake(errors=[OverloadedError("full")] * 9)
    client = make_client(transport=transport, max_retries=2)
    with pytest.raises(OverloadedError) as raised:
        client.classify_pixels(pixels)
    assert raised.value.attempts == len(transport.requests) == 3
    with pytest.raises(OverloadedError):
        client.classify_pixels(pixels, max_retries=0)
    assert len(transport.requests) == 4


def test_a_short_deadline_ends_in_the_overload_not_in_a_timeout(make_client: Make, fake: Fake, pixels: Pixels) -> None:
    transport = fake(errors=[OverloadedError("full")] * 99)
    with pytest.raises(OverloadedError):
        make_client(transport=transport).classify_pixels(pixels, timeout=0.3)


def test_a_last_attempt_that_times_out_after_overloads_is_an_overload(
    make_client: Make, fake: Fake, pixels: Pixels
) -> None:
    transport = fake(errors=[OverloadedError("full"), DeadlineExceededError("too late")])
    with pytest.raises(OverloadedError, match="full") as raised:
        make_client(transport=transport).classify_pixels(pixels)
    assert raised.value.attempts == 2


def test_a_pause_that_would_miss_the_deadline_is_not_begun(make_client: Make, fake: Fake, pixels: Pixels) -> None:
    transport = fake(errors=[OverloadedError("full", retry_after_seconds=3600.0)])
    with pytest.raises(OverloadedError) as raised:
        make_client(transport=transport).classify_pixels(pixels, timeout=3000)
    assert raised.value.retry_after_seconds == 3600


def test_each_attempt_tells_the_server_a_shorter_time_than_is_left(
    make_client: Make, fake: Fake, pixels: Pixels
) -> None:
    transport = fake(errors=[OverloadedError("full")] * 2)
    make_client(transport=transport).classify_pixels(pixels, timeout=10)
    timeouts = [request.queue_timeout_microseconds for request in transport.requests]
    assert 8_000_000 < timeouts[0] <= 9_000_000
    assert timeouts == sorted(timeouts, reverse=True)
    assert len(set(timeouts)) == 3


def test_pauses_double_with_jitter_up_to_eight_seconds() -> None:
    state = RetryState(max_retries=99)
    pauses = [state.pause_after(OverloadedError("full"), 1e9, failover=False) for _ in range(12)]
    for number, pause in enumerate(pauses):
        longest = min(8.0, 0.1 * 2**number)
        assert pause is not None
        assert longest / 2 <= pause <= longest
    others = [RetryState(99).pause_after(OverloadedError("full"), 1e9, failover=False) for _ in range(20)]
    assert len(set(others)) > 10


def test_the_servers_retry_after_is_kept_to() -> None:
    error = OverloadedError("full", retry_after_seconds=5.0)
    assert RetryState(9).pause_after(error, 60, failover=False) == 5
    assert RetryState(9).pause_after(error, 4, failover=False) is None
    assert RetryState(9).pause_after(error, 60, failover=True) == 0


def test_retry_after_is_read_as_seconds_or_as_a_date() -> None:
    assert seconds_until("7") == 7
    assert seconds_until(" 1.5 ") == 1.5
    later = format_datetime(datetime.now(timezone.utc) + timedelta(seconds=90), usegmt=True)
    assert 80 < (seconds_until(later) or 0) <= 90
    assert seconds_until("Wed, 21 Oct 2015 07:28:00 GMT") == 0
    for nonsense in (None, "", "soon", "-3", "nan", "9" * 400, "Wed, 99 Foo 2015"):
        assert seconds_until(nonsense) is None


def test_a_decode_that_takes_the_whole_deadline_sends_nothing(make_client: Make, fake: Fake) -> None:
    class Slow(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            time.sleep(0.05)
            return super().read(size)

    transport = fake()
    with pytest.raises(DeadlineExceededError, match=r"0\.02 s") as raised:
        make_client(transport=transport).classify(Slow(encoded(photo_like(9, 9, 1), "PNG")), timeout=0.02)
    assert raised.value.attempts == 0
    assert not transport.requests


def test_a_closed_client_says_so(make_client: Make, fake: Fake, pixels: Pixels) -> None:
    transport = fake()
    client = make_client(transport=transport)
    client.close()
    client.close()
    assert transport.closed
    for call in (lambda: client.classify_pixels(pixels), client.model_info, client.ready):
        with pytest.raises(ClientClosedError):
            call()


def test_a_dead_connection_to_each_replica_is_renewed_without_a_retry() -> None:
    state = RetryState(max_retries=0, replicas=2)
    dead = StaleConnectionError("silent")
    assert [state.pause_after(dead, 30, failover=False) for _ in range(3)] == [0.0, 0.0, None]

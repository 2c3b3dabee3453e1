"""What HTTP servers and gateways answer, and how connections are kept, waited for and given up."""

from __future__ import annotations

import asyncio
import gzip
import json
import socket
import sys
import threading
import time
import tracemalloc
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import brotli
import numpy as np
import pytest
from deepfake_client import (
    AsyncDeepfakeClient,
    ClientClosedError,
    ConnectionFailedError,
    DeadlineExceededError,
    DeepfakeClient,
    DeepfakeError,
    ImageFormatError,
    InternalServerError,
    NotReadyError,
    OverloadedError,
    ProtocolError,
    RequestOutcome,
    RequestRejectedError,
)
from deepfake_client.preprocessing import Pixels

from tests.support.variants import AnyClient

Make = Callable[..., AnyClient]
MEBI = 1024 * 1024
SCORES = {"name": "probabilities", "datatype": "FP32", "shape": [1, 2], "data": [0.75, 0.25]}
MODEL = {
    "inputs": [{"name": "pixels", "datatype": "UINT8", "shape": [-1, 224, 224, 3]}],
    "outputs": [{"name": "probabilities", "datatype": "FP32", "shape": [-1, 2]}],
    "max_batch_size": 32,
}
LABELS = {"name": "probabilities", "datatype": "BYTES", "shape": [1, 2], "data": ["1:0:Deepfake", "0:1:Real one"]}


class Handler(BaseHTTPRequestHandler):
    """Reads a request and hands it to `respond`, with the body that Triton would answer."""

    protocol_version = "HTTP/1.1"
    respond: Callable[[Handler, bytes], None]

    def do_POST(self) -> None:
        asked = self.rfile.read(int(self.headers["content-length"]))
        output = LABELS if b'"classification"' in asked else SCORES
        self.respond(json.dumps({"model_name": "m", "model_version": "1", "outputs": [output]}).encode())

    def do_GET(self) -> None:
        """Health, metadata and configuration in one."""
        self.respond(json.dumps({"name": "m", "versions": ["1"], **MODEL}).encode())

    def answer(self, body: bytes, status: int = 200, *, announced: int | None = None, **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        if "transfer_encoding" not in headers:
            self.send_header("content-length", str(len(body) if announced is None else announced))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


class Server(ThreadingHTTPServer):
    connections = 0

    def __init__(self, address: tuple[str, int], handler: type[Handler]) -> None:
        self.address_family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        super().__init__(address, handler)

    def process_request(self, request: object, address: object) -> None:
        self.connections += 1
        super().process_request(request, address)  # type: ignore[arg-type]

    def handle_error(self, *_: object) -> None:
        """A client that hangs up is no news."""

    @property
    def url(self) -> str:
        return f"http://{'[::1]' if self.address_family == socket.AF_INET6 else '127.0.0.1'}:{self.server_address[1]}"


@contextmanager
def serving(respond: Callable[[Handler, bytes], None], host: str = "127.0.0.1") -> Iterator[Server]:
    with Server((host, 0), type("_Handler", (Handler,), {"respond": respond})) as server:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        try:
            yield server
        finally:
            server.shutdown()


def raw_deflate(body: bytes) -> bytes:
    packer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    return packer.compress(body) + packer.flush()


#: content-encoding, and how a body is packed for it
CODINGS: dict[str, tuple[str, Callable[[bytes], bytes]]] = {
    "none": ("identity", bytes),
    "gzip": ("gzip", gzip.compress),
    "gzip members": ("GZip", lambda body: gzip.compress(body[:20]) + gzip.compress(body[20:])),
    "x-gzip": ("x-gzip", gzip.compress),
    "deflate": ("deflate", zlib.compress),
    "raw deflate": ("deflate", raw_deflate),
    "br": ("br", brotli.compress),
    "both": ("gzip, br", lambda body: brotli.compress(gzip.compress(body))),
}


def test_a_chunked_answer_is_read(make_client: Make, pixels: Pixels) -> None:
    def respond(handler: Handler, body: bytes) -> None:
        pieces = [body[:10], body[10:], b""]
        handler.answer(b"".join(b"%x\r\n%b\r\n" % (len(p), p) for p in pieces), transfer_encoding="chunked")

    with serving(respond) as server:
        client = make_client(server.url)
        for _ in range(3):
            assert client.classify_pixels(pixels).scores == {"Deepfake": 0.75, "Real one": 0.25}
        assert server.connections == 1


@pytest.mark.parametrize("coding", CODINGS)
def test_compressed_answers_are_read(make_client: Make, pixels: Pixels, coding: str) -> None:
    name, pack = CODINGS[coding]
    with serving(lambda handler, body: handler.answer(pack(body), content_encoding=name)) as server:
        client = make_client(server.url)
        for _ in range(3):
            assert client.classify_pixels(pixels).scores == {"Deepfake": 0.75, "Real one": 0.25}
        assert client.ready()
        assert client.model_info().max_batch_size == 32
        assert server.connections == 1


def test_no_compression_is_asked_for(make_client: Make, pixels: Pixels) -> None:
    asked: list[str | None] = []

    def respond(handler: Handler, body: bytes) -> None:
        asked.append(handler.headers["accept-encoding"])
        handler.answer(body)

    with serving(respond) as server:
        make_client(server.url).classify_pixels(pixels)
    assert set(asked) == {"identity"}


@pytest.mark.parametrize("coding", CODINGS)
def test_compressed_errors_are_read(make_client: Make, pixels: Pixels, coding: str) -> None:
    name, pack = CODINGS[coding]

    def respond(handler: Handler, _: bytes) -> None:
        handler.answer(pack(b'{"error": "the queue is full today"}'), 429, content_encoding=name)

    with serving(respond) as server, pytest.raises(OverloadedError, match="the queue is full today"):
        make_client(server.url, max_retries=0).classify_pixels(pixels)


@pytest.mark.parametrize("coding", ["zstd", "gzip, zstd", "compress", "nonsense", "gzip", "deflate", "br"])
def test_a_coding_that_cannot_be_read_is_named_and_its_bytes_are_not_shown(
    make_client: Make, pixels: Pixels, coding: str
) -> None:
    packed = b"\x28\xb5\x2f\xfd" + bytes(range(128, 200)) + b"s3cret"
    with serving(lambda handler, _: handler.answer(packed, content_encoding=coding)) as server:
        client = make_client(server.url, max_retries=0)
        for ask in (lambda: client.classify_pixels(pixels), client.model_info):
            with pytest.raises(ProtocolError, match=f"compressed as '{coding}'") as raised:
                ask()
            assert str(raised.value).isascii()
            assert "s3cret" not in str(raised.value)
    with serving(lambda handler, _: handler.answer(packed, 503, content_encoding=coding)) as server:
        with pytest.raises(NotReadyError, match=f"compressed as '{coding}'.*HTTP 503") as failed:
            make_client(server.url, max_retries=0).classify_pixels(pixels)
        assert "s3cret" not in str(failed.value)


def test_compressed_bytes_that_are_not_announced_are_not_shown(make_client: Make, pixels: Pixels) -> None:
    packed = gzip.compress(b'{"error": "something"}')
    with (
        serving(lambda handler, _: handler.answer(packed, 500)) as server,
        pytest.raises(InternalServerError, match="not text"),
    ):
        make_client(server.url, max_retries=0).classify_pixels(pixels)


@pytest.mark.parametrize("coding", ["gzip", "deflate", "br"])
def test_a_compressed_body_that_is_cut_is_a_protocol_error(make_client: Make, pixels: Pixels, coding: str) -> None:
    def respond(handler: Handler, body: bytes) -> None:
        packed = CODINGS[coding][1](body)
        handler.answer(packed[: len(packed) // 2], content_encoding=coding)

    with serving(respond) as server, pytest.raises(ProtocolError, match="not one of the KServe v2 protocol"):
        make_client(server.url, max_retries=0).classify_pixels(pixels)


@pytest.mark.parametrize("coding", ["gzip", "br", "gzip, gzip"])
def test_a_compression_bomb_takes_no_memory(make_client: Make, pixels: Pixels, coding: str) -> None:
    packer = zlib.compressobj(9, zlib.DEFLATED, 16 + zlib.MAX_WBITS)
    bomb = b"".join(packer.compress(bytes(MEBI)) for _ in range(100)) + packer.flush()
    bomb = {"gzip": bomb, "br": brotli.compress(bytes(100 * MEBI), quality=1), "gzip, gzip": gzip.compress(bomb)}[
        coding
    ]
    with serving(lambda handler, _: handler.answer(bomb, content_encoding=coding)) as server:
        client = make_client(server.url, max_retries=0)
        tracemalloc.start()
        try:
            with pytest.raises(ProtocolError, match="too large"):
                client.classify_pixels(pixels)
            assert tracemalloc.get_traced_memory()[1] < 60 * MEBI
        finally:
            tracemalloc.stop()


def test_an_answer_without_end_is_not_read_into_memory(make_client: Make, pixels: Pixels) -> None:
    with (
        serving(lambda handler, _: handler.answer(bytes(17 * MEBI))) as server,
        pytest.raises(ProtocolError, match="too large"),
    ):
        make_client(server.url, max_retries=0).classify_pixels(pixels)


def test_a_redirect_is_not_followed(make_client: Make, pixels: Pixels) -> None:
    with (
        serving(lambda handler, _: handler.answer(b"", 307, location="http://127.0.0.1:9/")) as server,
        pytest.raises(ProtocolError, match="307"),
    ):
        make_client(server.url, max_retries=0, token=lambda: "t0k3n").classify_pixels(pixels)


def test_an_error_of_a_gateway_keeps_its_wish_when_to_return(make_client: Make, pixels: Pixels) -> None:
    with serving(lambda handler, _: handler.answer(b"slow down", 429, retry_after="7")) as server:
        with pytest.raises(OverloadedError, match="slow down") as raised:
            make_client(server.url, timeout=5).classify_pixels(pixels)
        assert (raised.value.retry_after_seconds, raised.value.attempts) == (7, 1)


@pytest.mark.parametrize("headers", [{}, {"connection": "close"}], ids=["kept", "closed"])
def test_an_answer_that_comes_in_drops_ends_at_the_deadline(
    make_client: Make, pixels: Pixels, headers: dict[str, str]
) -> None:
    over, answered = threading.Event(), threading.Event()

    def respond(handler: Handler, body: bytes) -> None:
        handler.answer(body[:5], announced=len(body), **headers)
        for _ in range(100):
            if over.wait(0.1):
                return
            handler.wfile.write(b" ")
        answered.set()

    with serving(respond) as server:
        client = make_client(server.url, max_retries=0)
        with pytest.raises(DeadlineExceededError):
            client.classify_pixels(pixels, timeout=1)
        assert not answered.is_set()
        over.set()


def test_an_answer_that_is_cut_is_a_failed_connection(make_client: Make, pixels: Pixels) -> None:
    def respond(handler: Handler, body: bytes) -> None:
        handler.answer(body[:20], announced=len(body))
        handler.close_connection = True

    with serving(respond) as server:
        with pytest.raises(ConnectionFailedError) as raised:
            make_client(server.url, max_retries=1).classify_pixels(pixels)
        assert raised.value.attempts == 2


def test_a_connection_that_the_server_has_closed_meanwhile_is_made_anew(make_client: Make, pixels: Pixels) -> None:
    def respond(handler: Handler, body: bytes) -> None:
        handler.answer(body)
        handler.close_connection = True  # and does not say so

    with serving(respond) as server:
        outcomes: list[RequestOutcome] = []
        client = make_client(server.url, on_request=outcomes.append)
        client.classify_pixels(pixels)  # and asks for the labels, maybe before the end has come
        outcomes.clear()
        for _ in range(3):
            time.sleep(0.1)
            assert client.classify_pixels(pixels).ok
        assert [outcome.attempts for outcome in outcomes] == [1, 1, 1]
        assert server.connections >= 4


def test_a_call_waits_for_a_free_connection_until_its_deadline(make_client: Make, pixels: Pixels) -> None:
    def respond(handler: Handler, body: bytes) -> None:
        time.sleep(0.3)
        handler.answer(body)

    with serving(respond) as server, ThreadPoolExecutor(4) as pool:
        client = make_client(server.url, max_connections=1, max_retries=0)
        client.classify_pixels(pixels)
        patient = [pool.submit(client.classify_pixels, pixels) for _ in range(3)]
        time.sleep(0.05)
        with pytest.raises(DeadlineExceededError):
            client.classify_pixels(pixels, timeout=0.1)
        assert all(future.result().ok for future in patient)
        assert server.connections == 1


def test_closing_ends_the_calls_that_wait_for_an_answer_or_a_connection(make_client: Make, pixels: Pixels) -> None:
    asked, over = threading.Semaphore(0), threading.Event()

    def respond(_handler: Handler, _body: bytes) -> None:
        asked.release()
        over.wait(10)

    with serving(respond) as server, ThreadPoolExecutor(8) as pool:
        client = make_client(server.url, max_connections=2)
        running = [pool.submit(client.classify_pixels, pixels) for _ in range(6)]
        assert asked.acquire(timeout=5)
        assert asked.acquire(timeout=5)
        client.close()
        errors = [future.exception(timeout=5) for future in running]  # while the server still holds its answers back
        over.set()
        assert [type(error) for error in errors] == [ClientClosedError] * 6


def test_an_error_is_not_mistaken_for_the_one_that_its_caller_was_handling(
    make_client: Make, nobody_listens: str, pixels: Pixels
) -> None:
    client = make_client(f"http://{nobody_listens}", max_retries=0)
    try:
        raise TimeoutError("of the caller")
    except TimeoutError:
        with pytest.raises(ConnectionFailedError, match="refused"):
            client.classify_pixels(pixels)


def test_an_ipv6_address_is_reached(make_client: Make, pixels: Pixels) -> None:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("this machine has no IPv6")
    with serving(Handler.answer, "::1") as server:
        assert make_client(server.url).classify_pixels(pixels).ok


@pytest.mark.parametrize("host", ["a..b", "x" * 70 + ".test"])
def test_a_host_name_that_cannot_be_one_is_a_typed_error(make_client: Make, pixels: Pixels, host: str) -> None:
    with pytest.raises(DeepfakeError):
        make_client(f"http://{host}", max_retries=0, timeout=5).classify_pixels(pixels)


async def test_closing_ends_the_calls_whose_images_wait_to_be_decoded() -> None:
    begun, over = threading.Event(), threading.Event()

    class Slow:
        def read(self, _size: int) -> bytes:
            begun.set()
            over.wait(10)
            return b""

    client = AsyncDeepfakeClient("http://127.0.0.1:9")
    running = [asyncio.create_task(client.classify(Slow())) for _ in range(64)]
    await asyncio.to_thread(begun.wait, 5)
    await client.close()
    over.set()
    errors = await asyncio.gather(*running, return_exceptions=True)
    assert {type(error) for error in errors} == {ClientClosedError, ImageFormatError}  # those that were being read


@pytest.mark.skipif(sys.version_info < (3, 11), reason="Python 3.10 does not tell who cancelled a task")
async def test_a_task_that_is_cancelled_while_the_client_closes_ends_as_cancelled(pixels: Pixels) -> None:
    asked, over = threading.Event(), threading.Event()

    def respond(_handler: Handler, _body: bytes) -> None:
        asked.set()
        over.wait(10)

    with serving(respond) as server:
        client = AsyncDeepfakeClient(server.url)
        running = asyncio.create_task(client.classify_pixels(pixels))
        assert await asyncio.to_thread(asked.wait, 5)
        closing = asyncio.create_task(client.close())
        running.cancel()
        over.set()
        await asyncio.gather(running, closing, return_exceptions=True)
        assert running.cancelled()


def test_a_body_that_is_refused_before_it_is_read_is_a_refusal(pixels: Pixels) -> None:
    """As a gateway does it: it answers 413 and resets the connection, with most of the body unread."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        connections = 0

        def refuse() -> None:
            nonlocal connections
            while True:
                try:
                    connection, _ = listening.accept()
                except OSError:
                    return
                connections += 1
                with connection:
                    connection.recv(1024)
                    connection.sendall(b"HTTP/1.1 413 Too Large\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
                    time.sleep(0.2)

        threading.Thread(target=refuse, daemon=True).start()
        url = f"http://127.0.0.1:{listening.getsockname()[1]}"
        with DeepfakeClient(url) as client, pytest.raises(RequestRejectedError, match="413"):
            client.classify_batch(np.repeat(pixels[None], 64, axis=0))
        assert connections == 1

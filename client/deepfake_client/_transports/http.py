"""HTTP for threads, over urllib3, and for asyncio, over aiohttp: a pool of kept-alive connections to one endpoint.

A connection is opened for each call that runs at the same time, up to `max_connections`; more calls wait for one.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from http.client import HTTPException
from typing import NamedTuple

import aiohttp
import urllib3
from urllib3.connection import HTTPConnection, HTTPSConnection

from .._credentials import TLSConfig
from .._endpoint import Endpoint
from .._errors import ClientClosedError, ConnectionFailedError, DeadlineExceededError, DeepfakeError, ProtocolError
from . import http_codec as codec
from .base import InferRequest, InferResponse, ModelConfig, ModelMetadata, ModelQuery, StaleConnectionError
from .errors import from_http_failure
from .kept import IDLE_SECONDS, SOCKET_OPTIONS, LoopBound, Patience, cancelled_from_outside, silent

# A replica whose address no longer answers must not take the whole deadline of a call.
_CONNECT_SECONDS = 5.0
_PIECE_BYTES = 64 * 1024
_LARGE_BYTES = 1024 * 1024


class _Answer(NamedTuple):
    status: int
    headers: Mapping[str, str]
    body: bytes

    def required(self) -> _Answer:
        """The answer with its body unpacked, or the error that it stands for."""
        try:
            body = codec.unpacked(self.headers, self.body)
        except ProtocolError as error:
            if self.status == 200:
                raise
            body = error.reason.encode()
        if self.status != 200:
            raise codec.to_error(self.status, self.headers, body)
        return self._replace(body=body)


class HTTPTransport:
    """HTTP for threads."""

    def __init__(self, endpoint: Endpoint, tls: TLSConfig | None, max_connections: int) -> None:
        self.endpoint = str(endpoint)
        self._path = endpoint.path
        self._closed = False
        self._free = threading.Semaphore(max_connections)
        self._lock = threading.Lock()
        self._patience = Patience()
        self._idle: list[tuple[HTTPConnection, float]] = []  # and since when
        self._busy: set[socket.socket] = set()
        host, port = endpoint.host, endpoint.port
        self._new: Callable[[], HTTPConnection] = partial(HTTPConnection, host, port, socket_options=SOCKET_OPTIONS)
        if endpoint.secure:
            context = (tls or TLSConfig()).ssl_context()
            self._new = partial(HTTPSConnection, host, port, socket_options=SOCKET_OPTIONS, ssl_context=context)

    def infer(self, request: InferRequest, timeout: float) -> InferResponse:
        path, headers, body = codec.encode_infer(request)
        answer = self._send("POST", path, headers, timeout, body).required()
        return codec.decode_infer(answer.headers, answer.body)

    def server_ready(self, query: ModelQuery, timeout: float) -> bool:
        return self._get("/v2/health/ready", query, timeout).status == 200

    def model_ready(self, query: ModelQuery, timeout: float) -> bool:
        return self._get(codec.model_path(query, "/ready"), query, timeout).status == 200

    def model_metadata(self, query: ModelQuery, timeout: float) -> ModelMetadata:
        return codec.decode_metadata(self._get(codec.model_path(query), query, timeout).required().body)

    def model_config(self, query: ModelQuery, timeout: float) -> ModelConfig:
        return codec.decode_config(self._get(codec.model_path(query, "/config"), query, timeout).required().body)

    def close(self) -> None:
        with self._lock:
            self._closed = True
            self._drop_idle()
            for busy in self._busy:
                # Only shut down: the thread that waits on it closes it, or the descriptor could be another's by then.
                with contextlib.suppress(OSError):
                    busy.shutdown(socket.SHUT_RDWR)
        self._free.release(threading.active_count())

    def _get(self, path: str, query: ModelQuery, timeout: float) -> _Answer:
        return self._send("GET", path, codec.query_headers(query.headers), timeout)

    def _send(
        self, method: str, path: str, headers: Mapping[str, str], timeout: float, body: bytes | None = None
    ) -> _Answer:
        deadline = time.monotonic() + timeout
        kept, limit = False, timeout
        try:
            with self._connection(deadline) as (connection, kept):
                opened, began = connection.sock, time.monotonic()
                limit = self._patience.seconds(_left(deadline)) if kept else _left(deadline)
                connection.timeout = limit
                # A server may refuse a body before it has all of it.
                with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                    connection.request(method, self._path + path, body, headers, preload_content=False)
                with contextlib.closing(connection.getresponse()) as response:
                    kept = False  # it lives: what fails from here on is the answer
                    self._patience.answered(time.monotonic() - began)
                    return _Answer(response.status, response.headers, _read(response, opened, deadline))
        except DeepfakeError:
            raise
        except (urllib3.exceptions.HTTPError, HTTPException, OSError, ValueError) as error:
            failure = _failure(error, self.endpoint, deadline, closed=self._closed)
            if kept and type(failure) is ConnectionFailedError:
                with self._lock:
                    self._drop_idle()
                failure = silent(limit) if isinstance(error, TimeoutError) else StaleConnectionError(failure.reason)
            raise failure from None

    @contextlib.contextmanager
    def _connection(self, deadline: float) -> Iterator[tuple[HTTPConnection, bool]]:
        """An open connection of the caller's own, and whether it has served calls before.

        It is the one used last, and kept for the next call unless this one fails.

        urllib3's pools are not used: they take a third more time for each request, and leave waiting threads waiting
        when they are closed.
        """
        if not self._free.acquire(timeout=_left(deadline)):
            raise DeadlineExceededError("no connection was free before the deadline: raise max_connections")
        try:
            with self._lock:
                if self._closed:
                    raise ClientClosedError("the client was closed")
                if self._idle and time.monotonic() - self._idle[-1][1] > IDLE_SECONDS:
                    self._drop_idle()
                connection = self._idle.pop()[0] if self._idle else self._new()
            opened, usable = None, False
            try:
                kept = _is_open(connection)
                if not kept:
                    connection.close()
                    connection.timeout = min(_left(deadline), _CONNECT_SECONDS)
                    connection.connect()
                opened = connection.sock
                with self._lock:
                    if self._closed:
                        raise ClientClosedError("the client was closed")
                    self._busy.add(opened)
                yield connection, kept
                usable = True
            finally:
                with self._lock:
                    self._busy.discard(opened)
                    if usable and not self._closed:
                        self._idle.append((connection, time.monotonic()))
                    else:
                        connection.close()
        finally:
            self._free.release()

    def _drop_idle(self) -> None:
        """Closes the connections that no call uses; the caller holds the lock."""
        for connection, _ in self._idle:
            connection.close()
        self._idle.clear()


def _is_open(connection: HTTPConnection) -> bool:
    try:
        return connection.is_connected
    except (AttributeError, ValueError):  # eventlet took select.poll away; select.select cannot hold the descriptor
        return False


def _left(deadline: float) -> float:
    """Seconds to the deadline, for a socket: never 0, which would mean not to wait at all."""
    return max(deadline - time.monotonic(), 0.001)


def _read(response: urllib3.BaseHTTPResponse, opened: socket.socket, deadline: float) -> bytes:
    """The body, in pieces: the timeout of a socket is for each piece, the deadline is for all of them."""
    body = bytearray()
    while piece := response.read1(_PIECE_BYTES, decode_content=False):
        body += piece
        codec.check_size(body)
        if time.monotonic() > deadline:
            raise DeadlineExceededError("no complete answer before the deadline")
        if not response.closed:
            opened.settimeout(_left(deadline))
    return bytes(body)


class AsyncHTTPTransport:
    """HTTP for asyncio."""

    def __init__(self, endpoint: Endpoint, tls: TLSConfig | None, max_connections: int) -> None:
        self.endpoint = str(endpoint)
        self._tls = (tls or TLSConfig()).ssl_context() if endpoint.secure else None
        self._max_connections = max_connections
        self._sessions = LoopBound(self._connect)
        self._patience = Patience()

    async def infer(self, request: InferRequest, timeout: float) -> InferResponse:
        path, headers, body = codec.encode_infer(request)
        answer = (await self._send("POST", path, headers, timeout, body)).required()
        return codec.decode_infer(answer.headers, answer.body)

    async def server_ready(self, query: ModelQuery, timeout: float) -> bool:
        return (await self._get("/v2/health/ready", query, timeout)).status == 200

    async def model_ready(self, query: ModelQuery, timeout: float) -> bool:
        return (await self._get(codec.model_path(query, "/ready"), query, timeout)).status == 200

    async def model_metadata(self, query: ModelQuery, timeout: float) -> ModelMetadata:
        return codec.decode_metadata((await self._get(codec.model_path(query), query, timeout)).required().body)

    async def model_config(self, query: ModelQuery, timeout: float) -> ModelConfig:
        return codec.decode_config(
            (await self._get(codec.model_path(query, "/config"), query, timeout)).required().body
        )

    async def close(self) -> None:
        for session in self._sessions.take():
            await session.close()

    def _connect(self) -> aiohttp.ClientSession:
        return aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                limit=self._max_connections,
                ssl=self._tls or True,
                keepalive_timeout=IDLE_SECONDS,
                socket_factory=_socket,
            ),
            cookie_jar=aiohttp.DummyCookieJar(),
            trust_env=False,  # no proxy and no .netrc from the environment
            headers={"accept-encoding": "identity"},  # as HTTPTransport; answers are small
            auto_decompress=False,
            raise_for_status=False,
        )

    async def _get(self, path: str, query: ModelQuery, timeout: float) -> _Answer:
        return await self._send("GET", path, codec.query_headers(query.headers), timeout)

    async def _send(
        self, method: str, path: str, headers: Mapping[str, str], timeout: float, body: bytes | None = None
    ) -> _Answer:
        lease = self._sessions.enter()
        # aiohttp warns of more than a mebibyte of bytes, which it writes in one go, and writes a file in pieces.
        data = io.BytesIO(body) if body is not None and len(body) > _LARGE_BYTES else body
        began = time.monotonic()
        kept = lease.answered
        limit = self._patience.seconds(timeout) if kept else timeout
        limits = aiohttp.ClientTimeout(total=timeout, sock_connect=min(timeout, _CONNECT_SECONDS), sock_read=limit)
        try:
            async with lease.value.request(
                method, self.endpoint + path, data=data, headers=headers, allow_redirects=False, timeout=limits
            ) as response:
                kept, lease.answered = False, True  # it lives: what fails from here on is the answer
                self._patience.answered(time.monotonic() - began)
                answer = bytearray()
                async for piece in response.content.iter_chunked(_PIECE_BYTES):
                    answer += piece
                    codec.check_size(answer)
                return _Answer(response.status, response.headers, bytes(answer))
        except DeepfakeError:
            raise
        except asyncio.CancelledError:
            # Closing a session cancels the calls that wait for a connection, as if their tasks were cancelled.
            if self._sessions.closed and not cancelled_from_outside():
                raise ClientClosedError("the client was closed") from None
            raise
        except (aiohttp.ClientError, asyncio.TimeoutError, OSError, RuntimeError, ValueError) as error:
            failure = _failure(error, self.endpoint, began + timeout, closed=self._sessions.closed)
            if kept and not self._sessions.closed:
                if isinstance(error, aiohttp.SocketTimeoutError) and limit < timeout:
                    failure = silent(limit)
                elif isinstance(error, (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError)) and not isinstance(
                    error, aiohttp.ClientConnectorError
                ):
                    failure = StaleConnectionError(failure.reason)
                if isinstance(failure, StaleConnectionError):
                    self._sessions.replace(lease)
            raise failure from None
        finally:
            if (unused := self._sessions.leave(lease)) is not None:
                await unused.close()


def _socket(address: aiohttp.AddrInfoType) -> socket.socket:
    made = socket.socket(*address[:3])
    for option in SOCKET_OPTIONS:
        made.setsockopt(*option)
    return made


def _failure(error: Exception, endpoint: str, deadline: float, *, closed: bool) -> DeepfakeError:
    if closed:
        return ClientClosedError("the client was closed")
    return from_http_failure(error, endpoint, late=time.monotonic() > deadline - 0.001)

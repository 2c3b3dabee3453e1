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
from types import SimpleNamespace
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
from .kept import IDLE_SECONDS, SOCKET_OPTIONS, LoopBound, Patience, silent

# A replica whose address no longer answers must not take the whole deadline of a call.
_CONNECT_SECONDS = 5.0
_PIECE_BYTES = 64 * 1024
_LARGE_BYTES = 1024 * 1024


class _Answer(NamedTuple):
    status: int
    headers: codec.AnswerHeaders
    body: bytes

    def required(self) -> _Answer:
        """The answer itself, or the error that it stands for."""
        if self.status != 200:
            raise codec.to_error(self.status, self.headers, self.body)
        return self


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
                with contextlib.suppress(BrokenPipeError):  # a server may refuse a body before it has all of it
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
                if self._idle and time.monotonic() - self._idle[-1][1] > IDLE_SECONDS:
                    self._drop_idle()
                connection = self._idle.pop()[0] if self._idle else self._new()
            kept = connection.is_connected
            if not kept:
                connection.close()
                connection.timeout = min(_left(deadline), _CONNECT_SECONDS)
                connection.connect()
            opened, usable = connection.sock, False
            try:
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


def _left(deadline: float) -> float:
    """Seconds to the deadline, for a socket: never 0, which would mean not to wait at all."""
    return max(deadline - time.monotonic(), 0.001)


def _read(response: urllib3.BaseHTTPResponse, opened: socket.socket, deadline: float) -> bytes:
    """The body, unpacked, in pieces: the timeout of a socket is for each piece, the deadline is for all of them."""
    body = bytearray()
    while piece := response.read1(_PIECE_BYTES):
        body += piece
        _check_size(body)
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
        trace = aiohttp.TraceConfig()
        trace.on_connection_reuseconn.append(_reused)
        return aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                limit=self._max_connections,
                ssl=self._tls or True,
                keepalive_timeout=IDLE_SECONDS,
                socket_factory=_socket,
            ),
            trace_configs=[trace],
            cookie_jar=aiohttp.DummyCookieJar(),
            trust_env=False,  # no proxy and no .netrc from the environment
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
        deadline = time.monotonic() + timeout
        limits = aiohttp.ClientTimeout(total=timeout, sock_connect=min(timeout, _CONNECT_SECONDS))
        silence = _Silence(self._patience.seconds(timeout))
        request = lease.value.request(
            method,
            self.endpoint + path,
            data=data,
            headers=headers,
            allow_redirects=False,
            timeout=limits,
            trace_request_ctx=silence,
        )
        try:
            # A task of its own, which `silence` can cancel.
            async with await asyncio.ensure_future(request) as response:
                self._patience.answered(silence.end())
                answer = bytearray()
                async for piece in response.content.iter_chunked(_PIECE_BYTES):
                    answer += piece
                    _check_size(answer)
                return _Answer(response.status, response.headers, bytes(answer))
        except DeepfakeError:
            raise
        except asyncio.CancelledError:
            # Closing a session cancels the calls that wait for a connection, as if their tasks were cancelled.
            if self._sessions.closed:
                raise ClientClosedError("the client was closed") from None
            if silence.over:
                self._sessions.replace(lease)
                raise silent(silence.seconds) from None
            raise
        except (aiohttp.ClientError, asyncio.TimeoutError, OSError, RuntimeError, ValueError) as error:
            failure = _failure(error, self.endpoint, deadline, closed=self._sessions.closed)
            if silence.waiting and type(failure) is ConnectionFailedError:
                self._sessions.replace(lease)
                failure = StaleConnectionError(failure.reason)
            raise failure from None
        finally:
            silence.end()
            if (unused := self._sessions.leave(lease)) is not None:
                await unused.close()


class _Silence:
    """Ends a request that waits for an answer over a kept connection for too long."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.over = False
        self._began = time.monotonic()
        self._timer: asyncio.TimerHandle | None = None

    @property
    def waiting(self) -> bool:
        """Whether the request went out over a kept connection, and has no answer."""
        return self._timer is not None

    def begin(self, request: asyncio.Task[object]) -> None:
        def end() -> None:
            self.over = request.cancel()

        self._began = time.monotonic()
        self._timer = asyncio.get_running_loop().call_later(self.seconds, end)

    def end(self) -> float:
        """Seconds from the request to now, when the answer has come."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        return time.monotonic() - self._began


async def _reused(_session: aiohttp.ClientSession, context: SimpleNamespace, _parameters: object) -> None:
    """Called by aiohttp in the request's task, once it has a connection that has served others before."""
    if (request := asyncio.current_task()) is not None:
        context.trace_request_ctx.begin(request)


def _socket(address: aiohttp.AddrInfoType) -> socket.socket:
    made = socket.socket(*address[:3])
    for option in SOCKET_OPTIONS:
        made.setsockopt(*option)
    return made


def _check_size(body: bytearray) -> None:
    if len(body) > codec.MAX_ANSWER_BYTES:
        raise ProtocolError("the answer is too large to be one of Triton's")


def _failure(error: Exception, endpoint: str, deadline: float, *, closed: bool) -> DeepfakeError:
    if closed:
        return ClientClosedError("the client was closed")
    return from_http_failure(error, endpoint, late=time.monotonic() > deadline - 0.001)

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
import weakref
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import aiohttp
import urllib3
from urllib3.connection import HTTPConnection, HTTPSConnection

from .._credentials import TLSConfig
from .._endpoint import Endpoint
from .._errors import ClientClosedError, DeadlineExceededError, DeepfakeError, ProtocolError
from . import http_codec as codec
from .base import InferRequest, InferResponse, LoopBound, ModelConfig, ModelMetadata, ModelQuery
from .errors import from_http_failure

# A replica whose address no longer answers must not take the whole deadline of a call.
_CONNECT_SECONDS = 5.0
_PIECE_BYTES = 64 * 1024
_LARGE_BYTES = 1024 * 1024


class _Answer(NamedTuple):
    status: int
    headers: codec.AnswerHeaders
    body: bytes

    def required(self) -> _Answer:
        """Itself.

        Raises:
            DeepfakeError: it is an error of the server's.
        """
        if self.status != 200:
            raise codec.to_error(self.status, self.headers, self.body)
        return self


class HTTPTransport:
    """HTTP for threads."""

    def __init__(self, endpoint: Endpoint, tls: TLSConfig | None, max_connections: int) -> None:
        self.endpoint = str(endpoint)
        self._path = endpoint.path
        self._closed = False
        self._lock = threading.Lock()
        self._sockets: weakref.WeakSet[socket.socket] = weakref.WeakSet()
        # urllib3's own limit lets those that wait sleep on when the pool is closed.
        self._free = threading.Semaphore(max_connections)
        self._pool: urllib3.HTTPConnectionPool
        if endpoint.secure:
            context = (tls or TLSConfig()).ssl_context()
            self._pool = urllib3.HTTPSConnectionPool(
                endpoint.host, endpoint.port, maxsize=max_connections, ssl_context=context, opened=self._opened
            )
            self._pool.ConnectionCls = _SecureConnection
        else:
            self._pool = urllib3.HTTPConnectionPool(
                endpoint.host, endpoint.port, maxsize=max_connections, opened=self._opened
            )
            self._pool.ConnectionCls = _Connection

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
        self._closed = True
        self._free.release(threading.active_count())
        self._pool.close()
        with self._lock:
            sockets = list(self._sockets)
        for opened in sockets:
            # Only shut down: the thread that waits on it closes it, or the descriptor could be another's by then.
            with contextlib.suppress(OSError):
                opened.shutdown(socket.SHUT_RDWR)

    def _opened(self, opened: socket.socket) -> None:
        """Remembers a new connection, so that `close` can end the call that waits on it."""
        with self._lock:
            self._sockets.add(opened)
        if self._closed:
            raise ClientClosedError("the client was closed")

    def _get(self, path: str, query: ModelQuery, timeout: float) -> _Answer:
        return self._send("GET", path, codec.query_headers(query.headers), timeout)

    def _send(
        self, method: str, path: str, headers: Mapping[str, str], timeout: float, body: bytes | None = None
    ) -> _Answer:
        deadline = time.monotonic() + timeout
        if not self._free.acquire(timeout=timeout):
            raise DeadlineExceededError("no connection was free before the deadline: raise max_connections")
        try:
            response = self._pool.urlopen(
                method,
                self._path + path,
                body,
                headers,
                retries=False,
                redirect=False,
                timeout=urllib3.Timeout(total=max(deadline - time.monotonic(), 0.001)),
                preload_content=False,
            )
            with contextlib.closing(response):
                return _Answer(response.status, response.headers, _read(response, deadline))
        except DeepfakeError:
            raise
        except (urllib3.exceptions.HTTPError, OSError, ValueError) as error:
            raise _failure(error, self.endpoint, deadline, closed=self._closed) from None
        finally:
            self._free.release()


class _Connection(HTTPConnection):
    """A connection whose `timeout` is for a whole call, of which connecting may take a part."""

    def __init__(self, *arguments: Any, opened: Callable[[socket.socket], None], **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._opened = opened
        self.opened_socket: socket.socket | None = None

    def connect(self) -> None:
        whole = self.timeout or _CONNECT_SECONDS
        self.timeout = min(whole, _CONNECT_SECONDS)
        super().connect()
        self.timeout = whole
        self.sock.settimeout(whole)
        self.opened_socket = self.sock
        self._opened(self.sock)


class _SecureConnection(_Connection, HTTPSConnection):
    pass


def _read(response: urllib3.BaseHTTPResponse, deadline: float) -> bytes:
    """The body, unpacked, in pieces: the timeout of a socket is for each piece, the deadline is for all of them."""
    body = bytearray()
    while piece := response.read1(_PIECE_BYTES):
        body += piece
        _check_size(body)
        left = deadline - time.monotonic()
        if left <= 0:
            raise DeadlineExceededError("no complete answer before the deadline")
        connection = response.connection  # None once the body is complete
        if isinstance(connection, _Connection) and connection.opened_socket is not None:
            connection.opened_socket.settimeout(left)
    return bytes(body)


class AsyncHTTPTransport:
    """HTTP for asyncio."""

    def __init__(self, endpoint: Endpoint, tls: TLSConfig | None, max_connections: int) -> None:
        self.endpoint = str(endpoint)
        self._tls = (tls or TLSConfig()).ssl_context() if endpoint.secure else None
        self._max_connections = max_connections
        self._session = LoopBound(self._connect)

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
        answer = await self._get(codec.model_path(query, "/config"), query, timeout)
        return codec.decode_config(answer.required().body)

    async def close(self) -> None:
        session = self._session.take()
        if session is not None:
            await session.close()

    def _connect(self) -> aiohttp.ClientSession:
        return aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=self._max_connections, ssl=self._tls or True),
            cookie_jar=aiohttp.DummyCookieJar(),
            trust_env=False,  # no proxy and no .netrc from the environment
            raise_for_status=False,
        )

    async def _get(self, path: str, query: ModelQuery, timeout: float) -> _Answer:
        return await self._send("GET", path, codec.query_headers(query.headers), timeout)

    async def _send(
        self, method: str, path: str, headers: Mapping[str, str], timeout: float, body: bytes | None = None
    ) -> _Answer:
        session = self._session.get()
        # aiohttp warns of more than a mebibyte of bytes, which it writes in one go, and writes a file in pieces.
        data = io.BytesIO(body) if body is not None and len(body) > _LARGE_BYTES else body
        deadline = time.monotonic() + timeout
        limits = aiohttp.ClientTimeout(total=timeout, sock_connect=min(timeout, _CONNECT_SECONDS))
        try:
            async with session.request(
                method, self.endpoint + path, data=data, headers=headers, allow_redirects=False, timeout=limits
            ) as response:
                answer = bytearray()
                async for piece in response.content.iter_chunked(_PIECE_BYTES):
                    answer += piece
                    _check_size(answer)
                return _Answer(response.status, response.headers, bytes(answer))
        except DeepfakeError:
            raise
        except asyncio.CancelledError:
            # Closing a session cancels the calls that wait for a connection, as if their tasks were cancelled.
            if self._session.closed:
                raise ClientClosedError("the client was closed") from None
            raise
        except (aiohttp.ClientError, asyncio.TimeoutError, OSError, RuntimeError, ValueError) as error:
            raise _failure(error, self.endpoint, deadline, closed=self._session.closed) from None


def _check_size(body: bytearray) -> None:
    if len(body) > codec.MAX_ANSWER_BYTES:
        raise ProtocolError("the answer is too large to be one of Triton's")


def _failure(error: Exception, endpoint: str, deadline: float, *, closed: bool) -> DeepfakeError:
    if closed:
        return ClientClosedError("the client was closed")
    return from_http_failure(error, endpoint, late=time.monotonic() > deadline - 0.001)

"""HTTP for asyncio, over aiohttp."""

from __future__ import annotations

import asyncio
import io
import time
from collections.abc import Mapping

import aiohttp

from . import _http_codec as codec
from ._credentials import TLSConfig
from ._endpoint import Endpoint
from ._errors import ClientClosedError, DeadlineExceededError, DeepfakeError, ProtocolError
from ._event_loop import LoopBound
from ._http_failures import CONNECT_SECONDS, connection_failed, is_tls_failure, tls_failed
from ._messages import InferRequest, InferResponse, ModelConfig, ModelMetadata, ModelQuery

_LARGE_BYTES = 1024 * 1024


class AsyncHTTPTransport:
    """A pool of kept-alive connections to one endpoint, shared by all tasks, up to `max_connections`."""

    def __init__(self, endpoint: Endpoint, tls: TLSConfig | None, max_connections: int) -> None:
        self._endpoint = str(endpoint)
        self._tls = (tls or TLSConfig()).ssl_context() if endpoint.secure else None
        self._max_connections = max_connections
        self._session = LoopBound(self._connect)

    @property
    def endpoint(self) -> str:
        return self._endpoint

    async def infer(self, request: InferRequest, timeout: float) -> InferResponse:
        path, headers, body = codec.encode_infer(request)
        status, answer_headers, answer = await self._send("POST", path, headers, timeout, body)
        if status != 200:
            raise codec.to_error(status, answer_headers, answer)
        return codec.decode_infer(answer_headers, answer)

    async def server_ready(self, query: ModelQuery, timeout: float) -> bool:
        return (await self._send("GET", "/v2/health/ready", codec.query_headers(query.headers), timeout))[0] == 200

    async def model_ready(self, query: ModelQuery, timeout: float) -> bool:
        path = codec.model_path(query, "/ready")
        return (await self._send("GET", path, codec.query_headers(query.headers), timeout))[0] == 200

    async def model_metadata(self, query: ModelQuery, timeout: float) -> ModelMetadata:
        return codec.decode_metadata(await self._get(codec.model_path(query), query, timeout))

    async def model_config(self, query: ModelQuery, timeout: float) -> ModelConfig:
        return codec.decode_config(await self._get(codec.model_path(query, "/config"), query, timeout))

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

    async def _get(self, path: str, query: ModelQuery, timeout: float) -> bytes:
        status, headers, body = await self._send("GET", path, codec.query_headers(query.headers), timeout)
        if status != 200:
            raise codec.to_error(status, headers, body)
        return body

    async def _send(
        self, method: str, path: str, headers: Mapping[str, str], timeout: float, body: bytes | None = None
    ) -> tuple[int, codec.AnswerHeaders, bytes]:
        session = self._session.get()
        # aiohttp warns of more than a mebibyte of bytes, which it writes in one go, and writes a file in pieces.
        data = io.BytesIO(body) if body is not None and len(body) > _LARGE_BYTES else body
        deadline = time.monotonic() + timeout
        limits = aiohttp.ClientTimeout(total=timeout, sock_connect=min(timeout, CONNECT_SECONDS))
        try:
            async with session.request(
                method, self._endpoint + path, data=data, headers=headers, allow_redirects=False, timeout=limits
            ) as response:
                answer = await response.content.read(codec.MAX_ANSWER_BYTES + 1)
                while chunk := await response.content.read(65_536):
                    answer += chunk
                    if len(answer) > codec.MAX_ANSWER_BYTES:
                        raise ProtocolError("the answer is too large to be one of Triton's")
                return response.status, response.headers, answer
        except (aiohttp.ClientError, asyncio.TimeoutError, OSError, RuntimeError, ValueError) as error:
            raise self._to_error(error, deadline) from None

    def _to_error(self, error: Exception, deadline: float) -> DeepfakeError:
        if isinstance(error, DeepfakeError):
            return error
        if self._session.closed:
            return ClientClosedError("the client was closed")
        if isinstance(error, (asyncio.TimeoutError, TimeoutError)):
            connecting = isinstance(error, aiohttp.ServerTimeoutError) and time.monotonic() < deadline - 0.001
            if connecting:
                return connection_failed("timed out", self._endpoint)
            return DeadlineExceededError("no answer before the deadline")
        if isinstance(error, (aiohttp.InvalidURL, RuntimeError)):
            return ProtocolError("the request could not be made")
        return tls_failed(error) if is_tls_failure(error) else connection_failed(error, self._endpoint)

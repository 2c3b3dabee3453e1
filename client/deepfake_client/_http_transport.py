"""HTTP for threads, over urllib3 (a dependency of tritonclient itself)."""

from __future__ import annotations

import time
from collections.abc import Mapping

import urllib3

from . import _http_codec as codec
from ._credentials import TLSConfig
from ._endpoint import Endpoint
from ._errors import ClientClosedError, DeadlineExceededError, DeepfakeError, ProtocolError
from ._http_failures import CONNECT_SECONDS, connection_failed, is_tls_failure, tls_failed
from ._messages import InferRequest, InferResponse, ModelConfig, ModelMetadata, ModelQuery


class HTTPTransport:
    """A pool of kept-alive connections to one endpoint, shared by all threads.

    The pool opens a connection for each call that runs at the same time, up to `max_connections`; more calls wait.
    """

    def __init__(self, endpoint: Endpoint, tls: TLSConfig | None, max_connections: int) -> None:
        self._endpoint = str(endpoint)
        self._path = endpoint.path
        self._closed = False
        self._pool: urllib3.HTTPConnectionPool
        if endpoint.secure:
            self._pool = urllib3.HTTPSConnectionPool(
                endpoint.host,
                endpoint.port,
                maxsize=max_connections,
                block=True,
                ssl_context=(tls or TLSConfig()).ssl_context(),
            )
        else:
            self._pool = urllib3.HTTPConnectionPool(endpoint.host, endpoint.port, maxsize=max_connections, block=True)

    @property
    def endpoint(self) -> str:
        return self._endpoint

    def infer(self, request: InferRequest, timeout: float) -> InferResponse:
        path, headers, body = codec.encode_infer(request)
        status, answer_headers, answer = self._send("POST", path, headers, timeout, body)
        if status != 200:
            raise codec.to_error(status, answer_headers, answer)
        return codec.decode_infer(answer_headers, answer)

    def server_ready(self, query: ModelQuery, timeout: float) -> bool:
        return self._send("GET", "/v2/health/ready", codec.query_headers(query.headers), timeout)[0] == 200

    def model_ready(self, query: ModelQuery, timeout: float) -> bool:
        path = codec.model_path(query, "/ready")
        return self._send("GET", path, codec.query_headers(query.headers), timeout)[0] == 200

    def model_metadata(self, query: ModelQuery, timeout: float) -> ModelMetadata:
        return codec.decode_metadata(self._get(codec.model_path(query), query, timeout))

    def model_config(self, query: ModelQuery, timeout: float) -> ModelConfig:
        return codec.decode_config(self._get(codec.model_path(query, "/config"), query, timeout))

    def close(self) -> None:
        self._closed = True
        self._pool.close()

    def _get(self, path: str, query: ModelQuery, timeout: float) -> bytes:
        status, headers, body = self._send("GET", path, codec.query_headers(query.headers), timeout)
        if status != 200:
            raise codec.to_error(status, headers, body)
        return body

    def _send(
        self, method: str, path: str, headers: Mapping[str, str], timeout: float, body: bytes | None = None
    ) -> tuple[int, Mapping[str, str], bytes]:
        deadline = time.monotonic() + timeout
        try:
            response = self._pool.urlopen(
                method,
                self._path + path,
                body=body,
                headers=headers,
                retries=False,
                redirect=False,
                timeout=urllib3.Timeout(total=timeout, connect=min(timeout, CONNECT_SECONDS)),
                pool_timeout=timeout,  # type: ignore[arg-type]  # fractions of a second work, the hint is too narrow
                preload_content=False,
            )
            try:
                return response.status, response.headers, self._read(response, deadline)
            finally:
                response.release_conn()
        except (urllib3.exceptions.HTTPError, OSError, ValueError) as error:
            raise self._to_error(error, deadline) from None

    def _read(self, response: urllib3.BaseHTTPResponse, deadline: float) -> bytes:
        """The body, read in pieces: the timeout of a socket is for each piece, the deadline is for all of them."""
        body = bytearray()
        while chunk := response.read(65_536):
            body += chunk
            if len(body) > codec.MAX_ANSWER_BYTES:
                response.close()
                raise ProtocolError("the answer is too large to be one of Triton's")
            if time.monotonic() > deadline:
                response.close()
                raise DeadlineExceededError("no complete answer before the deadline")
        return bytes(body)

    def _to_error(self, error: Exception, deadline: float) -> DeepfakeError:
        if isinstance(error, DeepfakeError):
            return error
        if self._closed or isinstance(error, urllib3.exceptions.ClosedPoolError):
            return ClientClosedError("the client was closed")
        # NewConnectionError (refused, not resolved) is a kind of time-out to urllib3.
        if isinstance(error, urllib3.exceptions.TimeoutError) and not isinstance(
            error, urllib3.exceptions.NewConnectionError
        ):
            in_time = isinstance(error, urllib3.exceptions.ConnectTimeoutError) and time.monotonic() < deadline - 0.001
            if in_time:
                return connection_failed("timed out", self._endpoint)
            return DeadlineExceededError("no answer before the deadline")
        if isinstance(error, urllib3.exceptions.EmptyPoolError):
            return DeadlineExceededError("no connection was free before the deadline: raise max_connections")
        if isinstance(error, urllib3.exceptions.LocationValueError):
            return ProtocolError("the request could not be made")
        return tls_failed(error) if is_tls_failure(error) else connection_failed(error, self._endpoint)

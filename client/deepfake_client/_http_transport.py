"""HTTP for threads."""

from __future__ import annotations

import http.client
import socket
import time
from collections.abc import Mapping

from . import _http_codec as codec
from ._credentials import TLSConfig
from ._endpoint import Endpoint
from ._errors import ClientClosedError, DeadlineExceededError, DeepfakeError, ProtocolError
from ._http_failures import CONNECT_SECONDS, connection_failed, is_tls_failure, tls_failed
from ._http_pool import ConnectionPool
from ._messages import InferRequest, InferResponse, ModelConfig, ModelMetadata, ModelQuery


class HTTPTransport:
    """A pool of kept-alive connections to one endpoint, shared by all threads.

    A connection is opened for each call that runs at the same time, up to `max_connections`; more calls wait.
    """

    def __init__(self, endpoint: Endpoint, tls: TLSConfig | None, max_connections: int) -> None:
        self._endpoint = str(endpoint)
        self._path = endpoint.path
        self._closed = False
        context = (tls or TLSConfig()).ssl_context() if endpoint.secure else None
        self._pool = ConnectionPool(endpoint.host.strip("[]"), endpoint.port, context, max_connections)

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
    ) -> tuple[int, codec.AnswerHeaders, bytes]:
        deadline = time.monotonic() + timeout
        connection = self._pool.acquire(deadline)
        reusable = False
        try:
            if connection.sock is None:
                self._connect(connection, deadline)
            connection.sock.settimeout(_left(deadline))
            connection.request(method, self._path + path, body, dict(headers))
            sock = connection.sock
            response = connection.getresponse()
            content = _read(response, sock, deadline)
            reusable = not response.will_close
            return response.status, response.headers, content
        except (http.client.HTTPException, OSError, ValueError) as error:
            raise self._to_error(error) from None
        finally:
            self._pool.release(connection, reusable=reusable)

    def _connect(self, connection: http.client.HTTPConnection, deadline: float) -> None:
        left = _left(deadline)
        connection.timeout = min(left, CONNECT_SECONDS)
        try:
            connection.connect()
        except TimeoutError:
            if left > CONNECT_SECONDS and not self._closed:
                raise connection_failed("timed out", self._endpoint) from None
            raise

    def _to_error(self, error: Exception) -> DeepfakeError:
        if self._closed:
            return ClientClosedError("the client was closed")
        if isinstance(error, TimeoutError):
            return DeadlineExceededError("no answer before the deadline")
        if isinstance(error, OSError | http.client.HTTPException):
            return tls_failed(error) if is_tls_failure(error) else connection_failed(error, self._endpoint)
        return ProtocolError("the request could not be made")


def _left(deadline: float) -> float:
    """Seconds to the deadline, for a socket: never 0, which would mean not to wait at all."""
    return max(deadline - time.monotonic(), 0.001)


def _read(response: http.client.HTTPResponse, sock: socket.socket, deadline: float) -> bytes:
    """The body, read in pieces: the timeout of a socket is for each piece, the deadline is for all of them."""
    body = bytearray()
    with response:
        while chunk := response.read1(65_536):
            body += chunk
            if len(body) > codec.MAX_ANSWER_BYTES:
                raise ProtocolError("the answer is too large to be one of Triton's")
            if time.monotonic() > deadline:
                raise DeadlineExceededError("no complete answer before the deadline")
            if response.length:
                sock.settimeout(_left(deadline))
        if response.length:
            raise http.client.IncompleteRead(bytes(body), response.length)
    return bytes(body)

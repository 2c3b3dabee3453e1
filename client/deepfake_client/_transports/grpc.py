"""gRPC for threads and for asyncio: one channel to one endpoint, shared by all calls.

A name that resolves to several addresses is balanced over. A channel that falls silent is replaced.
"""

from __future__ import annotations

import asyncio
import json
import os
import time
import weakref
from collections.abc import Callable
from typing import Any, NamedTuple

import grpc  # type: ignore[import-untyped]
from tritonclient.grpc import service_pb2 as pb
from tritonclient.grpc import service_pb2_grpc

from .._credentials import Headers, TLSConfig
from .._endpoint import Endpoint
from .._errors import ClientClosedError, DeadlineExceededError, DeepfakeError, InvalidArgumentError
from . import grpc_codec as codec
from .base import InferRequest, InferResponse, ModelConfig, ModelMetadata, ModelQuery
from .kept import Lease, LoopBound, Patience, Shared, cancelled_from_outside, silent

_MAX_ANSWER_BYTES = 16 * 1024 * 1024

CHANNEL_OPTIONS: list[tuple[str, Any]] = [
    # Spread calls over all addresses that the name resolves to. gRPC's default, pick_first, stays with one.
    ("grpc.service_config", json.dumps({"loadBalancingConfig": [{"round_robin": {}}]})),
    # The service config of a DNS TXT record could change the policy above.
    ("grpc.service_config_disable_resolution", 1),
    # Retries are made above the transport, where attempts are counted and the deadline is known.
    ("grpc.enable_retries", 0),
    # A batch of 32 images is 4.8 MB, over gRPC's default of 4 MB.
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", _MAX_ANSWER_BYTES),
    # Clouds forget a flow that was idle for 240 s. Our Triton takes a ping each minute; one with its own defaults ends
    # an idle connection for it (GOAWAY too_many_pings), which costs no call.
    ("grpc.keepalive_time_ms", 180_000),
    ("grpc.keepalive_timeout_ms", 20_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
    # After a failed connection gRPC waits before the next one, by default up to two minutes: longer than any deadline,
    # so that a restarted server would not be found again. The minimum is also the time one attempt to connect may take.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 5_000),
    ("grpc.max_reconnect_backoff_ms", 2_000),
    # Re-resolve a headless service's name soon after a pod went away; gRPC's default is 30 s.
    ("grpc.dns_min_time_between_resolutions_ms", 5_000),
    # http_proxy is meant for the web; a proxy between two services of a cluster is never intended.
    ("grpc.enable_http_proxy", 0),
    # By default gRPC shares connections between channels, and with them their back-off: closing one client or its
    # failures would show in another.
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.primary_user_agent", "deepfake-client"),
]


def target_of(endpoint: Endpoint) -> str:
    return f"dns:///{endpoint.authority}"


def channel_credentials(endpoint: Endpoint, tls: TLSConfig | None) -> Any:
    """TLS credentials, or None for plain text."""
    if not endpoint.secure:
        return None
    root, key, chain = (tls or TLSConfig()).read()
    return grpc.ssl_channel_credentials(root_certificates=root, private_key=key, certificate_chain=chain)


class Connection(NamedTuple):
    """A channel, and the methods that are called over it."""

    channel: Any
    stub: Any


#: by API, the process of each channel that lives
_homes: dict[Any, list[int]] = {grpc: [], grpc.aio: []}


def connect(api: Any, endpoint: Endpoint, credentials: Any) -> Connection:
    """A channel of `api`, which is `grpc` or `grpc.aio`. It reaches out to the server at the first call.

    Raises:
        InvalidArgumentError: a channel of the API lived when this process was forked, and the API does not survive it.
    """
    process, homes = os.getpid(), _homes[api]
    forked = any(home != process for home in homes)
    # `grpc` works in the child unless that is turned off. `grpc.aio` hangs there, and makes the parent hang too.
    supported = api is grpc and os.environ.get("GRPC_ENABLE_FORK_SUPPORT", "1")[:1].lower() not in ("0", "f", "n")
    if forked and not supported:
        raise InvalidArgumentError(
            "gRPC was in use when this process was forked, and would hang here: use the client only after the fork "
            "(gunicorn: post_fork), or take an http:// url"
        )
    target = target_of(endpoint)
    if credentials is None:
        channel = api.insecure_channel(target, options=CHANNEL_OPTIONS)
    else:
        channel = api.secure_channel(target, credentials, options=CHANNEL_OPTIONS)
    homes.append(process)
    weakref.finalize(channel, _forget, homes, process)
    return Connection(channel, service_pb2_grpc.GRPCInferenceServiceStub(channel))


def _forget(homes: list[int], process: int) -> None:
    if process == os.getpid():
        homes.remove(process)


class GRPCTransport:
    """gRPC for threads."""

    def __init__(self, endpoint: Endpoint, tls: TLSConfig | None) -> None:
        self.endpoint = str(endpoint)
        credentials = channel_credentials(endpoint, tls)
        self._channels = Shared(lambda: connect(grpc, endpoint, credentials))
        self._patience = Patience()

    def infer(self, request: InferRequest, timeout: float) -> InferResponse:
        message = codec.encode_infer(request)
        return codec.decode_infer(self._call("ModelInfer", message, request.headers, timeout))

    def server_ready(self, query: ModelQuery, timeout: float) -> bool:
        return bool(self._call("ServerReady", pb.ServerReadyRequest(), query.headers, timeout).ready)

    def model_ready(self, query: ModelQuery, timeout: float) -> bool:
        return bool(self._ask("ModelReady", pb.ModelReadyRequest, query, timeout).ready)

    def model_metadata(self, query: ModelQuery, timeout: float) -> ModelMetadata:
        return codec.decode_metadata(self._ask("ModelMetadata", pb.ModelMetadataRequest, query, timeout))

    def model_config(self, query: ModelQuery, timeout: float) -> ModelConfig:
        return codec.decode_config(self._ask("ModelConfig", pb.ModelConfigRequest, query, timeout))

    def close(self) -> None:
        for connection in self._channels.take():
            connection.channel.close()

    def _ask(self, method: str, kind: Callable[..., Any], query: ModelQuery, timeout: float) -> Any:
        return self._call(method, kind(name=query.model, version=query.version), query.headers, timeout)

    def _call(self, method: str, message: Any, headers: Headers, timeout: float) -> Any:
        lease, began = self._channels.enter(), time.monotonic()
        limit = self._patience.seconds(timeout) if lease.answered else timeout
        try:
            answer = getattr(lease.value.stub, method)(message, timeout=limit, metadata=headers)
            lease.answered = True
            self._patience.answered(time.monotonic() - began)
            return answer
        except (grpc.RpcError, ValueError) as error:
            # ValueError: the channel was closed
            raise _failure(error, self._channels, lease, silence=limit if limit < timeout else None) from None
        finally:
            if (unused := self._channels.leave(lease)) is not None:
                unused.channel.close()


class AsyncGRPCTransport:
    """gRPC for asyncio."""

    def __init__(self, endpoint: Endpoint, tls: TLSConfig | None) -> None:
        self.endpoint = str(endpoint)
        credentials = channel_credentials(endpoint, tls)
        self._channels = LoopBound(lambda: connect(grpc.aio, endpoint, credentials))
        self._patience = Patience()

    async def infer(self, request: InferRequest, timeout: float) -> InferResponse:
        message = codec.encode_infer(request)
        return codec.decode_infer(await self._call("ModelInfer", message, request.headers, timeout))

    async def server_ready(self, query: ModelQuery, timeout: float) -> bool:
        return bool((await self._call("ServerReady", pb.ServerReadyRequest(), query.headers, timeout)).ready)

    async def model_ready(self, query: ModelQuery, timeout: float) -> bool:
        return bool((await self._ask("ModelReady", pb.ModelReadyRequest, query, timeout)).ready)

    async def model_metadata(self, query: ModelQuery, timeout: float) -> ModelMetadata:
        return codec.decode_metadata(await self._ask("ModelMetadata", pb.ModelMetadataRequest, query, timeout))

    async def model_config(self, query: ModelQuery, timeout: float) -> ModelConfig:
        return codec.decode_config(await self._ask("ModelConfig", pb.ModelConfigRequest, query, timeout))

    async def close(self) -> None:
        for connection in self._channels.take():
            await connection.channel.close()

    async def _ask(self, method: str, kind: Callable[..., Any], query: ModelQuery, timeout: float) -> Any:
        return await self._call(method, kind(name=query.model, version=query.version), query.headers, timeout)

    async def _call(self, method: str, message: Any, headers: Headers, timeout: float) -> Any:
        lease, began = self._channels.enter(), time.monotonic()
        limit = self._patience.seconds(timeout) if lease.answered else timeout
        try:
            answer = await getattr(lease.value.stub, method)(message, timeout=limit, metadata=headers)
            lease.answered = True
            self._patience.answered(time.monotonic() - began)
            return answer
        except asyncio.CancelledError:
            # Closing a channel cancels its calls, which looks to the task as if it were cancelled itself.
            if self._channels.closed and not cancelled_from_outside():
                raise ClientClosedError("the client was closed") from None
            raise
        except (grpc.RpcError, grpc.aio.UsageError, ValueError) as error:
            raise _failure(error, self._channels, lease, silence=limit if limit < timeout else None) from None
        finally:
            if (unused := self._channels.leave(lease)) is not None:
                await unused.channel.close()


def _failure(
    error: Exception, channels: Shared[Connection], lease: Lease[Connection], silence: float | None
) -> DeepfakeError:
    """The error of ours; a kept channel that was silent for `silence` seconds, where those are not all, is replaced."""
    failure = codec.to_error(error, closed=channels.closed)
    if silence is None or not isinstance(failure, DeadlineExceededError):
        return failure
    channels.replace(lease)
    return silent(silence)

"""What the sync and the async client are made of, apart from how they wait."""

from __future__ import annotations

import logging
import os
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, Generic, TypeVar, cast

from ._call_options import CallDefaults, checked_count
from ._core import Core, Releasable
from ._credentials import Identity, TLSConfig, Token
from ._endpoint import Endpoint, parse_endpoints
from ._errors import InvalidArgumentError
from ._exchange import Exchange
from ._inputs import Decode, input_for
from ._outcome import OnRequest
from ._policy import DecisionPolicy
from ._policy_guard import PolicyGuard
from ._replicas import ReplicaSet
from ._verdict_log import VerdictLog
from .preprocessing import ImageLimits

T = TypeVar("T")

DEFAULT_URL = "grpc://127.0.0.1:8001"
#: HTTP carries one request at a time over a connection; gRPC carries all over one.
DEFAULT_MAX_CONNECTIONS = 64

_log = logging.getLogger("deepfake_client")
# Quiet unless the application configures logging: without a handler of its own Python would print to stderr.
_log.addHandler(logging.NullHandler())


class ClientBase(ABC, Generic[T]):
    """Checks the settings and builds the core."""

    _core: Core[T]
    _exchange: Exchange[T]

    def __init__(
        self,
        url: str | Sequence[str] | None,
        *,
        decode: Decode,
        model: str | None,
        model_version: str,
        timeout: float,
        max_retries: int,
        limits: ImageLimits | None,
        headers: Mapping[str, str] | None,
        token: Token | None,
        tls: TLSConfig | None,
        max_connections: int,
        on_request: OnRequest | None,
        policy: DecisionPolicy | str | os.PathLike[str] | None,
        verdict_log: str | os.PathLike[str] | None,
        transport: T | Sequence[T] | None,
        lock: Releasable,
    ) -> None:
        way_in = input_for(decode)
        model = way_in.model if model is None else model
        if not isinstance(model, str) or not model or not isinstance(model_version, str):
            raise InvalidArgumentError("model must be a name and model_version text, as '1'")
        checked_count("max_connections", max_connections, 1)
        self._defaults = CallDefaults(timeout, max_retries)
        self._identity = Identity(headers, token)
        replicas = ReplicaSet(self._transports(url, transport, tls, max_connections), time.monotonic)
        self._exchange = Exchange(replicas, model, on_request)
        self._core = Core(
            exchange=self._exchange,
            input=way_in,
            model=model,
            version=model_version,
            limits=limits or ImageLimits(),
            identity=self._identity,
            lock=lock,
            labels={},
            policy=None if policy is None else PolicyGuard(_loaded(policy), time.monotonic),
            verdict_log=None if verdict_log is None else VerdictLog(verdict_log),
        )

    def __repr__(self) -> str:
        names = ", ".join(self.endpoints)
        return f"<{type(self).__name__} {self._core.model} at {names}{' closed' if self._exchange.closed else ''}>"

    @property
    def endpoints(self) -> tuple[str, ...]:
        """The URLs of the replicas, with their ports."""
        return tuple(replica.endpoint for replica in self._exchange.replicas.all)

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return self._exchange.closed

    @abstractmethod
    def _open(self, endpoint: Endpoint, tls: TLSConfig | None, max_connections: int) -> T:
        """A transport to `endpoint`."""

    def _transports(
        self, url: str | Sequence[str] | None, transport: T | Sequence[T] | None, tls: TLSConfig | None, limit: int
    ) -> list[tuple[str, T]]:
        if transport is not None:
            if url is not None:
                raise InvalidArgumentError("pass either a url or a transport, not both")
            given = list(cast("Sequence[T]", transport)) if isinstance(transport, (list, tuple)) else [transport]
            if not given:
                raise InvalidArgumentError("the list of transports is empty")
            return [(str(cast("Any", each).endpoint), cast("T", each)) for each in given]
        endpoints = parse_endpoints(DEFAULT_URL if url is None else url)
        if tls is not None and not any(endpoint.secure for endpoint in endpoints):
            raise InvalidArgumentError("tls= is for grpcs:// and https:// urls")
        for endpoint in endpoints:
            if not self._identity.empty and not endpoint.secure and not endpoint.is_loopback:
                _log.warning("headers or a token go to %s in plain text; grpcs:// and https:// protect them", endpoint)
        return [(str(endpoint), self._open(endpoint, tls, limit)) for endpoint in endpoints]


def _loaded(policy: DecisionPolicy | str | os.PathLike[str]) -> DecisionPolicy:
    if isinstance(policy, (str, os.PathLike)):
        return DecisionPolicy.load(policy)
    if not isinstance(policy, DecisionPolicy):
        raise InvalidArgumentError(f"policy must be a DecisionPolicy or the path of one, not {type(policy).__name__}")
    return policy

"""What the client for threads and the one for asyncio share: the settings, and the core that they drive."""

from __future__ import annotations

import asyncio
import logging
import os
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from inspect import iscoroutinefunction
from typing import ClassVar, Generic, TypeVar, cast

from ._calls import (
    DEFAULT_MAX_RETRIES,
    DEFAULT_TIMEOUT_SECONDS,
    CallDefaults,
    CallOptions,
    Exchange,
    OnRequest,
    checked_count,
    checked_timeout,
)
from ._core import Core
from ._credentials import Identity, TLSConfig, Token
from ._endpoint import Endpoint, parse_endpoints
from ._errors import InvalidArgumentError
from ._policy import DecisionPolicy, PolicyGuard
from ._replicas import ReplicaSet
from ._tensors import Decode, input_for, require_several
from ._transports.base import AnyTransport, AsyncTransport, Transport
from ._verdict import VerdictLog
from .preprocessing import Decoding, ImageLimits

T = TypeVar("T", Transport, AsyncTransport)

DEFAULT_URL = "grpc://127.0.0.1:8001"
#: HTTP carries one request at a time over a connection; gRPC carries all over one.
DEFAULT_MAX_CONNECTIONS = 64

_log = logging.getLogger("deepfake_client")
# Quiet unless the application configures logging: without a handler of its own Python would print to stderr.
_log.addHandler(logging.NullHandler())

# Kept for good: to finalize a parent's event loop or channel in its child does harm to both.
_of_parents: list[Core] = []


class ClientBase(ABC, Generic[T]):
    """Checks the settings and builds the core."""

    #: special methods by which `classify_many` iterates
    _iterations: ClassVar[tuple[str, ...]] = ("__iter__", "__getitem__")

    def __init__(
        self,
        url: str | Sequence[str] | None = None,
        *,
        decode: Decode = "client",
        decoding: Decoding = "exact",
        model: str | None = None,
        model_version: str = "",
        timeout: float = DEFAULT_TIMEOUT_SECONDS,
        max_retries: int = DEFAULT_MAX_RETRIES,
        limits: ImageLimits | None = None,
        headers: Mapping[str, str] | None = None,
        token: Token | None = None,
        tls: TLSConfig | None = None,
        max_connections: int = DEFAULT_MAX_CONNECTIONS,
        on_request: OnRequest | None = None,
        policy: DecisionPolicy | str | os.PathLike[str] | None = None,
        verdict_log: str | os.PathLike[str] | None = None,
        transport: T | Sequence[T] | None = None,
    ) -> None:
        """See the class."""
        model_input = input_for(decode, decoding)
        model = model_input.model if model is None else model
        if not isinstance(model, str) or not model or not isinstance(model_version, str):
            raise InvalidArgumentError("model must be a name and model_version text, as '1'")
        checked_count("max_connections", max_connections, 1)
        kinds = (("limits", limits, ImageLimits), ("headers", headers, Mapping), ("tls", tls, TLSConfig))
        for name, value, kind in kinds:
            if value is not None and not isinstance(value, kind):
                raise InvalidArgumentError(f"{name} must be a {kind.__name__}, not {type(value).__name__}")
        if not (token is None or isinstance(token, str) or callable(token)):
            raise InvalidArgumentError(f"token must be text or a function, not {type(token).__name__}")
        if not (on_request is None or callable(on_request)):
            raise InvalidArgumentError(f"on_request must be a function, not {type(on_request).__name__}")
        self._defaults = CallDefaults(checked_timeout(timeout), checked_count("max_retries", max_retries, 0))
        self._identity = Identity(headers, token)
        self._connect: Callable[[], list[T]]
        if transport is None:
            endpoints = self._checked_endpoints(url, tls)
            self._connect = lambda: [self._open(endpoint, tls, max_connections) for endpoint in endpoints]
        elif url is None:
            given: list[T] = list(transport) if isinstance(transport, (list, tuple)) else [cast("T", transport)]
            for each in given:
                if iscoroutinefunction(each.close) is not iscoroutinefunction(self.close):
                    raise InvalidArgumentError(
                        f"{type(each).__name__} cannot carry requests of {type(self).__name__}: "
                        "DeepfakeClient takes a Transport, AsyncDeepfakeClient an AsyncTransport"
                    )
            self._connect = given.copy
        else:
            raise InvalidArgumentError("pass either a url or a transport, not both")
        self._transports: list[T] = self._connect()
        if not self._transports:
            raise InvalidArgumentError("the list of transports is empty")
        self._process = os.getpid()
        self._renewal: dict[int, threading.Lock] = {}
        self._own_core = Core(
            exchange=Exchange(self._replicas(), self._identity, model, on_request),
            input=model_input,
            model=model,
            version=model_version,
            limits=limits or ImageLimits(),
            lock=self._make_lock(),
            policy=None if policy is None else PolicyGuard(_loaded(policy), time.monotonic),
            verdict_log=None if verdict_log is None else VerdictLog(verdict_log),
        )

    def __repr__(self) -> str:
        names = ", ".join(self.endpoints)
        return f"<{type(self).__name__} {self._own_core.model} at {names}{' closed' if self.closed else ''}>"

    def __reduce__(self) -> str | tuple[object, ...]:
        raise TypeError("a client cannot be copied or pickled: make one in each process")

    @property
    def endpoints(self) -> tuple[str, ...]:
        """The URLs of the replicas, with their ports."""
        return tuple(replica.endpoint for replica in self._own_core.exchange.replicas.all)

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return self._own_core.exchange.closed

    @property
    def _core(self) -> Core:
        """The core; after a fork one with connections and locks of its own, made at the first call in the child.

        Those of the parent are neither used nor closed: the parent goes on with them.
        """
        process = os.getpid()
        if process != self._process and not self.closed:
            # A lock for each process: one made before the fork may have been held by a thread that is not here.
            with self._renewal.setdefault(process, threading.Lock()):
                if process != self._process:
                    self._transports = self._connect()
                    _of_parents.append(self._own_core)
                    exchange = replace(self._own_core.exchange, replicas=self._replicas())
                    self._own_core = replace(self._own_core, exchange=exchange, lock=self._make_lock())
                    self._process = process
        return self._own_core

    def _begin_closing(self) -> bool:
        """Lets no more calls begin; whether there is something to close, which is not so when it is the parent's."""
        self._own_core.exchange.closed = True
        return self._process == os.getpid()

    def _replicas(self) -> ReplicaSet[AnyTransport]:
        return ReplicaSet(((str(each.endpoint), each) for each in self._transports), time.monotonic)

    def _check_stream(self, images: object, concurrency: int, options: CallOptions) -> None:
        """Refuses wrong arguments of `classify_many` now, not with the first result."""
        checked_count("concurrency", concurrency, 1)
        if "request_id" in options:
            raise InvalidArgumentError("request_id names one request, and each image is one: it cannot be given here")
        self._defaults.begin(**options)
        require_several(images, self._iterations)

    @abstractmethod
    def close(self) -> object:
        """Closes all connections."""

    @abstractmethod
    def _open(self, endpoint: Endpoint, tls: TLSConfig | None, max_connections: int) -> T:
        """A transport to `endpoint`."""

    @abstractmethod
    def _make_lock(self) -> threading.Lock | asyncio.Lock:
        """What the step `Acquire` takes."""

    def _checked_endpoints(self, url: str | Sequence[str] | None, tls: TLSConfig | None) -> tuple[Endpoint, ...]:
        endpoints = parse_endpoints(DEFAULT_URL if url is None else url)
        if tls is not None and not any(endpoint.secure for endpoint in endpoints):
            raise InvalidArgumentError("tls= is for grpcs:// and https:// urls")
        for endpoint in endpoints:
            if not self._identity.empty and not endpoint.secure and not endpoint.is_loopback:
                _log.warning("headers or a token go to %s in plain text; grpcs:// and https:// protect them", endpoint)
        return endpoints


def _loaded(policy: DecisionPolicy | str | os.PathLike[str]) -> DecisionPolicy:
    if isinstance(policy, (str, os.PathLike)):
        return DecisionPolicy.load(policy)
    if not isinstance(policy, DecisionPolicy):
        raise InvalidArgumentError(f"policy must be a DecisionPolicy or the path of one, not {type(policy).__name__}")
    return policy


def decoding_threads(most: int) -> int:
    """Images decoded at a time: Pillow lets go of the interpreter's lock, so one for each core."""
    return min(most, os.cpu_count() or 1)

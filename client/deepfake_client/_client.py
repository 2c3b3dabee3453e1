"""The client for threads, and what the one for asyncio shares with it."""

from __future__ import annotations

import asyncio
import logging
import os
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast

from ._calls import (
    DEFAULT_MAX_RETRIES,
    DEFAULT_TIMEOUT_SECONDS,
    Call,
    CallDefaults,
    CallOptions,
    Exchange,
    OnRequest,
    Pause,
    Send,
    Step,
    Steps,
    Work,
    checked_count,
)
from ._classify_many import classify_many
from ._core import Core
from ._credentials import Identity, TLSConfig, Token
from ._endpoint import Endpoint, parse_endpoints
from ._errors import ClientClosedError, DeepfakeError, InvalidArgumentError, bare
from ._model_info import ModelInfo, Provenance
from ._policy import DecisionPolicy, PolicyGuard
from ._replicas import ReplicaSet
from ._tensors import Decode, PreparedImage, input_for
from ._transports.base import AnyTransport, AsyncTransport, Transport
from ._transports.grpc import GRPCTransport
from ._verdict import Failure, Verdict
from ._verdict_log import VerdictLog
from .preprocessing import ImageLimits, ImageSource, Pixels

if TYPE_CHECKING:
    from typing_extensions import Self, Unpack

R = TypeVar("R")
T = TypeVar("T", Transport, AsyncTransport)

DEFAULT_URL = "grpc://127.0.0.1:8001"
#: HTTP carries one request at a time over a connection; gRPC carries all over one.
DEFAULT_MAX_CONNECTIONS = 64

_log = logging.getLogger("deepfake_client")
# Quiet unless the application configures logging: without a handler of its own Python would print to stderr.
_log.addHandler(logging.NullHandler())


class ClientBase(ABC, Generic[T]):
    """Checks the settings and builds the core."""

    def __init__(
        self,
        url: str | Sequence[str] | None = None,
        *,
        decode: Decode = "client",
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
        model_input = input_for(decode)
        model = model_input.model if model is None else model
        if not isinstance(model, str) or not model or not isinstance(model_version, str):
            raise InvalidArgumentError("model must be a name and model_version text, as '1'")
        checked_count("max_connections", max_connections, 1)
        self._defaults = CallDefaults(timeout, max_retries)
        self._identity = Identity(headers, token)
        self._transports: list[T]
        if transport is None:
            self._transports = self._connect(url, tls, max_connections)
        elif url is None:
            self._transports = list(transport) if isinstance(transport, (list, tuple)) else [cast("T", transport)]
        else:
            raise InvalidArgumentError("pass either a url or a transport, not both")
        if not self._transports:
            raise InvalidArgumentError("the list of transports is empty")
        replicas = ReplicaSet[AnyTransport](((str(each.endpoint), each) for each in self._transports), time.monotonic)
        self._core = Core(
            exchange=Exchange(replicas, self._identity, model, on_request),
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
        return f"<{type(self).__name__} {self._core.model} at {names}{' closed' if self.closed else ''}>"

    @property
    def endpoints(self) -> tuple[str, ...]:
        """The URLs of the replicas, with their ports."""
        return tuple(replica.endpoint for replica in self._core.exchange.replicas.all)

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return self._core.exchange.closed

    def _check_stream(self, concurrency: int, options: CallOptions) -> None:
        """Refuses wrong arguments of `classify_many` now, not with the first result."""
        checked_count("concurrency", concurrency, 1)
        if "request_id" in options:
            raise InvalidArgumentError("request_id names one request, and each image is one: it cannot be given here")
        self._defaults.begin(**options)

    @abstractmethod
    def _open(self, endpoint: Endpoint, tls: TLSConfig | None, max_connections: int) -> T:
        """A transport to `endpoint`."""

    @abstractmethod
    def _make_lock(self) -> threading.Lock | asyncio.Lock:
        """What the step `Acquire` takes."""

    def _connect(self, url: str | Sequence[str] | None, tls: TLSConfig | None, max_connections: int) -> list[T]:
        endpoints = parse_endpoints(DEFAULT_URL if url is None else url)
        if tls is not None and not any(endpoint.secure for endpoint in endpoints):
            raise InvalidArgumentError("tls= is for grpcs:// and https:// urls")
        for endpoint in endpoints:
            if not self._identity.empty and not endpoint.secure and not endpoint.is_loopback:
                _log.warning("headers or a token go to %s in plain text; grpcs:// and https:// protect them", endpoint)
        return [self._open(endpoint, tls, max_connections) for endpoint in endpoints]


def _loaded(policy: DecisionPolicy | str | os.PathLike[str]) -> DecisionPolicy:
    if isinstance(policy, (str, os.PathLike)):
        return DecisionPolicy.load(policy)
    if not isinstance(policy, DecisionPolicy):
        raise InvalidArgumentError(f"policy must be a DecisionPolicy or the path of one, not {type(policy).__name__}")
    return policy


class DeepfakeClient(ClientBase[Transport]):
    """Asks a Triton server whether images are deepfakes. Safe to share between threads; make one and keep it.

    Args:
        url: `grpc://host[:8001]`, `grpcs://host[:443]`, `http://host[:8000]` or `https://host[:443]`, or a list of
            them, each a replica. Default: `grpc://127.0.0.1:8001`.
        decode: "client" decodes and resizes images here and sends their pixels, 150,528 bytes each. "server" sends the
            encoded images; the server must have the ensemble `deepfake_vs_real_image`. Verdicts and errors are the
            same. `classify_pixels` and `classify_batch` need "client".
        model, model_version: what to ask, `deepfake_vs_real` or, for "server", `deepfake_vs_real_image` by default;
            version "" leaves it to the server (its highest, by default).
        timeout: seconds that a call may take in all, retries and pauses included.
        max_retries: attempts after the first. They end earlier at the deadline.
        limits: largest image accepted.
        headers: sent with every request, for gateways and API keys.
        token: bearer token, or a function that returns the current one.
        tls: CA bundle and client certificate for `grpcs://` and `https://`.
        max_connections: most HTTP connections to one replica; a call beyond them waits for one.
        on_request: called with a `RequestOutcome` after each request, for metrics.
        policy: a `DecisionPolicy`, or the path of its file: verdicts then have a `decision`.
        verdict_log: a file to append a JSON line to for each verdict, before it is returned: time (UTC), request_id,
            sha256 of the image, label, scores, model and version. If it cannot be written, the call raises
            `VerdictLogError`.
        transport: in place of `url`: a transport (`FakeTransport` in tests), or a list of them, each a replica.

    Every call takes the keyword arguments of `CallOptions` too: `timeout`, `max_retries`, `request_id`, `priority`,
    `headers` and `traceparent`. They hold for that call alone.

    Retries: a lost connection, a server that starts or stops, a full queue, and 429, 502, 503 and 504 of a gateway are
    tried again. The pause is 0.1 s, doubled up to 8 s, cut at random by up to half; `Retry-After` comes first.

    Replicas: a `grpc://` name of a headless service resolves to all its pods, and calls take them in turn. A list of
    urls is taken in turn over any protocol. A replica of the list that loses a connection, is not ready, or is silent
    for half of a call's time is left out for 1 s, doubled up to 30 s.

    Policy: it belongs to the weights that it was fitted for. The client asks which ones the server has, with the first
    image and every 30 s. If they are others, or the server does not tell, the call raises `PolicyMismatchError`.

    Make the client after a fork (in a gunicorn or uwsgi worker, not before): gRPC does not survive one.

    Raises:
        InvalidArgumentError: an argument cannot be used. No connection is made before the first call.
    """

    def classify(self, image: ImageSource, *, source: str | None = None, **options: Unpack[CallOptions]) -> Verdict:
        """The verdict on one image.

        Args:
            image: a path, encoded bytes, a binary file object, a PIL image, or a uint8 array of shape (height, width,
                3), RGB.
            source: what to call the image in the verdict and in errors; by default its path or file name.
            options: timeout, max_retries, request_id, priority, headers, traceparent; see `CallOptions`.

        Raises:
            ImageError: the image cannot be used.
            RequestError, ServerError, WireError: there is no verdict, see the hierarchy in `_errors`.
        """
        return self._run(lambda call: self._core.classify(image, source, call), options)

    def classify_pixels(self, pixels: Pixels, *, source: str | None = None, **options: Unpack[CallOptions]) -> Verdict:
        """The verdict on one image that the caller has preprocessed.

        Args:
            pixels: uint8 of shape (224, 224, 3), height × width × RGB, 0 to 255, as `preprocessing.to_pixels` makes it.
                Another resize gives other verdicts.
            source, options: as in `classify`.
        """
        return self._run(lambda call: self._core.classify_pixels(pixels, source, call, batch=False), options)[0]

    def classify_batch(self, pixels: Pixels, **options: Unpack[CallOptions]) -> list[Verdict]:
        """The verdicts on several preprocessed images, sent as one request.

        Args:
            pixels: uint8 of shape (N, 224, 224, 3), N up to `model_info().max_batch_size`.
            options: as in `classify`.
        """
        return self._run(lambda call: self._core.classify_pixels(pixels, None, call, batch=True), options)

    def classify_many(
        self, images: Iterable[ImageSource], *, concurrency: int = 8, **options: Unpack[CallOptions]
    ) -> Iterator[Verdict | Failure]:
        """The verdicts on many images, in their order, as they come; a `Failure` for an image that gets none.

        `images` may be a generator of any length. It is read from the caller's thread, so a result is handed out once
        the image after it was given. At most 2 × `concurrency` + the number of cores images are held at a time. Images
        are decoded in threads beside the requests, one for each core. Each image is a request of its own: the server
        makes batches from the requests of all clients.

        Args:
            images: as for `classify`.
            concurrency: requests on their way at a time.
            options: as in `classify`, for each image, without request_id. The timeout begins when the request of an
                image is first sent.

        Raises:
            InvalidArgumentError: at once, when an argument cannot be used.
            Exception: whatever `images` itself raises, after the results of the images before.
        """
        self._check_stream(concurrency, options)

        def send(prepared: PreparedImage, source: str | None) -> Verdict:
            return self._run(lambda call: self._core.classify_prepared(prepared, source, call), options)

        return classify_many(images, self._core.prepare, send, concurrency)

    def ready(self, *, timeout: float = 5.0, headers: Mapping[str, str] | None = None) -> bool:
        """Whether a replica takes requests for the model now.

        False too when none can be reached within `timeout` seconds; why is logged.
        """
        return self._run(self._core.ready, {"timeout": timeout, "headers": headers})

    def model_info(self, **options: Unpack[CallOptions]) -> ModelInfo:
        """Labels, input shape, version and limits of the model; options as in `classify`."""
        return self._run(self._core.model_info, options)

    def provenance(self, model_version: str = "", **options: Unpack[CallOptions]) -> Provenance | None:
        """Where the weights of the classifier come from, and whether they are only a stand-in.

        Args:
            model_version: of `deepfake_vs_real`, also with `decode="server"`; "" for the client's own, or else the
                highest that is served.
            options: as in `classify`.

        Returns:
            None when the server does not say.
        """
        return self._run(lambda call: self._core.provenance(model_version, call), options)

    def close(self) -> None:
        """Closes all connections. Calls that are running fail with `ClientClosedError`. May be repeated."""
        self._core.exchange.closed = True
        self._closing.set()
        for transport in self._transports:
            transport.close()
        if self._core.verdict_log is not None:
            self._core.verdict_log.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _open(self, endpoint: Endpoint, tls: TLSConfig | None, max_connections: int) -> Transport:
        if endpoint.is_grpc:
            return GRPCTransport(endpoint, tls)
        from ._transports.http import HTTPTransport  # here, because importing urllib3 opens a socket, to try IPv6

        return HTTPTransport(endpoint, tls, max_connections)

    def _make_lock(self) -> threading.Lock:
        self._closing = threading.Event()
        self._lock = threading.Lock()
        return self._lock

    def _run(self, ask: Callable[[Call], Steps[R]], options: CallOptions) -> R:
        call = self._defaults.begin(**options)
        if self.closed:
            raise ClientClosedError("the client was closed")
        steps = ask(call)
        try:
            step = next(steps)
            while True:
                try:
                    result = self._perform(step)
                except Exception as error:
                    step = steps.throw(error)
                else:
                    step = steps.send(result)
        except StopIteration as ended:
            answer: R = ended.value
            return answer
        except DeepfakeError as error:
            raise bare(call.named(error)) from None
        finally:
            steps.close()

    def _perform(self, step: Step) -> Any:
        if isinstance(step, Send):
            return step.call(step.timeout)
        if isinstance(step, Work):
            return step.run()
        if isinstance(step, Pause):
            return self._closing.wait(step.seconds)
        return self._lock.acquire(timeout=step.timeout)

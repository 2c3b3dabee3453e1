"""The client for threads."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

from ._calls import Call, CallOptions, Pause, Read, Send, Step, Steps, Work
from ._client_base import ClientBase, decoding_threads
from ._credentials import TLSConfig
from ._endpoint import Endpoint
from ._errors import ClientClosedError, DeepfakeError, InvalidArgumentError, bare
from ._images import ASYNC_READ, name_of
from ._model_info import ModelInfo, Provenance
from ._tensors import PreparedImage
from ._transports.base import Transport
from ._transports.grpc import GRPCTransport
from ._verdict import Failure, Verdict
from .preprocessing import ImageSource, Pixels

if TYPE_CHECKING:
    from typing_extensions import Self, Unpack

R = TypeVar("R")


class DeepfakeClient(ClientBase[Transport]):
    """Asks a Triton server whether images are deepfakes. Safe to share between threads; make one and keep it.

    Args:
        url: `grpc://host[:8001]`, `grpcs://host[:443]`, `http://host[:8000]` or `https://host[:443]`, or a list of
            them, each a replica: calls take them in turn, and leave out one that failed for 1 to 30 s. A `grpc://` name
            of a headless service stands for all its pods. Default: `grpc://127.0.0.1:8001`.
        decode: "client" decodes and resizes images here and sends their pixels, 150,528 bytes each. "server" sends the
            encoded images; the server must have the ensemble `deepfake_vs_real_image`. Verdicts and errors are the
            same. `classify_pixels` and `classify_batch` need "client".
        decoding: how the client decodes, where `decode` says who does. "exact" gives the pixels of transformers to the
            bit. "fast" has libjpeg scale down JPEGs with no side under 896 pixels: several times as fast, a few grey
            levels off. On the server, the parameter `decoding` of `image_decoder` decides.
        model, model_version: what to ask, `deepfake_vs_real` or, for "server", `deepfake_vs_real_image` by default;
            version "" leaves it to the server (its highest, by default).
        timeout: seconds that a call may take in all, retries and pauses included.
        max_retries: attempts after the first, for a lost connection, a server that starts or stops, a full queue, and
            429, 502, 503 and 504 of a gateway. They end earlier at the deadline.
        limits: largest image accepted.
        headers: sent with every request, for gateways and API keys.
        token: bearer token, or a function that returns the current one.
        tls: CA bundle and client certificate for `grpcs://` and `https://`.
        max_connections: most HTTP connections to one replica; a call beyond them waits for one.
        on_request: called with a `RequestOutcome` after each request, for metrics.
        policy: a `DecisionPolicy`, or the path of its file: verdicts then have a `decision`. If the server has other
            weights than it was fitted for, or does not tell, calls raise `PolicyMismatchError`.
        verdict_log: a file to append a JSON line to for each verdict, before it is returned: time (UTC), request_id,
            sha256 of the image, label, scores, model and version. If it cannot be written, the call raises
            `VerdictLogError`.
        transport: in place of `url`: a transport (`FakeTransport` in tests), or a list of them, each a replica.

    Every call takes the keyword arguments of `CallOptions` too: `timeout`, `max_retries`, `request_id`, `priority`,
    `headers` and `traceparent`. They hold for that call alone.

    Forks: a client that was made or used before a fork works in the child too, with connections of its own.

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
        self._check_stream(images, concurrency, options)
        return self._stream(images, concurrency, options)

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
        if not self._begin_closing():
            return
        self._closing.set()
        for transport in self._transports:
            transport.close()

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

    def _stream(
        self, images: Iterable[ImageSource], concurrency: int, options: CallOptions
    ) -> Iterator[Verdict | Failure]:
        decoders = decoding_threads(concurrency)
        window = 2 * concurrency + decoders
        # Two pools, so that images are decoded while others are on their way, and both in their order: whoever has waited
        # longest is next, since everything behind it waits for it.
        decoding = ThreadPoolExecutor(decoders, "deepfake-decode")
        sending = ThreadPoolExecutor(concurrency, "deepfake-send")
        pending: deque[Future[Verdict | Failure]] = deque()
        broken: Exception | None = None
        try:
            iterator = iter(images)
            while True:
                try:
                    image = next(iterator)
                except StopIteration:
                    break
                except Exception as error:
                    broken = error
                    break
                pending.append(
                    sending.submit(self._send, decoding.submit(self._core.prepare, image), name_of(image), options)
                )
                del image  # a photo is a hundred times its pixels
                while pending and (len(pending) >= window or pending[0].done()):
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
            if broken is not None:
                raise broken
        finally:
            # A consumer that stops early is not kept waiting for requests that nobody wants any more.
            for pool in (sending, decoding):
                pool.shutdown(wait=not pending, cancel_futures=True)

    def _send(self, prepared: Future[PreparedImage], source: str | None, options: CallOptions) -> Verdict | Failure:
        try:
            image = prepared.result()
            return self._run(lambda call: self._core.classify_prepared(image, source, call), options)
        except DeepfakeError as error:
            return Failure(source, bare(error))

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
        if isinstance(step, Read):
            raise InvalidArgumentError(ASYNC_READ)
        if isinstance(step, Pause):
            return self._closing.wait(step.seconds)
        return self._lock.acquire(timeout=step.timeout)

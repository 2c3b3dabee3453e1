"""The client for threads."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

from ._call_options import DEFAULT_MAX_RETRIES, DEFAULT_TIMEOUT_SECONDS, Priority, checked_count
from ._classify_many import classify_many
from ._client_base import DEFAULT_MAX_CONNECTIONS, ClientBase
from ._credentials import TLSConfig, Token
from ._endpoint import Endpoint
from ._errors import ClientClosedError, DeepfakeError, bare
from ._grpc_transport import GRPCTransport
from ._http_transport import HTTPTransport
from ._inputs import Decode
from ._model_info import ModelInfo, Provenance
from ._outcome import OnRequest
from ._policy import DecisionPolicy
from ._steps import Lock, Pause, Send, Steps, Work
from ._transport import Transport
from ._verdict import Failure, Verdict
from ._verdict_log import PreparedImage
from .preprocessing import ImageLimits, ImageSource, Pixels

if TYPE_CHECKING:
    from typing_extensions import Self

R = TypeVar("R")


class DeepfakeClient(ClientBase[Transport]):
    """Asks a Triton server whether images are deepfakes. Safe to share between threads; make one and keep it.

    Args:
        url: `grpc://host[:8001]`, `grpcs://host[:443]`, `http://host[:8000]` or `https://host[:443]`, or a list of
            them, each a replica. Default: `grpc://127.0.0.1:8001`. See "Replicas" below.
        decode: "client" decodes and resizes images here and sends their pixels. "server" sends the encoded images, which
            saves this process the work, and the wire bytes where images are smaller than 150 KB; the server must have
            the ensemble `deepfake_vs_real_image`. The verdicts and the errors are the same. `classify_pixels` and
            `classify_batch` need "client".
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
        policy: a `DecisionPolicy`, or the path of its file: verdicts then have a `decision`. See "Policy" below.
        verdict_log: a file to append a JSON line to for each verdict, before it is returned: time (UTC), request_id,
            sha256 of the image, label, scores, model and version. No image and no file name; rotate it as you like. A
            file that cannot be written is a `VerdictLogError` in place of the verdict.
        transport: in place of `url`: a transport (`FakeTransport` in tests), or a list of them, each a replica.

    Retries: a connection that was refused, reset or closed, a server that starts or stops, a full queue, and 429, 502,
    503 and 504 of a gateway are tried again after 0.1 s, doubled up to 8 s, each cut at random to between half and all
    of it, or after the server's `Retry-After`. A bad image or request, an unknown model, a missing credential, a
    restricted API and the deadline itself are not. Inference changes nothing on the server, so that a repetition is
    harmless.

    Replicas: all calls over gRPC share one HTTP/2 connection, and a Kubernetes Service (a virtual address, balanced
    when a connection is made) pins that to one pod for good. So balance on this side: a `grpc://` name of a headless
    service resolves to all pods, and calls take them in turn (gRPC's round_robin; new pods are found when a connection
    ends and the name is resolved again). A list of urls is taken in turn over any protocol. A replica of the list that
    refuses or loses a connection, is not ready, or says nothing for half of a call's time is left out for 1 s, doubled
    up to 30 s, and tried again with one request.

    Policy: a policy belongs to the weights that it was fitted for. Which ones the server has is asked for with the first
    image and every 30 s (one small request; more for each version that answers), and weights that are others, or that
    the server does not tell, are a `PolicyMismatchError` in place of a verdict: a decision by the wrong thresholds would
    look like any other. So new weights take a new policy with them, or `model_version` holds the client to the old ones
    meanwhile. Replicas are taken to have the same weights for each version.

    Make the client after a fork (in a gunicorn or uwsgi worker, not before): gRPC does not survive one.

    Raises:
        InvalidArgumentError: an argument cannot be used. No connection is made before the first call.
    """

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
        transport: Transport | Sequence[Transport] | None = None,
    ) -> None:
        self._lock = threading.Lock()
        self._closing = threading.Event()
        super().__init__(
            url,
            decode=decode,
            model=model,
            model_version=model_version,
            timeout=timeout,
            max_retries=max_retries,
            limits=limits,
            headers=headers,
            token=token,
            tls=tls,
            max_connections=max_connections,
            on_request=on_request,
            policy=policy,
            verdict_log=verdict_log,
            transport=transport,
            lock=self._lock,
        )

    def classify(
        self,
        image: ImageSource,
        *,
        source: str | None = None,
        timeout: float | None = None,
        max_retries: int | None = None,
        request_id: str | None = None,
        priority: Priority | None = None,
        headers: Mapping[str, str] | None = None,
        traceparent: str | None = None,
    ) -> Verdict:
        """The verdict on one image.

        Args:
            image: a path, encoded bytes, a binary file object, a PIL image, or a uint8 array of shape (height, width,
                3), RGB.
            source: what to call the image in the verdict and in errors; by default its path or file name.
            timeout, max_retries: in place of the client's.
            request_id: sent to the server, which logs it; made up when not given.
            priority: "interactive", which is the server's default, or "bulk", served when nothing else waits.
            headers: sent with this call's requests, over the client's own of the same names.
            traceparent: W3C trace context, passed on.

        Raises:
            ImageError: the image cannot be used.
            RequestError, ServerError, WireError: there is no verdict, see the hierarchy in `_errors`.
        """
        call = self._defaults.begin(
            timeout=timeout,
            max_retries=max_retries,
            request_id=request_id,
            priority=priority,
            headers=headers,
            traceparent=traceparent,
        )
        return self._run(self._core.classify(image, source, call))

    def classify_pixels(
        self,
        pixels: Pixels,
        *,
        source: str | None = None,
        timeout: float | None = None,
        max_retries: int | None = None,
        request_id: str | None = None,
        priority: Priority | None = None,
        headers: Mapping[str, str] | None = None,
        traceparent: str | None = None,
    ) -> Verdict:
        """The verdict on one image that the caller has preprocessed.

        Args:
            pixels: uint8 of shape (224, 224, 3), height × width × RGB, 0 to 255, as `preprocessing.to_pixels` makes it.
                Another resize gives other verdicts.
            source, timeout, max_retries, request_id, priority, headers, traceparent: as in `classify`.
        """
        call = self._defaults.begin(
            timeout=timeout,
            max_retries=max_retries,
            request_id=request_id,
            priority=priority,
            headers=headers,
            traceparent=traceparent,
        )
        return self._run(self._core.classify_pixels(pixels, source, call, batch=False))[0]

    def classify_batch(
        self,
        pixels: Pixels,
        *,
        timeout: float | None = None,
        max_retries: int | None = None,
        request_id: str | None = None,
        priority: Priority | None = None,
        headers: Mapping[str, str] | None = None,
        traceparent: str | None = None,
    ) -> list[Verdict]:
        """The verdicts on several preprocessed images, sent as one request.

        Args:
            pixels: uint8 of shape (N, 224, 224, 3), N up to `model_info().max_batch_size`.
            timeout, max_retries, request_id, priority, headers, traceparent: as in `classify`.
        """
        call = self._defaults.begin(
            timeout=timeout,
            max_retries=max_retries,
            request_id=request_id,
            priority=priority,
            headers=headers,
            traceparent=traceparent,
        )
        return self._run(self._core.classify_pixels(pixels, None, call, batch=True))

    def classify_many(
        self,
        images: Iterable[ImageSource],
        *,
        concurrency: int = 8,
        timeout: float | None = None,
        max_retries: int | None = None,
        priority: Priority | None = None,
        headers: Mapping[str, str] | None = None,
        traceparent: str | None = None,
    ) -> Iterator[Verdict | Failure]:
        """The verdicts on many images, in their order, as they come.

        An image that gets none has a `Failure` in its place (`result.ok` tells the two apart), and the others go on.
        `images` may be a generator of any length: it is read from the caller's thread, so a result is handed out once
        the image after it was given (the async client does not wait for that), and at most
        2 × `concurrency` + the number of cores images are held at a time. Images are decoded in threads beside the
        requests, one for each core.

        Each image is a request of its own, because batches from here would gain nothing: on one core a 512 × 512 JPEG
        takes 2.3 ms to decode and 0.4 to 0.6 ms to send, so a process delivers some 350 images a second whichever way
        it sends them (in batches of 8, gRPC costs the same for each image and HTTP 0.4 ms less), and the server's
        dynamic batcher makes its batches from the requests of all clients. A GPU that does thousands a second is
        filled by many processes, not by larger requests of one; and a request that fails, fails for one image alone.
        Callers who have pixels at hand can send batches with `classify_batch`.

        Args:
            images: as for `classify`.
            concurrency: requests on their way at a time.
            timeout: seconds for each image, from when its request is first sent.
            priority: "bulk" for work that nobody waits for, so that interactive callers are served before it.
            max_retries, headers, traceparent: as in `classify`, for each image.

        Raises:
            InvalidArgumentError: at once, when an argument cannot be used.
            Exception: whatever `images` itself raises, after the results of the images before.
        """
        checked_count("concurrency", concurrency, 1)
        # Begun here once so that wrong arguments are refused now, not with the first result.
        self._defaults.begin(
            timeout=timeout, max_retries=max_retries, priority=priority, headers=headers, traceparent=traceparent
        )

        def send(prepared: PreparedImage, source: str | None) -> Verdict:
            call = self._defaults.begin(
                timeout=timeout, max_retries=max_retries, priority=priority, headers=headers, traceparent=traceparent
            )
            return self._run(self._core.classify_prepared(prepared, source, call))

        return classify_many(images, self._core.prepare, send, concurrency)

    def ready(self, *, timeout: float = 5.0, headers: Mapping[str, str] | None = None) -> bool:
        """Whether a replica takes requests for the model now.

        False too when none can be reached within `timeout` seconds; why is logged.
        """
        return self._run(self._core.ready(self._defaults.begin(timeout=timeout, headers=headers)))

    def model_info(
        self,
        *,
        timeout: float | None = None,
        max_retries: int | None = None,
        request_id: str | None = None,
        headers: Mapping[str, str] | None = None,
        traceparent: str | None = None,
    ) -> ModelInfo:
        """Labels, input shape, version and limits of the model; arguments as in `classify`."""
        call = self._defaults.begin(
            timeout=timeout, max_retries=max_retries, request_id=request_id, headers=headers, traceparent=traceparent
        )
        return self._run(self._core.model_info(call))

    def provenance(
        self,
        model_version: str = "",
        *,
        timeout: float | None = None,
        max_retries: int | None = None,
        request_id: str | None = None,
        headers: Mapping[str, str] | None = None,
        traceparent: str | None = None,
    ) -> Provenance | None:
        """Where the weights of the classifier come from, and whether they are only a stand-in.

        Args:
            model_version: of `deepfake_vs_real`, also with `decode="server"`; "" for the client's own, or else the
                highest that is served.
            timeout, max_retries, request_id, headers, traceparent: as in `classify`.

        Returns:
            None when the server does not say: its repository lacks the model `provenance`, or nothing lies beside the
            weights.
        """
        call = self._defaults.begin(
            timeout=timeout, max_retries=max_retries, request_id=request_id, headers=headers, traceparent=traceparent
        )
        return self._run(self._core.provenance(model_version, call))

    def close(self) -> None:
        """Closes all connections. Calls that are running fail with `ClientClosedError`. May be repeated."""
        self._exchange.closed = True
        self._closing.set()
        for replica in self._exchange.replicas.all:
            replica.transport.close()
        if self._core.verdict_log is not None:
            self._core.verdict_log.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _open(self, endpoint: Endpoint, tls: TLSConfig | None, max_connections: int) -> Transport:
        return GRPCTransport(endpoint, tls) if endpoint.is_grpc else HTTPTransport(endpoint, tls, max_connections)

    def _run(self, steps: Steps[R]) -> R:
        if self._exchange.closed:
            raise ClientClosedError("the client was closed")
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
            raise bare(error) from None
        finally:
            steps.close()

    def _perform(self, step: Send | Pause | Work | Lock) -> Any:
        if isinstance(step, Send):
            return getattr(step.transport, step.method)(step.message, step.timeout)
        if isinstance(step, Work):
            return step.run()
        if isinstance(step, Pause):
            return self._closing.wait(step.seconds)
        return self._lock.acquire(timeout=step.timeout)

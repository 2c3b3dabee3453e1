"""The client for asyncio."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, AsyncIterable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

from ._async_classify_many import classify_many
from ._call_options import DEFAULT_MAX_RETRIES, DEFAULT_TIMEOUT_SECONDS, Priority, checked_count
from ._classify_many import decoding_threads
from ._client_base import DEFAULT_MAX_CONNECTIONS, ClientBase
from ._credentials import TLSConfig, Token
from ._endpoint import Endpoint
from ._errors import ClientClosedError, DeepfakeError, bare
from ._grpc_aio_transport import AsyncGRPCTransport
from ._http_aio_transport import AsyncHTTPTransport
from ._inputs import Decode
from ._model_info import ModelInfo, Provenance
from ._outcome import OnRequest
from ._policy import DecisionPolicy
from ._steps import Lock, Pause, Send, Steps, Work
from ._transport import AsyncTransport
from ._verdict import Failure, Verdict
from ._verdict_log import PreparedImage
from .preprocessing import ImageLimits, ImageSource, Pixels

if TYPE_CHECKING:
    from typing_extensions import Self

R = TypeVar("R")
_MOST_DECODING_THREADS = 32


class AsyncDeepfakeClient(ClientBase[AsyncTransport]):
    """`DeepfakeClient` for asyncio: the same arguments, the same methods to be awaited, the same behaviour.

    Safe to share between the tasks of one event loop; make one for each loop and keep it. Images are decoded in
    threads, one for each core, so that the loop goes on. It may be made before the loop runs: connections are opened
    at the first call.

    Args:
        url, model, model_version, timeout, max_retries, limits, headers, token, tls, max_connections, on_request,
            policy, verdict_log: as in `DeepfakeClient`, which describes retries, replicas and policies too. `token`
            and `on_request` are plain functions and must not wait.
        transport: an `AsyncTransport` (`AsyncFakeTransport` in tests), or a list of them, each a replica.
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
        transport: AsyncTransport | Sequence[AsyncTransport] | None = None,
    ) -> None:
        self._lock = asyncio.Lock()
        self._closing = asyncio.Event()
        self._threads = ThreadPoolExecutor(decoding_threads(_MOST_DECODING_THREADS), "deepfake-decode")
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

    async def classify(
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
        """The verdict on one image; see `DeepfakeClient.classify`. A file object is read in another thread."""
        call = self._defaults.begin(
            timeout=timeout,
            max_retries=max_retries,
            request_id=request_id,
            priority=priority,
            headers=headers,
            traceparent=traceparent,
        )
        return await self._run(self._core.classify(image, source, call))

    async def classify_pixels(
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
        """The verdict on one preprocessed image, uint8 of shape (224, 224, 3); see `DeepfakeClient.classify_pixels`."""
        call = self._defaults.begin(
            timeout=timeout,
            max_retries=max_retries,
            request_id=request_id,
            priority=priority,
            headers=headers,
            traceparent=traceparent,
        )
        return (await self._run(self._core.classify_pixels(pixels, source, call, batch=False)))[0]

    async def classify_batch(
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
        """The verdicts on several preprocessed images, uint8 of shape (N, 224, 224, 3), sent as one request."""
        call = self._defaults.begin(
            timeout=timeout,
            max_retries=max_retries,
            request_id=request_id,
            priority=priority,
            headers=headers,
            traceparent=traceparent,
        )
        return await self._run(self._core.classify_pixels(pixels, None, call, batch=True))

    def classify_many(
        self,
        images: Iterable[ImageSource] | AsyncIterable[ImageSource],
        *,
        concurrency: int = 8,
        timeout: float | None = None,
        max_retries: int | None = None,
        priority: Priority | None = None,
        headers: Mapping[str, str] | None = None,
        traceparent: str | None = None,
    ) -> AsyncGenerator[Verdict | Failure, None]:
        """The verdicts on many images, in their order, as they come; see `DeepfakeClient.classify_many`.

        `images` may be an async generator too, and results then come while it waits. A plain iterable is read inside
        the event loop, so it should not wait itself.
        """
        checked_count("concurrency", concurrency, 1)
        self._defaults.begin(
            timeout=timeout, max_retries=max_retries, priority=priority, headers=headers, traceparent=traceparent
        )

        async def prepare(image: ImageSource) -> PreparedImage:
            prepared: PreparedImage = await self._perform(Work(lambda: self._core.prepare(image)))
            return prepared

        async def send(prepared: PreparedImage, source: str | None) -> Verdict:
            call = self._defaults.begin(
                timeout=timeout, max_retries=max_retries, priority=priority, headers=headers, traceparent=traceparent
            )
            return await self._run(self._core.classify_prepared(prepared, source, call))

        return classify_many(images, prepare, send, concurrency)

    async def ready(self, *, timeout: float = 5.0, headers: Mapping[str, str] | None = None) -> bool:
        """Whether a replica takes requests for the model now; see `DeepfakeClient.ready`."""
        return await self._run(self._core.ready(self._defaults.begin(timeout=timeout, headers=headers)))

    async def model_info(
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
        return await self._run(self._core.model_info(call))

    async def provenance(
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
        return await self._run(self._core.provenance(model_version, call))

    async def close(self) -> None:
        """Closes all connections. Calls that are running fail with `ClientClosedError`. May be repeated."""
        self._exchange.closed = True
        self._closing.set()
        self._threads.shutdown(wait=False, cancel_futures=True)
        for replica in self._exchange.replicas.all:
            await replica.transport.close()
        if self._core.verdict_log is not None:
            self._core.verdict_log.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    def _open(self, endpoint: Endpoint, tls: TLSConfig | None, max_connections: int) -> AsyncTransport:
        if endpoint.is_grpc:
            return AsyncGRPCTransport(endpoint, tls)
        return AsyncHTTPTransport(endpoint, tls, max_connections)

    async def _run(self, steps: Steps[R]) -> R:
        if self._exchange.closed:
            raise ClientClosedError("the client was closed")
        try:
            step = next(steps)
            while True:
                try:
                    result = await self._perform(step)
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

    async def _perform(self, step: Send | Pause | Work | Lock) -> Any:
        if isinstance(step, Send):
            return await getattr(step.transport, step.method)(step.message, step.timeout)
        if isinstance(step, Work):
            try:
                work = asyncio.get_running_loop().run_in_executor(self._threads, step.run)
            except RuntimeError:
                raise ClientClosedError("the client was closed") from None
            return await work
        waiting = self._closing.wait() if isinstance(step, Pause) else self._lock.acquire()
        try:
            return await asyncio.wait_for(waiting, step.seconds if isinstance(step, Pause) else step.timeout)
        except asyncio.TimeoutError:
            return False

"""The client for asyncio."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable, Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

from ._calls import Call, CallOptions, Pause, Read, Send, Step, Steps, Work
from ._client_base import ClientBase, decoding_threads
from ._credentials import TLSConfig
from ._endpoint import Endpoint
from ._errors import ClientClosedError, DeadlineExceededError, DeepfakeError, bare
from ._images import AsyncBinaryFile, name_of, read_async
from ._model_info import ModelInfo, Provenance
from ._transports.base import AsyncTransport
from ._transports.grpc import AsyncGRPCTransport
from ._transports.kept import cancelled_from_outside, running_loop
from ._verdict import Failure, Verdict
from .preprocessing import ImageSource, Pixels

if TYPE_CHECKING:
    from typing_extensions import Self, Unpack

R = TypeVar("R")
#: As for `DeepfakeClient`, or a file with a `read` to be awaited.
AsyncImageSource: TypeAlias = ImageSource | AsyncBinaryFile
_MOST_DECODING_THREADS = 32


class AsyncDeepfakeClient(ClientBase[AsyncTransport]):
    """`DeepfakeClient` for asyncio: the same arguments, the same methods to be awaited, the same behaviour.

    Safe to share between the tasks of one event loop; make one for each loop and keep it. It may be made before the
    loop runs. Images are decoded in threads, one for each core, so that the loop goes on. `token` and `on_request` are
    plain functions and must not wait. `transport` takes an `AsyncTransport` (`AsyncFakeTransport` in tests).

    Forks: as `DeepfakeClient`, but over gRPC close it before the fork; otherwise calls in the child raise
    `InvalidArgumentError`.
    """

    _iterations = ("__iter__", "__getitem__", "__aiter__")

    async def classify(
        self, image: AsyncImageSource, *, source: str | None = None, **options: Unpack[CallOptions]
    ) -> Verdict:
        """The verdict on one image; see `DeepfakeClient.classify`. A file object is read in another thread.

        Its `read` may be async too, as that of Starlette's `UploadFile`; it is awaited.
        """
        return await self._run(lambda call: self._core.classify(image, source, call), options)

    async def classify_pixels(
        self, pixels: Pixels, *, source: str | None = None, **options: Unpack[CallOptions]
    ) -> Verdict:
        """The verdict on one preprocessed image, uint8 of shape (224, 224, 3); see `DeepfakeClient.classify_pixels`."""
        return (await self._run(lambda call: self._core.classify_pixels(pixels, source, call, batch=False), options))[0]

    async def classify_batch(self, pixels: Pixels, **options: Unpack[CallOptions]) -> list[Verdict]:
        """The verdicts on several preprocessed images, uint8 of shape (N, 224, 224, 3), sent as one request."""
        return await self._run(lambda call: self._core.classify_pixels(pixels, None, call, batch=True), options)

    def classify_many(
        self,
        images: Iterable[AsyncImageSource] | AsyncIterable[AsyncImageSource],
        *,
        concurrency: int = 8,
        **options: Unpack[CallOptions],
    ) -> AsyncGenerator[Verdict | Failure, None]:
        """The verdicts on many images, in their order, as they come; see `DeepfakeClient.classify_many`.

        `images` may be an async generator too, and results then come while it waits. A plain iterable is read inside
        the event loop, so it should not wait itself.
        """
        self._check_stream(images, concurrency, options)
        return self._stream(images, concurrency, options)

    async def ready(self, *, timeout: float = 5.0, headers: Mapping[str, str] | None = None) -> bool:
        """Whether a replica takes requests for the model now; see `DeepfakeClient.ready`."""
        return await self._run(self._core.ready, {"timeout": timeout, "headers": headers})

    async def model_info(self, **options: Unpack[CallOptions]) -> ModelInfo:
        """Labels, input shape, version and limits of the model; options as in `classify`."""
        return await self._run(self._core.model_info, options)

    async def provenance(self, model_version: str = "", **options: Unpack[CallOptions]) -> Provenance | None:
        """Where the weights of the classifier come from, or None; see `DeepfakeClient.provenance`."""
        return await self._run(lambda call: self._core.provenance(model_version, call), options)

    async def close(self) -> None:
        """Closes all connections. Calls that are running fail with `ClientClosedError`. May be repeated."""
        if not self._begin_closing():
            return
        self._closing.set()
        self._threads.shutdown(wait=False, cancel_futures=True)
        for transport in self._transports:
            await transport.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    def _open(self, endpoint: Endpoint, tls: TLSConfig | None, max_connections: int) -> AsyncTransport:
        if endpoint.is_grpc:
            return AsyncGRPCTransport(endpoint, tls)
        from ._transports.http import AsyncHTTPTransport  # here, because importing urllib3 opens a socket, to try IPv6

        return AsyncHTTPTransport(endpoint, tls, max_connections)

    def _make_lock(self) -> asyncio.Lock:
        self._closing = asyncio.Event()
        self._threads = ThreadPoolExecutor(decoding_threads(_MOST_DECODING_THREADS), "deepfake-decode")
        self._lock = asyncio.Lock()
        return self._lock

    async def _stream(
        self,
        images: Iterable[AsyncImageSource] | AsyncIterable[AsyncImageSource],
        concurrency: int,
        options: CallOptions,
    ) -> AsyncGenerator[Verdict | Failure, None]:
        decoders = decoding_threads(concurrency)
        window = 2 * concurrency + decoders
        decoding, sending = asyncio.Semaphore(decoders), asyncio.Semaphore(concurrency)

        async def classify(image: AsyncImageSource) -> Verdict | Failure:
            source = name_of(image)
            try:
                async with decoding:
                    prepared = await self._drive(self._core.prepare_any(image))
                del image  # the pixels are a hundredth of a photo; the rest need not wait for the network
                async with sending:
                    return await self._run(lambda call: self._core.classify_prepared(prepared, source, call), options)
            except DeepfakeError as error:
                error.source = source
                return Failure(source, bare(error))

        room = asyncio.Semaphore(window - 2)
        pending: asyncio.Queue[asyncio.Task[Verdict | Failure] | None] = asyncio.Queue()
        running: set[asyncio.Task[Any]] = set()

        async def read() -> None:
            try:
                async with aclosing(_iterate(images)) as iterator:
                    async for image in iterator:
                        await room.acquire()
                        task = asyncio.create_task(classify(image))
                        del image
                        running.add(task)
                        task.add_done_callback(running.discard)
                        pending.put_nowait(task)
            finally:
                pending.put_nowait(None)

        reader = asyncio.create_task(read())
        running.add(reader)
        try:
            while (task := await pending.get()) is not None:
                room.release()
                if not task.done():  # awaited itself, it would be cancelled before those that wait behind it
                    await asyncio.wait([task])
                yield task.result()
            await reader  # raises what `images` has raised
        finally:
            for each in running:
                each.cancel()
            await asyncio.gather(*running, return_exceptions=True)

    async def _run(self, ask: Callable[[Call], Steps[R]], options: CallOptions) -> R:
        running_loop()
        call = self._defaults.begin(**options)
        if self.closed:
            raise ClientClosedError("the client was closed")
        try:
            return await self._drive(ask(call))
        except DeepfakeError as error:
            raise bare(call.named(error)) from None

    async def _drive(self, steps: Steps[R]) -> R:
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
        finally:
            steps.close()

    async def _perform(self, step: Step) -> Any:
        if isinstance(step, Send):
            return await step.call(step.timeout)
        if isinstance(step, Work):
            loop = running_loop()
            try:
                working = loop.run_in_executor(self._threads, step.run)
            except RuntimeError:
                raise ClientClosedError("the client was closed") from None
            try:
                return await working
            except asyncio.CancelledError:
                if self.closed and not cancelled_from_outside():
                    raise ClientClosedError("the client was closed") from None
                raise
        if isinstance(step, Read):
            try:
                return await asyncio.wait_for(read_async(step.file, step.max_bytes), step.timeout)
            except asyncio.TimeoutError:
                raise DeadlineExceededError("the image could not be read before the deadline") from None
        waiting = self._closing.wait() if isinstance(step, Pause) else self._lock.acquire()
        try:
            return await asyncio.wait_for(waiting, step.seconds if isinstance(step, Pause) else step.timeout)
        except asyncio.TimeoutError:
            return False


async def _iterate(
    images: Iterable[AsyncImageSource] | AsyncIterable[AsyncImageSource],
) -> AsyncGenerator[AsyncImageSource, None]:
    if isinstance(images, AsyncIterable):
        async for image in images:
            yield image
    else:
        for image in images:
            yield image

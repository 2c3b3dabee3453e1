"""The sync and the async client behind one face, so that one test says what both do."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from deepfake_client import AsyncDeepfakeClient, DeepfakeClient, Failure, ModelInfo, Provenance, Verdict

T = TypeVar("T")


class BlockingClient:
    """`AsyncDeepfakeClient` with methods that wait, run in a loop of its own thread."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._client = AsyncDeepfakeClient(*arguments, **options)

    @property
    def endpoints(self) -> tuple[str, ...]:
        return self._client.endpoints

    def classify(self, *arguments: Any, **options: Any) -> Verdict:
        return self._wait(self._client.classify(*arguments, **options))

    def classify_pixels(self, *arguments: Any, **options: Any) -> Verdict:
        return self._wait(self._client.classify_pixels(*arguments, **options))

    def classify_batch(self, *arguments: Any, **options: Any) -> list[Verdict]:
        return self._wait(self._client.classify_batch(*arguments, **options))

    def classify_many(self, *arguments: Any, **options: Any) -> Iterator[Verdict | Failure]:
        results = self._client.classify_many(*arguments, **options)
        return self._iterate(results)

    def _iterate(self, results: Any) -> Iterator[Verdict | Failure]:
        try:
            while True:
                result = self._wait(anext(results, None))
                if result is None:
                    return
                yield result
        finally:
            self._wait(results.aclose())

    def ready(self, **options: Any) -> bool:
        return self._wait(self._client.ready(**options))

    def model_info(self, **options: Any) -> ModelInfo:
        return self._wait(self._client.model_info(**options))

    def provenance(self, *arguments: Any, **options: Any) -> Provenance | None:
        return self._wait(self._client.provenance(*arguments, **options))

    def close(self) -> None:
        self._wait(self._client.close())

    def __repr__(self) -> str:
        return repr(self._client)

    def __enter__(self) -> BlockingClient:
        return self

    def __exit__(self, *exception: object) -> None:
        try:
            self.close()
        finally:
            self._wait(_finish_tasks())
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._loop.close()

    def _wait(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(timeout=120)


async def _finish_tasks() -> None:
    # aiohttp and grpc.aio close their sockets in tasks that they leave behind for a moment.
    await asyncio.sleep(0.05)


AnyClient = DeepfakeClient | BlockingClient


def client_of(kind: str, *arguments: Any, **options: Any) -> AnyClient:
    """A client of kind "sync" or "async"."""
    return (DeepfakeClient if kind == "sync" else BlockingClient)(*arguments, **options)


def ask_at_once(client: AnyClient, images: Iterable[Any], threads: int, **options: Any) -> list[Any]:
    """The verdict or the error of each of `images`, `threads` of them asked for at the same time."""

    def ask(image: Any) -> Any:
        try:
            return client.classify_pixels(image, **options)
        except Exception as error:
            return error

    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(ask, images))

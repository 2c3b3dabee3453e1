"""How each server is called: coroutines from an image file to its scores by label, each in a context of its own."""

from __future__ import annotations

import asyncio
import functools
import itertools
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import aiohttp
from deepfake_client import AsyncDeepfakeClient

from loadtests.traffic.answers import SCORE_TOLERANCE, wrong
from loadtests.traffic.pool import Item, KnownAnswer, Stream

#: Nobody waits longer: 32 callers of two cores in fp32 wait for some nine seconds.
DEADLINE_SECONDS = 90.0
_MOST_CALLERS = 512
_KNOWN_RATE = 0.05

Send = Callable[[bytes], Awaitable[Mapping[str, float]]]
#: Opens a caller of the server at a URL.
Caller = Callable[[str], AbstractAsyncContextManager[Send]]


def http(field: str | None = None) -> Caller:
    """One POST to /classify for each image, as the body, or in this field of a form."""
    return functools.partial(_http, field)


@asynccontextmanager
async def _http(field: str | None, url: str) -> AsyncIterator[Send]:
    connector = aiohttp.TCPConnector(limit=_MOST_CALLERS)
    async with aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(DEADLINE_SECONDS)) as session:

        async def send(file: bytes) -> Mapping[str, float]:
            data, headers = file, {"Content-Type": "image/jpeg"}
            if field is not None:
                data, headers = aiohttp.FormData(), {}
                data.add_field(field, file, filename="image.jpg", content_type="image/jpeg")
            async with session.post(f"{url}/classify", data=data, headers=headers) as answer:
                answer.raise_for_status()
                found = await answer.json()
            return found[0] if isinstance(found, list) else found

        yield send


@asynccontextmanager
async def triton(url: str) -> AsyncIterator[Send]:
    """This project's client, without retries: image bytes over HTTP, or pixels over gRPC."""
    async with AsyncDeepfakeClient(
        url,
        decode="server" if url.startswith("http") else "client",
        max_retries=0,
        timeout=DEADLINE_SECONDS,
        max_connections=_MOST_CALLERS,
    ) as client:

        async def send(file: bytes) -> Mapping[str, float]:
            return (await client.classify(file)).scores

        yield send


@asynccontextmanager
async def gradio(url: str) -> AsyncIterator[Send]:
    """`gradio_client`, which has threads of its own and uploads files that lie on the disk."""
    import gradio_client

    options = {"verbose": False, "analytics_enabled": False, "download_files": False, "max_workers": _MOST_CALLERS}
    client = await asyncio.to_thread(gradio_client.Client, url, **options)
    numbers = itertools.count()
    with tempfile.TemporaryDirectory(prefix="deepfake-peers-") as folder:

        async def send(file: bytes) -> Mapping[str, float]:
            path = Path(folder) / f"{next(numbers)}.jpg"
            path.write_bytes(file)
            job = client.submit(gradio_client.handle_file(path), api_name="/classify")
            answer = await asyncio.wait_for(asyncio.wrap_future(job.future), DEADLINE_SECONDS)
            return {each["label"]: each["confidence"] for each in answer["confidences"]}

        yield send
        await asyncio.to_thread(client.close)


class JudgingSender:
    """Sends distinct JPEG files of 512 × 512, and every twentieth time one with known scores, which are compared."""

    def __init__(self, send: Send, known: Sequence[KnownAnswer]) -> None:
        self._send = send
        self._stream = Stream("image", known=known, known_rate=_KNOWN_RATE)
        self._labels = frozenset(known[0].scores)

    def next(self) -> Item:
        return self._stream.next()

    async def send(self, item: Item) -> str | None:
        try:
            return wrong(await self._send(item.payload), item.known, self._labels, SCORE_TOLERANCE)
        except aiohttp.ClientResponseError as error:
            return f"HTTP {error.status}"
        except Exception as error:  # each library raises its own, and all of them count
            return type(error).__name__

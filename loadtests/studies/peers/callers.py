"""How each server is called: a request made ready, and then, on the clock, sent and its scores read."""

from __future__ import annotations

import asyncio
import itertools
import json
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol

import aiohttp
from deepfake_client import AsyncDeepfakeClient, DeepfakeError

from loadtests.traffic.answers import SCORE_TOLERANCE, contradicts, wrong
from loadtests.traffic.pool import Item, KnownAnswer, Stream

#: A file uploaded for Gradio's queue; a form with `image` or, as a list, `images`; the plain file as the body; or through
#: this project's client, the file or its pixels.
Call = Literal["gradio", "file", "files", "body", "triton-image", "triton-pixels"]

#: Nobody waits longer: 32 callers of two cores in fp32 wait for some nine seconds.
DEADLINE_SECONDS = 90.0
_MOST_CALLERS = 512
_KNOWN_RATE = 0.05


class CallError(Exception):
    """A request without scores; the message is its cause, in a few words."""


class Caller(Protocol):
    """What a server is called with; for any number of requests at a time."""

    def prepare(self, file: Any) -> Any:
        """A request for the image, before its clock starts."""

    async def send(self, request: Any) -> Mapping[str, float]:
        """Scores by label."""

    async def close(self) -> None: ...


async def open_caller(call: Call, url: str) -> Caller:
    """The caller for a server at `url`, which must be listening."""
    if call == "gradio":
        return await asyncio.to_thread(GradioCaller, url)
    if call in ("triton-image", "triton-pixels"):
        return TritonCaller(url, "server" if call == "triton-image" else "client")
    return HttpCaller(url, {"body": None, "file": "image", "files": "images"}[call])


class HttpCaller:
    """One POST to /classify for each image.

    Args:
        field: of the form that the file is in; None sends it as the body.
    """

    def __init__(self, url: str, field: str | None) -> None:
        self._url, self._field = f"{url}/classify", field
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=_MOST_CALLERS),
            timeout=aiohttp.ClientTimeout(total=DEADLINE_SECONDS),
            headers={} if field else {"Content-Type": "image/jpeg"},
        )

    def prepare(self, file: bytes) -> bytes | aiohttp.FormData:
        if self._field is None:
            return file
        form = aiohttp.FormData()
        form.add_field(self._field, file, filename="image.jpg", content_type="image/jpeg")
        return form

    async def send(self, request: bytes | aiohttp.FormData) -> Mapping[str, float]:
        try:
            async with self._session.post(self._url, data=request) as answer:
                content = await answer.read()
        except asyncio.TimeoutError:
            raise CallError("deadline") from None
        except aiohttp.ClientError as error:
            raise CallError(f"connection: {type(error).__name__}") from None
        if answer.status != 200:
            raise CallError(f"HTTP {answer.status}")
        try:
            found = json.loads(content)
        except ValueError:
            raise CallError("wrong answer: no JSON") from None
        return _scores(found[0] if isinstance(found, list) and len(found) == 1 else found)

    async def close(self) -> None:
        await self._session.close()


class TritonCaller:
    """This project's client, without retries."""

    def __init__(self, url: str, decode: Literal["client", "server"]) -> None:
        self._client = AsyncDeepfakeClient(
            url, decode=decode, max_retries=0, timeout=DEADLINE_SECONDS, max_connections=_MOST_CALLERS
        )

    def prepare(self, file: bytes) -> bytes:
        return file

    async def send(self, request: bytes) -> Mapping[str, float]:
        try:
            return dict((await self._client.classify(request)).scores)
        except DeepfakeError as error:
            raise CallError(type(error).__name__) from None

    async def close(self) -> None:
        await self._client.close()


class GradioCaller:
    """`gradio_client`, which has threads of its own and uploads files that lie on the disk."""

    def __init__(self, url: str) -> None:
        import gradio_client

        self._handle_file = gradio_client.handle_file
        self._folder = tempfile.TemporaryDirectory(prefix="deepfake-peers-")
        self._numbers = itertools.count()
        try:
            self._client = gradio_client.Client(
                url, verbose=False, analytics_enabled=False, download_files=False, max_workers=_MOST_CALLERS
            )
        except Exception as error:  # it raises what httpx, json and it itself raise
            raise CallError(f"gradio_client: {type(error).__name__}") from None

    def prepare(self, file: bytes) -> Path:
        path = Path(self._folder.name) / f"{next(self._numbers)}.jpg"
        path.write_bytes(file)
        return path

    async def send(self, request: Path) -> Mapping[str, float]:
        try:
            job = self._client.submit(self._handle_file(request), api_name="/classify")
            answer = await asyncio.wait_for(asyncio.wrap_future(job.future), DEADLINE_SECONDS)
        except Exception as error:  # as above
            raise CallError(f"gradio_client: {type(error).__name__}") from None
        try:
            return _scores({each["label"]: each["confidence"] for each in answer["confidences"]})
        except (KeyError, TypeError):
            raise CallError("wrong answer: no scores") from None

    async def close(self) -> None:
        await asyncio.to_thread(self._client.close)
        self._folder.cleanup()


def _scores(found: Any) -> Mapping[str, float]:
    if not isinstance(found, dict) or not all(isinstance(value, (int, float)) for value in found.values()):
        raise CallError("wrong answer: no scores")
    return found


class JudgingSender:
    """Sends distinct JPEG files of 512 × 512, and every twentieth time one with known scores, which are compared."""

    def __init__(self, caller: Caller, known: Sequence[KnownAnswer]) -> None:
        self._caller = caller
        self._stream = Stream("image", known=known, known_rate=_KNOWN_RATE)
        self._labels = frozenset(known[0].scores)

    def next(self) -> tuple[Item, Any]:
        item = self._stream.next()
        return item, self._caller.prepare(item.payload)

    async def send(self, request: tuple[Item, Any]) -> str | None:
        item, prepared = request
        try:
            scores = await self._caller.send(prepared)
        except CallError as error:
            return str(error)
        return wrong(scores, item.known, self._labels, SCORE_TOLERANCE)


async def check_known(caller: Caller, known: Sequence[KnownAnswer]) -> None:
    """Asks for all at a time, so that they meet in batches."""
    answers = await asyncio.gather(*(caller.send(caller.prepare(each.payload)) for each in known))
    for image, scores in zip(known, answers, strict=True):
        if contradicts(scores, image, SCORE_TOLERANCE):
            got, expected = (
                ", ".join(f"{label} {score:.3f}" for label, score in each.items()) for each in (scores, image.scores)
            )
            raise CallError(f"wrong answer: {got or 'nothing'} in place of {expected}")

"""Uploads between their arrival and their answer, without a server and without gradio."""

from __future__ import annotations

import asyncio
import time

import httpx
import pytest
from deepfake_client import DeepfakeClient, FakeTransport, InternalServerError
from deepfake_page import upload_routes
from deepfake_page.classification import Classifier
from deepfake_page.limits import PageLimits
from deepfake_page.uploads import Upload, UploadsFullError, UploadStore
from fastapi import FastAPI

from tests.support.pictures import encoded, photo_like

DEADLINE_SECONDS = 30


def test_the_memory_for_uploads_has_an_end() -> None:
    store = UploadStore(max_bytes=100)
    ticket = store.put(Upload("a.jpg", bytes(60)))
    with pytest.raises(UploadsFullError):
        store.put(Upload("b.jpg", bytes(60)))
    with pytest.raises(UploadsFullError):
        store.reserve(41)
    assert store.take("upload/guessed") is None
    assert store.take(ticket) == Upload("a.jpg", bytes(60))
    assert store.take(ticket) is None
    assert store.held_bytes == 0
    store.put(Upload("b.jpg", bytes(60)))


async def test_an_upload_that_nobody_asks_about_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upload_routes, "KEEP_SECONDS", 0.1)
    store = UploadStore(max_bytes=1000)
    answer = await send(store, bytes(60))
    assert answer.status_code == 200
    deadline = time.monotonic() + DEADLINE_SECONDS
    while store.held_bytes and time.monotonic() < deadline:
        await asyncio.sleep(0.05)
    assert store.held_bytes == 0
    assert store.take(answer.json()[0]) is None


async def test_an_upload_without_room_is_refused_and_leaves_the_room_that_there_is() -> None:
    store = UploadStore(max_bytes=1000)
    answer = await send(store, bytes(2000))
    assert (answer.status_code, answer.text) == (503, "too many images are waiting; try again in a minute")
    assert store.held_bytes == 0


def test_a_visitor_who_leaves_in_the_middle_leaves_nothing_behind() -> None:
    store = UploadStore(max_bytes=1 << 20)
    tickets = photos_in(store, 20)
    with DeepfakeClient(transport=FakeTransport([0.1, 0.9])) as client:
        answers = Classifier(client, store, PageLimits()).classify_many(tickets)
        assert next(answers).result.ok
        answers.close()
    assert store.held_bytes == 0


def test_after_a_failure_of_the_server_the_rest_of_a_batch_is_not_tried() -> None:
    store = UploadStore(max_bytes=1 << 20)
    tickets = photos_in(store, 20)
    server = FakeTransport([0.1, 0.9], errors=[InternalServerError("the model failed")] * 20)
    with DeepfakeClient(transport=server) as client:
        answers = list(Classifier(client, store, PageLimits()).classify_many(tickets))
    assert [answer.result.ok for answer in answers] == [False] * 20
    assert "not tried" in str(answers[-1].result.error)
    assert len(server.requests) < 20
    assert store.held_bytes == 0


def photos_in(store: UploadStore, count: int) -> list[str]:
    """Tickets of so many small photos."""
    return [store.put(Upload(f"{seed}.jpg", encoded(photo_like(32, 32, seed), "JPEG"))) for seed in range(count)]


async def send(store: UploadStore, content: bytes) -> httpx.Response:
    """The answer to an upload."""
    app = FastAPI()
    upload_routes.add_upload_routes(app, store, PageLimits())
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://page") as client:
        return await client.post("/gradio_api/upload", files={"files": ("photo.jpg", content)})

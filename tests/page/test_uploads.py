"""Uploads between their arrival and their answer, without a server and without gradio."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import httpx
import pytest
from deepfake_client import DeepfakeClient, FakeTransport, ImageReadError, InternalServerError
from deepfake_page.classification import Classifier, Upload
from deepfake_page.guard import Guard
from deepfake_page.uploads import Uploads, memory_folder
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.types import Receive, Scope, Send

from tests.support.pictures import encoded, photo_like


@pytest.fixture
def folder() -> Iterator[Path]:
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("GRADIO_TEMP_DIR", "")
        with memory_folder() as made:
            yield made
        assert not made.exists()


def test_the_memory_for_uploads_has_an_end(folder: Path) -> None:
    uploads = Uploads(folder, max_bytes=300_000)
    with uploads.arriving(200_000):
        assert not uploads.has_room(200_000)
        assert uploads.has_room(100_000)
    path = arrived(uploads, "a.jpg", bytes(200_000))
    assert not uploads.has_room(200_000)
    assert uploads.has_room(100_000)
    uploads.forget(path)
    assert (Path(path).exists(), Path(path).parent.exists()) == (False, False)
    assert uploads.has_room(300_000)
    assert not uploads.has_room(1 << 60)


async def test_an_upload_without_room_is_refused(folder: Path) -> None:
    async def gradio(scope: Scope, receive: Receive, send: Send) -> None:
        await PlainTextResponse(str(len(await Request(scope, receive).body())))(scope, receive, send)

    async def chunks() -> AsyncIterator[bytes]:
        yield bytes(2000)

    guard = Guard(gradio, uploads := Uploads(folder, max_bytes=66_000))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(guard), base_url="http://page/gradio_api") as client:
        assert (await client.post("/upload", content=bytes(2000))).text == "2000"
        for size in (70_000, 400_000):
            answer = await client.post("/upload", content=bytes(size))
            assert (answer.status_code, answer.text) == (503, "too many images are waiting; try again in a minute")
        assert (await client.post("/upload", content=chunks())).status_code == 411
        arrived(uploads, "a.jpg", bytes(2000))
        assert (await client.post("/upload", content=bytes(2000))).status_code == 503


def test_many_small_files_are_too_many_as_well(folder: Path) -> None:
    uploads = Uploads(folder, max_bytes=1 << 20)
    for number in range(20):
        stored(folder, f"{number}.jpg", b"x")
    assert not uploads.has_room(1)


def test_what_a_failed_request_leaves_behind_goes_with_the_last_one_under_way(folder: Path) -> None:
    uploads = Uploads(folder, max_bytes=100_000)
    with uploads.arriving(1):
        with uploads.arriving(1):
            (folder / "tmp1234").write_bytes(bytes(70_000))
        assert not uploads.has_room(70_000)  # another request may still write it
    assert uploads.has_room(70_000)
    assert list(folder.iterdir()) == []


ABANDONED = """
import time
from pathlib import Path
from deepfake_client import DeepfakeClient, FakeTransport
from deepfake_page.uploads import memory_folder
from starlette.testclient import TestClient

with memory_folder() as folder, DeepfakeClient(transport=FakeTransport([0.1, 0.9])) as client:
    from deepfake_page import app
    assert app.DELETE_CACHE == (60, 600)
    app.DELETE_CACHE = (1, 1)
    guard, _ = app.build_app(client, folder, policy=False, recorded=False)
    with TestClient(guard) as visitor:
        (path,) = visitor.post("/gradio_api/upload", files={"files": ("a.jpg", b"x")}).json()
        assert Path(path).read_bytes() == b"x"
        deadline = time.monotonic() + 60
        while Path(path).exists() and time.monotonic() < deadline:
            time.sleep(0.1)
        print(Path(path).exists())
"""


@pytest.mark.slow
def test_an_upload_that_nobody_asks_about_is_removed() -> None:
    """By gradio, after ten minutes; here after one second, in a process of its own."""
    run = subprocess.run([sys.executable, "-c", ABANDONED], capture_output=True, text=True, timeout=120)
    assert (run.returncode, run.stdout) == (0, "False\n"), run.stderr


def test_equal_files_go_with_the_last_of_their_answers(folder: Path) -> None:
    uploads = Uploads(folder)
    path = arrived(uploads, "a.jpg", b"x")
    assert arrived(uploads, "a.jpg", b"x") == path
    uploads.forget(path)
    assert uploads.read(path) == b"x"
    replaced = stored(folder, "a.jpg", b"x")  # a third, of which `uploads` has not heard yet
    uploads.forget(path)
    assert uploads.read(replaced) == b"x"


def test_only_uploads_are_read(folder: Path) -> None:
    uploads = Uploads(folder)
    path = arrived(uploads, "a.jpg", b"x")
    assert uploads.read(path) == b"x"
    for other in (__file__, f"{folder}/../../etc/hostname", f"{folder}//{path}", str(folder), "", f"{folder}/none"):
        with pytest.raises(ImageReadError, match="send the file again"):
            uploads.read(other)


def test_the_folder_of_a_page_that_was_killed_goes_with_the_next_start(folder: Path) -> None:
    killed = folder.with_name("deepfake-page-killed")
    killed.mkdir(mode=0o700)
    (killed / "a.jpg").write_bytes(b"x")
    with memory_folder():
        assert not killed.exists()
        assert folder.exists()


async def test_a_visitor_who_leaves_in_the_middle_leaves_nothing_behind(folder: Path) -> None:
    uploads = Uploads(folder)
    with DeepfakeClient(transport=FakeTransport([0.1, 0.9])) as client:
        answers = Classifier(client, uploads).classify_many(photos_in(uploads, 20))
        assert (await anext(answers)).result.ok
        await answers.aclose()
    assert list(folder.iterdir()) == []


async def test_after_a_failure_of_the_server_the_rest_of_a_batch_is_not_tried(folder: Path) -> None:
    uploads = Uploads(folder)
    server = FakeTransport([0.1, 0.9], errors=[InternalServerError("the model failed")] * 20)
    with DeepfakeClient(transport=server) as client:
        classifier = Classifier(client, uploads)
        answers = [answer async for answer in classifier.classify_many(photos_in(uploads, 20))]
    assert [answer.result.ok for answer in answers] == [False] * 20
    assert "not tried" in str(answers[-1].result.error)
    assert len(server.requests) < 20
    assert list(folder.iterdir()) == []


def photos_in(uploads: Uploads, count: int) -> list[Upload]:
    """So many small photos."""
    names = [f"{seed}.jpg" for seed in range(count)]
    contents = [encoded(photo_like(32, 32, seed), "JPEG") for seed in range(count)]
    return [Upload(arrived(uploads, name, content), name) for name, content in zip(names, contents, strict=True)]


def arrived(uploads: Uploads, name: str, content: bytes) -> str:
    """Path of an upload that has arrived."""
    path = stored(uploads.folder, name, content)
    uploads.arrived([path])
    return path


def stored(folder: Path, name: str, content: bytes) -> str:
    """Path of a file, put where gradio would put it."""
    path = folder / f"of {len(content)} bytes {name}" / name
    path.parent.mkdir(exist_ok=True)
    arriving = folder / "arriving"
    arriving.write_bytes(content)
    return str(arriving.replace(path))

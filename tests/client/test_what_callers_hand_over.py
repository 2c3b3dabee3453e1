"""What callers hand over that is nearly an image, or nearly a list of them: it works, or the error says what to pass."""

from __future__ import annotations

import asyncio
import io
import warnings
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import anyio
import numpy as np
import pytest
from deepfake_client import (
    AsyncDeepfakeClient,
    AsyncFakeTransport,
    DeadlineExceededError,
    DeepfakeClient,
    Failure,
    FakeTransport,
    ImageCorruptError,
    ImageFormatError,
    ImageLimits,
    ImageReadError,
    ImageTooLargeError,
    InvalidArgumentError,
)
from deepfake_client.preprocessing import load_image
from PIL import Image
from starlette.datastructures import UploadFile

from tests.support.pictures import encoded, photo_like
from tests.support.variants import AnyClient

Make = Callable[..., AnyClient]
Fake = Callable[..., Any]

PHOTO = encoded(photo_like(40, 30, 1), "JPEG")


class Reader:
    """A file object with the `read` given, which gets a file with a photo in it, and the size."""

    def __init__(self, read: Callable[[io.BytesIO, int], Any], content: bytes = PHOTO) -> None:
        self._file, self._read = io.BytesIO(content), read
        self.asked: list[int] = []
        self.name = "photo.jpg"

    def read(self, size: int) -> Any:
        self.asked.append(size)
        return self._read(self._file, size)


class AsyncReader(Reader):
    async def read(self, size: int) -> Any:
        return super().read(size)


async def _later(file: io.BytesIO, size: int) -> bytes:
    await asyncio.sleep(0)
    return file.read(size)


async def _hang(_size: int) -> bytes:
    await asyncio.sleep(3600)
    return b""


class _Awaitable:
    def __init__(self, file: io.BytesIO, size: int) -> None:
        self._reading = (file, size)

    def __await__(self) -> Iterator[Any]:
        return _later(*self._reading).__await__()


ASYNC_FILES: dict[str, Callable[[], Any]] = {
    "a coroutine function": lambda: AsyncReader(lambda file, size: file.read(size)),
    "one that returns a coroutine": lambda: Reader(_later),
    "one that returns an awaitable": lambda: Reader(_Awaitable),
    "small pieces": lambda: AsyncReader(lambda file, size: file.read(min(size, 100))),
    "a bytearray": lambda: AsyncReader(lambda file, size: bytearray(file.read(size))),
    "Starlette's UploadFile": lambda: UploadFile(io.BytesIO(PHOTO), filename="photo.jpg"),
    "anyio's AsyncFile": lambda: anyio.wrap_file(io.BytesIO(PHOTO)),
}
async_files = pytest.mark.parametrize("make", ASYNC_FILES.values(), ids=ASYNC_FILES)


@pytest.fixture(autouse=True)
def _no_coroutine_is_left_behind() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


@async_files
def test_the_client_for_threads_says_that_read_is_async(make: Callable[[], Any]) -> None:
    sentence = r"its read\(\) is async: pass `await file.read\(\)` or `file.file`$"
    with DeepfakeClient(transport=FakeTransport()) as client:
        with pytest.raises(InvalidArgumentError, match=sentence):
            client.classify(make())
        (result,) = client.classify_many([make()])
        assert isinstance(result, Failure)
        assert isinstance(result.error, InvalidArgumentError)
    with pytest.raises(InvalidArgumentError, match=sentence):
        load_image(make())


@async_files
async def test_the_client_for_asyncio_awaits_it(make: Callable[[], Any]) -> None:
    transport, plain = AsyncFakeTransport(), AsyncFakeTransport()
    async with AsyncDeepfakeClient(transport=transport) as client, AsyncDeepfakeClient(transport=plain) as other:
        await client.classify(make())
        assert [result.ok async for result in client.classify_many([make(), PHOTO, make()])] == [True] * 3
        await other.classify(PHOTO)
    sent = [bytes(request.inputs["pixels"].data) for request in transport.requests]
    assert sent == [bytes(plain.requests[0].inputs["pixels"].data)] * 4


@pytest.mark.parametrize("kind", [Reader, AsyncReader])
async def test_no_more_than_one_byte_over_the_limit_is_read(kind: type[Reader]) -> None:
    file = kind(lambda _file, size: b"x" * min(size, 1000))
    async with AsyncDeepfakeClient(transport=AsyncFakeTransport(), limits=ImageLimits(max_bytes=5500)) as client:
        with pytest.raises(ImageTooLargeError, match=r"^photo\.jpg: more than 5,500 bytes"):
            await client.classify(file)
    assert sum(min(size, 1000) for size in file.asked) == 5501


async def test_what_is_wrong_with_an_async_file_is_told_by_its_name() -> None:
    def broken(_file: io.BytesIO, _size: int) -> bytes:
        raise OSError("the upload was cut")

    cases: list[tuple[Any, type[Exception], str]] = [
        (AsyncReader(lambda file, size: file.read(size), PHOTO[:-200]), ImageCorruptError, "photo.jpg: truncated JPEG"),
        (AsyncReader(lambda file, size: file.read(size), b""), ImageFormatError, "photo.jpg: empty file"),
        (AsyncReader(broken), ImageReadError, "photo.jpg: cannot be read: the upload was cut"),
        (AsyncReader(lambda _file, _size: "text"), InvalidArgumentError, "photo.jpg: the file object gives text"),
    ]
    async with AsyncDeepfakeClient(transport=AsyncFakeTransport()) as client:
        for file, kind, text in cases:
            with pytest.raises(kind) as refused:
                await client.classify(file)
            assert str(refused.value).startswith(text)
            file._file.seek(0)
            (result,) = [result async for result in client.classify_many([file])]
            assert isinstance(result, Failure)
            assert type(result.error) is kind
            assert str(result.error).startswith(text)


async def test_a_file_that_never_comes_ends_with_the_call() -> None:
    file = AsyncReader(lambda _file, size: size)
    file.read = _hang  # type: ignore[method-assign]
    async with AsyncDeepfakeClient(transport=AsyncFakeTransport()) as client:
        with pytest.raises(DeadlineExceededError, match="could not be read before the deadline"):
            await client.classify(file, timeout=0.05)


@pytest.mark.parametrize("wrap", [bytearray, memoryview], ids=["bytearray", "memoryview"])
def test_a_read_may_give_any_kind_of_bytes(make_client: Make, fake: Fake, wrap: Callable[[bytes], Any]) -> None:
    transport = fake()
    client = make_client(transport=transport)
    client.classify(Reader(lambda file, size: wrap(file.read(size))))
    client.classify(Reader(lambda file, size: wrap(file.read(min(size, 100)))))
    client.classify(PHOTO)
    assert len({bytes(request.inputs["pixels"].data) for request in transport.requests}) == 1


@pytest.mark.parametrize(
    ("given", "kind", "text"),
    [
        ("text", InvalidArgumentError, "the file object gives text: open it in binary mode"),
        ("", InvalidArgumentError, "the file object gives text: open it in binary mode"),
        (np.zeros(9), InvalidArgumentError, "the file object gives ndarray, not bytes"),
        ([1, 2], InvalidArgumentError, "the file object gives list, not bytes"),
        (None, ImageFormatError, "empty file"),
    ],
    ids=["text", "no text", "array", "list", "nothing"],
)
def test_a_read_that_gives_something_else_is_named(
    make_client: Make, fake: Fake, given: Any, kind: type[Exception], text: str
) -> None:
    with pytest.raises(kind, match=rf"^photo\.jpg: {text}"):
        make_client(transport=fake()).classify(Reader(lambda _file, _size: given))


def test_a_read_that_takes_no_size_is_not_read_without_a_bound(make_client: Make, fake: Fake) -> None:
    class Response:
        def read(self) -> bytes:
            return PHOTO

    with pytest.raises(InvalidArgumentError, match=r"read\(size\) cannot be called, pass the bytes: "):
        make_client(transport=fake()).classify(Response())


def _closed_at_once(path: Path) -> Image.Image:
    image = Image.open(path)
    image.close()
    return image


def _closed_after_loading(path: Path) -> Image.Image:
    image = Image.open(path)
    image.load()
    image.close()
    return image


def _left_its_block(path: Path) -> Image.Image:
    with Image.open(path) as image:
        return image


def _file_closed(path: Path) -> Image.Image:
    with path.open("rb") as file:
        return Image.open(file)


def _closed_copy(path: Path) -> Image.Image:
    with Image.open(path) as image:
        copy = image.copy()
    copy.close()
    return copy


@pytest.mark.parametrize("format_name", ["JPEG", "PNG", "GIF", "BMP", "TIFF"])
@pytest.mark.parametrize("close", [_closed_at_once, _closed_after_loading, _left_its_block, _file_closed, _closed_copy])
def test_a_closed_pil_image_is_the_callers_mistake(
    tmp_path: Path, format_name: str, close: Callable[[Path], Image.Image]
) -> None:
    path = tmp_path / "photo"
    path.write_bytes(encoded(photo_like(40, 30, 1), format_name))
    with pytest.raises(InvalidArgumentError, match="the PIL image is closed: classify it before"):
        load_image(close(path))


@pytest.mark.parametrize("decode", ["client", "server"])
def test_both_clients_refuse_a_closed_pil_image(make_client: Make, fake: Fake, tmp_path: Path, decode: str) -> None:
    path = tmp_path / "photo.jpg"
    path.write_bytes(PHOTO)
    client = make_client(transport=fake(), decode=decode)
    with pytest.raises(InvalidArgumentError, match=r"photo\.jpg: the PIL image is closed"):
        client.classify(_closed_at_once(path))
    (result,) = client.classify_many([_closed_at_once(path)])
    assert isinstance(result, Failure)
    assert isinstance(result.error, InvalidArgumentError)


def test_a_pil_image_that_is_damaged_or_was_loaded_in_time_is_not_called_closed(tmp_path: Path) -> None:
    path = tmp_path / "photo.jpg"
    path.write_bytes(PHOTO[:-200])
    with Image.open(path) as image, pytest.raises(ImageCorruptError, match="truncated JPEG"):
        load_image(image)
    path.write_bytes(PHOTO)
    with Image.open(path) as image:
        image.load()
    assert load_image(image).size == (40, 30)


async def _images() -> AsyncIterator[bytes]:
    yield PHOTO


ONE_IMAGE: dict[str, Any] = {
    "a path as text": "photo.jpg",
    "a path": Path("photo.jpg"),
    "bytes": PHOTO,
    "bytearray": bytearray(PHOTO),
    "memoryview": memoryview(PHOTO),
    "a PIL image": photo_like(40, 30, 1),
    "an array": np.zeros((8, 8, 3), np.uint8),
    "a grey array": np.zeros((8, 8), np.uint8),
    "a number as an array": np.array(1),
    "a file": io.BytesIO(PHOTO),
    "an async file": UploadFile(io.BytesIO(PHOTO), filename="photo.jpg"),
}
NO_LIST: dict[str, Any] = {"nothing": None, "a number": 7, "a function": print}


@pytest.mark.parametrize(
    ("images", "text"),
    [
        *((image, "images must be a list of images, not one .*: pass \\[image\\]") for image in ONE_IMAGE.values()),
        *((other, "images must be a list or an iterable of images, not ") for other in NO_LIST.values()),
        ({"a.jpg": PHOTO}, "images must be a list of images, not a mapping: pass its values\\(\\)"),
    ],
    ids=[*ONE_IMAGE, *NO_LIST, "a mapping"],
)
def test_classify_many_refuses_one_image_at_once(make_client: Make, fake: Fake, images: Any, text: str) -> None:
    transport = fake()
    client = make_client(transport=transport)
    many = client.classify_many if isinstance(client, DeepfakeClient) else client._client.classify_many
    with pytest.raises(InvalidArgumentError, match=text):
        many(images)
    assert transport.requests == []
    assert transport.label_requests == 0


def test_only_the_client_for_asyncio_takes_an_async_generator() -> None:
    with (
        DeepfakeClient(transport=FakeTransport()) as client,
        pytest.raises(InvalidArgumentError, match="an iterable of images, not async_generator"),
    ):
        client.classify_many(_images())  # type: ignore[arg-type]


class _Sequence:
    def __getitem__(self, index: int) -> bytes:
        return [PHOTO, PHOTO][index]


@pytest.mark.parametrize(
    "make",
    [
        lambda: [PHOTO, PHOTO],
        lambda: {b"1": PHOTO, b"2": PHOTO}.values(),
        lambda: iter([PHOTO, PHOTO]),
        lambda: np.zeros((2, 8, 8, 3), np.uint8),
        lambda: np.array([PHOTO, PHOTO], dtype=object),
        _Sequence,
    ],
    ids=["list", "values", "iterator", "array of images", "array of bytes", "sequence"],
)
def test_classify_many_takes_whatever_gives_images(make_client: Make, fake: Fake, make: Callable[[], Any]) -> None:
    assert [result.ok for result in make_client(transport=fake()).classify_many(make())] == [True, True]


@pytest.mark.parametrize(
    "address",
    [
        "http://a/b.jpg",
        "HTTPS://a/b.jpg",
        "data:image/png;base64,AAAA",
        "s3://bucket/a.jpg",
        "gs://bucket/a.jpg",
        "file:///a.jpg",
        "file:/a.jpg",
    ],
)
def test_an_address_is_no_path(make_client: Make, fake: Fake, address: str) -> None:
    with pytest.raises(ImageReadError, match="an address, not a file: fetch it and pass the bytes"):
        make_client(transport=fake()).classify(address)


def test_a_file_whose_name_has_a_colon_is_a_path(make_client: Make, fake: Fake, tmp_path: Path) -> None:
    path = tmp_path / "12:30 http:.jpg"
    path.write_bytes(PHOTO)
    assert make_client(transport=fake()).classify(str(path)).ok


def test_the_other_clients_transport_is_refused_by_name() -> None:
    with pytest.raises(InvalidArgumentError, match=r"^AsyncFakeTransport cannot carry requests of DeepfakeClient"):
        DeepfakeClient(transport=[FakeTransport(), AsyncFakeTransport()])  # type: ignore[list-item]
    with pytest.raises(InvalidArgumentError, match=r"^FakeTransport cannot carry requests of AsyncDeepfakeClient"):
        AsyncDeepfakeClient(transport=FakeTransport())  # type: ignore[type-var]

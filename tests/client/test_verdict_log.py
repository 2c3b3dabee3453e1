"""Each verdict is on record before it is given, and the record holds no image."""

from __future__ import annotations

import fcntl
import hashlib
import io
import json
import logging.config
import resource
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from deepfake_client import (
    DeepfakeClient,
    FakeTransport,
    InvalidArgumentError,
    OverloadedError,
    VerdictLogError,
    _verdict,
)
from deepfake_client.preprocessing import Pixels, load_image, to_pixels
from PIL import Image

from tests.support.variants import AnyClient

Make = Callable[..., AnyClient]
Fake = Callable[..., Any]


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "verdicts.jsonl"


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    path = tmp_path / "portrait of somebody.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (30, 40, 3), dtype=np.uint8)).save(path)
    return path


def entries(log: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in log.read_text().splitlines()]


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def test_a_verdict_is_one_line_that_tells_image_model_and_time(
    make_client: Make, fake: Fake, log: Path, photo: Path
) -> None:
    before = datetime.now(timezone.utc)
    client = make_client(transport=fake([0.25, 0.75], version="3"), verdict_log=log)
    client.classify(photo, request_id="upload-17")
    (entry,) = entries(log)
    assert before <= datetime.fromisoformat(entry.pop("time").replace("Z", "+00:00")) <= datetime.now(timezone.utc)
    assert entry == {
        "request_id": "upload-17",
        "sha256": sha256(photo.read_bytes()),
        "sha256_of": "file",
        "label": "Real one",
        "scores": {"Deepfake": 0.25, "Real one": 0.75},
        "model": "deepfake_vs_real",
        "model_version": "3",
    }
    assert "portrait" not in log.read_text()


@pytest.mark.parametrize("decode", ["client", "server"])
def test_every_way_to_hand_over_the_same_photo_has_the_same_sum(
    make_client: Make, fake: Fake, log: Path, photo: Path, decode: str
) -> None:
    client = make_client(transport=fake(), verdict_log=log, decode=decode)
    content = photo.read_bytes()
    for image in (str(photo), content, io.BytesIO(content)):
        client.classify(image)
    list(client.classify_many([photo, content]))
    assert [(entry["sha256"], entry["sha256_of"]) for entry in entries(log)] == [(sha256(content), "file")] * 5


def test_what_has_no_file_is_told_by_the_pixels_that_the_model_takes(
    make_client: Make, fake: Fake, log: Path, photo: Path
) -> None:
    client = make_client(transport=fake(), verdict_log=log)
    pixels = to_pixels(load_image(photo))
    with Image.open(photo) as picture:
        client.classify(picture)
        client.classify(np.asarray(picture))
    client.classify_pixels(pixels)
    client.classify_batch(np.stack([pixels, 255 - pixels]))
    sums = [(entry["sha256"], entry["sha256_of"]) for entry in entries(log)]
    assert sums == [(sha256(pixels.tobytes()), "pixels")] * 4 + [(sha256((255 - pixels).tobytes()), "pixels")]


def test_only_verdicts_are_written(make_client: Make, fake: Fake, log: Path, photo: Path) -> None:
    client = make_client(transport=fake(errors=[OverloadedError("full")]), verdict_log=log, max_retries=0)
    results = list(client.classify_many([b"not an image", photo, photo], concurrency=1))
    assert [result.ok for result in results] == [False, False, True]
    assert [entry["request_id"] for entry in entries(log)] == [results[2].request_id]


def test_a_file_that_is_no_image_is_named_with_a_log_as_without(make_client: Make, fake: Fake, log: Path) -> None:
    broken = log.with_name("broken.jpg")
    broken.write_text("text")
    texts = []
    for options in ({}, {"verdict_log": log}):
        client = make_client(transport=fake(), **options)
        (failure,) = client.classify_many([broken])
        texts.append(str(failure.error))
    assert texts[0] == texts[1]
    assert texts[0].startswith(str(broken))


def test_many_callers_of_two_clients_do_not_mix_their_lines(
    make_client: Make, fake: Fake, log: Path, pixels: Pixels
) -> None:
    clients = [make_client(transport=fake(), verdict_log=log) for _ in range(2)]
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda number: clients[number % 2].classify_pixels(pixels), range(400)))
    assert len({entry["request_id"] for entry in entries(log)}) == 400


def test_a_line_that_another_writer_is_just_adding_is_not_taken_for_a_torn_one(log: Path, pixels: Pixels) -> None:
    with log.open("ab", buffering=0) as other, DeepfakeClient(transport=FakeTransport(), verdict_log=log) as client:
        fcntl.flock(other, fcntl.LOCK_EX)
        other.write(b'{"request_id": "other')  # the kernel shows a line that spans two pages as two parts
        with ThreadPoolExecutor() as pool:
            mine = pool.submit(client.classify_pixels, pixels, request_id="mine")
            assert not wait([mine], timeout=0.2).done
            other.write(b'"}\n')
            fcntl.flock(other, fcntl.LOCK_UN)
    assert [entry["request_id"] for entry in entries(log)] == ["other", "mine"]


@pytest.mark.parametrize("removed", [False, True])
def test_a_log_that_is_rotated_while_its_lock_is_waited_for_is_begun_anew(
    log: Path, pixels: Pixels, removed: bool
) -> None:
    with log.open("ab") as rotating, DeepfakeClient(transport=FakeTransport(), verdict_log=log) as client:
        fcntl.flock(rotating, fcntl.LOCK_EX)
        with ThreadPoolExecutor() as pool:
            waiting = pool.submit(client.classify_pixels, pixels, request_id="mine")
            assert not wait([waiting], timeout=0.2).done
            rotated = log.rename(log.with_suffix(".1"))
            if removed:
                rotated.unlink()
            fcntl.flock(rotating, fcntl.LOCK_UN)
    assert [entry["request_id"] for entry in entries(log)] == ["mine"]
    assert removed or not rotated.read_bytes()


def test_a_log_that_is_another_file_each_time_gives_no_verdict(
    make_client: Make, fake: Fake, log: Path, pixels: Pixels, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a file system that numbers its files anew each time."""
    client = make_client(transport=fake(), verdict_log=log)
    monkeypatch.setattr("os.path.samestat", lambda *_: False)
    with pytest.raises(VerdictLogError, match="cannot be written: it was replaced 3 times while"):
        client.classify_pixels(pixels)
    assert not log.read_bytes()


def test_a_log_that_another_program_does_not_let_go_gives_no_verdict(
    make_client: Make, fake: Fake, log: Path, pixels: Pixels, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_verdict, "LOCK_SECONDS", 0.1)
    client = make_client(transport=fake(), verdict_log=log)
    with log.open() as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(VerdictLogError, match=r"cannot be written: another program has held its lock .* 0\.1 s"):
            client.classify_pixels(pixels)
    client.classify_pixels(pixels)
    assert len(entries(log)) == 1


def test_a_log_that_was_rotated_is_begun_anew(make_client: Make, fake: Fake, log: Path, pixels: Pixels) -> None:
    client = make_client(transport=fake(), verdict_log=log)
    client.classify_pixels(pixels, request_id="first")
    rotated = log.rename(log.with_suffix(".1"))
    client.classify_pixels(pixels, request_id="second")
    log.unlink()
    client.classify_pixels(pixels, request_id="third")
    assert [entry["request_id"] for entry in entries(rotated)] == ["first"]
    assert [entry["request_id"] for entry in entries(log)] == ["third"]


def test_only_its_owner_reads_it(make_client: Make, fake: Fake, log: Path, pixels: Pixels) -> None:
    make_client(transport=fake(), verdict_log=log).classify_pixels(pixels)
    assert log.stat().st_mode & 0o077 == 0


def test_a_verdict_that_cannot_be_recorded_is_not_given(make_client: Make, fake: Fake, pixels: Pixels) -> None:
    with pytest.raises(VerdictLogError, match="/dev/full cannot be written: No space left"):
        make_client(transport=fake(), verdict_log="/dev/full").classify_pixels(pixels)


def test_a_folder_that_went_away_gives_no_verdicts_until_it_is_back(
    make_client: Make, fake: Fake, tmp_path: Path, pixels: Pixels
) -> None:
    log = tmp_path / "logs" / "verdicts.jsonl"
    log.parent.mkdir()
    client = make_client(transport=fake(), verdict_log=log)
    client.classify_pixels(pixels)
    log.unlink()
    log.parent.rmdir()
    for _ in range(2):
        with pytest.raises(VerdictLogError, match="cannot be written: No such file"):
            client.classify_pixels(pixels)
    log.parent.mkdir()
    for request_id in ("first", "second"):
        client.classify_pixels(pixels, request_id=request_id)
    assert [entry["request_id"] for entry in entries(log)] == ["first", "second"]


def test_an_application_that_configures_its_logging_afterwards_loses_no_line(log: Path, pixels: Pixels) -> None:
    with DeepfakeClient(transport=FakeTransport(), verdict_log=log) as client:
        logging.config.dictConfig({"version": 1, "disable_existing_loggers": False})  # closes every handler there is
        client.classify_pixels(pixels)
    assert len(log.read_text().splitlines()) == 1


@contextmanager
def room_left(log: Path, size: int) -> Iterator[None]:
    """The disk takes `size` more bytes of the log."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (log.stat().st_size + size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_what_a_full_disk_cut_off_does_not_run_into_the_next_line(log: Path, pixels: Pixels) -> None:
    log.write_text("{}\n" * 100_000)  # beyond what else this process writes to a file meanwhile
    with DeepfakeClient(transport=FakeTransport(), verdict_log=log) as client:
        with room_left(log, 20):
            with pytest.raises(VerdictLogError, match="part of a line"):
                client.classify_pixels(pixels)
            with pytest.raises(VerdictLogError, match="File too large"):
                client.classify_pixels(pixels)
        client.classify_pixels(pixels, request_id="next")
        torn, line = log.read_text().splitlines()[100_000:]
        assert len(torn) == 20
        assert json.loads(line)["request_id"] == "next"
        with log.open("a") as other:
            other.write('{"time": "2026')  # what another process could not finish
        client.classify_pixels(pixels, request_id="after another")
    assert json.loads(log.read_text().splitlines()[-1])["request_id"] == "after another"


@pytest.mark.parametrize("path", ["", "no/such/folder/log", "/", 7, "a\x00b"], ids=repr)
def test_a_log_that_cannot_be_opened_is_refused_at_once(make_client: Make, fake: Fake, path: Any) -> None:
    with pytest.raises(InvalidArgumentError, match="verdict_log"):
        make_client(transport=fake(), verdict_log=path)

"""What a load sends: images of which no two are alike unless they are meant to be."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import math
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from deepfake_client import DeepfakeClient, FakeTransport
from deepfake_client.preprocessing import load_image, to_pixels

from loadtests.traffic.answers import WRONG_INVALID, WRONG_SCORES, read, wrong
from loadtests.traffic.loops import Schedule, answers_per_second, closed_loop, percentile
from loadtests.traffic.pool import Item, JpegPool, PixelPool, Stream, numbers
from tests.support.pictures import encoded, photo_like


def test_pixels_never_repeat() -> None:
    pool = PixelPool()
    drawn = {pool.image(number).tobytes() for number in islice(numbers(), 1000)}
    assert len(drawn) == 1000


def test_jpeg_files_never_repeat_nor_does_what_a_server_decodes_from_them() -> None:
    pool = JpegPool()
    files = [pool.image(number) for number in islice(numbers(), 60)]
    assert len(set(files)) == 60
    assert len({to_pixels(load_image(file)).tobytes() for file in files}) == 60
    assert all(load_image(file).size == (512, 512) for file in files[:3])


def test_every_bit_of_the_number_shows_in_the_decoded_image() -> None:
    pool = JpegPool()
    same_file = 16  # numbers that differ by it or a multiple begin from the same one of 16 files
    seen = {
        to_pixels(load_image(pool.image(number))).tobytes() for number in (0, *(same_file << bit for bit in range(60)))
    }
    assert len(seen) == 61


def test_two_processes_do_not_send_the_same() -> None:
    assert not set(islice(numbers(), 10_000)) & set(islice(numbers(), 10_000))


def test_repeated_images_are_the_share_that_was_asked_for() -> None:
    stream = Stream("pixels", repeat_rate=0.3, seed=1)
    items = [stream.next() for _ in range(1000)]
    repeated = sum(item.repeated for item in items)
    assert 250 < repeated < 350
    assert len({item.payload.tobytes() for item in items if isinstance(item.payload, np.ndarray)}) == 1000 - repeated


def test_known_images_are_the_share_that_was_asked_for() -> None:
    known = Item(b"image", {"Deepfake": 1.0, "Real one": 0.0})
    stream = Stream("pixels", known=[known], known_rate=0.2, seed=1)
    assert 150 < sum(stream.next() is known for _ in range(1000)) < 250


LABELS = frozenset({"Deepfake", "Real one"})


@pytest.mark.parametrize(
    ("scores", "cause"),
    [
        ({"Deepfake": 0.495, "Real one": 0.505}, None),  # rounding, though the label is another
        ({"Deepfake": 0.48, "Real one": 0.52}, WRONG_SCORES),
        ({"Real": 0.505, "Fake": 0.495}, WRONG_INVALID),
        ({"Deepfake": 0.9, "Real one": 0.9}, WRONG_INVALID),
    ],
)
def test_scores_may_differ_by_rounding_and_not_by_more(scores: dict[str, float], cause: str | None) -> None:
    known = {"Deepfake": 0.505, "Real one": 0.495}
    assert wrong(scores, known, LABELS, 0.02) == cause


def test_known_answers_are_read_from_what_classify_wrote(tmp_path: Path) -> None:
    image = tmp_path / "photo.jpg"
    image.write_bytes(encoded(photo_like(300, 200, 1), "JPEG"))
    with DeepfakeClient(transport=FakeTransport(probabilities=[0.2, 0.8])) as client:
        line = json.dumps(client.classify(image).to_dict())
    file = tmp_path / "known.jsonl"
    file.write_text(line + "\n")
    (as_image,), (as_pixels,) = read(file, "image"), read(file, "pixels")
    assert as_image.payload == image.read_bytes()
    assert isinstance(as_pixels.payload, np.ndarray)
    assert np.array_equal(as_pixels.payload, to_pixels(load_image(image)))
    assert as_image.scores == pytest.approx({"Deepfake": 0.2, "Real one": 0.8})


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("", "no verdict in it"),
        ("{}", "line 1: not a verdict"),
        ('{"source": "/nowhere/photo.jpg", "scores": {"a": 1}}', "/nowhere/photo.jpg: No such file"),
        ("\xff", "line 1: not a verdict"),
    ],
)
def test_a_file_that_holds_no_answers_is_refused_by_name(tmp_path: Path, content: str, reason: str) -> None:
    file = tmp_path / "known.jsonl"
    file.write_bytes(content.encode("latin-1"))
    with pytest.raises(ValueError, match=reason):
        read(file, "pixels")


@pytest.mark.parametrize("arrivals", ["poisson", "constant"])
def test_arrivals_keep_their_rate_whatever_happens_in_between(arrivals: str) -> None:
    schedule = Schedule(50, arrivals, start=100.0, seed=1)
    due = []
    for _ in range(5000):
        due.append(schedule.due)
        schedule.advance()
    assert due == sorted(due)
    assert due[0] >= 100.0
    assert 95 < due[-1] - 100 < 105
    gaps = np.diff(due)
    assert gaps.std() == pytest.approx(0.02 if arrivals == "poisson" else 0.0, abs=0.002)


class Scripted:
    """A sender of our own making: takes a while, in batches or one by one, and fails as it is told to."""

    def __init__(self, seconds: float = 0.01, cause: str | None = None, batch: int = 1) -> None:
        self.seconds, self.cause, self.batch = seconds, cause, batch
        self.numbers = itertools.count()
        self.most_at_a_time = self.now = 0
        self.full = asyncio.Event()

    def next(self) -> int:
        return next(self.numbers)

    async def send(self, request: int) -> str | None:
        self.now += 1
        self.most_at_a_time = max(self.most_at_a_time, self.now)
        full = self.full
        if request % self.batch == self.batch - 1:
            self.full = asyncio.Event()
            asyncio.get_running_loop().call_later(self.seconds, full.set)
        with contextlib.suppress(asyncio.TimeoutError):  # the last batch does not fill
            await asyncio.wait_for(full.wait(), 0.5)
        self.now -= 1
        return self.cause


async def test_in_a_closed_loop_each_caller_waits_for_its_answer() -> None:
    sender = Scripted()
    sample = await closed_loop(sender.next, sender.send, 4, 0.3)
    assert sender.most_at_a_time == 4
    assert 0 < len(sample.latencies_ms) <= next(sender.numbers) - 4  # the first answer of each caller does not count
    assert len(sample.answered_at) == len(sample.latencies_ms) + 1
    assert min(sample.latencies_ms) >= 9.9
    assert not sample.failures


async def test_failures_are_counted_by_cause_and_not_as_answers() -> None:
    sender = Scripted(cause="HTTP 503")
    sample = await closed_loop(sender.next, sender.send, 2, 0.5)
    assert set(sample.failures) == {"HTTP 503"}
    assert sample.latencies_ms == []
    assert answers_per_second(sample.answered_at) == 0


@pytest.mark.parametrize("seconds", [0.0, 0.55])
async def test_the_batches_at_either_end_count_as_a_whole_or_not_at_all(seconds: float) -> None:
    sender = Scripted(0.1, batch=8)
    sample = await closed_loop(sender.next, sender.send, 16, seconds)
    assert len(sample.latencies_ms) % 8 == 0
    assert len(sample.latencies_ms) >= 16


def test_a_batch_is_counted_from_the_one_before_it() -> None:
    # Eight answers together every second: eight a second, whichever moment the window begins and ends at.
    answers = [batch + index * 0.001 for batch in range(4) for index in range(8)]
    assert answers_per_second(answers) == pytest.approx(8, rel=0.01)
    assert answers_per_second(list(reversed(answers))) == answers_per_second(answers)


@pytest.mark.parametrize("answers", [[], [5.0], [5.0, 5.01]])
def test_one_batch_alone_has_no_rate(answers: list[float]) -> None:
    assert answers_per_second(answers) == 0


def test_a_percentile_counts_failed_requests_as_the_slowest() -> None:
    assert percentile([3.0, 1.0, 2.0, 4.0], 4, 0.5) == 2.0
    assert percentile([1.0] * 95, 100, 0.95) == 1.0
    assert percentile([1.0] * 94, 100, 0.95) == math.inf

"""What a load sends: images of which no two are alike unless they are meant to be."""

from __future__ import annotations

import json
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from deepfake_client import DeepfakeClient, FakeTransport, Verdict
from deepfake_client.preprocessing import load_image, to_pixels

from loadtests.traffic.arrivals import Schedule
from loadtests.traffic.known_answers import KnownAnswer, alike, learn, read
from loadtests.traffic.pool import JpegPool, PixelPool, numbers
from loadtests.traffic.stream import Stream
from tests.support.pictures import encoded, photo_like


def test_pixels_never_repeat_and_little_is_kept() -> None:
    pool = PixelPool()
    drawn = {pool.image(number).tobytes() for number in islice(numbers(), 1000)}
    assert len(drawn) == 1000
    assert pool.memory_bytes < 10_000_000


def test_jpeg_files_never_repeat_nor_does_what_a_server_decodes_from_them() -> None:
    pool = JpegPool()
    files = [pool.image(number) for number in islice(numbers(), 200)]
    assert len(set(files)) == 200
    assert len({to_pixels(load_image(file)).tobytes() for file in files}) == 200
    assert all(load_image(file).size == (512, 512) for file in files[:3])
    assert pool.memory_bytes < 2_000_000


def test_every_digit_of_the_number_shows_in_the_decoded_image() -> None:
    pool = JpegPool()
    seen = {to_pixels(load_image(pool.image(16**row))).tobytes() for row in range(32)}
    assert len(seen) == 32


def test_two_processes_do_not_send_the_same() -> None:
    assert not set(islice(numbers(), 10_000)) & set(islice(numbers(), 10_000))


def test_repeated_images_are_the_share_that_was_asked_for() -> None:
    stream = Stream(PixelPool(), [], repeat_rate=0.3, known_rate=0.0, seed=1)
    items = [stream.next() for _ in range(1000)]
    repeated = sum(item.repeated for item in items)
    assert 250 < repeated < 350
    assert len({item.payload.tobytes() for item in items if isinstance(item.payload, np.ndarray)}) == 1000 - repeated


def test_known_images_are_the_share_that_was_asked_for() -> None:
    known = KnownAnswer(b"image", {"Deepfake": 1.0, "Real one": 0.0})
    stream = Stream(PixelPool(), [known], repeat_rate=0.0, known_rate=0.2, seed=1)
    assert 150 < sum(stream.next().known is known for _ in range(1000)) < 250


def test_scores_may_differ_by_rounding_and_not_by_more() -> None:
    known = KnownAnswer(b"image", {"Deepfake": 0.505, "Real one": 0.495})

    def verdict(scores: dict[str, float]) -> Verdict:
        return Verdict(max(scores, key=scores.__getitem__), scores, None, "deepfake_vs_real", "1", "")

    assert not known.contradicts(verdict({"Deepfake": 0.495, "Real one": 0.505}), 0.02)
    assert known.contradicts(verdict({"Deepfake": 0.48, "Real one": 0.52}), 0.02)
    assert known.contradicts(verdict({"Real": 0.505, "Fake": 0.495}), 0.02)


def test_a_model_that_cannot_tell_images_apart_is_noticed() -> None:
    same = FakeTransport(probabilities=[0.2, 0.8])
    telling = FakeTransport(probabilities=lambda pixels: [pixels.mean() / 255, 1 - pixels.mean() / 255])
    for transport, expected in ((same, True), (telling, False)):
        with DeepfakeClient(transport=transport) as client:
            assert alike(learn(client, "pixels", 10), 0.02) is expected


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
        ("{}", "line 1 is not a verdict"),
        ('{"source": "/nowhere/photo.jpg", "scores": {"a": 1}}', "/nowhere/photo.jpg: No such file"),
        ("\xff", "line 1 is not a verdict"),
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

"""A new version beside the old one, pinned, and taken back, while callers go on."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from deepfake_client import DeepfakeClient
from deepfake_deploy.embedded import EmbeddedTriton
from deepfake_deploy.export import Precision, export_model

from tests.support.calls import BareClient
from tests.support.checkpoints import make_checkpoint
from tests.support.exports import SilentProgress
from tests.support.pictures import encoded, photo_like
from tests.support.servers import running

MODEL = "deepfake_vs_real"
DEADLINE_SECONDS = 60


@pytest.fixture
def polling(repository: Path, tmp_path: Path) -> Iterator[tuple[EmbeddedTriton, Path]]:
    """A server that looks at its repository every second, and the repository."""
    folder = Path(shutil.copytree(repository, tmp_path / "model_repository"))
    with running(folder, poll_seconds=1) as server:
        yield server, folder


class Callers:
    """Threads that call over both protocols, with pixels and image bytes, until they are stopped."""

    def __init__(self, server: EmbeddedTriton) -> None:
        self.failures: list[str] = []
        self.calls = 0
        self._stop = threading.Event()
        image = encoded(photo_like(100, 100, 1), "JPEG")
        pixels = np.zeros((1, 224, 224, 3), np.uint8)
        calls: list[Callable[[BareClient], object]] = [
            lambda client: client.classify_pixels(pixels),
            lambda client: client.classify_image(image),
        ]
        self._threads = [
            threading.Thread(target=self._call, args=(url, call))
            for url in (server.grpc_url, server.http_url)
            for call in calls
        ]

    def __enter__(self) -> Callers:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(DEADLINE_SECONDS)

    def _call(self, url: str, call: Callable[[BareClient], object]) -> None:
        with BareClient(url) as client:
            while not self._stop.is_set():
                try:
                    call(client)
                except Exception as error:
                    self.failures.append(f"{url}: {error!r} {error}")
                self.calls += 1


def version_of(client: BareClient, **options: str) -> str:
    """Version that answers."""
    tensor = client.pixels(np.zeros((1, 224, 224, 3), np.uint8))
    return str(client.connection.infer(MODEL, [tensor], **options).get_response().model_version)


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not condition():
        if time.monotonic() > deadline:
            pytest.fail("the server did not change its versions in time")
        time.sleep(0.2)


@pytest.mark.slow
def test_a_version_is_rolled_out_pinned_and_rolled_back_without_a_failed_request(
    polling: tuple[EmbeddedTriton, Path], tmp_path: Path
) -> None:
    server, folder = polling
    other = make_checkpoint(tmp_path / "other", seed=9)
    with (
        BareClient(server.grpc_url) as client,
        DeepfakeClient(server.grpc_url) as ours,
        Callers(server) as callers,
    ):
        assert version_of(client) == "1"
        first = ours.provenance()
        old = client.classify_pixels(np.zeros((1, 224, 224, 3), np.uint8))

        export_model(str(other), None, Precision.FP32, folder, SilentProgress(), version=2)
        wait_for(lambda: version_of(client) == "2")
        new = client.classify_pixels(np.zeros((1, 224, 224, 3), np.uint8))
        assert np.abs(new - old).max() > 1e-3
        assert version_of(client, model_version="1") == "1"  # who is not to be the canary names the old one
        second = ours.provenance()
        assert (first.model_version, second.model_version) == ("1", "2")
        assert first.model_pt_sha256 != second.model_pt_sha256
        pinned = client.classify_pixels(np.zeros((1, 224, 224, 3), np.uint8), model_version="1")
        np.testing.assert_allclose(pinned, old, atol=1e-6, rtol=0)

        shutil.rmtree(folder / MODEL / "2")
        wait_for(lambda: version_of(client) == "1")
        again = client.classify_pixels(np.zeros((1, 224, 224, 3), np.uint8))
        np.testing.assert_allclose(again, old, atol=1e-6, rtol=0)

        # Others under a number that was there before: the server tells of these, and not of those.
        third = make_checkpoint(tmp_path / "third", seed=10)
        export_model(str(third), None, Precision.FP32, folder, SilentProgress(), version=2)
        wait_for(lambda: version_of(client) == "2")
        assert ours.provenance().model_pt_sha256 not in (first.model_pt_sha256, second.model_pt_sha256)
    assert callers.failures == []
    assert callers.calls > 50
    assert not server.lost_workers()
    assert not server.lost_workers()


@pytest.mark.slow
def test_a_version_that_does_not_load_leaves_the_old_one_in_service(polling: tuple[EmbeddedTriton, Path]) -> None:
    server, folder = polling
    with BareClient(server.http_url) as client:
        before = client.classify_pixels(np.zeros((1, 224, 224, 3), np.uint8))
        broken = folder / MODEL / ".2.partial"
        broken.mkdir()
        (broken / "model.pt").write_bytes(b"not a model")
        broken.rename(folder / MODEL / "2")
        time.sleep(3)  # a poll or two
        after = client.classify_pixels(np.zeros((1, 224, 224, 3), np.uint8))
    np.testing.assert_allclose(before, after, atol=1e-6, rtol=0)

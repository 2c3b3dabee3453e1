"""An evaluation that was killed, interrupted or left alone by the server goes on, and its report is the same.

One image at a time: in another batch the model's last digits are others, and then two uninterrupted runs differ too.
"""

from __future__ import annotations

import os
import pty
import re
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

import pytest
from deepfake_deploy.embedded import EmbeddedTriton

from tests.support.commands import contents, evaluate
from tests.support.inference_proxy import InferenceProxy

pytestmark = pytest.mark.slow
COMMAND = [sys.executable, "-m", "deepfake_cli", "evaluate"]
IMAGES = 24
HALF = 12
DEADLINE_SECONDS = 120
ONE_BY_ONE = ("--concurrency", "1")


@pytest.fixture(scope="module")
def uninterrupted(
    trained_triton: EmbeddedTriton, few_faces: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, bytes]:
    """The results of an evaluation in one go."""
    output = tmp_path_factory.mktemp("uninterrupted")
    run = evaluate(few_faces, "--url", trained_triton.grpc_url, "--output", output, *ONE_BY_ONE)
    assert (run.exit_code, run.stderr) == (0, "")
    return contents(output)


def answered(output: Path) -> int:
    """Answers on the disk; the first line is about the model."""
    path = output / "answers.jsonl"
    return max(0, path.read_bytes().count(b"\n") - 1) if path.exists() else 0


def start(proxy: InferenceProxy, faces: Path, output: Path, **options: object) -> subprocess.Popen[bytes]:
    """Begin an evaluation in a process of its own, and wait until it is at half and gets no more answers."""
    proxy.limit, proxy.beyond = HALF, "stall"
    arguments = [str(faces), "--url", proxy.url, "--output", str(output), *ONE_BY_ONE]
    # Whoever runs the tests in the background has them ignore Ctrl-C, and what they start.
    process = subprocess.Popen(["env", "--default-signal=INT", *COMMAND, *arguments], **options)
    deadline = time.monotonic() + DEADLINE_SECONDS
    while answered(output) < HALF and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    assert answered(output) == HALF
    return process


def go_on(proxy: InferenceProxy, faces: Path, output: Path) -> int:
    """Run the evaluation to its end; how many images the server was sent."""
    proxy.limit, proxy.images = None, 0
    run = evaluate(faces, "--url", proxy.url, "--output", output, *ONE_BY_ONE)
    assert run.exit_code == 0, run.stderr
    assert "answers of this model; images that are unchanged are not asked for again" in run.stderr
    return proxy.images


def read_all(terminal: int, shown: bytearray) -> None:
    """Take what a process shows until it has closed its side, lest it waits for a reader."""
    with suppress(OSError), os.fdopen(terminal, "rb", buffering=0) as stream:
        while chunk := stream.read(4096):
            shown += chunk


def test_one_that_was_killed_at_half_goes_on_and_repeats_no_request(
    trained_triton: EmbeddedTriton, few_faces: Path, tmp_path: Path, uninterrupted: dict[str, bytes]
) -> None:
    output = tmp_path / "evaluation"
    with InferenceProxy(trained_triton.http_url) as proxy:
        process = start(proxy, few_faces, output)
        process.kill()
        process.wait(timeout=DEADLINE_SECONDS)
        assert not contents(output)
        assert go_on(proxy, few_faces, output) == IMAGES - HALF
    assert contents(output) == uninterrupted


def test_ctrl_c_says_how_to_go_on_and_the_bar_shows_how_far_it_is(
    trained_triton: EmbeddedTriton, few_faces: Path, tmp_path: Path, uninterrupted: dict[str, bytes]
) -> None:
    output = tmp_path / "evaluation"
    terminal, stderr = pty.openpty()
    shown = bytearray()
    reading = threading.Thread(target=read_all, args=(terminal, shown))
    reading.start()
    with InferenceProxy(trained_triton.http_url) as proxy:
        environment = {**os.environ, "TERM": "xterm"}
        process = start(proxy, few_faces, output, stdout=subprocess.PIPE, stderr=stderr, env=environment)
        deadline = time.monotonic() + DEADLINE_SECONDS
        while not (bar := re.search(rb"[1-9]\d*/%d" % IMAGES, shown)) and time.monotonic() < deadline:
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        stdout, _ = process.communicate(timeout=DEADLINE_SECONDS)
        os.close(stderr)
        reading.join()
        assert (process.returncode, stdout) == (130, b"")
        assert bar, bytes(shown[-400:])
        assert b"interrupted; what was answered is kept, run the same command again to go on" in shown
        assert go_on(proxy, few_faces, output) == IMAGES - HALF
    assert contents(output) == uninterrupted


def test_a_server_that_goes_away_ends_it_with_a_sentence_and_it_goes_on_later(
    trained_triton: EmbeddedTriton, few_faces: Path, tmp_path: Path, uninterrupted: dict[str, bytes]
) -> None:
    output = tmp_path / "evaluation"
    with InferenceProxy(trained_triton.http_url) as proxy:
        proxy.limit = HALF
        run = evaluate(few_faces, "--url", proxy.url, "--output", output, *ONE_BY_ONE, "--timeout", 2)
        assert (run.exit_code, run.stdout) == (1, "")
        assert run.stderr.count("\n") == 1
        assert "the server is not ready" in run.stderr
        assert "what was answered is kept, run the same command again to go on" in run.stderr
        assert not contents(output)
        kept = answered(output)
        assert kept == proxy.limit
        assert go_on(proxy, few_faces, output) == IMAGES - kept
    assert contents(output) == uninterrupted


def test_a_full_disk_ends_it_with_a_sentence_and_it_goes_on_later(
    trained_triton: EmbeddedTriton, few_faces: Path, tmp_path: Path, uninterrupted: dict[str, bytes]
) -> None:
    output = tmp_path / "evaluation"
    command = " ".join(f"'{word}'" for word in [*COMMAND, few_faces, "--output", output, *ONE_BY_ONE])
    with InferenceProxy(trained_triton.http_url) as proxy:
        # No file of this process may grow over 2 KiB, which is less than the answers take.
        limited = f"ulimit -f 2; exec {command} --url {proxy.url}"
        run = subprocess.run(["/bin/bash", "-c", limited], capture_output=True, text=True, timeout=DEADLINE_SECONDS)
        assert (run.returncode, run.stdout) == (1, "")
        assert run.stderr.startswith(f"deepfake: {output}/answers.jsonl: cannot be written (")
        assert run.stderr.count("\n") == 1
        kept = answered(output)
        assert 0 < kept < IMAGES
        assert go_on(proxy, few_faces, output) == IMAGES - kept
    assert contents(output) == uninterrupted


def test_robustness_asked_for_later_only_asks_for_the_damaged_images(
    trained_triton: EmbeddedTriton, few_faces: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from deepfake_evaluation import robustness

    monkeypatch.setattr(robustness, "DAMAGES", robustness.DAMAGES[:1])
    with InferenceProxy(trained_triton.http_url) as proxy:
        arguments = (few_faces, "--url", proxy.url, "--output", tmp_path)
        evaluate(*arguments)
        assert proxy.images == IMAGES
        run = evaluate(*arguments, "--robustness")
        assert run.exit_code == 0
        assert proxy.images == 2 * IMAGES
        assert (tmp_path / "robustness.png").exists()
        # And what is not measured this time is not left lying beside what is.
        evaluate(*arguments)
        assert proxy.images == 2 * IMAGES
        assert not list(tmp_path.glob("robustness.*"))

"""Locust runs against a real Triton, and against a server that fails in every way that a load can find."""

from __future__ import annotations

import itertools
import re
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest
from deepfake_deploy.embedded import EmbeddedTriton
from deepfake_deploy.embedded.ports import reserved_ports

from tests.support.fake_triton import fake_triton
from tests.support.locust_runs import run_locust
from tests.support.metrics import metric, settled

pytestmark = pytest.mark.slow  # processes of Locust's own

RIGHT, WRONG = (0.25, 0.75), (0.75, 0.25)
KNOWN_IMAGES = 8  # asked one by one before the load


def test_a_good_server_passes_over_both_protocols(triton: EmbeddedTriton, tmp_path: Path) -> None:
    before = metric(triton.metrics_url, "nv_inference_request_success")
    load = ["-u", "4", "-r", "4", "-t", "5s", "--slo-p95-ms", "30000", "--known-rate", "0.3"]
    run = run_locust(tmp_path, "--host", f"{triton.grpc_url},{triton.http_url}", *load)
    assert run.status == 0, run.stderr
    answered = re.fullmatch(r"passed: p95 \d+ of at most 30000 ms, 0 of (\d+) requests failed", run.verdict)
    assert answered, run.verdict
    assert set(run.requests) == {("gRPC", "pixels"), ("HTTP", "pixels")}
    assert run.failures == {}

    def asked() -> float:
        return metric(triton.metrics_url, "nv_inference_request_success") - before

    # The known images and the labels once for each protocol; what was on its way at the end was waited for and counted.
    expected = int(answered[1]) + 2 * (KNOWN_IMAGES + 1)
    assert settled(asked, expected) == expected


def test_image_bytes_come_at_a_fixed_rate_from_several_processes(triton: EmbeddedTriton, tmp_path: Path) -> None:
    load = ["-u", "2", "-r", "2", "-t", "5s", "--rate", "4", "--arrivals", "constant", "--processes", "2"]
    run = run_locust(
        tmp_path, "--host", triton.http_url, *load, "--payload", "image", "--repeat-rate", "0.5", "--known-rate", "0"
    )
    assert run.status == 0, run.stderr
    assert set(run.requests) == {("HTTP", "image"), ("HTTP", "image, repeated")}


def failing_in_turn() -> Callable[[int, Any], tuple[float, float]]:
    """Right answers until the load begins, then every kind of failure, one after the other, for ever."""
    turn = itertools.cycle(["right", "wrong", "invalid", "full", "waited", "stopping", "late", "reset", "broken"])
    status = grpc.StatusCode

    def answer(number: int, context: Any) -> tuple[float, float]:
        kind = next(turn) if number >= KNOWN_IMAGES else "right"
        if kind == "full":
            context.abort(status.UNAVAILABLE, f"[request id: {number}] Exceeds maximum queue size")
        if kind == "waited":
            context.abort(status.UNAVAILABLE, f"[request id: {number}] Request timeout expired")
        if kind == "stopping":
            context.abort(status.UNAVAILABLE, f"request {number}: the server is stopping")
        if kind == "late":
            time.sleep(1.0)
        if kind == "reset":
            context.abort(status.UNAVAILABLE, f"recvmsg: Connection reset by peer, stream {number}")
        if kind == "broken":
            context.abort(status.INTERNAL, f"CUDA error number {number}")
        return {"wrong": WRONG, "invalid": (7.0, 7.0)}.get(kind, RIGHT)

    return answer


def test_failures_are_counted_by_cause(tmp_path: Path) -> None:
    with fake_triton(failing_in_turn()) as url:
        load = ["-u", "3", "-r", "3", "-t", "3s", "--known-rate", "1", "--deadline-seconds", "0.5"]
        run = run_locust(tmp_path, "--host", url, *load, "--max-failure-rate", "0.5")
    assert run.status == 1
    assert run.verdict.startswith("failed: 8")  # eight of nine kinds
    assert "over --max-failure-rate 50.00%" in run.verdict
    assert set(run.failures) == {
        "wrong answer: not the known scores",
        "wrong answer: no valid scores",
        "rejected: the queue is full, or too many requests",
        "rejected: waited in the queue for too long",
        "rejected: the server is not ready",
        "deadline: no answer in time",
        "connection: refused, reset or closed",
        "other: InternalServerError",
    }
    # One example of each, and not more, is in the log.
    assert run.stderr.count("CUDA error number") == 1


def test_wrong_answers_fail_a_run_that_is_fast_enough(tmp_path: Path) -> None:
    with fake_triton(lambda number, _: RIGHT if number < KNOWN_IMAGES or number % 5 else WRONG) as url:
        run = run_locust(tmp_path, "--host", url, "-t", "2s", "--slo-p95-ms", "30000", "--known-rate", "0.5")
    assert run.status == 1
    assert set(run.failures) == {"wrong answer: not the known scores"}


def stalls_once(seconds: float) -> Callable[[int, Any], tuple[float, float]]:
    """Answers at once, but for a moment after the tenth image of the load in which nobody is answered."""
    stalled = threading.Lock()

    def answer(number: int, _: Any) -> tuple[float, float]:
        with stalled:
            if number == KNOWN_IMAGES + 10:
                time.sleep(seconds)
        return RIGHT

    return answer


def test_a_stall_is_felt_by_all_who_would_have_arrived_in_it(tmp_path: Path) -> None:
    with fake_triton(stalls_once(1.5)) as url:
        run = run_locust(tmp_path, "--host", url, "-t", "3s", "--rate", "40", "--slo-p95-ms", "1000")
    # Some twenty of the 120 arrived in the first half second of the stall, and waited for the second that was left.
    assert run.status == 1
    assert "over --slo-p95-ms 1000" in run.verdict
    assert run.failures == {}


def test_callers_who_wait_for_their_answer_hide_the_stall(tmp_path: Path) -> None:
    with fake_triton(stalls_once(1.5)) as url:
        run = run_locust(tmp_path, "--host", url, "-t", "3s", "--slo-p95-ms", "1000")
    assert run.status == 0, run.stderr


PROCESSES = pytest.mark.parametrize("processes", [[], ["--processes", "2"]], ids=["one process", "two workers"])


@PROCESSES
def test_a_server_that_is_not_there_is_told_in_one_line(processes: list[str]) -> None:
    run = run_locust(None, "--host", "grpc://127.0.0.1:9", "-u", "4", "-t", "20s", *processes)
    assert run.status == 1
    assert run.verdict.startswith("grpc://127.0.0.1:9: connection refused")
    assert "Traceback" not in run.stderr


@PROCESSES
def test_the_load_waits_for_a_server_that_becomes_ready_late(processes: list[str], tmp_path: Path) -> None:
    """The wait is longer than the run, and no part of it."""
    load = ["-u", "2", "-r", "2", "-t", "2s", "--wait-ready-seconds", "40", "--known-rate", "0", *processes]
    with ThreadPoolExecutor() as pool, reserved_ports("127.0.0.1", {"grpc": 0}) as ports:
        run = pool.submit(run_locust, tmp_path, "--host", f"grpc://127.0.0.1:{ports['grpc']}", *load)
        time.sleep(6)
        assert not run.done(), run.result().stderr
        with fake_triton(lambda *_: RIGHT, ports["grpc"]):
            done = run.result()
    assert done.status == 0, done.stderr
    assert done.verdict.startswith("passed")
    assert done.requests["gRPC", "pixels"] > 0


@PROCESSES
@pytest.mark.parametrize("host", ["127.0.0.1:9", "triton-headless.invalid:8001"])
def test_a_server_that_never_becomes_ready_is_told_in_one_line(host: str, processes: list[str]) -> None:
    run = run_locust(None, "--host", f"grpc://{host}", "-t", "20s", "--wait-ready-seconds", "2", *processes)
    assert run.status == 1
    assert run.verdict.startswith(f"not ready after 2 s: grpc://{host}: ")
    assert run.stderr.count("loadtest: ") == 1
    assert "Traceback" not in run.stderr


def test_a_host_of_another_protocol_ends_it_before_anything_is_sent() -> None:
    run = run_locust(None, "--host", "http://127.0.0.1:9", "GrpcUser")
    assert run.status == 2
    assert run.verdict == "--host has no grpc:// URL, as GrpcUser needs"

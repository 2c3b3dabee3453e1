"""The comparison with other servers: how they are called and judged, and what is written. `make peers` runs the peers."""

from __future__ import annotations

import asyncio
import io
import json
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
from aiohttp import web
from deepfake_deploy.embedded import EmbeddedTriton
from PIL import Image

from loadtests.studies.peers.callers import CallError, HttpCaller, TritonCaller, open_caller
from loadtests.studies.peers.closed_loop import KnownImage, check_known, closed_loop, distinct_files
from loadtests.studies.peers.command import main
from loadtests.studies.peers.contestants import CONTESTANTS
from loadtests.studies.peers.judge import judge
from loadtests.studies.peers.plot import draw
from loadtests.studies.peers.relay import CountingRelay
from loadtests.studies.peers.result import Comparison, Measurement, Wire
from loadtests.studies.peers.server_process import PeakMemory, ServerError, running, tree
from loadtests.studies.peers.table import render
from loadtests.traffic.rate import answers_per_second

SCORES = {"Deepfake": 0.75, "Real one": 0.25}


class Scripted:
    """A server of our own making: takes a while, and answers what it is told to."""

    def __init__(self, scores: Mapping[str, float] = SCORES, seconds: float = 0.0) -> None:
        self.scores, self.seconds, self.files = scores, seconds, []
        self.most_at_a_time = self._now = 0

    def prepare(self, file: bytes) -> bytes:
        self.files.append(file)
        return file

    async def send(self, request: bytes) -> Mapping[str, float]:  # noqa: ARG002 - the protocol's
        self._now += 1
        self.most_at_a_time = max(self.most_at_a_time, self._now)
        await asyncio.sleep(self.seconds)
        self._now -= 1
        if not self.scores:
            raise CallError("HTTP 503")
        return self.scores

    async def close(self) -> None: ...


def made(**changes: Any) -> Comparison:
    """Two rounds in which ours does 4 images/s and FastAPI 3, at a third of the spread."""
    ours = changes.pop("ours", (4.0, 900.0))
    theirs = changes.pop("theirs", (3.0, 1200.0))
    errors = changes.pop("errors", {})
    comparison = Comparison(
        command="python loadtests/peers.py",
        rounds_wanted=2,
        seconds=7.0,
        callers=[1, 8],
        circumstances=["two made-up cores"],
        precisions=["fp32", "bf16"],
        contestants=[each.key for each in CONTESTANTS],
        versions={"torch": "2.13.0", "fastapi": "0.165.0"},
        rounds=2,
        absent={"ray": "ray is not installed"},
        wire={"triton-pixels": Wire(150_900.0, 300.0)},
        ceiling={"fp32": [4.5, 4.6]},
        ceiling_batch={"fp32": 8},
    )
    for key, (rate, p99) in {"triton-image": ours, "fastapi": theirs}.items():
        for callers in comparison.callers:
            for number in (1, 2):
                failed = errors if key == "triton-image" else {}
                comparison.measured.append(
                    Measurement(
                        key, "fp32", callers, number, rate + 0.1 * number, p99 / 2, p99 + number, 40, failed, 1500.0
                    )
                )
    for name, value in changes.items():
        setattr(comparison, name, value)
    return comparison


def test_a_server_that_is_faster_and_no_later_is_ahead() -> None:
    (finding,) = judge(made())  # one caller at a time is not judged, and bf16 was not measured
    assert finding.ahead
    assert finding.sentence == "FastAPI + transformers, fp32, 8 callers: behind; we do 1.32 times its images per second"


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"theirs": (5.0, 1200.0)}, "5.15 images/s against our 4.15"),
        ({"theirs": (4.0, 1200.0)}, "4.15 images/s against our 4.15"),
        ({"theirs": (3.0, 700.0)}, "p99 702 ms against our 902 ms"),
        ({"errors": {"deadline": 2}}, "4 of our requests failed"),
    ],
)
def test_a_peer_that_is_faster_earlier_or_right_where_ours_fails_is_named(changes: dict[str, Any], reason: str) -> None:
    (finding,) = judge(made(**changes))
    assert not finding.ahead
    assert reason in finding.sentence


def test_the_table_says_who_is_absent_and_what_was_measured() -> None:
    comparison = made()
    text = "\n".join(render(comparison, judge(comparison)))
    assert "**The embedded Triton, taking image bytes, is ahead of every peer measured**" in text
    assert "| FastAPI + transformers | 8 | 3.15 (3.10–3.20) | 0.76 | 600 | 1202 (1201–1202) | 0 | 1500 |" in text
    assert "| Ray Serve | 8 | not measured: ray is not installed |" in text
    assert "| LitServe | 8 | not measured: no round was finished |" in text
    assert "**4.60** images/s (4.50–4.60)" in text
    assert "| embedded Triton, pixels | 150,900 | 300 |" in text
    assert "Partial" not in text
    half = text.partition("## bf16")[2].partition("## How each")[0]
    assert "| the card's Gradio app |" not in half
    assert "Only in fp32, which is its best: the card's Gradio app." in half


def test_a_run_that_was_cut_short_and_a_peer_ahead_are_marked() -> None:
    comparison = made(rounds=1, theirs=(5.0, 800.0))
    text = "\n".join(render(comparison, judge(comparison)))
    assert "**Partial: 1 of 2 rounds.**" in text
    assert "**Not ahead everywhere:**" in text


def test_the_plot_has_a_column_for_each_precision() -> None:
    with Image.open(io.BytesIO(draw(made()))) as one, Image.open(io.BytesIO(draw(made(precisions=["fp32"])))) as other:
        assert one.format == other.format == "PNG"
        assert one.width == 2 * other.width


async def test_callers_send_distinct_images_and_each_waits_for_its_answer() -> None:
    server = Scripted(seconds=0.01)
    seen = await closed_loop(server, 4, 0.3, distinct_files(), (), drain=True)
    assert server.most_at_a_time == 4
    assert len(set(server.files)) == len(server.files)
    assert 0 < len(seen.latencies_ms) <= len(server.files) - 4  # the first answer of each caller does not count
    assert len(seen.answered_at) == len(seen.latencies_ms) + 1
    assert min(seen.latencies_ms) >= 10
    assert not seen.errors


@pytest.mark.parametrize(
    ("scores", "cause"),
    [
        ({}, "HTTP 503"),
        ({"Deepfake": 0.9, "Real one": 0.9}, "wrong answer: no probabilities"),
    ],
)
async def test_failures_are_counted_by_cause_and_not_as_answers(scores: dict[str, float], cause: str) -> None:
    seen = await closed_loop(Scripted(scores), 2, 0.5, distinct_files(), (), drain=False)
    assert set(seen.errors) == {cause}
    assert seen.latencies_ms == []
    assert answers_per_second(seen.answered_at) == 0
    assert seen.percentile_ms(99) is None


async def test_under_load_a_wrong_score_of_a_known_image_is_an_error() -> None:
    known = [KnownImage(b"known", {"Deepfake": 0.1, "Real one": 0.9})]
    seen = await closed_loop(Scripted(seconds=0.001), 2, 0.3, distinct_files(), known, drain=True)
    assert set(seen.errors) == {"wrong answer: not the known scores"}
    with pytest.raises(CallError, match=r"Deepfake 0\.750, Real one 0\.250 in place of Deepfake 0\.100"):
        await check_known(Scripted(), known)


@asynccontextmanager
async def http_server(answer: Any, status: int = 200) -> AsyncIterator[tuple[str, list[tuple[str, bytes]]]]:
    """A server that keeps what it is sent, with the name of its form's field."""
    got: list[tuple[str, bytes]] = []

    async def classify(request: web.Request) -> web.Response:
        if request.content_type.startswith("multipart/"):
            got.extend([(name, value.file.read()) for name, value in (await request.post()).items()])
        else:
            got.append((request.content_type, await request.read()))
        return web.Response(text=json.dumps(answer), status=status, content_type="application/json")

    app = web.Application()
    app.router.add_post("/classify", classify)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}", got
    finally:
        await runner.cleanup()


@pytest.mark.parametrize(
    ("call", "answer", "name"),
    [("file", SCORES, "image"), ("files", [SCORES], "images"), ("body", SCORES, "image/jpeg")],
)
async def test_an_http_server_gets_the_file_as_it_takes_it(call: Any, answer: Any, name: str) -> None:
    file = next(distinct_files())
    async with http_server(answer) as (url, got):
        caller = await open_caller(call, url)
        assert isinstance(caller, HttpCaller)
        try:
            assert await caller.send(caller.prepare(file)) == SCORES
        finally:
            await caller.close()
    assert got == [(name, file)]


@pytest.mark.parametrize(("answer", "status", "cause"), [("busy", 503, "HTTP 503"), ("yes", 200, "no scores")])
async def test_what_is_no_answer_is_told_apart(answer: str, status: int, cause: str) -> None:
    async with http_server(answer, status) as (url, _):
        caller = await open_caller("body", url)
        try:
            with pytest.raises(CallError, match=cause):
                await caller.send(b"")
        finally:
            await caller.close()


@pytest.mark.parametrize("call", ["triton-image", "triton-pixels"])
async def test_ours_is_measured_through_its_own_client_and_a_relay_that_counts(
    triton: EmbeddedTriton, call: Any
) -> None:
    async with CountingRelay(triton.http_url) as relay:
        caller = await open_caller(call, relay.url)
        assert isinstance(caller, TritonCaller)
        try:
            seen = await closed_loop(caller, 8, 0.5, distinct_files(), (), drain=True)
        finally:
            await caller.close()
    assert len(seen.latencies_ms) > 8
    assert not seen.errors
    if call == "triton-pixels":
        assert relay.sent_bytes > 150_528 * len(seen.latencies_ms)


def test_a_peer_that_cannot_start_says_why_in_one_line_and_leaves_nothing(tmp_path: Path) -> None:
    fastapi = next(each for each in CONTESTANTS if each.key == "fastapi")
    python = tmp_path / "python"
    python.write_text(
        f"#!/bin/sh\nsleep 600 &\necho $! > {tmp_path}/child\n"
        "echo \"ModuleNotFoundError: No module named 'uvicorn'\" >&2\necho bye\nexit 3\n"
    )
    python.chmod(0o755)
    with (
        pytest.raises(ServerError, match=r"^it ended with status 3: ModuleNotFoundError: No module named 'uvicorn'$"),
        running(fastapi, python, tmp_path, "fp32", 1),
    ):
        pass
    assert not psutil.pid_exists(int((tmp_path / "child").read_text()))


def test_a_stopped_peer_leaves_no_process(tmp_path: Path) -> None:
    fastapi = next(each for each in CONTESTANTS if each.key == "fastapi")
    python = tmp_path / "python"
    # One child does not end when it is asked to, and the other is not asked.
    listens = "import os, socket, time; s = socket.create_server(('127.0.0.1', int(os.environ['PEER_PORT']))); time.sleep(600)"
    python.write_text(f"#!/bin/sh\n(trap '' TERM; exec sleep 600) &\n{sys.executable} -c \"{listens}\"\nexit 1\n")
    python.chmod(0o755)
    with running(fastapi, python, tmp_path, "fp32", 1) as (_, pid):
        family = tree(pid)
    assert len(family) == 3
    assert not [each for each in family if each.is_running()]


def test_memory_is_that_of_all_processes_of_a_server(triton: EmbeddedTriton) -> None:
    with PeakMemory(triton.pid) as memory:
        pass
    assert len(tree(triton.pid)) > 1
    assert memory.mib > 50


def test_without_the_peers_environment_the_run_says_so_and_compares_nothing(
    checkpoint: Path,
    repository: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    arguments = ["--model", str(checkpoint), "--repository", str(repository), "--precisions", "fp32", "--rounds", "1"]
    arguments += ["--seconds", "0.6", "--callers", "8", "--only", "triton-image,fastapi"]
    arguments += ["--environment", str(tmp_path / "none"), "--output", str(tmp_path / "out")]
    monkeypatch.setattr(sys, "argv", ["peers.py", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 1
    told = capfd.readouterr()
    assert "`make peers` makes it" in told.err
    assert "nothing was compared" in told.err
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"peers.md", "peers.png", "peers.json"}
    document = json.loads((tmp_path / "out" / "peers.json").read_text())
    assert document["rounds"] == 1
    assert [each["contestant"] for each in document["measured"]] == ["triton-image"]
    assert document["measured"][0]["errors"] == {}
    assert document["absent"]["fastapi"].endswith("is not installed")
    assert document["ceiling"]["fp32"][0] > 0


@pytest.mark.parametrize(
    ("argument", "reason"),
    [
        (["--callers", "0"], "numbers from 1 to 256"),
        (["--precisions", "int8"], "fp32, bf16, fp16 or auto"),
        (["--only", "flask"], "flask: not one of triton-image"),
        (["--rounds", "0"], "--rounds must be at least 1"),
    ],
)
def test_wrong_options_are_told(
    argument: list[str], reason: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["peers.py", *argument])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    assert reason in capsys.readouterr().err


class InBatches(Scripted):
    """Answers eight requests together, a tenth of a second after the eighth has come."""

    def __init__(self) -> None:
        super().__init__()
        self._full = asyncio.Event()
        self._waiting = 0

    async def send(self, request: bytes) -> Mapping[str, float]:  # noqa: ARG002 - the protocol's
        self._waiting += 1
        full = self._full
        if self._waiting % 8 == 0:
            self._full = asyncio.Event()
            asyncio.get_running_loop().call_later(0.1, full.set)
        await full.wait()
        return self.scores


@pytest.mark.parametrize("seconds", [0.0, 0.55])
async def test_the_batches_at_either_end_count_as_a_whole_or_not_at_all(seconds: float) -> None:
    seen = await closed_loop(InBatches(), 16, seconds, distinct_files(), (), drain=False)
    assert len(seen.latencies_ms) % 8 == 0
    assert len(seen.latencies_ms) >= 16

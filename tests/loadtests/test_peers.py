"""The comparison with other servers: how they are called and judged, and what is written. `make peers` runs the peers."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
from aiohttp import web
from deepfake_deploy.embedded import EmbeddedTriton
from deepfake_deploy.export import Precision
from deepfake_deploy.export.contract import read_labels

from loadtests.capacity.resources import family
from loadtests.studies.peers import __main__ as peers
from loadtests.studies.peers.__main__ import judging
from loadtests.studies.peers.comparison import best_peer, judge, page
from loadtests.studies.peers.contestants import CONTESTANTS, http, serving
from loadtests.studies.peers.contestants import triton as call_triton
from loadtests.studies.serving import memory_mib
from loadtests.traffic.answers import WRONG_INVALID, WRONG_SCORES
from loadtests.traffic.loops import closed_loop
from loadtests.traffic.pool import Item, JpegPool, Stream
from tests.support.project import ROOT

SCORES = {"Deepfake": 0.75, "Real one": 0.25}
FILE = JpegPool().image(1)


def made(**changes: Any) -> dict[str, Any]:
    """Two rounds in which ours does 4 images/s and FastAPI 3, at a third of the spread."""
    ours, theirs = changes.pop("ours", (4.0, 900.0)), changes.pop("theirs", (3.0, 1200.0))
    errors = {"triton-image": changes.pop("errors", {}), "fastapi": changes.pop("their_errors", {})}
    rows = [
        {
            "contestant": key,
            "precision": "fp32",
            "callers": callers,
            "round": number,
            "images_per_second": rate + 0.1 * number,
            "p50_ms": p99 / 2,
            "p99_ms": p99 + number,
            "answers": 40,
            "errors": errors[key],
            "memory_mib": 1500.0,
        }
        for key, (rate, p99) in {"triton-image": ours, "fastapi": theirs}.items()
        for callers in (1, 8)
        for number in (1, 2)
    ]
    return {
        "circumstances": ["two made-up cores"],
        "missed": [],
        "rounds": 2,
        "seconds": 7.0,
        "callers": [1, 8],
        "precisions": ["fp32", "bf16"],
        "contestants": list(CONTESTANTS),
        "versions": ["torch==2.13.0"],
        "absent": {},
        "measured": rows,
        **changes,
    }


def test_a_server_that_is_faster_and_no_later_is_ahead() -> None:
    assert judge(made()) == []
    assert judge(made(callers=[1])) == ["nothing was compared"]  # one caller at a time is not judged


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"theirs": (5.0, 1200.0)}, "5.15 images/s against our 4.15"),
        ({"theirs": (4.0, 1200.0)}, "4.15 images/s against our 4.15"),
        ({"theirs": (3.0, 700.0)}, "p99 702 ms against our 902 ms"),
        ({"errors": {"deadline": 2}}, "4 of our requests failed"),
        ({"their_errors": {"HTTP 500": 1}}, "2 of its requests failed, so that nothing is claimed"),
        ({"absent": {"bentoml bf16": "it did not listen"}}, "BentoML, bf16: it did not listen"),
    ],
)
def test_nothing_is_claimed_over_a_peer_that_is_faster_earlier_or_fails(changes: dict[str, Any], reason: str) -> None:
    (missed,) = judge(made(**changes))
    assert reason in missed


def test_nothing_is_compared_without_a_peer() -> None:
    alone = made(contestants=["triton-image"], absent={})
    assert judge(alone) == ["nothing was compared"]
    assert best_peer(alone, "fp32", 8) is None


def test_the_ratio_to_the_best_peer_is_taken_round_by_round() -> None:
    name, times = best_peer(made(), "fp32", 8)
    assert name == "FastAPI + transformers"
    assert times["low"] == pytest.approx(4.2 / 3.2)
    assert times["high"] == pytest.approx(4.1 / 3.1)


@pytest.mark.parametrize(
    ("errors", "rate", "name"), [({}, 5.0, ""), ({"wrong": 1}, 5.0, " in fp32"), ({}, 2.0, " in fp32")]
)
def test_a_peer_counts_at_its_best_precision_with_right_answers(errors: dict[str, int], rate: float, name: str) -> None:
    result = made(precisions=["fp32", "int8"])
    for row in made(ours=(6.0, 600.0), theirs=(rate, 700.0), their_errors=errors)["measured"]:
        result["measured"].append({**row, "precision": "int8"})
    found, times = best_peer(result, "int8", 8)
    assert found == f"FastAPI + transformers{name}"
    theirs = 3.0 if name else rate
    assert times["low"] == pytest.approx(6.2 / (theirs + 0.2))
    assert judge(result) == []


def test_the_table_says_who_is_absent_and_what_was_measured() -> None:
    text = "\n".join(page(made()))
    row = "| FastAPI + transformers | 8 | 3.15 (3.10–3.20) | 0.76 (0.76–0.76) | 600 | 1202 (1201–1202) | 0 | 1500 |"
    assert row in text
    assert "| LitServe | 8 | not measured |" in text
    assert "Targets missed: none." in text


def test_a_peer_ahead_or_absent_is_named() -> None:
    behind = made(theirs=(5.0, 800.0), absent={"bentoml fp32": "No module named 'bentoml'"})
    text = "\n".join(page(behind | {"missed": judge(behind)}))
    assert (
        "Targets missed: BentoML, fp32: No module named 'bentoml'; FastAPI + transformers, fp32, 8 callers: 5.15"
        in text
    )


def test_the_committed_page_is_made_of_the_committed_figures() -> None:
    results = ROOT / "loadtests" / "results"
    text = "\n".join(page(json.loads((results / "peers.json").read_text()))) + "\n"
    assert text == (results / "peers.md").read_text()


KNOWN = [Item(FILE, SCORES)]


@pytest.mark.parametrize(
    ("scores", "cause"),
    [
        (SCORES, None),
        ({}, "RuntimeError"),
        ({"Deepfake": 0.9, "Real one": 0.9}, WRONG_INVALID),
        ({"Deepfake": 0.1, "Real one": 0.9}, WRONG_SCORES),
    ],
)
async def test_images_are_distinct_and_a_wrong_score_of_a_known_one_is_an_error(
    scores: dict[str, float], cause: str | None
) -> None:
    files = []

    async def answer(file: bytes) -> dict[str, float]:
        files.append(file)
        if not scores:
            raise RuntimeError("503")
        return scores

    stream, send = Stream("image", known=KNOWN, known_rate=0.05), judging(answer, SCORES)
    causes = {await send(stream.next()) for _ in range(200)}
    assert cause in causes
    assert causes <= {cause, None}
    new = [file for file in files if file != FILE]
    assert 150 < len(new) == len(set(new)) < 200


@asynccontextmanager
async def http_server(answer: Any, status: int = 200) -> AsyncIterator[tuple[str, list[tuple[str, bytes]]]]:
    """A server that keeps what it is sent, with the name of its form's field."""
    got: list[tuple[str, bytes]] = []

    async def classify(request: web.Request) -> web.Response:
        got.extend([(name, value.file.read()) for name, value in (await request.post()).items()])
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
    ("field", "answer", "name"),
    [("image", SCORES, "image"), ("images", [SCORES], "images")],
)
async def test_an_http_server_gets_the_file_as_it_takes_it(field: str, answer: Any, name: str) -> None:
    async with http_server(answer) as (url, got), http(field, url) as send:
        assert await send(FILE) == SCORES
    assert got == [(name, FILE)]


@pytest.mark.parametrize(("answer", "status", "cause"), [("busy", 503, "HTTP 503"), ("yes", 200, WRONG_INVALID)])
async def test_what_is_no_answer_is_told_apart(answer: str, status: int, cause: str) -> None:
    async with http_server(answer, status) as (url, _), http("image", url) as send:
        assert await judging(send, SCORES)(KNOWN[0]) == cause


@pytest.mark.parametrize("protocol", ["http", "grpc"])
async def test_ours_is_measured_through_its_own_client(triton: EmbeddedTriton, protocol: str) -> None:
    async with call_triton(triton.http_url if protocol == "http" else triton.grpc_url) as send:
        known = [Item(FILE, await send(FILE))]
        stream = Stream("image", known=known, known_rate=0.05)
        sample = await closed_loop(stream.next, judging(send, known[0].scores), 8, 0.5)
    assert len(sample.latencies_ms) >= 8
    assert not sample.failures
    assert len(family(triton.pid)) > 1
    assert memory_mib(triton.pid) > 50


@pytest.mark.slow
def test_a_peer_that_cannot_start_says_why_in_one_line_and_leaves_nothing(tmp_path: Path) -> None:
    python = tmp_path / "python"
    python.write_text(
        f"#!/bin/sh\nsleep 600 &\necho $! > {tmp_path}/child\n"
        "echo \"ModuleNotFoundError: No module named 'uvicorn'\" >&2\necho bye\nexit 3\n"
    )
    python.chmod(0o755)
    with (
        pytest.raises(
            ChildProcessError, match=r"^it ended with status 3: ModuleNotFoundError: No module named 'uvicorn'$"
        ),
        serving(CONTESTANTS["fastapi"], python, tmp_path, tmp_path, "fp32"),
    ):
        pass
    child = int((tmp_path / "child").read_text())
    deadline = time.monotonic() + 10
    while (alive := runs(child)) and time.monotonic() < deadline:
        time.sleep(0.1)  # it was killed, and takes a moment
    assert not alive


def runs(pid: int) -> bool:
    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE


@pytest.mark.slow
def test_a_stopped_peer_leaves_no_process(tmp_path: Path) -> None:
    python = tmp_path / "python"
    # One child does not end when it is asked to, and the other is not asked.
    listens = "import os, socket, time; s = socket.create_server(('127.0.0.1', int(os.environ['PEER_PORT']))); time.sleep(600)"
    python.write_text(f"#!/bin/sh\n(trap '' TERM; exec sleep 600) &\n{sys.executable} -c \"{listens}\"\nexit 1\n")
    python.chmod(0o755)
    with serving(CONTESTANTS["fastapi"], python, tmp_path, tmp_path, "fp32") as (_, pid):
        processes = family(pid)
    assert len(processes) == 3
    assert not [each for each in processes if each.is_running()]


@pytest.mark.slow
def test_a_peer_answers_as_transformers_does(
    checkpoint: Path, repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(peers, "CALLERS", (8,))
    known = peers.known_answers(checkpoint, read_labels(repository))
    peer, python = CONTESTANTS["fastapi"], Path(sys.executable)  # gradio brings all that it needs
    with serving(peer, python, checkpoint, repository, "fp32") as (url, pid):
        (figures,) = asyncio.run(peers.figures(peer, url, pid, known, 5.0))
    assert figures["answers"] > 8
    assert figures["errors"] == {}


@pytest.mark.slow
def test_without_the_peers_environment_the_run_says_so_and_compares_nothing(
    checkpoint: Path,
    repository: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(peers, "precisions", lambda: [Precision.FP32])
    monkeypatch.setattr(peers, "CALLERS", (8,))
    arguments = ["--model", str(checkpoint), "--repository", str(repository), "--rounds", "1", "--seconds", "0.6"]
    arguments += ["--environment", str(tmp_path / "none"), "--output", str(tmp_path / "out")]
    monkeypatch.setattr(sys, "argv", ["peers", *arguments, "--only", "triton-image", "fastapi"])
    with pytest.raises(SystemExit) as ended:
        peers.main()
    assert ended.value.code == 1
    told = capfd.readouterr()
    assert "is it installed (`make peers`)?" in told.err
    assert "nothing was compared" in told.err
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"peers.md", "peers.json"}
    document = json.loads((tmp_path / "out" / "peers.json").read_text())
    assert document["rounds"] == 1
    assert [each["contestant"] for each in document["measured"]] == ["triton-image"]
    assert document["measured"][0]["errors"] == {}
    assert "No such file" in document["absent"]["fastapi fp32"]


@pytest.mark.parametrize(
    ("argument", "reason"),
    [
        (["--only", "flask"], "invalid choice: 'flask'"),
        (["--rounds", "0"], "--rounds: must be 1 or more, not 0"),
    ],
)
def test_wrong_options_are_told(
    argument: list[str], reason: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["peers", *argument])
    with pytest.raises(SystemExit) as ended:
        peers.main()
    assert ended.value.code == 2
    assert reason in capsys.readouterr().err

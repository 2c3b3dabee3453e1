"""A client before and after `os.fork`, as gunicorn's preload, Celery and `multiprocessing` use it."""

from __future__ import annotations

import copy
import json
import pickle
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from deepfake_client import AsyncDeepfakeClient, DeepfakeClient

from tests.client.test_http_connections import LABELS, Handler, serving
from tests.support.fake_triton import fake_triton

# Each call sends a number, and the server answers with it as a score: a process that reads what belongs to another shows.
PROGRAM = """
import asyncio, json, os, sys, threading, time
import numpy as np
from deepfake_client import AsyncDeepfakeClient, DeepfakeClient, DeepfakeError

url, kind, state = sys.argv[1:]
CALLS = 20

def wrong(verdict, number):
    return verdict.scores["Deepfake"] != number / 256

def asked(number):
    return (np.full((224, 224, 3), number, np.uint8),), {"headers": {"x-number": str(number)}, "timeout": 20}

class Sync:
    def __init__(self):
        self.client = DeepfakeClient(url)

    def calls(self, first, count=CALLS):
        wrongs = 0
        for number in range(first, first + count):
            images, options = asked(number)
            wrongs += wrong(self.client.classify_pixels(*images, **options), number)
        return wrongs

    def close(self):
        self.client.close()

class Async(Sync):
    def __init__(self):
        self.client = AsyncDeepfakeClient(url)
        self.begin()

    def begin(self):
        self.loop = asyncio.new_event_loop()
        threading.Thread(target=self.loop.run_forever, daemon=True).start()

    def wait(self, coroutine):
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(30)

    def calls(self, first, count=CALLS):
        async def one(number):
            images, options = asked(number)
            return wrong(await self.client.classify_pixels(*images, **options), number)
        async def many():
            return sum([await one(number) for number in range(first, first + count)])
        return self.wait(many())

    def close(self):
        self.wait(self.client.close())

def report(who, use):
    try:
        line = {"who": who, "wrong": use()}
    except DeepfakeError as error:
        line = {"who": who, "error": type(error).__name__, "text": str(error)}
    sys.stdout.write(json.dumps(line) + "\\n")
    sys.stdout.flush()

def in_child(user, number):
    if kind == "async":
        user.begin()
    report("child", lambda: user.calls(number))
    user.close()
    report("closed", lambda: user.calls(number, 1))

user, over, busy = (Sync if kind == "sync" else Async)(), threading.Event(), []
if state != "made":
    user.calls(0, 1)
if state == "busy":
    def go_on(first):
        wrongs = 0
        while not over.is_set():
            wrongs += user.calls(first, 1)
        report("thread", lambda: wrongs)
    busy = [threading.Thread(target=go_on, args=(200 + each,)) for each in range(4)]
    for thread in busy:
        thread.start()
    time.sleep(0.2)
children = []
for each in range(3):
    child = os.fork()
    if child == 0:
        in_child(user, 20 * (each + 1))
        os._exit(0)
    children.append(child)
report("parent", lambda: user.calls(100))
for child in children:
    os.waitpid(child, 0)
report("parent", lambda: user.calls(120))
over.set()
for thread in busy:
    thread.join()
user.close()
"""


def _answer(handler: Handler, body: bytes) -> None:
    number = int(handler.headers["x-number"])
    answer = json.loads(body)
    if answer["outputs"] != [LABELS]:
        answer["outputs"][0]["data"] = [number / 256, 1 - number / 256]
    handler.answer(json.dumps(answer).encode())


def _scores(_number: int, context: Any) -> tuple[float, float]:
    number = int(dict(context.invocation_metadata())["x-number"])
    return number / 256, 1 - number / 256


@pytest.fixture(scope="module", params=["http", "grpc"])
def url(request: pytest.FixtureRequest) -> Iterator[str]:
    """A server that answers with the number that the call sent."""
    if request.param == "http":
        with serving(_answer) as server:
            yield server.url
    else:
        with fake_triton(_scores) as address:
            yield address


@pytest.mark.slow
@pytest.mark.parametrize("state", ["made", "used", "busy"])
def test_parent_and_children_go_on_with_one_client(url: str, kind: str, state: str) -> None:
    run = subprocess.run([sys.executable, "-c", PROGRAM, url, kind, state], capture_output=True, text=True, timeout=100)
    assert run.returncode == 0, run.stderr
    lines = [json.loads(line) for line in run.stdout.splitlines()]
    ends = {who: [line for line in lines if line["who"] == who] for who in ("parent", "thread", "child", "closed")}
    assert [line["wrong"] for line in ends["parent"] + ends["thread"]] == [0] * (6 if state == "busy" else 2)
    assert [line["error"] for line in ends["closed"]] == ["ClientClosedError"] * 3
    if url.startswith("grpc") and kind == "async" and state != "made":
        assert [line["error"] for line in ends["child"]] == ["InvalidArgumentError"] * 3
        assert all("after the fork" in line["text"] for line in ends["child"])
    else:
        assert [line["wrong"] for line in ends["child"]] == [0] * 3, ends["child"]


@pytest.mark.slow
def test_where_grpc_is_told_not_to_survive_forks_the_child_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRPC_ENABLE_FORK_SUPPORT", "false")
    with fake_triton(_scores) as address:
        command = [sys.executable, "-c", PROGRAM, address, "sync", "busy"]
        run = subprocess.run(command, capture_output=True, text=True, timeout=100)
    assert run.returncode == 0, run.stderr
    lines = [json.loads(line) for line in run.stdout.splitlines()]
    assert [line["wrong"] for line in lines if line["who"] in ("parent", "thread")] == [0] * 6
    assert ["after the fork" in line["text"] for line in lines if line["who"] == "child"] == [True] * 3


@pytest.mark.slow
def test_grpc_for_asyncio_that_was_closed_before_the_fork_works_after_it() -> None:
    program = PROGRAM.replace("children = []", "user.close()\nuser = Async()\nchildren = []")
    with fake_triton(_scores) as address:
        run = subprocess.run(
            [sys.executable, "-c", program, address, "async", "used"], capture_output=True, text=True, timeout=100
        )
    assert run.returncode == 0, run.stderr
    lines = [json.loads(line) for line in run.stdout.splitlines()]
    assert [line["wrong"] for line in lines if line["who"] in ("parent", "child")] == [0] * 5


@pytest.mark.parametrize("make", [DeepfakeClient, AsyncDeepfakeClient])
def test_a_client_says_that_it_cannot_be_sent_to_another_process(make: Any) -> None:
    client = make("http://127.0.0.1:9")
    for send in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError, match="one in each process"):
            send(client)

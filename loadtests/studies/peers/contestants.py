"""Who is measured, how each is called, and its server as a process that leaves nothing behind."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import secrets
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO

import aiohttp
import psutil
from deepfake_cli.options import CredentialFiles
from deepfake_client import AsyncDeepfakeClient
from deepfake_deploy.embedded import EmbeddedTriton
from deepfake_deploy.embedded.end_with_parent import ending_with_this_process

from loadtests.capacity.resources import cores, family
from loadtests.traffic.options import client_options

_SERVERS = Path(__file__).with_name("servers")
_LISTENING_SECONDS = 180.0
_STOP_SECONDS = 10.0
#: Nobody waits longer: 32 callers of two cores in fp32 wait for some nine seconds.
DEADLINE_SECONDS = 90.0
_MOST_CALLERS = 512

Send = Callable[[bytes], Awaitable[Mapping[str, float]]]
#: Opens a caller of the server at a URL.
Caller = Callable[[str], AbstractAsyncContextManager[Send]]


@asynccontextmanager
async def http(field: str | None, url: str) -> AsyncIterator[Send]:
    """One POST to /classify for each image, as the body, or in this field of a form."""
    connector = aiohttp.TCPConnector(limit=_MOST_CALLERS)
    async with aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(DEADLINE_SECONDS)) as session:

        async def send(file: bytes) -> Mapping[str, float]:
            data, headers = file, {"Content-Type": "image/jpeg"}
            if field is not None:
                data, headers = aiohttp.FormData(), {}
                data.add_field(field, file, filename="image.jpg", content_type="image/jpeg")
            async with session.post(f"{url}/classify", data=data, headers=headers) as answer:
                answer.raise_for_status()
                found = await answer.json()
            return found[0] if isinstance(found, list) else found

        yield send


@asynccontextmanager
async def triton(url: str) -> AsyncIterator[Send]:
    """This project's client, without retries: image bytes over HTTP, or pixels over gRPC."""
    options = client_options("image" if url.startswith("http") else "pixels", DEADLINE_SECONDS, CredentialFiles())
    async with AsyncDeepfakeClient(url, **options) as client:

        async def send(file: bytes) -> Mapping[str, float]:
            return (await client.classify(file)).scores

        yield send


@asynccontextmanager
async def gradio(url: str) -> AsyncIterator[Send]:
    """`gradio_client`, which has threads of its own and uploads files that lie on the disk."""
    import gradio_client

    options = {"verbose": False, "analytics_enabled": False, "download_files": False, "max_workers": _MOST_CALLERS}
    client = await asyncio.to_thread(gradio_client.Client, url, **options)
    numbers = itertools.count()
    with tempfile.TemporaryDirectory(prefix="deepfake-peers-") as folder:

        async def send(file: bytes) -> Mapping[str, float]:
            path = Path(folder) / f"{next(numbers)}.jpg"
            path.write_bytes(file)
            job = client.submit(gradio_client.handle_file(path), api_name="/classify")
            try:
                answer = await asyncio.wait_for(asyncio.wrap_future(job.future), DEADLINE_SECONDS)
            except asyncio.CancelledError:  # what it does with its jobs when its connection is lost
                raise ConnectionError("gradio_client cancelled the job") from None
            return {each["label"]: each["confidence"] for each in answer["confidences"]}

        yield send
        await asyncio.to_thread(client.close)


@dataclass(frozen=True, slots=True)
class Contestant:
    """One way to have an image classified; `program` is its server in servers/, empty for the embedded Triton."""

    name: str
    caller: Caller
    program: str = ""
    fp32_only: bool = False


#: What is judged against the peers: it takes what all of them take.
OURS = "triton-image"
CONTESTANTS = {
    OURS: Contestant("embedded Triton, image bytes", triton),
    "triton-pixels": Contestant("embedded Triton, pixels", triton),
    "card": Contestant("the card's Gradio app", gradio, "card_app.py", fp32_only=True),
    "fastapi": Contestant("FastAPI + transformers", partial(http, "image"), "fastapi_app.py"),
    "litserve": Contestant("LitServe", partial(http, "image"), "litserve_app.py"),
    "bentoml": Contestant("BentoML", partial(http, "images"), "bentoml_app.py"),
    "ray": Contestant("Ray Serve", partial(http, None), "ray_app.py"),
}


class ServerError(Exception):
    """A server did not start, or ended, or answers wrongly; the message is one line."""


@contextlib.contextmanager
def running(
    contestant: Contestant, python: Path, checkpoint: Path, repository: Path, precision: str
) -> Iterator[tuple[str, int]]:
    """URL and pid of a server, from when it listens until it and all its processes are gone.

    The embedded Triton serves `repository`; a peer serves `checkpoint`, run by the `python` of the peers' environment.
    """
    if not contestant.program:
        with EmbeddedTriton(repository) as server:
            yield server.http_url if contestant is CONTESTANTS[OURS] else server.grpc_url, server.pid
        return
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    command = [str(python), contestant.program]
    if contestant.program == "bentoml_app.py":
        command[1:] = ["-m", "bentoml", "serve", "bentoml_app:Service", "--host", "127.0.0.1", "--port", str(port)]
    # A short path: Ray makes sockets under it, whose names the kernel limits to 107 characters.
    with (
        tempfile.TemporaryDirectory(prefix="peers-", ignore_cleanup_errors=True) as folder,
        tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as log,
    ):
        process = subprocess.Popen(  # noqa: S603 - programs of this folder, no shell
            ending_with_this_process(command),
            cwd=_SERVERS,
            env=os.environ
            | {"PEER_CHECKPOINT": str(checkpoint), "PEER_PRECISION": precision, "PEER_PORT": str(port)}
            | _settings(python, folder),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            _wait_until_listening(process, port, log)
            yield f"http://127.0.0.1:{port}", process.pid
        finally:
            _end(process)


def _settings(python: Path, folder: str) -> dict[str, str]:
    """Of the peers, as environment variables; `folder` for what they write."""
    return {
        "PATH": f"{python.parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
        "PYTHONPATH": "",
        "PEER_THREADS": str(cores()),
        "HF_HUB_OFFLINE": "1",
        "GRADIO_ANALYTICS_ENABLED": "False",
        "GRADIO_TEMP_DIR": f"{folder}/gradio",
        "BENTOML_DO_NOT_TRACK": "True",
        "BENTOML_HOME": f"{folder}/bentoml",
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_TMPDIR": folder,
        "RAY_AUTH_TOKEN": secrets.token_hex(32),  # else it keeps one in the home folder
    }


def _wait_until_listening(process: subprocess.Popen[bytes], port: int, log: IO[str]) -> None:
    deadline = time.monotonic() + _LISTENING_SECONDS
    while process.poll() is None and time.monotonic() < deadline:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        time.sleep(0.2)
    log.seek(0)
    lines = [line.strip() for line in log if line.strip()]
    reasons = [line for line in lines if "Error" in line] or lines or ["it said nothing"]
    what = "did not listen in time" if process.poll() is None else f"ended with status {process.returncode}"
    raise ServerError(f"it {what}: {reasons[-1][:300]}")


def _end(process: subprocess.Popen[bytes]) -> None:
    """Asks it to end, waits, and kills what is left: descendants, and orphans in its process group."""
    processes = family(process.pid)
    process.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(_STOP_SECONDS)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    for each in processes:
        with contextlib.suppress(psutil.Error):
            each.kill()
    psutil.wait_procs(processes, timeout=_STOP_SECONDS)
    process.wait()

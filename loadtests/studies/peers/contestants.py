"""Who is measured, how each is called, and its server as a process that leaves nothing behind."""

from __future__ import annotations

import contextlib
import os
import socket
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import aiohttp
from deepfake_cli.options import CredentialFiles
from deepfake_client import AsyncDeepfakeClient
from deepfake_deploy.embedded import EmbeddedTriton

from loadtests.capacity.resources import cores
from loadtests.programs import running
from loadtests.traffic.options import client_options

_SERVERS = Path(__file__).with_name("servers")
_LISTENING_SECONDS = 180.0
#: Nobody waits longer: 32 callers of two cores in fp32 wait for some nine seconds.
DEADLINE_SECONDS = 90.0
_MOST_CALLERS = 512

Send = Callable[[bytes], Awaitable[Mapping[str, float]]]
#: Opens a caller of the server at a URL.
Caller = Callable[[str], AbstractAsyncContextManager[Send]]


@asynccontextmanager
async def http(field: str, url: str) -> AsyncIterator[Send]:
    """One POST to /classify for each image, in this field of a form."""
    connector = aiohttp.TCPConnector(limit=_MOST_CALLERS)
    async with aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(DEADLINE_SECONDS)) as session:

        async def send(file: bytes) -> Mapping[str, float]:
            form = aiohttp.FormData()
            form.add_field(field, file, filename="image.jpg", content_type="image/jpeg")
            async with session.post(f"{url}/classify", data=form) as answer:
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


@dataclass(frozen=True, slots=True)
class Contestant:
    """One way to have an image classified; `program` is its server in servers/, empty for the embedded Triton."""

    name: str
    caller: Caller
    program: str = ""


#: What is judged against the peers: it takes what all of them take.
OURS = "triton-image"
CONTESTANTS = {
    OURS: Contestant("embedded Triton, image bytes", triton),
    "triton-pixels": Contestant("embedded Triton, pixels", triton),
    "fastapi": Contestant("FastAPI + transformers", partial(http, "image"), "fastapi_app.py"),
    "litserve": Contestant("LitServe", partial(http, "image"), "litserve_app.py"),
    "bentoml": Contestant("BentoML", partial(http, "images"), "bentoml_app.py"),
}


@contextlib.contextmanager
def serving(
    contestant: Contestant, python: Path, checkpoint: Path, repository: Path, precision: str
) -> Iterator[tuple[str, int]]:
    """URL and pid of a server, from when it listens until it and all its processes are gone.

    The embedded Triton serves `repository`; a peer serves `checkpoint`, run by the `python` of the peers' environment.

    Raises:
        ChildProcessError: the peer did not start; in one line.
    """
    if not contestant.program:
        with EmbeddedTriton(repository) as server:
            yield server.http_url if contestant is CONTESTANTS[OURS] else server.grpc_url, server.pid
        return
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]

    def listening() -> bool:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return True
        return False

    command = [str(python), contestant.program]
    if contestant.program == "bentoml_app.py":
        command[1:] = ["-m", "bentoml", "serve", "bentoml_app:Service", "--host", "127.0.0.1", "--port", str(port)]
    with tempfile.TemporaryDirectory(prefix="deepfake-peers-", ignore_cleanup_errors=True) as folder:
        environment = os.environ | {
            "PATH": f"{python.parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
            "PYTHONPATH": "",
            "PEER_CHECKPOINT": str(checkpoint),
            "PEER_PRECISION": precision,
            "PEER_PORT": str(port),
            "PEER_THREADS": str(cores()),
            "HF_HUB_OFFLINE": "1",
            "BENTOML_DO_NOT_TRACK": "True",
            "BENTOML_HOME": folder,
        }
        with running(command, listening, _LISTENING_SECONDS, cwd=_SERVERS, env=environment) as process:
            yield f"http://127.0.0.1:{port}", process.pid

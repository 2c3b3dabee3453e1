"""What one process pays for an image: this project's client beside bare tritonclient with the same tensor.

    python -m loadtests.studies.cost --grpc-url grpc://127.0.0.1:8001 --http-url http://127.0.0.1:8000

Each protocol is measured from threads and from asyncio, with 16 requests in flight. The two sides take turns in short
rounds. CPU time is that of this process alone; images per second are also the server's.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import io
import threading
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import tritonclient.grpc
import tritonclient.grpc.aio
import tritonclient.http
import tritonclient.http.aio
from deepfake_client import AsyncDeepfakeClient, DeepfakeClient
from deepfake_client.preprocessing import load_image, to_pixels
from deepfake_deploy.export import MODEL_NAME
from PIL import Image

from loadtests.studies import table
from loadtests.traffic.pool import picture

CONCURRENCY = 16
_PIXELS = np.random.default_rng(0).integers(0, 256, (224, 224, 3), dtype=np.uint8)
#: Classifies so many images.
Run = Callable[[int], object]


def main() -> None:
    parser = table.study_parser(__doc__, rounds=7)
    parser.add_argument("--grpc-url", default="grpc://127.0.0.1:8001", help="of the server")
    parser.add_argument("--http-url", default="http://127.0.0.1:8000", help="of the same server")
    parser.add_argument("--images", type=int, default=200, help="in a round")
    table.run_study("cost", parser, measure, page)


def measure(options: argparse.Namespace, _: Path) -> table.Result:
    callers = {}
    for protocol, url, modules in (
        ("gRPC", options.grpc_url, (tritonclient.grpc, tritonclient.grpc.aio)),
        ("HTTP", options.http_url, (tritonclient.http, tritonclient.http.aio)),
    ):
        for name, ours, bare, module in zip(
            ("threads", "asyncio"), (_our_threads, _our_tasks), (_bare_threads, _bare_tasks), modules, strict=True
        ):
            table.tell(f"{protocol}, {name}")
            with ours(url) as our_run, bare(module, url.partition("://")[2]) as bare_run:
                our_cost, bare_cost = _in_turns([our_run, bare_run], options.rounds, options.images)
            more = our_cost["cpu_ms"]["median"] / bare_cost["cpu_ms"]["median"] - 1
            callers[f"{protocol}, {name}"] = {"ours": our_cost, "bare": bare_cost, "more": more}
    return {
        "circumstances": table.circumstances("cost", "any: the model is not part of the cost"),
        "images": options.images,
        "decode_ms": _decoding(options.rounds),
        "callers": callers,
    }


def _in_turns(runs: list[Run], rounds: int, images: int) -> list[table.Result]:
    """CPU time of an image and images per second of each. The first round connects and warms up."""
    found: list[list[dict[str, float]]] = [[] for _ in runs]
    for _ in range(rounds + 1):
        for run, readings in zip(runs, found, strict=True):
            cpu, wall = time.process_time(), time.perf_counter()
            run(images)
            rate = images / (time.perf_counter() - wall)
            readings.append({"cpu_ms": (time.process_time() - cpu) / images * 1000, "images_per_second": rate})
    return [table.figures(readings[1:]) for readings in found]


def _decoding(rounds: int) -> table.Figure:
    """CPU time to decode and resize a photo of 512 × 512."""
    photo = io.BytesIO()
    Image.fromarray(picture(512, np.random.default_rng(1))).save(photo, "JPEG", quality=90)

    def decode(images: int) -> None:
        for _ in range(images):
            to_pixels(load_image(photo.getvalue()))

    (found,) = _in_turns([decode], rounds, 100)
    return dict(found["cpu_ms"])


def page(result: table.Result) -> list[str]:
    rows = []
    for name, sides in result["callers"].items():
        for side in ("ours", "bare"):
            cpu, rate = sides[side]["cpu_ms"], sides[side]["images_per_second"]
            rows.append([name, side, table.shown(cpu, 3), table.shown(rate, 0)])
        rows.append([name, "ours over bare", f"{sides['more']:+.1%}", ""])
    return table.page_of(
        "What one process pays for an image",
        result,
        table.markdown_table(["caller", "side", "CPU ms an image", "images/s"], rows, words=2),
        f"Decoding and resizing a photo of 512 × 512 takes {table.shown(result['decode_ms'], 2)} ms in addition.",
    )


@contextlib.contextmanager
def _our_threads(url: str) -> Iterator[Run]:
    with DeepfakeClient(url) as client, ThreadPoolExecutor(CONCURRENCY) as pool:
        yield lambda images: deque(pool.map(lambda _: client.classify_pixels(_PIXELS), range(images)), maxlen=0)


@contextlib.contextmanager
def _bare_threads(module: Any, address: str) -> Iterator[Run]:
    own = threading.local()  # tritonclient's HTTP client must not be shared between threads
    shared = module.InferenceServerClient(address) if module is tritonclient.grpc else None

    def call(_: int) -> object:
        if not hasattr(own, "client"):
            own.client = shared or module.InferenceServerClient(address)
        return own.client.infer(**_request(module)).as_numpy("probabilities")

    with ThreadPoolExecutor(CONCURRENCY) as pool:
        yield lambda images: deque(pool.map(call, range(images)), maxlen=0)


def _our_tasks(url: str) -> contextlib.AbstractContextManager[Run]:
    return _tasks(lambda: AsyncDeepfakeClient(url), lambda client: client.classify_pixels(_PIXELS))


def _bare_tasks(module: Any, address: str) -> contextlib.AbstractContextManager[Run]:
    async def call(client: Any) -> object:
        return (await client.infer(**_request(module))).as_numpy("probabilities")

    return _tasks(lambda: module.InferenceServerClient(address), call)


@contextlib.contextmanager
def _tasks(make: Callable[[], Any], call: Callable[[Any], Awaitable[object]]) -> Iterator[Run]:
    loop = asyncio.new_event_loop()

    async def connect() -> Any:
        return make()

    async def ask(images: int) -> None:
        left = iter(range(images))

        async def worker() -> None:
            for _ in left:
                await call(client)

        await asyncio.gather(*(worker() for _ in range(CONCURRENCY)))

    client = loop.run_until_complete(connect())
    yield lambda images: loop.run_until_complete(ask(images))
    loop.run_until_complete(client.close())
    loop.close()


def _request(module: Any) -> dict[str, Any]:
    tensor = module.InferInput("pixels", [1, *_PIXELS.shape], "UINT8")
    tensor.set_data_from_numpy(_PIXELS[np.newaxis])
    output = module.InferRequestedOutput("probabilities")
    return {"model_name": MODEL_NAME, "inputs": [tensor], "outputs": [output], "timeout": 27_000_000}


if __name__ == "__main__":
    main()

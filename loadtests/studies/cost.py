"""What one process pays for an image: this project's client beside bare tritonclient with the same tensor.

    python -m loadtests.studies.cost --grpc-url grpc://127.0.0.1:8001 --http-url http://127.0.0.1:8000

Each protocol is measured from threads and from asyncio. CPU time is that of this process alone; images per second are
also the server's, so compare them only between rows of one run. The two sides take turns in short rounds.
"""

from __future__ import annotations

import argparse
import asyncio
import io
import threading
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import tritonclient.grpc
import tritonclient.grpc.aio
import tritonclient.http
import tritonclient.http.aio
from deepfake_client import AsyncDeepfakeClient, DeepfakeClient
from deepfake_client.preprocessing import load_image, to_pixels
from PIL import Image

from loadtests.studies import table
from loadtests.traffic.pool import picture

CONCURRENCY = 16
MODEL = "deepfake_vs_real"
_PIXELS = np.random.default_rng(0).integers(0, 256, (224, 224, 3), dtype=np.uint8)
#: Classifies so many images.
Run = Callable[[int], None]


def main() -> None:
    parser = table.study_parser(__doc__, rounds=7, model=False)
    parser.add_argument("--grpc-url", default="grpc://127.0.0.1:8001")
    parser.add_argument("--http-url", default="http://127.0.0.1:8000")
    parser.add_argument("--images", type=int, default=200, help="images in a round (default: %(default)s)")
    table.run_study("cost", parser.parse_args(), measure, page)


def measure(options: argparse.Namespace, _: Path) -> table.Result:
    costs = {}
    for protocol, url in (("gRPC", options.grpc_url), ("HTTP", options.http_url)):
        address = url.partition("://")[2]
        threads = tritonclient.grpc if protocol == "gRPC" else tritonclient.http
        tasks = tritonclient.grpc.aio if protocol == "gRPC" else tritonclient.http.aio
        for name, ours, bare in (
            ("threads", _our_threads(url), _bare_threads(threads, address)),
            ("asyncio", _our_tasks(url), _bare_tasks(tasks, address)),
        ):
            table.tell(f"{protocol}, {name}")
            with ours as our_run, bare as bare_run:
                our_cost, bare_cost = _in_turns([our_run, bare_run], options)
            more = our_cost["cpu_ms"]["median"] / bare_cost["cpu_ms"]["median"] - 1
            costs[f"{protocol}, {name}"] = {"ours": our_cost, "bare": bare_cost, "more": more}
    return {
        "circumstances": table.circumstances("cost", "any: the model is not part of the cost"),
        "images": options.images,
        "decode_ms": _decoding(options.rounds),
        "callers": costs,
    }


def _decoding(rounds: int) -> table.Result:
    """CPU time to decode and resize a photo of 512 × 512."""
    photo = io.BytesIO()
    Image.fromarray(picture(512, np.random.default_rng(1))).save(photo, "JPEG", quality=90)
    readings = []
    for _ in range(rounds):
        began = time.process_time()
        for _ in range(100):
            to_pixels(load_image(photo.getvalue()))
        readings.append((time.process_time() - began) * 10)
    return dict(table.figure(readings))


def _in_turns(runs: list[Run], options: argparse.Namespace) -> list[table.Result]:
    """CPU time of an image and images per second of each."""
    cpu_ms: list[list[float]] = [[] for _ in runs]
    rates: list[list[float]] = [[] for _ in runs]
    for number in range(options.rounds + 1):
        for index, run in enumerate(runs):
            cpu, wall = time.process_time(), time.perf_counter()
            run(options.images)
            if number:  # the first round connects and warms up
                rates[index].append(options.images / (time.perf_counter() - wall))
                cpu_ms[index].append((time.process_time() - cpu) / options.images * 1000)
    return [
        {"cpu_ms": table.figure(cpu), "images_per_second": table.figure(rate)}
        for cpu, rate in zip(cpu_ms, rates, strict=True)
    ]


def page(result: table.Result) -> list[str]:
    rows = []
    for name, sides in result["callers"].items():
        for side in ("ours", "bare"):
            rows.append(
                [name, side, table.shown(sides[side]["cpu_ms"], 3), table.shown(sides[side]["images_per_second"], 0)]
            )
        rows.append([name, "ours over bare", f"{sides['more']:+.1%}", ""])
    return table.page_of(
        "What one process pays for an image",
        result,
        table.markdown_table(["caller", "side", "CPU ms an image", "images/s"], rows, words=2),
        f"{CONCURRENCY} requests in flight, rounds of {result['images']} images in turns, medians (lowest–highest). CPU time "
        "is the client's own; bare is tritonclient with the same tensor. Images per second depend on the batches that the "
        "server happens to form.",
        f"Decoding and resizing a photo of 512 × 512 takes {table.shown(result['decode_ms'], 2)} ms in addition.",
    )


@contextmanager
def _our_threads(url: str) -> Iterator[Run]:
    with DeepfakeClient(url) as client, ThreadPoolExecutor(CONCURRENCY) as pool:
        yield lambda images: _exhaust(pool.map(lambda _: client.classify_pixels(_PIXELS), range(images)))


@contextmanager
def _bare_threads(module: Any, address: str) -> Iterator[Run]:
    own = threading.local()  # tritonclient's HTTP client must not be shared between threads
    shared = module.InferenceServerClient(address) if module is tritonclient.grpc else None

    def call(_: int) -> object:
        if not hasattr(own, "client"):
            own.client = shared or module.InferenceServerClient(address)
        return own.client.infer(**_request(module)).as_numpy("probabilities")

    with ThreadPoolExecutor(CONCURRENCY) as pool:
        yield lambda images: _exhaust(pool.map(call, range(images)))


def _exhaust(results: Iterator[object]) -> None:
    deque(results, maxlen=0)


@contextmanager
def _our_tasks(url: str) -> Iterator[Run]:
    with _tasks(lambda: AsyncDeepfakeClient(url), lambda client: client.classify_pixels(_PIXELS)) as run:
        yield run


@contextmanager
def _bare_tasks(module: Any, address: str) -> Iterator[Run]:
    async def call(client: Any) -> object:
        return (await client.infer(**_request(module))).as_numpy("probabilities")

    with _tasks(lambda: module.InferenceServerClient(address), call) as run:
        yield run


@contextmanager
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
    return {"model_name": MODEL, "inputs": [tensor], "outputs": [output], "timeout": 27_000_000}


if __name__ == "__main__":
    main()

"""What one process pays for an image: this project's client beside bare tritonclient with the same tensor.

From threads and from asyncio, in turns. CPU time is that of this process alone; images/s are also the server's.
"""

from __future__ import annotations

import argparse
import asyncio
import threading
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import numpy as np
import tritonclient.grpc
import tritonclient.grpc.aio
import tritonclient.http
import tritonclient.http.aio
from deepfake_client import AsyncDeepfakeClient, DeepfakeClient
from deepfake_deploy.export import MODEL_NAME

from loadtests.studies import table

CONCURRENCY = 16
_PIXELS = np.random.default_rng(0).integers(0, 256, (224, 224, 3), dtype=np.uint8)
#: Classifies so many images.
Run = Callable[[int], Awaitable[object]]


def main() -> None:
    parser = table.study_parser(__doc__, rounds=7)
    parser.add_argument("--grpc-url", default="grpc://127.0.0.1:8001", help="of the server")
    parser.add_argument("--http-url", default="http://127.0.0.1:8000", help="of the same server")
    parser.add_argument("--images", type=int, default=200, help="in a round")
    table.run_study("cost", parser, lambda options, _: asyncio.run(measure(options)), page)


async def measure(options: argparse.Namespace) -> table.Result:
    callers = {}
    for protocol, url, module, aio in (
        ("gRPC", options.grpc_url, tritonclient.grpc, tritonclient.grpc.aio),
        ("HTTP", options.http_url, tritonclient.http, tritonclient.http.aio),
    ):
        table.tell(protocol)
        callers[f"{protocol}, threads"] = await _from_threads(url, module, options)
        callers[f"{protocol}, asyncio"] = await _from_asyncio(url, aio, options)
    return {
        "circumstances": table.circumstances("cost", "any: the model is not part of the cost"),
        "images": options.images,
        "callers": callers,
    }


async def _from_threads(url: str, module: Any, options: argparse.Namespace) -> table.Result:
    address = url.partition("://")[2]
    shared = module.InferenceServerClient(address) if module is tritonclient.grpc else None
    own = threading.local()  # tritonclient's HTTP client must not be shared between threads

    def bare(_: int) -> object:
        if not hasattr(own, "client"):
            own.client = shared or module.InferenceServerClient(address)
        return own.client.infer(**_request(module)).as_numpy("probabilities")

    async def run(call: Callable[[int], object], images: int) -> None:
        list(pool.map(call, range(images)))

    with DeepfakeClient(url) as client, ThreadPoolExecutor(CONCURRENCY) as pool:
        return await _compare(partial(run, lambda _: client.classify_pixels(_PIXELS)), partial(run, bare), options)


async def _from_asyncio(url: str, module: Any, options: argparse.Namespace) -> table.Result:
    async def run(call: Callable[[], Awaitable[object]], images: int) -> None:
        left = iter(range(images))

        async def call_while_some_are_left() -> None:
            for _ in left:
                await call()

        await asyncio.gather(*(call_while_some_are_left() for _ in range(CONCURRENCY)))

    async def bare() -> object:
        return (await bare_client.infer(**_request(module))).as_numpy("probabilities")

    async with AsyncDeepfakeClient(url) as client, module.InferenceServerClient(url.partition("://")[2]) as bare_client:
        return await _compare(partial(run, lambda: client.classify_pixels(_PIXELS)), partial(run, bare), options)


def _request(module: Any) -> dict[str, Any]:
    tensor = module.InferInput("pixels", [1, *_PIXELS.shape], "UINT8")
    tensor.set_data_from_numpy(_PIXELS[np.newaxis])
    output = module.InferRequestedOutput("probabilities")
    return {"model_name": MODEL_NAME, "inputs": [tensor], "outputs": [output], "timeout": 27_000_000}


async def _compare(our_run: Run, bare_run: Run, options: argparse.Namespace) -> table.Result:
    """CPU time of an image and images per second of each, in turns. The first round connects and warms up."""
    runs = {"ours": our_run, "bare": bare_run}
    found: dict[str, list[dict[str, float]]] = {name: [] for name in runs}
    for _ in range(options.rounds + 1):
        for name, run in runs.items():
            cpu, wall = time.process_time(), time.perf_counter()
            await run(options.images)
            rate = options.images / (time.perf_counter() - wall)
            found[name].append(
                {"cpu_ms": (time.process_time() - cpu) / options.images * 1000, "images_per_second": rate}
            )
    sides = {name: table.figures(rounds[1:]) for name, rounds in found.items()}
    return {**sides, "more": sides["ours"]["cpu_ms"]["median"] / sides["bare"]["cpu_ms"]["median"] - 1}


def page(result: table.Result) -> list[str]:
    rows = []
    for name, sides in result["callers"].items():
        for side in ("ours", "bare"):
            cpu, rate = sides[side]["cpu_ms"], sides[side]["images_per_second"]
            rows.append([name, side, table.shown(cpu, 3), table.shown(rate, 0)])
        rows.append([name, "ours over bare", f"{sides['more']:+.1%}", ""])
    shown = table.markdown_table(["caller", "side", "CPU ms an image", "images/s"], rows, words=2)
    return table.page_of("What one process pays for an image", result, shown)


if __name__ == "__main__":
    main()

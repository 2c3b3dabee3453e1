"""What one process pays for an image: decoding, building the request, sending it, reading the answer.

    python -m loadtests.studies.client_cost --grpc-url grpc://127.0.0.1:8001 --http-url http://127.0.0.1:8000

Each protocol is measured from threads and from asyncio, beside bare tritonclient with the same tensor. CPU time is
that of this process alone; images per second are also the server's, so compare them only between rows of one run.
The two sides take turns in short rounds, and each keeps its median, so that other load on the machine meets both.
"""

from __future__ import annotations

import argparse
import asyncio
import io
import statistics
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import tritonclient.grpc
import tritonclient.grpc.aio
import tritonclient.http
import tritonclient.http.aio
from deepfake_client import AsyncDeepfakeClient, DeepfakeClient, InferRequest, RequestedOutput, Tensor
from deepfake_client._transports import grpc_codec, http_codec
from deepfake_client.preprocessing import load_image, to_pixels
from PIL import Image
from tritonclient.grpc import service_pb2

CONCURRENCY = 16
ROUNDS = 7
MODEL = "deepfake_vs_real"
Run = Callable[[int], None]


@dataclass
class Cost:
    """Medians over the rounds."""

    images_per_second: float
    cpu_milliseconds: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--grpc-url", default="grpc://127.0.0.1:8001")
    parser.add_argument("--http-url", default="http://127.0.0.1:8000")
    parser.add_argument("--images", type=int, default=200, help="images in a round (default: %(default)s)")
    options = parser.parse_args()
    pixels = np.random.default_rng(0).integers(0, 256, (224, 224, 3), dtype=np.uint8)
    _say(f"{CONCURRENCY} requests in flight, {ROUNDS} rounds of {options.images} images, medians\n")
    _report_parts(pixels)
    with ExitStack() as resources:
        for name, url, ours, bare in (
            ("gRPC, threads", options.grpc_url, _our_threads, _bare_grpc_threads),
            ("HTTP, threads", options.http_url, _our_threads, _bare_http_threads),
            ("gRPC, asyncio", options.grpc_url, _our_tasks, _bare_grpc_tasks),
            ("HTTP, asyncio", options.http_url, _our_tasks, _bare_http_tasks),
        ):
            runs = [resources.enter_context(make(url, pixels)) for make in (ours, bare)]
            _report(name, *_in_turns(runs, options.images))


def _report_parts(pixels: np.ndarray) -> None:
    """CPU time of what happens to an image apart from the network."""
    photo = io.BytesIO()
    noise = np.random.default_rng(1).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    Image.fromarray(noise).resize((512, 512), Image.Resampling.BICUBIC).save(photo, "JPEG", quality=90)
    content = photo.getvalue()
    tensor = Tensor("UINT8", (1, *pixels.shape), pixels.data.cast("B"))
    request = InferRequest(MODEL, "", "0123456789abcdef", {"pixels": tensor}, (RequestedOutput("probabilities"),), 1)
    answer = service_pb2.ModelInferResponse(model_name=MODEL, model_version="1", raw_output_contents=[bytes(8)])
    answer.outputs.add(name="probabilities", datatype="FP32", shape=[1, 2])
    grpc_answer = answer.SerializeToString()
    output = b'{"name":"probabilities","datatype":"FP32","shape":[1,2],"parameters":{"binary_data_size":8}}'
    head = b'{"model_name":"%s","model_version":"1","outputs":[%s]}' % (MODEL.encode(), output)
    http_headers = {http_codec.HEADER_LENGTH: str(len(head))}
    for name, part in (
        ("decode + resize (512 x 512 JPEG)", lambda: to_pixels(load_image(content))),
        ("build the request, gRPC", lambda: grpc_codec.encode_infer(request).SerializeToString()),
        ("build the request, HTTP", lambda: http_codec.encode_infer(request)),
        (
            "read the answer, gRPC",
            lambda: grpc_codec.decode_infer(service_pb2.ModelInferResponse.FromString(grpc_answer)),
        ),
        ("read the answer, HTTP", lambda: http_codec.decode_infer(http_headers, head + bytes(8))),
    ):
        _say(f"{name:34} {_cpu_milliseconds(part):8.3f} ms CPU/image")
    _say("")


def _cpu_milliseconds(part: Callable[[], object]) -> float:
    rounds = []
    for _ in range(ROUNDS):
        started = time.process_time()
        for _ in range(100):
            part()
        rounds.append((time.process_time() - started) * 10)
    return statistics.median(rounds)


def _in_turns(runs: list[Run], images: int) -> list[Cost]:
    readings: list[list[tuple[float, float]]] = [[] for _ in runs]
    for number in range(ROUNDS + 1):
        for run, found in zip(runs, readings, strict=True):
            cpu, wall = time.process_time(), time.perf_counter()
            run(images)
            if number:  # the first round connects and warms up
                found.append((images / (time.perf_counter() - wall), (time.process_time() - cpu) / images * 1000))
    return [
        Cost(statistics.median(rate for rate, _ in found), statistics.median(cpu for _, cpu in found))
        for found in readings
    ]


def _report(name: str, ours: Cost, bare: Cost) -> None:
    for side, cost in (("ours", ours), ("bare", bare)):
        _say(f"{name:16} {side:6} {cost.images_per_second:7.0f} images/s {cost.cpu_milliseconds:8.3f} ms CPU/image")
    _say(
        f"{name:16} {'':6} {ours.images_per_second / bare.images_per_second - 1:+7.1%} "
        f"{'':8} {ours.cpu_milliseconds / bare.cpu_milliseconds - 1:+8.1%}\n"
    )


@contextmanager
def _threads(call: Callable[[], object]) -> Iterator[Run]:
    with ThreadPoolExecutor(CONCURRENCY) as pool:
        yield lambda images: [None for _ in pool.map(lambda _: call(), range(images))] and None


@contextmanager
def _our_threads(url: str, pixels: np.ndarray) -> Iterator[Run]:
    with DeepfakeClient(url) as client, _threads(lambda: client.classify_pixels(pixels)) as run:
        yield run


@contextmanager
def _bare_grpc_threads(url: str, pixels: np.ndarray) -> Iterator[Run]:
    client = tritonclient.grpc.InferenceServerClient(url.removeprefix("grpc://"))
    with _threads(lambda: _scores(client.infer(**_arguments(tritonclient.grpc, pixels)))) as run:
        yield run
    client.close()


@contextmanager
def _bare_http_threads(url: str, pixels: np.ndarray) -> Iterator[Run]:
    own = threading.local()  # its HTTP client must not be shared between threads

    def call() -> object:
        if not hasattr(own, "client"):
            own.client = tritonclient.http.InferenceServerClient(url.removeprefix("http://"))
        return _scores(own.client.infer(**_arguments(tritonclient.http, pixels)))

    with _threads(call) as run:
        yield run


@contextmanager
def _tasks(make: Callable[[], Awaitable[Any]], call: Callable[[Any], Awaitable[object]]) -> Iterator[Run]:
    loop = asyncio.new_event_loop()
    client = loop.run_until_complete(make())

    async def ask(images: int) -> None:
        left = iter(range(images))

        async def worker() -> None:
            for _ in left:
                await call(client)

        await asyncio.gather(*[worker() for _ in range(CONCURRENCY)])

    yield lambda images: loop.run_until_complete(ask(images))
    loop.run_until_complete(client.close())
    loop.run_until_complete(asyncio.sleep(0.1))
    loop.close()


@contextmanager
def _our_tasks(url: str, pixels: np.ndarray) -> Iterator[Run]:
    async def make() -> AsyncDeepfakeClient:
        return AsyncDeepfakeClient(url)

    with _tasks(make, lambda client: client.classify_pixels(pixels)) as run:
        yield run


@contextmanager
def _bare_grpc_tasks(url: str, pixels: np.ndarray) -> Iterator[Run]:
    with _bare_tasks(tritonclient.grpc.aio, url.removeprefix("grpc://"), pixels) as run:
        yield run


@contextmanager
def _bare_http_tasks(url: str, pixels: np.ndarray) -> Iterator[Run]:
    with _bare_tasks(tritonclient.http.aio, url.removeprefix("http://"), pixels) as run:
        yield run


@contextmanager
def _bare_tasks(module: Any, address: str, pixels: np.ndarray) -> Iterator[Run]:
    async def make() -> Any:
        return module.InferenceServerClient(address)

    async def call(client: Any) -> object:
        return _scores(await client.infer(**_arguments(module, pixels)))

    with _tasks(make, call) as run:
        yield run


def _arguments(module: Any, pixels: np.ndarray) -> dict[str, Any]:
    tensor = module.InferInput("pixels", [1, *pixels.shape], "UINT8")
    tensor.set_data_from_numpy(pixels[np.newaxis])
    output = module.InferRequestedOutput("probabilities")
    return {"model_name": MODEL, "inputs": [tensor], "outputs": [output], "timeout": 27_000_000}


def _scores(result: Any) -> object:
    return result.as_numpy("probabilities")


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()

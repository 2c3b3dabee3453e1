"""What the response cache saves: hit rate, and the latency of a hit and of a miss, with image bytes and with pixels.

    python -m loadtests.studies.response_cache [--repository model_repository] [--images 60] [--repeat-rate 0.5]

Starts an embedded Triton with a cache of its own. `--repeat-rate` is the share of requests that repeat an image sent
before, as viral pictures do; which ones is drawn with a fixed seed. One request at a time, so that a latency is that of
one request.
"""

from __future__ import annotations

import argparse
import io
import platform
import random
import re
import statistics
import time
import urllib.request
from pathlib import Path

import numpy as np
import psutil
from deepfake_client import DeepfakeClient
from deepfake_deploy.embedded import EmbeddedTriton
from PIL import Image

CACHE_BYTES = 64 << 20
MODELS = {"client": "deepfake_vs_real", "server": "deepfake_vs_real_image"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repository", type=Path, default=Path("model_repository"))
    parser.add_argument("--images", type=int, default=60, help="requests of each kind (default: %(default)s)")
    parser.add_argument(
        "--repeat-rate", type=float, default=0.5, help="share of repeated images (default: %(default)s)"
    )
    options = parser.parse_args()
    print(f"{platform.machine()}, {psutil.cpu_count()} cores, one request at a time, cache of {CACHE_BYTES >> 20} MiB")
    for decode in ("client", "server"):
        with EmbeddedTriton(options.repository, response_cache_bytes=CACHE_BYTES) as server:
            _measure(server, decode, _order(options.images, options.repeat_rate))


def _order(requests: int, repeat_rate: float) -> list[int]:
    """Numbers of the images to send: new ones, and now and then one that was sent before."""
    dice = random.Random(0)  # noqa: S311 - a load, not a secret
    order: list[int] = []
    for _ in range(requests):
        known = sorted(set(order))
        order.append(dice.choice(known) if known and dice.random() < repeat_rate else len(known))
    return order


def _measure(server: EmbeddedTriton, decode: str, order: list[int]) -> None:
    hits, misses = [], []
    with DeepfakeClient(server.grpc_url, decode="server" if decode == "server" else "client") as client:
        client.classify(_image(-1))  # learns the labels
        before = _counts(server.metrics_url, MODELS[decode])
        for position, number in enumerate(order):
            image = _image(number)
            began = time.perf_counter()
            client.classify(image)
            (hits if number in order[:position] else misses).append((time.perf_counter() - began) * 1000)
        hit, miss = (
            after - then for after, then in zip(_counts(server.metrics_url, MODELS[decode]), before, strict=True)
        )
    print(f"decode at the {decode}: {hit:.0f} hits and {miss:.0f} misses, hit rate {hit / (hit + miss):.0%}")
    for name, values in (("hit", hits), ("miss", misses)):
        low, middle, high = statistics.quantiles(values, n=4)
        print(f"  {name}: median {middle:.1f} ms (quartiles {low:.1f} to {high:.1f}), the whole call")


def _image(number: int) -> bytes:
    """A 256 × 256 JPEG of its own for each number."""
    pixels = np.random.default_rng(number + 1).integers(0, 256, (256, 256, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG")
    return buffer.getvalue()


def _counts(metrics_url: str, model: str) -> tuple[float, float]:
    """Cache hits and misses of a model so far."""
    with urllib.request.urlopen(metrics_url) as response:  # noqa: S310 - the server started above
        text = response.read().decode()
    hits, misses = (
        sum(
            map(
                float,
                re.findall(rf'^nv_cache_num_{kind}_per_model\{{[^}}]*model="{model}"[^}}]*\}} (\S+)$', text, re.M),
            )
        )
        for kind in ("hits", "misses")
    )
    return hits, misses


if __name__ == "__main__":
    main()

"""What a verdict costs in bytes, counted on the TCP connection between the client and a real Triton."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from deepfake_client import AsyncDeepfakeClient
from PIL import Image

from tests.support.chaos_proxy import ChaosProxy

PIXELS = 224 * 224 * 3
IMAGES = 20


async def test_preprocessed_by_the_client_an_image_is_its_pixels_and_less_than_a_kibibyte(
    url: str, tmp_path: Path
) -> None:
    random = np.random.default_rng(0)
    files = [tmp_path / f"{number}.png" for number in range(IMAGES)]
    for file in files:
        Image.fromarray(random.integers(0, 256, (300, 200, 3), dtype=np.uint8)).save(file)
    with ChaosProxy(url) as proxy:
        async with AsyncDeepfakeClient(proxy.url, max_retries=0) as client:
            await client.classify(files[0])  # opens the connection and learns the labels
            await client.classify(files[0])
            proxy.sent_bytes = proxy.received_bytes = 0
            for file in files:
                await client.classify(file)
            sent, received = proxy.sent_bytes / IMAGES, proxy.received_bytes / IMAGES
    assert PIXELS == 150_528
    assert sent > PIXELS
    assert received > 0
    assert sent + received - PIXELS < 1024

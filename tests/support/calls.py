"""Bare requests with NVIDIA's own client library, as callers without ours make them."""

from __future__ import annotations

from typing import Any

import numpy as np
import tritonclient.grpc
import tritonclient.http

DEADLINE_SECONDS = 60


class BareClient:
    """One connection over the protocol of a URL."""

    def __init__(self, url: str) -> None:
        self.protocol, address = url.split("://")
        if self.protocol == "grpc":
            self.module: Any = tritonclient.grpc
            self.connection = tritonclient.grpc.InferenceServerClient(address)
        else:
            self.module = tritonclient.http
            self.connection = tritonclient.http.InferenceServerClient(
                address, connection_timeout=DEADLINE_SECONDS, network_timeout=DEADLINE_SECONDS
            )

    def infer(self, model: str, tensor: Any, outputs: tuple[str, ...], **options: Any) -> list[np.ndarray]:
        if self.protocol == "grpc":
            options.setdefault("client_timeout", DEADLINE_SECONDS)
        result = self.connection.infer(model, [tensor], **options)
        return [result.as_numpy(name) for name in outputs]

    def image(self, *images: bytes) -> Any:
        """The input of `image_decoder` and `deepfake_vs_real_image`."""
        tensor = self.module.InferInput("image", [len(images), 1], "BYTES")
        tensor.set_data_from_numpy(np.array(images, dtype=object).reshape(-1, 1))
        return tensor

    def pixels(self, pixels: np.ndarray) -> Any:
        """The input of `deepfake_vs_real`."""
        tensor = self.module.InferInput("pixels", list(pixels.shape), "UINT8")
        tensor.set_data_from_numpy(pixels)
        return tensor

    def classify_image(self, *images: bytes, **options: Any) -> np.ndarray:
        """(images, 2) probabilities."""
        return self.infer("deepfake_vs_real_image", self.image(*images), ("probabilities",), **options)[0]

    def classify_pixels(self, pixels: np.ndarray, **options: Any) -> np.ndarray:
        """(N, 2) probabilities."""
        return self.infer("deepfake_vs_real", self.pixels(pixels), ("probabilities",), **options)[0]

    def __enter__(self) -> BareClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.connection.close()

"""Requests of different callers share forward passes, and each caller gets its own answer."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
import tritonclient.grpc
from deepfake_client import DeepfakeClient
from deepfake_client.preprocessing import to_pixels
from deepfake_deploy.embedded import EmbeddedTriton
from tritonclient.utils import InferenceServerException

from tests.support.exports import load_exported
from tests.support.metrics import metric, settled
from tests.support.pictures import photo_like

CALLERS = 64


def test_concurrent_single_images_run_in_far_fewer_executions(
    url: str, triton: EmbeddedTriton, repository: Path
) -> None:
    images = [photo_like(224, 224, 1000 + seed) for seed in range(CALLERS)]
    with torch.inference_mode():
        pixels = torch.from_numpy(np.stack([to_pixels(image) for image in images]))
        expected = load_exported(repository)(pixels)[0].numpy()
    assert len({row.tobytes() for row in expected}) == CALLERS

    def count() -> float:
        return metric(triton.metrics_url, "nv_inference_count")

    with DeepfakeClient(url) as client, ThreadPoolExecutor(CALLERS) as callers:
        at_first = count()
        client.classify(images[0])  # learns the labels, which is a request of its own
        before, executions = settled(count, at_first + 2), metric(triton.metrics_url, "nv_inference_exec_count")
        verdicts = list(callers.map(client.classify, images))
        assert settled(count, before + CALLERS) == before + CALLERS
    assert metric(triton.metrics_url, "nv_inference_exec_count") - executions <= CALLERS / 2
    scores = np.array([list(verdict.scores.values()) for verdict in verdicts])
    np.testing.assert_allclose(scores, expected, atol=1e-6, rtol=0)


def test_requests_of_different_sizes_in_one_batch_each_get_their_own_rows(
    triton: EmbeddedTriton, repository: Path
) -> None:
    module = load_exported(repository)
    random = np.random.default_rng(3)
    requests = [random.integers(0, 256, (size, 224, 224, 3), dtype=np.uint8) for size in (3, 1, 2, 1, 5, 1, 3, 2)]
    client = tritonclient.grpc.InferenceServerClient(triton.grpc_url.removeprefix("grpc://"))
    with ThreadPoolExecutor(len(requests)) as callers:
        answers = list(callers.map(lambda pixels: infer(client, pixels), requests))
    client.close()
    for pixels, (probabilities, logits) in zip(requests, answers, strict=True):
        with torch.inference_mode():
            expected = module(torch.from_numpy(pixels))
        np.testing.assert_allclose(probabilities, expected[0], atol=1e-6, rtol=0)
        np.testing.assert_allclose(logits, expected[1], atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("name", "shape", "datatype", "named"),
    [
        ("images", (1, 224, 224, 3), "UINT8", "images"),
        ("pixels", (1, 224, 224, 4), "UINT8", "pixels"),
        ("pixels", (1, 3, 224, 224), "UINT8", "pixels"),
        ("pixels", (1, 224, 224, 3), "FP32", "pixels"),
        ("pixels", (9, 224, 224, 3), "UINT8", "batch"),
    ],
)
def test_a_wrong_tensor_is_refused_by_name_and_the_next_request_is_served(
    triton: EmbeddedTriton, name: str, shape: tuple[int, ...], datatype: str, named: str
) -> None:
    client = tritonclient.grpc.InferenceServerClient(triton.grpc_url.removeprefix("grpc://"))
    wrong = np.zeros(shape, {"UINT8": np.uint8, "FP32": np.float32}[datatype])
    with pytest.raises(InferenceServerException, match=named):
        infer(client, wrong, name, datatype)
    assert infer(client, np.zeros((1, 224, 224, 3), np.uint8))[0].shape == (1, 2)
    client.close()


def infer(
    client: tritonclient.grpc.InferenceServerClient, pixels: np.ndarray, name: str = "pixels", datatype: str = "UINT8"
) -> tuple[np.ndarray, np.ndarray]:
    tensor = tritonclient.grpc.InferInput(name, list(pixels.shape), datatype)
    tensor.set_data_from_numpy(pixels)
    result = client.infer("deepfake_vs_real", [tensor], client_timeout=60)
    return result.as_numpy("probabilities"), result.as_numpy("logits")

"""What the package offers, and what it must not bring along."""

from __future__ import annotations

import doctest
import subprocess
import sys
from pathlib import Path

import deepfake_client
import pytest
from deepfake_client import preprocessing

NAMES = [
    "AccessDeniedError",
    "AsyncDeepfakeClient",
    "AsyncFakeTransport",
    "AsyncTransport",
    "ClientClosedError",
    "ConnectionFailedError",
    "DeadlineExceededError",
    "DecisionPolicy",
    "DeepfakeClient",
    "DeepfakeError",
    "Failure",
    "FakeTransport",
    "ImageCorruptError",
    "ImageError",
    "ImageFormatError",
    "ImageLimits",
    "ImageReadError",
    "ImageTooLargeError",
    "InferRequest",
    "InferResponse",
    "InternalServerError",
    "InvalidArgumentError",
    "ModelConfig",
    "ModelInfo",
    "ModelMetadata",
    "ModelQuery",
    "NotReadyError",
    "OverloadedError",
    "PolicyEvidence",
    "PolicyMismatchError",
    "ProtocolError",
    "Provenance",
    "RequestError",
    "RequestOutcome",
    "RequestRejectedError",
    "RequestedOutput",
    "ServerError",
    "TLSConfig",
    "TLSError",
    "Tensor",
    "TensorInfo",
    "Transport",
    "UnknownModelError",
    "Verdict",
    "VerdictLogError",
    "WireError",
]


def test_the_exported_names_are_these() -> None:
    assert sorted(deepfake_client.__all__) == NAMES
    assert all(hasattr(deepfake_client, name) for name in NAMES)


def test_preprocessing_exports_these_names() -> None:
    assert preprocessing.__all__ == ["IMAGE_SIZE", "ImageLimits", "ImageSource", "Pixels", "load_image", "to_pixels"]


@pytest.mark.parametrize("module", ["torch", "transformers", "click", "rich", "gradio", "gevent", "torchvision"])
def test_importing_the_client_does_not_import(module: str) -> None:
    code = f"import sys, deepfake_client; sys.exit({module!r} in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_importing_the_client_prints_nothing_and_configures_no_logging() -> None:
    code = "import logging, deepfake_client; assert not logging.root.handlers"
    ran = subprocess.run([sys.executable, "-W", "error", "-c", code], check=True, capture_output=True)
    assert ran.stdout == ran.stderr == b""


def test_a_users_file_passes_mypy_strict(tmp_path: Path) -> None:
    pytest.importorskip("mypy", reason="mypy is not installed")
    code = """
import asyncio
from pathlib import Path
from typing_extensions import assert_type
import numpy as np
from deepfake_client import AsyncDeepfakeClient, DeepfakeClient, DeepfakeError, Failure, FakeTransport, Verdict

with DeepfakeClient(["grpc://a", "grpc://b"], token=lambda: "t") as client:
    verdict = client.classify(Path("photo.jpg"), timeout=5)
    assert_type(verdict, Verdict)
    assert_type(verdict.score, float)
    for result in client.classify_many([b"", "a.jpg", np.zeros((9, 9, 3), np.uint8)]):
        if isinstance(result, Failure):
            assert_type(result.error, DeepfakeError)
        elif result.ok:
            assert_type(result.label, str)

async def main() -> None:
    async with AsyncDeepfakeClient() as client:
        assert_type(await client.classify("photo.jpg"), Verdict)
        async for result in client.classify_many(["a.jpg"]):
            if isinstance(result, Verdict):
                print(result.scores["Deepfake"])

DeepfakeClient(transport=FakeTransport([0.1, 0.9]))
asyncio.run(main())
"""
    file = tmp_path / "service.py"
    file.write_text(code)
    options = ["--strict", "--config-file", "", "--cache-dir", str(tmp_path / "cache"), "--no-error-summary"]
    ran = subprocess.run(
        [sys.executable, "-m", "mypy", *options, str(file)], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert (ran.returncode, ran.stdout + ran.stderr) == (0, "")


def test_the_examples_in_docstrings_run() -> None:
    from deepfake_client import _fake_transport

    ran = doctest.testmod(_fake_transport)
    assert ran.attempted
    assert not ran.failed

"""What the package offers, and what it must not bring along."""

from __future__ import annotations

import ast
import doctest
import importlib
import subprocess
import sys
from importlib.metadata import requires
from pathlib import Path
from types import ModuleType

import deepfake_client
import pytest
from deepfake_client import preprocessing
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.support.project import ROOT


def names_for_editors() -> dict[str, str]:
    """Name → its module, as type checkers and editors see the package."""
    tree = ast.parse(Path(str(deepfake_client.__file__)).read_text())
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    return {alias.name: f"deepfake_client.{node.module}" for node in imports for alias in node.names}


def test_every_public_name_is_exported_and_every_exported_name_is_there() -> None:
    assert deepfake_client.__all__ == sorted(names_for_editors())
    for name, module in names_for_editors().items():
        assert getattr(deepfake_client, name) is getattr(importlib.import_module(module), name)
    modules = {name for name, value in vars(deepfake_client).items() if isinstance(value, ModuleType)}
    public = {name for name in vars(deepfake_client) if not name.startswith("_")} - modules
    assert deepfake_client.__all__ == sorted(public)


def test_names_are_listed_before_they_are_used_and_others_are_refused() -> None:
    code = """
import deepfake_client
assert {*deepfake_client.__all__, "preprocessing"} <= set(dir(deepfake_client))
assert deepfake_client.preprocessing.to_pixels
assert not hasattr(deepfake_client, "Deepfake")
"""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stderr) == (0, "")


def test_the_decoder_in_triton_loads_no_client() -> None:
    """Each of its processes would hold 20 MB more."""
    model = ROOT / "model_repository" / "image_decoder" / "1" / "model.py"
    code = f"""
import runpy, sys, types
sys.modules["triton_python_backend_utils"] = types.ModuleType("triton_python_backend_utils")
assert runpy.run_path({str(model)!r})["TritonPythonModel"]
print(*sorted({{"aiohttp", "grpc", "tritonclient", "urllib3"}} & sys.modules.keys()))
"""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout == "\n"


def test_preprocessing_exports_these_names() -> None:
    assert preprocessing.__all__ == ["IMAGE_SIZE", "ImageLimits", "ImageSource", "Pixels", "load_image", "to_pixels"]


@pytest.mark.parametrize("module", ["torch", "transformers", "click", "rich", "gradio", "gevent", "torchvision"])
def test_importing_the_client_does_not_import(module: str) -> None:
    code = f"import sys; from deepfake_client import *; sys.exit({module!r} in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_base_install_is_small_and_without_what_the_client_does_not_use() -> None:
    found: set[str] = set()
    waiting = [("deepfake-vs-real", frozenset[str]())]
    while waiting:
        name, extras = waiting.pop()
        found.add(canonicalize_name(name))
        for requirement in map(Requirement, requires(name) or ()):
            wanted = any(requirement.marker is None or requirement.marker.evaluate({"extra": e}) for e in (*extras, ""))
            if wanted and canonicalize_name(requirement.name) not in found:
                waiting.append((requirement.name, frozenset(requirement.extras)))
    assert len(found - {"deepfake-vs-real"}) <= 20, sorted(found)
    assert not found & {"click", "gevent", "geventhttpclient", "gradio", "torch", "transformers"}


def test_importing_the_client_prints_nothing_and_configures_no_logging() -> None:
    code = "import logging; from deepfake_client import *; assert not logging.root.handlers"
    ran = subprocess.run([sys.executable, "-W", "error", "-c", code], check=True, capture_output=True)
    assert ran.stdout == ran.stderr == b""


def test_importing_the_client_opens_no_socket_and_starts_no_thread() -> None:
    code = """
import os, sys
seen = []
sys.addaudithook(lambda event, _: event.startswith(("socket.", "_thread.start")) and seen.append(event))
from deepfake_client import *
sockets = [entry for entry in os.listdir("/proc/self/fd") if os.path.islink(f"/proc/self/fd/{entry}")
           and os.readlink(f"/proc/self/fd/{entry}").startswith("socket:")]
assert not seen and not sockets, (seen, sockets)
"""
    ran = subprocess.run([sys.executable, "-c", code], stdin=subprocess.DEVNULL, capture_output=True, check=False)
    assert (ran.returncode, ran.stderr) == (0, b"")


def test_a_misspelt_option_is_refused() -> None:
    client = deepfake_client.DeepfakeClient(transport=deepfake_client.FakeTransport())
    for call in (client.classify, client.classify_many, client.provenance):
        with pytest.raises(TypeError, match="timout"):
            call("", timout=3)  # type: ignore[operator]
    with pytest.raises(deepfake_client.InvalidArgumentError, match="request_id"):
        client.classify_many([], request_id="same for all")


@pytest.mark.slow
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
    from deepfake_client._transports import fake

    ran = doctest.testmod(fake)
    assert ran.attempted
    assert not ran.failed

"""A service that only calls us installs little: the base install, in an environment of its own, against the server."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from deepfake_deploy.embedded import EmbeddedTriton

from tests.support.checkpoints import LABELS
from tests.support.pictures import encoded, photo_like
from tests.support.project import ROOT

pytestmark = pytest.mark.slow  # an installation

CLASSIFY = """
import importlib.util, json, sys
from deepfake_client import DeepfakeClient
labels = []
for url in sys.argv[2:]:
    with DeepfakeClient(url) as client:
        labels.append(client.classify(sys.argv[1]).label)
absent = ["torch", "transformers", "gradio", "click", "rich", "safetensors", "huggingface_hub", "deepfake_tests"]
print(json.dumps([labels, [name for name in absent if importlib.util.find_spec(name)], sorted(sys.modules)]))
"""


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Interpreter of a fresh environment with `pip install .` and nothing more."""
    folder = tmp_path_factory.mktemp("base")
    subprocess.run([sys.executable, "-m", "venv", folder], check=True, timeout=120)
    install = [folder / "bin" / "python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check", ROOT]
    subprocess.run(install, check=True, timeout=600)
    return folder / "bin" / "python"


def test_the_base_install_classifies_without_torch(triton: EmbeddedTriton, python: Path, tmp_path: Path) -> None:
    photo = tmp_path / "photo.jpg"
    photo.write_bytes(encoded(photo_like(320, 240, 5), "JPEG"))
    run = subprocess.run(
        [python, "-W", "error", "-c", CLASSIFY, photo, triton.grpc_url, triton.http_url],
        capture_output=True, text=True, timeout=120, cwd=tmp_path,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    labels, importable, imported = json.loads(run.stdout)
    assert labels[0] == labels[1]
    assert labels[0] in LABELS
    assert importable == []
    assert "deepfake_deploy" not in imported


def test_the_command_says_what_it_needs(python: Path) -> None:
    run = subprocess.run([python.parent / "deepfake", "classify", "x.jpg"], capture_output=True, text=True, timeout=60)
    assert (run.returncode, run.stdout) == (1, "")
    assert run.stderr == "deepfake: the command line is not installed; pip install 'deepfake-vs-real[cli]'\n"

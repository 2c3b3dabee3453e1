"""What the README tells a newcomer to type is run, against the tests' server in place of the default ports."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from deepfake_deploy.embedded import EmbeddedTriton
from pictures import encoded, photo_like
from programs import require_program
from project import ROOT

BLOCKS = re.findall(r"<!-- run -->\n```(\w+)\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)


def test_the_readme_has_examples_to_run() -> None:
    assert {language for language, _ in BLOCKS} == {"python", "sh", "js"}


@pytest.mark.parametrize(
    ("language", "code"), BLOCKS, ids=[f"{language}-{n}" for n, (language, _) in enumerate(BLOCKS)]
)
def test_an_example_of_the_readme_works(triton: EmbeddedTriton, tmp_path: Path, language: str, code: str) -> None:
    if "curl" in code:
        require_program("curl")
    (tmp_path / "photo.jpg").write_bytes(encoded(photo_like(640, 480, 7), "JPEG"))
    code = code.replace("grpc://127.0.0.1:8001", triton.grpc_url).replace("http://127.0.0.1:8000", triton.http_url)
    commands = {
        "python": [sys.executable, "-W", "error", "-c", code],
        "sh": ["bash", "-euo", "pipefail", "-c", code],
    }
    if language == "js":
        (tmp_path / "classify.mjs").write_text(code)
        commands["js"] = [require_program("node", "nodejs"), "classify.mjs", "photo.jpg"]
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    run = subprocess.run(
        commands[language], cwd=tmp_path, capture_output=True, text=True, timeout=120, env={**os.environ, "PATH": path}
    )
    assert run.returncode == 0, run.stderr
    assert re.search("Deepfake|Real one", run.stdout), run.stdout

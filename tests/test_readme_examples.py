"""What the READMEs tell a reader to type is run, against the tests' server in place of the default ports."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from deepfake_client import DeepfakeClient
from deepfake_deploy.embedded import EmbeddedTriton, TlsFiles

from tests.support.certificates import Authority
from tests.support.pictures import encoded, photo_like
from tests.support.programs import require_program
from tests.support.project import ROOT
from tests.support.servers import running

EXAMPLE = re.compile(r"<!-- run( with TLS)? -->\n```(\w+)\n(.*?)```", re.DOTALL)
EXAMPLES = {
    f"{readme.parent.relative_to(ROOT)}-{number}": found
    for readme in sorted(ROOT.glob("README.md")) + sorted(ROOT.glob("[a-z]*/**/README.md"))
    for number, found in enumerate(EXAMPLE.findall(readme.read_text(encoding="utf-8")), 1)
}
PLAIN = {name: (language, code) for name, (tls, language, code) in EXAMPLES.items() if not tls}
WITH_TLS = [code for tls, _, code in EXAMPLES.values() if tls]
FROM_OUTSIDE = {name: example for name, example in PLAIN.items() if "deepfake_vs_real_image" in example[1]}


def test_the_readmes_have_examples_to_run() -> None:
    assert {language for language, _ in PLAIN.values()} == {"python", "sh", "js"}
    assert WITH_TLS
    assert FROM_OUTSIDE


@pytest.mark.parametrize(("language", "code"), PLAIN.values(), ids=PLAIN)
def test_an_example_works(triton: EmbeddedTriton, tmp_path: Path, language: str, code: str) -> None:
    if "curl" in code:
        require_program("curl")
    code = code.replace("grpc://127.0.0.1:8001", triton.grpc_url).replace("http://127.0.0.1:8000", triton.http_url)
    commands = {
        "python": [sys.executable, "-W", "error", "-c", code],
        "sh": ["bash", "-euo", "pipefail", "-c", code],
    }
    if language == "js":
        (tmp_path / "classify.mjs").write_text(code)
        commands["js"] = [require_program("node", "nodejs"), "classify.mjs", "photo.jpg"]
    run(commands[language], tmp_path)


@pytest.mark.slow  # a server of its own
def test_the_example_with_tls_works(repository: Path, tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    certificate, key = authority.issue("server")
    authority.issue("caller")
    with running(repository, tls=TlsFiles(certificate, key, client_ca=authority.ca_file)) as server:
        for code in WITH_TLS:
            run(
                [sys.executable, "-W", "error", "-c", code.replace("grpcs://127.0.0.1:8001", server.grpc_url)], tmp_path
            )


@pytest.mark.parametrize(("language", "code"), FROM_OUTSIDE.values(), ids=FROM_OUTSIDE)
def test_callers_without_our_client_get_the_label_and_the_score_that_it_gives(
    triton: EmbeddedTriton, tmp_path: Path, language: str, code: str
) -> None:
    code = code.replace("http://127.0.0.1:8000", triton.http_url)
    if language == "js":
        (tmp_path / "classify.mjs").write_text(code)
        shown = run([require_program("node", "nodejs"), "classify.mjs", "photo.jpg"], tmp_path)
        label, score = re.fullmatch(r"(.+) ([\d.]+)\n", shown).groups()
    else:
        require_program("curl")
        shown = run(["bash", "-euo", "pipefail", "-c", code], tmp_path)
        # The answer's strings are framed by their lengths in binary, or stand in JSON.
        score, label = re.search(r"(\d\.\d+):\d:(Deepfake|Real one)", shown).groups()
    with DeepfakeClient(triton.grpc_url) as client:
        verdict = client.classify(tmp_path / "photo.jpg")
    assert label == verdict.label
    assert float(score) == pytest.approx(verdict.score, abs=2e-6)


def run(command: list[str], folder: Path) -> str:
    """What an example prints in a folder with a photo; it has to succeed and to name a label."""
    (folder / "photo.jpg").write_bytes(encoded(photo_like(640, 480, 7), "JPEG"))
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path}
    process = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120, env=environment)
    assert process.returncode == 0, process.stderr
    assert re.search("Deepfake|Real one", process.stdout), process.stdout
    return process.stdout

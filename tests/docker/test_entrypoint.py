"""What the image's entrypoint makes of its arguments, with a stand-in for tritonserver."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

from tests.support.project import ROOT

ENTRYPOINT = ROOT / "deploy" / "docker" / "entrypoint.sh"


@pytest.fixture
def path(tmp_path: Path) -> str:
    """A PATH whose tritonserver prints its arguments, one a line."""
    program = tmp_path / "tritonserver"
    program.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    program.chmod(0o755)
    return f"{tmp_path}{os.pathsep}{os.environ['PATH']}"


def arguments(path: str, *given: str) -> list[str]:
    run = subprocess.run(
        [str(ENTRYPOINT), *given], env={"PATH": path}, capture_output=True, text=True, timeout=30, check=True
    )
    return run.stdout.splitlines()


def test_keys_are_drawn_anew_at_each_start(path: str) -> None:
    given = ["--http-restricted-api=trace:closed=@random", "--grpc-restricted-protocol=trace:closed=@random"]
    keys = set()
    for _ in range(2):
        found = [re.fullmatch(r"--\S+:closed=([0-9a-f-]{36})", each) for each in arguments(path, *given)]
        assert all(found)
        keys |= {match[1] for match in found if match}
    assert len(keys) == 2


def test_other_arguments_pass_unchanged_and_in_order(path: str) -> None:
    given = ["--a=1", "--b=two words", "--c=$(id)", "*", "--d=@randomly", ""]
    assert arguments(path, *given) == given

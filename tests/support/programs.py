"""Programs that some tests use and a user's machine may lack."""

from __future__ import annotations

import os
import shutil

import pytest


def require_program(name: str, package: str | None = None, instead: str | None = None) -> str:
    """Path of a program; without it the test is skipped, or fails where DEEPFAKE_REQUIRE_PROGRAMS is set (in CI).

    `instead` says how to come by a program that Debian's packages do not have.
    """
    path = shutil.which(name)
    if path is not None:
        return path
    reason = f"{name} is not installed; {instead or f'on Debian and Ubuntu: apt-get install {package or name}'}"
    if os.environ.get("DEEPFAKE_REQUIRE_PROGRAMS"):
        pytest.fail(reason)
    pytest.skip(reason)

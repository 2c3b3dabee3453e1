"""Machines that cannot run the embedded Triton are told so in a sentence, with the way out."""

from __future__ import annotations

import importlib.metadata
import platform
import sys
import sysconfig
from pathlib import Path

import pytest
from deepfake_deploy.embedded import EmbeddedTritonError
from deepfake_deploy.embedded.installation import find_installation


def refusal() -> str:
    with pytest.raises(EmbeddedTritonError) as caught:
        find_installation()
    return str(caught.value)


@pytest.mark.parametrize(("system", "machine"), [("Darwin", "arm64"), ("Windows", "AMD64"), ("Linux", "aarch64")])
def test_another_platform(monkeypatch: pytest.MonkeyPatch, system: str, machine: str) -> None:
    monkeypatch.setattr(platform, "system", lambda: system)
    monkeypatch.setattr(platform, "machine", lambda: machine)
    assert f"not on {system} {machine}; serve with NVIDIA's container" in refusal()


def test_a_python_that_is_too_new(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("deepfake_deploy.embedded.installation.NEWEST_PYTHON", (3, 9))
    assert "runs with Python 3.10 to 3.9, not " in refusal()


def test_no_libpython(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sysconfig, "get_config_var", lambda _: str(tmp_path))
    monkeypatch.setattr(sys, "base_prefix", str(tmp_path))
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    message = refusal()
    assert f"libpython{version}.so.1.0" in message
    assert f"apt-get install libpython{version}" in message


def test_nothing_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "distribution", missing)
    assert "not installed; install it with: pip install" in refusal()


def test_numpy_2(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.metadata, "version", lambda _: "2.1.0")
    assert "needs numpy below 2, not 2.1.0" in refusal()

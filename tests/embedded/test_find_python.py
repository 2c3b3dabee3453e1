"""`make` looks for a Python that can serve before it installs anything; where there is none it says what to type."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.project import ROOT

SCRIPT = ROOT / "deploy" / "find_python.sh"
TOOLS = ("bash", "cat", "dirname", "env", "grep", "make", "realpath", "rm", "sh", "tail", "timeout")

WITHOUT_LIBRARY = "import sys, sysconfig; sys.base_prefix = '/nowhere'; sysconfig.get_config_var = lambda _: '/nowhere'"
WITHOUT_VENV = "import sys; sys.modules['ensurepip'] = None"
TOO_NEW = "import sys; sys.version_info = (3, 13, 0)"


class Machine:
    """A PATH with a few tools, and the Pythons that a test puts there."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "path"
        self.fetched = folder / "venv" / "python"
        self._folder = folder
        self.path.mkdir()
        for tool in TOOLS:
            (self.path / tool).symlink_to(shutil.which(tool) or f"/no {tool}")

    def add_python(self, name: str, difference: str = "") -> Path:
        """This Python under another name, with a difference that it makes to itself when it starts."""
        packages = self._folder / f"{name}-packages"
        packages.mkdir()
        (packages / "sitecustomize.py").write_text(difference)
        # One that cannot serve cannot make an environment for uv here either: the tests stay off the network.
        refuse = '[ "$1" = -m ] && { echo "error: no $2" >&2; exit 1; }\n' if difference else ""
        return self.add_program(name, f'{refuse}PYTHONPATH={packages} exec {sys.executable} "$@"')

    def add_program(self, name: str, script: str) -> Path:
        program = self.path / name
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)
        return program

    def run(self, *command: str | Path) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "PATH": str(self.path)}
        return subprocess.run(command, capture_output=True, text=True, timeout=60, env=environment, cwd=ROOT)

    def find(self, *given: str | Path) -> subprocess.CompletedProcess[str]:
        return self.run(SCRIPT, self.fetched, *given)


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


@pytest.mark.parametrize("difference", [WITHOUT_LIBRARY, WITHOUT_VENV, TOO_NEW])
def test_a_python_that_cannot_serve_is_passed_over(machine: Machine, difference: str) -> None:
    machine.add_python("python3", difference)
    good = machine.add_python("python3.11")
    run = machine.find()
    assert (run.returncode, run.stdout, run.stderr) == (0, f"{good}\n", "")


def test_where_there_is_none_uv_fetches_one(machine: Machine) -> None:
    machine.add_python("python3", WITHOUT_LIBRARY)
    installed = machine.fetched / "cpython-3.12.9-linux" / "bin" / "python3.12"
    machine.add_program("uv", f'[ "$1 $2" = "python install" ] && {_copy(sys.executable, installed)}')
    run = machine.find()
    assert (run.returncode, run.stdout) == (0, f"{installed}\n"), run.stderr
    assert run.stderr.count("\n") == 1


def _copy(program: str, target: Path) -> str:
    return f"/bin/mkdir -p {target.parent} && printf '#!/bin/sh\\nexec {program} \"$@\"' > {target} && /bin/chmod +x {target}"


@pytest.mark.parametrize("uv", [None, "echo 'error: no network' >&2; exit 1"])
def test_where_none_can_be_fetched_it_says_what_to_type(machine: Machine, uv: str | None) -> None:
    machine.add_python("python3", WITHOUT_LIBRARY)
    if uv:
        machine.add_program("uv", uv)
    run = machine.find()
    assert (run.returncode, run.stdout) == (1, "")
    assert f"that failed (error: no {'network' if uv else 'venv'})" in run.stderr
    assert "sudo apt-get install make python3-venv libpython3-dev\n" in run.stderr
    assert "sudo dnf install make python3.12\n" in run.stderr
    assert not machine.fetched.exists()


def test_a_machine_without_any_python_is_told_as_well(machine: Machine) -> None:
    run = machine.find()
    assert (run.returncode, run.stdout) == (1, "")
    assert "sudo apt-get install make python3-venv libpython3-dev\n" in run.stderr


def test_the_one_that_is_named_is_taken(machine: Machine) -> None:
    machine.add_python("python3")
    named = machine.add_python("another")
    assert machine.find(named).stdout == f"{named}\n"


def test_make_refuses_the_one_that_is_named_before_it_installs(machine: Machine, tmp_path: Path) -> None:
    machine.add_python("python3")
    named = machine.add_python("another", WITHOUT_LIBRARY)
    run = machine.run("make", "demo", f"VENV={tmp_path / 'venv'}", f"PYTHON={named}")
    assert run.returncode == 2
    assert "needs the shared library libpython3" in run.stderr
    assert f"make: PYTHON={named} will not do" in run.stderr
    assert not (tmp_path / "venv").exists()

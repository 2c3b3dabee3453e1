"""Where the parts of the embedded Triton lie on this machine, whether they can run here, and on what.

Run as a program, it tells `make` whether this Python will do.
"""

from __future__ import annotations

import ctypes
import importlib.metadata
import importlib.util
import math
import os
import platform
import shutil
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path

INSTALL_HINT = "pip install 'deepfake-vs-real[serve]'"
CONTAINER_HINT = "serve with NVIDIA's container instead"
OLDEST_PYTHON = (3, 10)
NEWEST_PYTHON = (3, 12)  # the server needs numpy below 2, which has no wheels for a newer one
CPU_MAX = Path("/sys/fs/cgroup/cpu.max")


class EmbeddedTritonError(Exception):
    """The embedded Triton cannot run: one sentence that names the thing, the reason and the way out."""


@dataclass(frozen=True)
class Installation:
    """Files of the `nvidia-pytriton` wheel and of this Python that the server is put together from."""

    binary: Path
    python_backend: Path
    """Folder with libtriton_python.so and triton_python_backend_utils.py."""
    stub: Path
    """The Python backend's stub process for the running Python's version."""
    caches: Path
    """Folder with the response cache's library."""
    libraries: tuple[Path, ...]
    """Folders for LD_LIBRARY_PATH: the wheel's shared libraries (the stub's CUDA runtime) and libpython's."""


def find_installation() -> Installation:
    """Locate the server without importing `pytriton`, which would start threads and read sockets."""
    _require_platform()
    try:
        distribution = importlib.metadata.distribution("nvidia-pytriton")
    except importlib.metadata.PackageNotFoundError:
        raise EmbeddedTritonError(f"the embedded Triton is not installed; install it with: {INSTALL_HINT}") from None
    site = Path(str(distribution.locate_file("")))
    server = site / "pytriton" / "tritonserver"
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    installation = Installation(
        binary=server / "bin" / "tritonserver",
        python_backend=server / "backends" / "python",
        stub=server / "python_backend_stubs" / python / "triton_python_backend_stub",
        caches=server / "caches",
        libraries=(site / "nvidia_pytriton.libs", _libpython_folder()),
    )
    for part in (installation.binary, installation.stub):
        if not part.is_file():
            raise EmbeddedTritonError(f"{part}: not there; install the server again with: {INSTALL_HINT}")
    numpy = importlib.metadata.version("numpy")
    if int(numpy.split(".")[0]) >= 2:
        raise EmbeddedTritonError(
            f"the embedded Triton needs numpy below 2, not {numpy}; install it with: {INSTALL_HINT}"
        )
    return installation


def _require_platform() -> None:
    system, machine = platform.system(), platform.machine()
    if system != "Linux" or machine != "x86_64":
        raise EmbeddedTritonError(
            f"the embedded Triton runs on Linux x86-64, not on {system} {machine}; {CONTAINER_HINT}"
        )
    if shutil.which("setpriv") is None:
        raise EmbeddedTritonError(
            "the embedded Triton is started by setpriv, which is not on the PATH; install util-linux"
        )
    _require_python_version()


def _require_python_version() -> None:
    if not OLDEST_PYTHON <= sys.version_info[:2] <= NEWEST_PYTHON:
        oldest, newest = (".".join(map(str, version)) for version in (OLDEST_PYTHON, NEWEST_PYTHON))
        raise EmbeddedTritonError(
            f"the embedded Triton runs with Python {oldest} to {newest}, not {platform.python_version()}; {CONTAINER_HINT}"
        )


def _libpython_folder() -> Path:
    # The stub embeds Python as a shared library. Debian and Ubuntu put it into a package of its own; pyenv and
    # `configure` build none unless told to. uv's Pythons have one.
    package = f"libpython{sys.version_info.major}.{sys.version_info.minor}"
    name = f"{package}.so.1.0"
    # A Python that was moved after it was built has it below its prefix, whatever LIBDIR says.
    folders = [Path(sysconfig.get_config_var("LIBDIR") or "/usr/lib"), Path(sys.base_prefix) / "lib"]
    for folder in folders:
        if (folder / name).is_file():
            return folder
    raise EmbeddedTritonError(
        f"the embedded Triton needs the shared library {name}, which this Python ({sys.executable}) lacks; on Debian "
        f"and Ubuntu: apt-get install {package}; elsewhere use a Python built with --enable-shared"
    )


def cuda_device_count() -> int:
    """CUDA devices that the driver shows this process (`CUDA_VISIBLE_DEVICES` counts); 0 without a driver.

    Asked of the driver itself: importing torch to ask it takes seconds.
    """
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return 0
    count = ctypes.c_int(0)
    if driver.cuInit(0) != 0 or driver.cuDeviceGetCount(ctypes.byref(count)) != 0:
        return 0
    return count.value


def usable_cpus(cpu_max: Path = CPU_MAX) -> int:
    """Processors this process may run on, but no more than its cgroup's quota, rounded up as Kubernetes rounds.

    torch only looks at the first: with 4 CPUs of a node's 64 it starts 64 threads, which use up each period's quota at once.

    `cpu_max` holds quota and period in microseconds, or "max" for no quota (cgroups of version 2).
    """
    affinity = len(os.sched_getaffinity(0))
    try:
        quota, period = cpu_max.read_text(encoding="ascii").split()
        return max(1, min(affinity, math.ceil(int(quota) / int(period))))
    except (OSError, ValueError):
        return affinity  # no quota, or a kernel without cgroups of version 2


def main() -> None:
    """Exit with the reason if a virtual environment of this Python could not serve."""
    try:
        _require_python_version()
        if platform.system() == "Linux":  # elsewhere the server does not run, but the client does
            _libpython_folder()
    except EmbeddedTritonError as error:
        sys.exit(str(error))
    if importlib.util.find_spec("ensurepip") is None:
        sys.exit(f"{sys.executable} has no venv; on Debian and Ubuntu: apt-get install python3-venv")


if __name__ == "__main__":
    main()

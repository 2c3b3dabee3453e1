"""Where the parts of the embedded Triton lie on this machine, and whether they can run here."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import platform
import re
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path

from .errors import EmbeddedTritonError

INSTALL_HINT = "pip install 'deepfake-vs-real[serve]'"
CONTAINER_HINT = "serve with NVIDIA's container instead"
MINIMUM_GLIBC = (2, 35)  # of the wheel's tritonserver binary
NEWEST_PYTHON = (3, 12)  # the server needs numpy below 2, which has no wheels for a newer one


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
    """Locate the server without importing `pytriton`, which would start threads and read sockets.

    Raises:
        EmbeddedTritonError: this platform cannot run it, or a part is not installed.
    """
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
    _require_packages()
    return installation


def _require_platform() -> None:
    system, machine = platform.system(), platform.machine()
    if system != "Linux" or machine != "x86_64":
        raise EmbeddedTritonError(
            f"the embedded Triton runs on Linux x86-64, not on {system} {machine}; {CONTAINER_HINT}"
        )
    if sys.version_info[:2] > NEWEST_PYTHON:
        found, newest = platform.python_version(), ".".join(map(str, NEWEST_PYTHON))
        raise EmbeddedTritonError(
            f"the embedded Triton runs with Python 3.10 to {newest}, not {found}; {CONTAINER_HINT}"
        )
    libc, version = platform.libc_ver()
    if libc != "glibc":
        raise EmbeddedTritonError(f"the embedded Triton needs glibc, which this Linux (musl?) lacks; {CONTAINER_HINT}")
    if tuple(int(part) for part in version.split(".")[:2]) < MINIMUM_GLIBC:
        needed = ".".join(map(str, MINIMUM_GLIBC))
        raise EmbeddedTritonError(f"the embedded Triton needs glibc {needed} or newer, not {version}; {CONTAINER_HINT}")


def _libpython_folder() -> Path:
    # The stub embeds Python as a shared library. Distributions put it into a package of its own, and some builds of
    # Python (the static ones of uv, conda's) have none.
    name = f"libpython{sys.version_info.major}.{sys.version_info.minor}.so.1.0"
    folders = [
        sysconfig.get_config_var("LIBDIR"),
        sysconfig.get_config_var("LIBPL"),
        str(Path(sys.base_prefix) / "lib"),
    ]
    multiarch = sysconfig.get_config_var("MULTIARCH")
    folders += [f"/usr/lib/{multiarch}"] if multiarch else []
    for folder in filter(None, folders):
        if (Path(folder) / name).is_file():
            return Path(folder)
    package = re.sub(r"\.so.*", "", name)
    raise EmbeddedTritonError(
        f"the embedded Triton needs the shared library {name}, which this Python ({sys.executable}) lacks; on Debian "
        f"and Ubuntu: apt-get install {package}; elsewhere use a Python built with --enable-shared"
    )


def _require_packages() -> None:
    if importlib.util.find_spec("torch") is None:
        raise EmbeddedTritonError(f"the embedded Triton's pytorch backend needs torch; install it with: {INSTALL_HINT}")
    numpy = importlib.metadata.version("numpy")
    if int(numpy.split(".")[0]) >= 2:
        raise EmbeddedTritonError(
            f"the embedded Triton needs numpy below 2, not {numpy}; install it with: {INSTALL_HINT}"
        )

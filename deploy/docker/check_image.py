"""Fails the build of the server's image, with a line for each thing that is not as the manifests expect it.

python3 check_image.py MANIFESTS: the folder deploy/kubernetes; their arguments are looked up in `tritonserver --help`.
"""

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

TRITON = Path("/opt/tritonserver")
PYTHON = (3, 12)
PARTS = {
    "backends/pytorch/libtriton_pytorch.so": "the LibTorch backend",
    "backends/python/triton_python_backend_stub": "the Python backend's stub",
    "caches/local/libtritoncache_local.so": "the response cache",
}


def problems(triton: Path, manifests: Path, usage: str, python: tuple[int, int], numpy: str) -> Iterator[str]:
    """What is missing or unfit; `usage` is what `tritonserver --help` prints."""
    for part, what in PARTS.items():
        if not (triton / part).is_file():
            yield f"{triton / part} is not there: {what}"
    if python != PYTHON:
        yield f"Python is {'.'.join(map(str, python))}, not {'.'.join(map(str, PYTHON))}"
    if int(numpy.split(".")[0]) >= 2:
        yield f"numpy is {numpy}: the Python backend needs one below 2"
    known = set(re.findall(r"^\s*(--[\w-]+)", usage, re.MULTILINE))
    for manifest in sorted(manifests.rglob("triton-*.yaml")):
        for argument in re.findall(r"^ *(?:-|value:) (--[\w-]+)", manifest.read_text(encoding="utf-8"), re.MULTILINE):
            if argument not in known:
                yield f"tritonserver does not know {argument} of {manifest.relative_to(manifests)}"


def main() -> None:
    """Exits with the problems, if there are any."""
    import numpy
    from deepfake_client.preprocessing import load_image  # noqa: F401 - Pillow and the client package are in place

    usage = subprocess.run(["tritonserver", "--help"], capture_output=True, encoding="utf-8", check=False)  # noqa: S607
    found = problems(TRITON, Path(sys.argv[1]), usage.stdout + usage.stderr, sys.version_info[:2], numpy.__version__)
    sys.exit("\n".join(found) or None)


if __name__ == "__main__":
    main()

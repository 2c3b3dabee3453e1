"""What a model repository must hold before a server is started on it."""

from __future__ import annotations

import re
from pathlib import Path

from .errors import EmbeddedTritonError

_BACKEND = re.compile(r'^\s*backend:\s*"pytorch"', re.MULTILINE)


def check_repository(repository: Path) -> None:
    """Refuse a repository without models, or with a TorchScript model whose weights were never exported.

    Raises:
        EmbeddedTritonError: naming what is missing and the command that makes it.
    """
    if not repository.is_dir():
        raise EmbeddedTritonError(
            f"{repository}: no such folder; start this in the project's folder, or name its model repository with "
            "--repository"
        )
    configurations = sorted(repository.glob("*/config.pbtxt"))
    if not configurations:
        raise EmbeddedTritonError(f"{repository}: not a model repository (no folder in it has a config.pbtxt)")
    for configuration in configurations:
        model = configuration.parent
        try:
            text = configuration.read_text(encoding="utf-8", errors="replace")
        except OSError as error:
            raise EmbeddedTritonError(f"{configuration}: {error.strerror}; it must be a readable file") from None
        if not _BACKEND.search(text):
            continue
        if not any(path.parent.name.isdigit() for path in model.glob("*/model.pt")):
            raise EmbeddedTritonError(
                f"{model / '1' / 'model.pt'}: not there; write it with `deepfake export` (or, where the weights cannot "
                "be had, `deepfake export --model stand-in`)"
            )

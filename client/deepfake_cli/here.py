"""How to call `deepfake` from where the user is, whose shell may not have the virtual environment activated."""

from __future__ import annotations

import sys
from pathlib import Path


def deepfake_command(arguments: str) -> str:
    """`.venv/bin/deepfake ARGUMENTS`, relative to the working directory where it lies below."""
    return f"{Path(sys.executable).parent / 'deepfake'} {arguments}".replace(f"{Path.cwd()}/", "")

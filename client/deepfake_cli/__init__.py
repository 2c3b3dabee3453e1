"""The `deepfake` command."""

from __future__ import annotations

import sys


def main() -> None:
    """Entry point. The base install has the command but not what it is made of."""
    try:
        import click  # noqa: F401
        import rich  # noqa: F401
    except ModuleNotFoundError:
        print("deepfake: the command line is not installed; pip install 'deepfake-vs-real[cli]'", file=sys.stderr)  # noqa: T201
        sys.exit(1)
    from .app import run

    run()

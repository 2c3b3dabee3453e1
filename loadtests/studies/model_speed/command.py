"""What the commands that measure the model have in common: which model, a page of results, and how they end."""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from deepfake_deploy.embedded import EmbeddedTritonError
from deepfake_deploy.export import STAND_IN, ExportError

from .report import write_report


def add_model_options(parser: argparse.ArgumentParser) -> None:
    """--repository, --model and --revision."""
    parser.add_argument(
        "--repository", type=Path, default=Path("model_repository"), help="whose configuration is served"
    )
    parser.add_argument("--model", default=STAND_IN, help="Hub id, local folder or «stand-in» (default: %(default)s)")
    parser.add_argument("--revision", help="of a Hub id")


def measure_and_write(
    name: str,
    options: argparse.Namespace,
    measure: Callable[[argparse.Namespace, Path], tuple[list[str], list[str]]],
) -> NoReturn:
    """Measures, writes the page to `options.output`, and prints it.

    Ends with 0; 1 when something failed, after which the old page is still there, or when a wanted figure was missed; 130
    when it was interrupted.

    Args:
        name: of the command, for its messages.
        measure: from the options and a folder for its files to the page's lines and what was missed.
    """
    try:
        with tempfile.TemporaryDirectory(prefix=f"deepfake-{name}-") as folder:
            lines, missed = measure(options, Path(folder))
        write_report(options.output, lines)
    except (ExportError, EmbeddedTritonError, OSError, ValueError) as error:
        print(f"{name}: {error}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        print(f"{name}: interrupted; nothing was written", file=sys.stderr)
        sys.exit(130)
    print("\n".join(lines))
    for reason in missed:
        print(f"{name}: {reason}", file=sys.stderr)
    sys.exit(1 if missed else 0)

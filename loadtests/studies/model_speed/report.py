"""What every result begins with, and how it gets into its file."""

from __future__ import annotations

import datetime
import tempfile
from importlib.metadata import version
from pathlib import Path

import torch
import transformers

from loadtests.capacity.resources import cores, processor_name


def circumstances(command: str, model: str) -> list[str]:
    """Lines that say when, on what and with which versions."""
    capabilities = torch.cpu.get_capabilities()
    formats = [name for name in ("avx512_bf16", "amx_bf16") if capabilities.get(name)]
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    return [
        f"`{command}`, {datetime.date.today().isoformat()}: {processor_name()}, {cores()} cores"
        f" ({', '.join(formats) or 'no bf16 products'}), {device};",
        f"load generators, server and model on the same machine. Weights: {model}. torch {torch.__version__}, transformers "
        f"{transformers.__version__}, pytriton {version('nvidia-pytriton')}.",
    ]


def write_report(path: Path, lines: list[str]) -> None:
    """Writes the file as a whole, or leaves what was there.

    Raises:
        OSError: the folder cannot be made or written to.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(
        "w", dir=path.parent, prefix=f".{path.name}.", delete=False, encoding="utf-8"
    ) as file:
        try:
            file.write("\n".join(lines) + "\n")
            file.flush()
            Path(file.name).chmod(0o644)
            Path(file.name).replace(path)
        except BaseException:
            Path(file.name).unlink(missing_ok=True)
            raise


def markdown_table(header: list[str], rows: list[list[str]], words: int = 1) -> list[str]:
    """A Markdown table; the first `words` columns are set left, the others right."""
    rule = ["---"] * words + ["---:"] * (len(header) - words)
    return [f"| {' | '.join(row)} |" for row in (header, rule, *rows)]

"""What every study shares: its options, figures with their spread, and how its result is written.

A study measures a dictionary, NAME.json, of which it makes a page, NAME.md.
"""

from __future__ import annotations

import argparse
import datetime
import json
import shlex
import statistics
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, NoReturn

from deepfake_client import DeepfakeError
from deepfake_deploy.embedded import EmbeddedTritonError
from deepfake_deploy.export import STAND_IN, ExportError

from loadtests.capacity.resources import cores, processor_name

RESULTS = Path("loadtests/results")

#: Median, lowest and highest of the rounds of one measurement.
Figure = Mapping[str, float]
Result = dict[str, Any]


def study_parser(description: str | None, *, rounds: int, model: bool = True) -> argparse.ArgumentParser:
    """A parser with --output, --rounds and --repository, and with --model and --revision where a model is exported."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--repository", type=Path, default=Path("model_repository"), help="whose configuration is served")
    if model:
        add("--model", default=STAND_IN, help="Hub id, local folder or «stand-in» (default: %(default)s)")
        add("--revision", help="of a Hub id")
    add("--rounds", type=_at_least_one, default=rounds, help="(default: %(default)s)")
    add("--output", type=Path, default=RESULTS, help="folder of the result (default: %(default)s)")
    return parser


def _at_least_one(text: str) -> int:
    if (value := int(text)) < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return value


def seconds(text: str) -> float:
    """A type for argparse."""
    if not (value := float(text)) > 0:
        raise argparse.ArgumentTypeError("must be above 0")
    return value


def run_study(
    name: str,
    options: argparse.Namespace,
    measure: Callable[[argparse.Namespace, Path], Result],
    page: Callable[[Result], list[str]],
) -> NoReturn:
    """Measures, writes NAME.md and NAME.json to `options.output`, and prints the page.

    Ends with 0; 1 when something failed, after which the old result is still there, or when the result has `missed`;
    130 when it was interrupted.

    Args:
        measure: from the options and a folder for its files to the result.
    """
    try:
        with tempfile.TemporaryDirectory(prefix=f"deepfake-{name}-") as folder:
            result = measure(options, Path(folder))
        lines = write_result(name, options.output, result, page)
    except (ExportError, EmbeddedTritonError, DeepfakeError, OSError, ValueError) as error:
        print(f"{name}: {error}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        print(f"{name}: interrupted; nothing was written", file=sys.stderr)
        sys.exit(130)
    print("\n".join(lines))
    for reason in result.get("missed", []):
        print(f"{name}: {reason}", file=sys.stderr)
    sys.exit(1 if result.get("missed") else 0)


def write_result(name: str, folder: Path, result: Result, page: Callable[[Result], list[str]]) -> list[str]:
    """Writes both files; returns the page."""
    lines = page(result)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.json").write_text(json.dumps(result, indent=1, ensure_ascii=False, allow_nan=False) + "\n")
    (folder / f"{name}.md").write_text("\n".join(lines) + "\n")
    return lines


def page_of(title: str, result: Result, *blocks: str | list[str], kept: str = "") -> list[str]:
    """Lines of Markdown: paragraphs and tables, and at the end what was missed, or kept."""
    lines = [f"# {title}", "", *result["circumstances"]]
    for block in blocks:
        lines += ["", *([block] if isinstance(block, str) else block)]
    if "missed" in result:
        lines += ["", f"Missed: {'; '.join(result['missed'])}." if result["missed"] else kept]
    return lines


def circumstances(name: str, model: str) -> list[str]:
    """Lines that say when, on what and with which versions."""
    import torch

    capabilities = torch.cpu.get_capabilities()
    formats = [name for name in ("avx512_bf16", "amx_bf16") if capabilities.get(name)]
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    command = shlex.join(["python", "-m", f"loadtests.studies.{name}", *sys.argv[1:]])
    return [
        f"`{command}`, {datetime.date.today().isoformat()}: {processor_name()}, {cores()} cores"
        f" ({', '.join(formats) or 'no bf16 products'}), {device}.",
        f"Load, server and model share the machine. Weights: {model}. torch {torch.__version__}, transformers "
        f"{version('transformers')}, pytriton {version('nvidia-pytriton')}.",
    ]


def figure(rounds: Sequence[float]) -> Figure:
    return {"median": statistics.median(rounds), "low": min(rounds), "high": max(rounds)}


def ratio(rounds: Sequence[float], others: Sequence[float]) -> Figure:
    """Each round over the same round of the other: what slows the machine for a while slows both."""
    return figure([value / other for value, other in zip(rounds, others, strict=True)])


def shown(found: Figure, digits: int | None = None) -> str:
    """Median, and the lowest and highest round."""
    median = found["median"]
    places = digits if digits is not None else 0 if median >= 1000 else 1 if median >= 100 else 2
    spread = f" ({found['low']:.{places}f}–{found['high']:.{places}f})" if "low" in found else ""
    return f"{median:.{places}f}{spread}"


def markdown_table(header: list[str], rows: list[list[str]], words: int = 1) -> list[str]:
    """A Markdown table; the first `words` columns are set left, the others right."""
    rule = ["---"] * words + ["---:"] * (len(header) - words)
    return [f"| {' | '.join(row)} |" for row in (header, rule, *rows)]


def tell(line: str) -> None:
    """Progress, on stderr."""
    print(line, file=sys.stderr, flush=True)

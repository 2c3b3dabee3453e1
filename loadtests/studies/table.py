"""What every study shares: its options, figures with their spread, and how its result is written.

A study measures a dictionary, NAME.json, of which it makes a page, NAME.md.
"""

from __future__ import annotations

import argparse
import datetime
import json
import shlex
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Hashable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, NoReturn

from deepfake_client import DeepfakeError
from deepfake_deploy.embedded import EmbeddedTritonError
from deepfake_deploy.export import STAND_IN, ExportError

from loadtests.capacity.resources import cores, processor_name
from loadtests.traffic.options import above_zero, one_or_more

#: Median, lowest and highest of the rounds of one measurement.
Figure = Mapping[str, float]
Result = dict[str, Any]
Page = Callable[[Result], list[str]]


def study_parser(
    description: str, *, rounds: int | None = None, seconds: float | None = None, model: bool = False
) -> argparse.ArgumentParser:
    """A parser with --output and --repository; and with --rounds, --seconds and --model where a study has them."""
    summary = description.partition("\n")[0]
    parser = argparse.ArgumentParser(description=summary, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    add = parser.add_argument
    add("--repository", type=Path, default=Path("model_repository"), help="whose configuration is served")
    add("--output", type=Path, default=Path("loadtests/results"), help="folder of the result")
    if rounds:
        add("--rounds", type=one_or_more, default=rounds, help="of every measurement, in turns")
    if seconds:
        add("--seconds", type=above_zero, default=seconds, help="of one measurement")
    if model:
        add("--model", default=STAND_IN, help="Hub id, local folder or «stand-in»")
    return parser


def run_study(
    name: str,
    parser: argparse.ArgumentParser,
    measure: Callable[[argparse.Namespace, Path], Result],
    page: Page,
) -> NoReturn:
    """Measures with the options and a folder for files, writes NAME.md and NAME.json to `--output`, prints the page.

    Ends with 0; 1 when something failed, after which the old result is still there, or when the result has `missed`;
    2 for wrong options; 130 when it was interrupted.
    """
    options = parser.parse_args()
    try:
        with tempfile.TemporaryDirectory(prefix=f"deepfake-{name}-") as folder:
            result = measure(options, Path(folder))
        lines = write_result(name, options.output, result, page)
    except (ExportError, EmbeddedTritonError, DeepfakeError, OSError, ValueError, subprocess.SubprocessError) as error:
        tell(f"{name}: {error}")
        sys.exit(1)
    except KeyboardInterrupt:
        tell(f"{name}: interrupted")
        sys.exit(130)
    print("\n".join(lines))
    missed = result.get("missed", [])
    for reason in missed:
        tell(f"{name}: {reason}")
    sys.exit(1 if missed else 0)


def write_result(name: str, folder: Path, result: Result, page: Page) -> list[str]:
    """Writes both files; returns the page."""
    lines = page(result)
    folder.mkdir(parents=True, exist_ok=True)
    document = json.dumps(result, indent=1, ensure_ascii=False, allow_nan=False)
    for suffix, text in (("json", document), ("md", "\n".join(lines))):
        (folder / f"{name}.{suffix}").write_text(f"{text}\n", encoding="utf-8")
    return lines


def page_of(title: str, result: Result, *blocks: str | list[str]) -> list[str]:
    """Lines of Markdown: paragraphs and tables, and at the end what was missed."""
    lines = [f"# {title}", "", *result["circumstances"], "[Columns and targets](../README.md#studies)."]
    for block in blocks:
        lines += ["", *([block] if isinstance(block, str) else block)]
    if "missed" in result:
        lines += ["", f"Targets missed: {'; '.join(result['missed']) or 'none'}."]
    return lines


def circumstances(name: str, weights: str) -> list[str]:
    """Lines that say when, on what and with which versions."""
    import torch

    formats = [name for name in ("avx512_bf16", "amx_bf16") if torch.cpu.get_capabilities().get(name)]
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    command = shlex.join(["python", "-m", f"loadtests.studies.{name}", *sys.argv[1:]])
    versions = ", ".join(f"{package} {version(package)}" for package in ("torch", "transformers", "nvidia-pytriton"))
    return [
        f"`{command}`, {datetime.date.today()}: {processor_name()}, {cores()} cores"
        f" ({', '.join(formats) or 'no bf16 products'}), {device}.",
        f"Load, server and model share the machine. Weights: {weights}. {versions}.",
    ]


def in_turns(
    measures: Mapping[Hashable, Callable[[], Mapping[str, float]]], rounds: int
) -> dict[Any, list[Mapping[str, float]]]:
    """What each measurement finds in each round; they take turns, so that a slow minute meets all alike."""
    found: dict[Any, list[Mapping[str, float]]] = {name: [] for name in measures}
    for number in range(rounds):
        tell(f"Round {number + 1} of {rounds}")
        for name, measure in measures.items():
            found[name].append(measure())
    return found


def figure(rounds: Sequence[float]) -> Figure:
    return {"median": statistics.median(rounds), "low": min(rounds), "high": max(rounds)}


def figures(rounds: Sequence[Mapping[str, float]]) -> dict[str, Figure]:
    """A figure for each name of the rounds."""
    return {name: figure([each[name] for each in rounds]) for name in rounds[0]}


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

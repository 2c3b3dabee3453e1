"""What every study shares: its options, figures with their spread, and how its result is written.

A study measures a dictionary, NAME.json, of which it makes a page, NAME.md.
"""

from __future__ import annotations

import argparse
import datetime
import json
import random
import statistics
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from deepfake_client import DeepfakeError
from deepfake_deploy.embedded import EmbeddedTritonError
from deepfake_deploy.export import STAND_IN, ExportError

from loadtests.capacity.resources import command_line, cores, processor_name
from loadtests.traffic.options import above_zero, one_or_more

#: Median, lowest and highest of the rounds of one measurement.
Figure = Mapping[str, float]
Result = dict[str, Any]
_Name = TypeVar("_Name")
_Found = TypeVar("_Found")


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
    page: Callable[[Result], list[str]],
) -> NoReturn:
    """Measures with the options and a folder for files, writes NAME.md and NAME.json to `--output`, prints the page.

    Ends with 0; 1 when something failed, after which the old result is still there, or when the result has `missed`;
    2 for wrong options; 130 when it was interrupted.
    """
    options = parser.parse_args()
    try:
        with tempfile.TemporaryDirectory(prefix=f"deepfake-{name}-") as folder:
            result = measure(options, Path(folder))
        document, text = json.dumps(result, indent=1, ensure_ascii=False, allow_nan=False), "\n".join(page(result))
        options.output.mkdir(parents=True, exist_ok=True)
        (options.output / f"{name}.json").write_text(f"{document}\n", encoding="utf-8")
        (options.output / f"{name}.md").write_text(f"{text}\n", encoding="utf-8")
    except (ExportError, EmbeddedTritonError, DeepfakeError, OSError, ValueError, subprocess.SubprocessError) as error:
        tell(f"{name}: {error}")
        sys.exit(1)
    except KeyboardInterrupt:
        tell(f"{name}: interrupted")
        sys.exit(130)
    print(text)
    missed = result.get("missed", [])
    for reason in missed:
        tell(f"{name}: {reason}")
    sys.exit(1 if missed else 0)


def page_of(title: str, result: Result, *blocks: str | list[str]) -> list[str]:
    """Lines of Markdown: paragraphs and tables, and at the end what was missed."""
    wrapped = partial(textwrap.wrap, width=120, break_long_words=False, break_on_hyphens=False)
    lines = [f"# {title}", ""]
    for line in (*result["circumstances"], "[Columns and targets](../README.md#studies)."):
        lines += wrapped(line)
    for block in blocks:
        lines += ["", *(wrapped(block) if isinstance(block, str) else block)]
    if "missed" in result:
        lines += ["", *wrapped(f"Targets missed: {'; '.join(result['missed']) or 'none'}.")]
    return lines


def circumstances(name: str, weights: str) -> list[str]:
    """Lines that say when, on what and with which versions."""
    import torch

    formats = [name for name in ("avx512_bf16", "amx_bf16") if torch.cpu.get_capabilities().get(name)]
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    versions = ", ".join(f"{package} {version(package)}" for package in ("torch", "transformers", "nvidia-pytriton"))
    return [
        f"`{command_line(f'loadtests.studies.{name}')}`, {datetime.date.today()}: {processor_name()}, {cores()} cores"
        f" ({', '.join(formats) or 'no bf16 products'}), {device}.",
        f"Load, server and model share the machine. Weights: {weights}. {versions}.",
    ]


def in_turns(measures: Mapping[_Name, Callable[[], _Found]], rounds: int) -> dict[_Name, list[_Found]]:
    """What each measurement finds in each round.

    They take turns, in another order each time, so that a slow minute meets all alike.
    """
    found: dict[_Name, list[_Found]] = {name: [] for name in measures}
    for number in range(rounds):
        tell(f"Round {number + 1} of {rounds}")
        for name in random.sample([*measures], len(measures)):
            found[name].append(measures[name]())
    return found


def figure(rounds: Sequence[float]) -> Figure:
    return {"median": statistics.median(rounds), "low": min(rounds), "high": max(rounds)}


def figures(rounds: Sequence[Mapping[str, float]]) -> dict[str, Figure]:
    return {name: figure([each[name] for each in rounds]) for name in rounds[0]}


def ratio(rounds: Sequence[float], others: Sequence[float]) -> Figure:
    """Each round over the same round of the other: what slows the machine for a while slows both."""
    return figure([value / other for value, other in zip(rounds, others, strict=True)])


def shown(found: Figure, digits: int | None = None) -> str:
    median = found["median"]
    places = digits if digits is not None else 0 if median >= 1000 else 1 if median >= 100 else 2
    spread = f" ({found['low']:.{places}f}–{found['high']:.{places}f})" if "low" in found else ""
    return f"{median:.{places}f}{spread}"


def markdown_table(header: list[str], rows: list[list[str]], words: int = 1) -> list[str]:
    """A Markdown table; the first `words` columns are set left, the others right."""
    rule = ["---"] * words + ["---:"] * (len(header) - words)
    return [f"| {' | '.join(row)} |" for row in (header, rule, *rows)]


def tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)

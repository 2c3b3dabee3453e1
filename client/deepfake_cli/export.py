"""`deepfake export`."""

from __future__ import annotations

from pathlib import Path

import click

from .console import StepProgress, fail, say, tell
from .options import repository_option

DEFAULT_MODEL = "prithivMLmods/Deepfake-vs-Real-8000"


@click.command()
@click.option(
    "--model",
    default=DEFAULT_MODEL,
    show_default=True,
    metavar="ID_OR_DIR",
    help="Id on the Hugging Face Hub, local folder, or `stand-in` for seeded random weights.",
)
@click.option("--revision", metavar="R", help="Branch, tag or commit of a Hub id.")
@click.option(
    "--precision",
    type=click.Choice(["auto", "fp32", "bf16", "fp16", "int8"]),
    default="auto",
    show_default=True,
    help="auto: fp16 with a CUDA device, bf16 where the CPU computes it natively, else fp32. int8: the fastest for CPUs with VNNI or AMX, less exact.",
)
@repository_option("Model repository to write into.")
@click.option(
    "--model-version",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    help="Version folder to write; a server serves the two highest ones beside each other.",
)
def command(model: str, revision: str | None, precision: str, repository: Path, model_version: int) -> None:
    """Write a checkpoint into the model repository as TorchScript, checked against transformers."""
    if not model:
        raise click.UsageError("--model is empty; is a variable not set?")
    from deepfake_deploy.export import ExportError, Precision, export_model, int8_refusal

    try:
        with StepProgress() as progress:
            chosen = None if precision == "auto" else Precision(precision)
            export = export_model(model, revision, chosen, repository, progress, model_version)
    except ExportError as error:
        fail(str(error))
    tell(f"Parity with transformers, {export.precision.value}, {export.parity.summary()}")
    tell(f"Wrote {export.path} ({export.size_bytes / 1e6:.0f} MB) and provenance.json beside it")
    if chosen is None and export.precision is Precision.FP32 and int8_refusal() is None:
        say(
            "This CPU has no native bf16; --precision int8 is faster here. Its scores differ a little more: see the parity."
        )
    if export.weights == "stand-in":
        say("Stand-in weights: seeded random numbers at full size; verdicts of this model mean nothing.")

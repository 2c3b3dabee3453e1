"""Prepare weights, start the embedded Triton, classify a few images over both protocols, and say what to do next."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import click
from deepfake_client import DeepfakeClient, Failure, Verdict
from deepfake_client._files import list_files
from deepfake_deploy.embedded import EmbeddedTriton, EmbeddedTritonError
from deepfake_deploy.export import STAND_IN, ExportError

from .console import fail, say, waiting
from .demo_weights import prepare_weights
from .drawings import draw_faces
from .here import deepfake_command
from .progress import StepProgress


@click.command()
@click.argument("paths", nargs=-1, type=click.Path(path_type=Path))
@click.option("--repository", type=click.Path(path_type=Path), default=Path("model_repository"), show_default=True)
def command(paths: tuple[Path, ...], repository: Path) -> None:
    """Classify PATHS (images, or folders of them) end to end; without any, a few drawings."""
    try:
        with StepProgress() as progress:
            weights, sentence = prepare_weights(repository, progress)
        say(sentence)
        server = EmbeddedTriton(repository)
        with waiting("Starting Triton and loading the model"):
            server.start()
    except (ExportError, EmbeddedTritonError) as error:
        fail(str(error))
    try:
        complete = _classify(server, paths, stand_in=weights == STAND_IN)
    finally:
        server.stop()
    click.echo("\nThis server has stopped. To start one that stays:  " + deepfake_command("serve"))
    click.echo("and, in another terminal:                           " + deepfake_command("classify PATH…"))
    sys.exit(0 if complete else 1)


def _classify(server: EmbeddedTriton, paths: tuple[Path, ...], *, stand_in: bool) -> bool:
    """Print a verdict per image and protocol; False when an image got none."""
    complete = True
    with tempfile.TemporaryDirectory(prefix="deepfake-demo-") as folder:
        images = [path for given in paths for path in list_files(given)] if paths else draw_faces(Path(folder))
        if not images:
            fail(f"{', '.join(map(str, paths))}: no files in it")
        for url in (server.grpc_url, server.http_url):
            click.echo(f"\n{url}")
            with DeepfakeClient(url) as client:
                for image, result in zip(images, client.classify_many(images), strict=True):
                    complete &= isinstance(result, Verdict)
                    click.echo(f"  {_sentence(image if paths else Path(image.name), result, stand_in=stand_in)}")
    if not paths:
        click.echo("\nThe images were drawn by this program, so their verdicts only show that the path works.")
        click.echo("Your own:  make demo IMAGES='photo.jpg folder/'")
    return complete


def _sentence(image: Path, result: Verdict | Failure, *, stand_in: bool) -> str:
    if isinstance(result, Failure):
        return f"{image}: no verdict: {result.error}"
    mark = "   [stand-in weights: meaningless]" if stand_in else ""
    return f"{image}: {result.label}, {result.score:.1%}{mark}"

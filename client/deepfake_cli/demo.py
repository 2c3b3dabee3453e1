"""`deepfake demo`: from nothing to verdicts over gRPC and HTTP, in one command."""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import click
from deepfake_client import DeepfakeClient, Verdict
from deepfake_client._images import list_files
from PIL import Image, ImageOps

from .console import StepProgress, fail, say, tell, waiting
from .export import DEFAULT_MODEL
from .options import GivenPath, repository_option

if TYPE_CHECKING:
    from deepfake_deploy.export import Progress

HUB_PATIENCE_SECONDS = 20.0


@click.command()
@click.argument("paths", nargs=-1, metavar="[PATH]...", type=GivenPath())
@repository_option("Model repository to serve; without weights it gets some.")
def command(paths: tuple[Path, ...], repository: Path) -> None:
    """Prepare weights, start Triton, classify each PATH (an image or a folder) over both protocols, and stop.

    Without a PATH it draws a few pictures.
    """
    from deepfake_deploy.embedded import EmbeddedTriton, EmbeddedTritonError
    from deepfake_deploy.export import STAND_IN, ExportError

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
        complete = _classify([server.grpc_url, server.http_url], paths, stand_in=weights == STAND_IN)
    finally:
        server.stop()
    tell(f"\nThis server has stopped. To start one that stays:  {deepfake_command('serve')}")
    tell(f"and, in another terminal:                           {deepfake_command('classify PATH...')}")
    sys.exit(0 if complete else 1)


def prepare_weights(repository: Path, progress: Progress) -> tuple[str, str]:
    """Make sure that the repository has a model to serve: what is there, else the Hub's, else the stand-in.

    Gives what it serves ("checkpoint" or "stand-in"), and a sentence about how it came to that.
    """
    from deepfake_deploy.export import STAND_IN, HubUnreachableError, export_model
    from huggingface_hub.constants import HF_HUB_OFFLINE

    weights = _weights_of(repository)
    if weights not in (None, STAND_IN):
        return str(weights), f"Serving the weights that are in {repository}."
    try:
        if not HF_HUB_OFFLINE:  # else the cache is asked, which answers at once
            progress.step(f"Asking the Hugging Face Hub for {DEFAULT_MODEL}")
            _require_hub(DEFAULT_MODEL)
        export_model(DEFAULT_MODEL, None, None, repository, progress)
    except HubUnreachableError:
        if weights is None:
            export_model(STAND_IN, None, None, repository, progress)
        return STAND_IN, (
            "The Hugging Face Hub cannot be reached, so this goes on with stand-in weights: seeded random numbers of "
            "the same size and speed, whose verdicts mean nothing."
        )
    return "checkpoint", f"Serving {DEFAULT_MODEL}."


def _weights_of(repository: Path) -> str | None:
    """The "weights" of the provenance beside an exported model, None when there is no model."""
    from deepfake_deploy.export import FIRST_VERSION, MODEL_FILE, MODEL_NAME, PROVENANCE_FILE

    folder = repository / MODEL_NAME / str(FIRST_VERSION)
    if not (folder / MODEL_FILE).is_file():
        return None
    try:
        return str(json.loads((folder / PROVENANCE_FILE).read_text(encoding="utf-8"))["weights"])
    except (OSError, ValueError, KeyError, TypeError):
        return "unknown"  # somebody's own model.pt, which a demonstration must not replace


def _require_hub(model: str) -> None:
    from deepfake_deploy.export import HubUnreachableError
    from huggingface_hub import HfApi
    from huggingface_hub.errors import RepositoryNotFoundError

    try:
        HfApi().model_info(model, timeout=HUB_PATIENCE_SECONDS)
    except RepositoryNotFoundError:
        pass  # an answer, if not the wanted one: the export will say it
    except Exception:  # whatever it was (name server, proxy, HTTP 503)
        raise HubUnreachableError(f"{model}: the Hugging Face Hub cannot be reached") from None


def _classify(urls: list[str], paths: tuple[Path, ...], *, stand_in: bool) -> bool:
    """Print a verdict per image and protocol; False when an image got none."""
    complete, mark = True, "   [stand-in weights: meaningless]" if stand_in else ""
    with tempfile.TemporaryDirectory(prefix="deepfake-demo-") as folder:
        images = [file for path in paths for file in list_files(path)] if paths else _draw(Path(folder))
        if not images:
            fail(f"{', '.join(map(str, paths))}: no files in it")
        for url in urls:
            tell(f"\n{url}")
            with DeepfakeClient(url) as client:
                for image, result in zip(images, client.classify_many(images), strict=True):
                    if isinstance(result, Verdict):
                        told = f"{result.label}, {result.score:.1%}{mark}"
                    else:
                        told, complete = f"no verdict: {result.error}", False
                    tell(f"  {image if paths else image.name}: {told}")
    if not paths:
        tell("\nThe images were drawn by this program, so their verdicts only show that the path works.")
        tell("Your own:  make demo IMAGES='photo.jpg folder/'")
    return complete


def deepfake_command(arguments: str) -> str:
    """`.venv/bin/deepfake ARGUMENTS`, relative to the working directory: the user's shell may not find it by name."""
    return f"{Path(sys.executable).parent / 'deepfake'} {arguments}".replace(f"{Path.cwd()}/", "")


def _draw(folder: Path) -> list[Path]:
    """Write four pictures: the project ships no photo of anybody."""
    drawings = [
        ("drawing-1.jpg", (640, 800), ("bisque", "steelblue")),
        ("drawing-2.png", (512, 512), ("peru", "seagreen")),
        ("drawing-3.webp", (800, 600), ("sienna", "khaki")),
        ("drawing-4.jpg", (400, 400), ("wheat", "slategray")),
    ]
    for name, size, (middle, rim) in drawings:
        ImageOps.colorize(Image.radial_gradient("L"), middle, rim).resize(size).save(folder / name)
    return [folder / name for name, *_ in drawings]

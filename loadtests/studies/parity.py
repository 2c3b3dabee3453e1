"""What half precision costs: probabilities and labels of the served model beside transformers' own in fp32.

    python -m loadtests.studies.parity [--model stand-in] [--precision bf16 --precision fp16] [--images 300]

For each precision the checkpoint is exported into a copy of `model_repository/` and served by an embedded Triton. Seeded
drawings of different sizes, modes and content go through the client over gRPC, and through the model card's code.
"""

from __future__ import annotations

import argparse
import functools
import platform
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import psutil
import torch
from deepfake_client import DeepfakeClient, Verdict
from deepfake_deploy.embedded import EmbeddedTriton
from deepfake_deploy.export import STAND_IN, Precision, export_model
from deepfake_deploy.export.contract import read_labels
from deepfake_deploy.export.parity import varied_images
from deepfake_evaluation.card import open_reference
from deepfake_evaluation.parity import compare
from deepfake_evaluation.predictions import Prediction


class _Silent:
    """Nobody watches the steps."""

    def step(self, description: str) -> None: ...

    def advance(self) -> None: ...

    def aside(self) -> AbstractContextManager[None]:
        return nullcontext()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repository", type=Path, default=Path("model_repository"), help="whose labels.txt is used")
    parser.add_argument("--model", default=STAND_IN, help="Hub id, local folder or «stand-in» (default: %(default)s)")
    parser.add_argument("--revision", help="of a Hub id")
    parser.add_argument("--precision", action="append", type=Precision, help="fp32, bf16 or fp16; may be repeated")
    parser.add_argument("--images", type=int, default=300, help="(default: %(default)s)")
    options = parser.parse_args()
    labels = read_labels(options.repository)
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else f"{psutil.cpu_count()} cores, no GPU"
    print(f"{platform.machine()}, {device}, torch {torch.__version__}; {options.model}, {options.images} drawings")
    with (
        tempfile.TemporaryDirectory() as name,
        open_reference(options.model, options.revision, labels, _Silent()) as reference,
    ):
        folder = Path(name)
        files = list(_draw(folder, options.images))
        # Each drawing goes through transformers once, however many precisions are compared with it.
        expected = functools.cache(reference.probabilities)
        for precision in options.precision or [Precision.BF16]:
            repository = folder / precision.value
            shutil.copytree(
                options.repository, repository, ignore=shutil.ignore_patterns("model.pt", "provenance.json")
            )
            export_model(options.model, options.revision, precision, repository, _Silent())
            predictions = list(_classify(repository, folder, files))
            print("\n".join([f"{precision.value}:", *compare(predictions, labels, folder, expected).lines()]))
            shutil.rmtree(repository)


def _draw(folder: Path, count: int) -> Iterator[str]:
    for number, image in enumerate(varied_images(count)):
        name = f"{number:04}.{'tif' if image.mode == 'CMYK' else 'png'}"
        image.save(folder / name)
        yield name


def _classify(repository: Path, folder: Path, files: list[str]) -> Iterator[Prediction]:
    with EmbeddedTriton(repository) as server, DeepfakeClient(server.grpc_url, timeout=300) as client:
        results = client.classify_many([folder / file for file in files])
        for file, result in zip(files, results, strict=True):
            if not isinstance(result, Verdict):
                raise SystemExit(f"{file}: {result.error}")
            yield Prediction(file, result.label, tuple(result.scores.values()), None)


if __name__ == "__main__":
    main()

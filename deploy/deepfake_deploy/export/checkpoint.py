"""A checkpoint on disk, from wherever it was named: found, checked and loaded in fp32."""

from __future__ import annotations

import contextlib
import hashlib
import re
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from transformers import AutoImageProcessor, BaseImageProcessor, SiglipForImageClassification

from .errors import ExportError
from .hub import download_checkpoint
from .progress import Progress
from .silence import silent_transformers
from .stand_in import STAND_IN, write_stand_in

DEFAULT_MODEL = "prithivMLmods/Deepfake-vs-Real-8000"
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
_PICKLE_WEIGHTS = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")
_UNUSED_WEIGHTS = "vision_model.head."  # the attention pooling head, which the classifier does not call


@dataclass(frozen=True)
class Checkpoint:
    """Where a checkpoint came from and where it lies."""

    model_id: str
    """Hub id, local folder as given, or "stand-in"."""
    revision: str | None
    """Commit on the Hub; None for anything local."""
    folder: Path
    weights: str
    """"checkpoint", or "stand-in" for seeded random weights."""


@contextlib.contextmanager
def open_checkpoint(model: str, revision: str | None, labels: list[str], progress: Progress) -> Iterator[Checkpoint]:
    """The checkpoint named by a local folder, a Hub id or "stand-in"; never one in place of another.

    Raises:
        ExportError: it does not exist, or a revision is given for something that has none.
    """
    if model == STAND_IN or Path(model).expanduser().is_dir():
        if revision is not None:
            raise ExportError(f"{model}: a --revision belongs to a model on the Hub; leave it out")
        if model == STAND_IN:
            progress.step("Making stand-in weights")
            with tempfile.TemporaryDirectory(prefix="deepfake-stand-in-") as folder:
                write_stand_in(Path(folder), labels)
                yield Checkpoint(STAND_IN, None, Path(folder), STAND_IN)
        else:
            yield Checkpoint(model, None, Path(model).expanduser(), "checkpoint")
        return
    if not _HUB_ID.fullmatch(model):
        raise ExportError(
            f"{model}: no such folder; --model takes a folder, an id on the Hugging Face Hub, or {STAND_IN}"
        )
    progress.step(f"Fetching {model} from the Hugging Face Hub")
    with progress.aside():
        folder_on_disk = download_checkpoint(model, revision)
    yield Checkpoint(model, folder_on_disk.name, folder_on_disk, "checkpoint")


def weight_files(checkpoint: Checkpoint) -> list[Path]:
    """The safetensors files of a checkpoint, each with a whole header and body.

    Raises:
        ExportError: there are none, only pickles, or one is truncated.
    """
    folder, name = checkpoint.folder, checkpoint.model_id
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        pickles = sorted(path.name for pattern in _PICKLE_WEIGHTS for path in folder.glob(pattern))
        found = (
            f"only pickle weights ({', '.join(pickles)}), and loading a pickle runs code" if pickles else "no weights"
        )
        raise ExportError(f"{name}: {found}; safetensors are needed: save it with save_pretrained()")
    for path in files:
        try:
            with safe_open(path, framework="pt"):
                pass
        except SafetensorError as error:
            raise ExportError(f"{path}: truncated or damaged safetensors ({error}); fetch it again") from None
        except OSError as error:
            raise ExportError(f"{path}: {error.strerror or error}; make it readable") from None
    return files


def sha256_of(path: Path) -> str:
    """Hex digest of a file, read in blocks."""
    with path.open("rb") as file:
        digest = hashlib.sha256()
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def load_model(checkpoint: Checkpoint) -> SiglipForImageClassification:
    """The classifier in fp32, in evaluation mode, on the CPU, every weight of it from the checkpoint.

    Raises:
        ExportError: weights are missing or of other shapes than config.json says.
    """
    folder = checkpoint.folder
    try:
        with silent_transformers():
            loaded: Any = SiglipForImageClassification.from_pretrained(
                folder,
                dtype=torch.float32,
                use_safetensors=True,
                local_files_only=True,
                output_loading_info=True,
            )
    except (OSError, RuntimeError, ValueError, TypeError, SafetensorError) as error:
        raise ExportError(
            f"{checkpoint.model_id}: its weights do not fit its config.json: {_first_line(error)}"
        ) from None
    model: SiglipForImageClassification = loaded[0]
    loading: dict[str, Any] = loaded[1]
    # transformers fills what it misses with random numbers and goes on; a classifier with such weights is a coin.
    missing = sorted(key for key in loading["missing_keys"] if not key.startswith(_UNUSED_WEIGHTS))
    mismatched = sorted(str(key[0] if isinstance(key, tuple) else key) for key in loading["mismatched_keys"])
    if missing or mismatched:
        keys = missing + mismatched
        shown = ", ".join(keys[:3]) + (f" and {len(keys) - 3} more" if len(keys) > 3 else "")
        raise ExportError(
            f"{checkpoint.model_id}: its weights do not fit its config.json: missing or of another shape: {shown}; save "
            "the whole model with save_pretrained()"
        )
    model.eval()
    return model


def load_processor(checkpoint: Checkpoint) -> BaseImageProcessor:
    """transformers' own image processor of the checkpoint, in its Pillow form, which the contract is equal to."""
    with silent_transformers():
        processor: BaseImageProcessor = AutoImageProcessor.from_pretrained(
            checkpoint.folder, backend="pil", local_files_only=True
        )
    return processor


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)

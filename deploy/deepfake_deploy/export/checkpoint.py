"""A checkpoint on disk, from wherever it was named: found, checked and loaded in fp32."""

from __future__ import annotations

import contextlib
import hashlib
import json
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
_FLOATS = {"F32", "F16", "BF16", "F64"}
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
    if model == STAND_IN or _is_folder(model):
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
    files = _files_of(folder)
    if not files:
        pickles = sorted(path.name for pattern in _PICKLE_WEIGHTS for path in folder.glob(pattern))
        found = (
            f"only pickle weights ({', '.join(pickles)}), and loading a pickle runs code" if pickles else "no weights"
        )
        raise ExportError(f"{name}: {found}; safetensors are needed: save it with save_pretrained()")
    for path in files:
        try:
            with safe_open(path, framework="pt") as tensors:
                kinds = {tensors.get_slice(name).get_dtype() for name in tensors.keys()}  # noqa: SIM118 - no mapping
        except SafetensorError as error:
            raise ExportError(f"{path}: truncated or damaged safetensors ({error}); fetch it again") from None
        except OSError as error:
            raise ExportError(f"{path}: {error.strerror or error}; make it readable") from None
        if strange := sorted(kinds - _FLOATS):
            raise ExportError(
                f"{path}: holds {', '.join(strange)} tensors; weights in F32, F16, BF16 or F64 are expected"
            )
    return files


def _files_of(folder: Path) -> list[Path]:
    """What transformers loads: model.safetensors, or the shards that an index names."""
    index = folder / "model.safetensors.index.json"
    if (folder / "model.safetensors").is_file() or not index.is_file():
        return [path for path in [folder / "model.safetensors"] if path.is_file()]
    try:
        names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
        shards = [folder / name for name in names]
    except (OSError, ValueError, RecursionError, KeyError, AttributeError, TypeError):
        raise ExportError(f"{index}: not an index of safetensors shards; fetch or save the checkpoint again") from None
    for shard in shards:
        if shard.parent != folder or not shard.is_file():
            raise ExportError(f"{index}: names {shard.name}, which is not in the folder; fetch the checkpoint again")
    return shards


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
                ignore_mismatched_sizes=True,  # to be named below, where transformers only points to its log
                attn_implementation="sdpa",
                return_dict=True,
            )
    except Exception as error:  # a configuration can be wrong in as many ways as transformers has lines
        raise ExportError(
            f"{checkpoint.model_id}: transformers cannot load it: {_first_line(error)}; save it anew with save_pretrained()"
        ) from None
    model: SiglipForImageClassification = loaded[0]
    loading: dict[str, Any] = loaded[1]
    # transformers fills what it misses with random numbers and goes on; a classifier with such weights is a coin.
    missing = sorted(key for key in loading["missing_keys"] if not key.startswith(_UNUSED_WEIGHTS))
    mismatched = sorted(_mismatch(key) for key in loading["mismatched_keys"])
    if missing or mismatched:
        keys = missing + mismatched
        shown = ", ".join(keys[:3]) + (f" and {len(keys) - 3} more" if len(keys) > 3 else "")
        raise ExportError(
            f"{checkpoint.model_id}: its weights do not fit its config.json: missing or of another shape: {shown}; save "
            "the whole model with save_pretrained()"
        )
    model.eval()
    return model


def _mismatch(key: Any) -> str:
    """Name of a tensor of another shape, with both shapes where transformers tells them."""
    if not isinstance(key, tuple):
        return str(key)
    shapes = " and ".join(str(tuple(shape)) for shape in key[1:])
    return f"{key[0]} ({shapes})" if shapes else str(key[0])


def _is_folder(model: str) -> bool:
    try:
        return Path(model).expanduser().is_dir()
    except (OSError, RuntimeError, ValueError):
        return False  # too long, of no user, or with a null character: no folder at any rate


def load_processor(checkpoint: Checkpoint, backend: str | None = "pil") -> BaseImageProcessor:
    """transformers' own image processor of the checkpoint.

    Args:
        checkpoint: with a preprocessor_config.json.
        backend: its Pillow form, which the contract is equal to; None for what transformers takes by itself.

    Raises:
        ExportError: it cannot be loaded.
    """
    try:
        with silent_transformers():
            processor: BaseImageProcessor = AutoImageProcessor.from_pretrained(
                checkpoint.folder, backend=backend, local_files_only=True
            )
    except Exception as error:
        raise ExportError(
            f"{checkpoint.model_id}: transformers cannot load its image processor: {_first_line(error)}"
        ) from None
    return processor


def _first_line(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:300]}" if text else type(error).__name__

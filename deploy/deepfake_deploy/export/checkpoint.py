"""A checkpoint on disk, from wherever it was named: found, checked and loaded in fp32."""

from __future__ import annotations

import contextlib
import hashlib
import json
import mmap
import os
import re
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    HFValidationError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from safetensors import SafetensorError, safe_open
from transformers import AutoImageProcessor, BaseImageProcessor, SiglipConfig, SiglipForImageClassification
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

from .contract import IMAGE_SIZE, RESAMPLE
from .reporting import (
    ExportError,
    HubUnreachableError,
    Progress,
    one_line,
    silent_transformers,
)

STAND_IN = "stand-in"
STAND_IN_SEED = 8000
# Pickle weights never come to this machine: loading one runs whatever code its author put into it.
FETCHED_FILES = [
    "config.json",
    "preprocessor_config.json",
    "processor_config.json",  # of a whole processor; transformers prefers the image processor in it
    "adapter_config.json",
    "*.safetensors",
    "model.safetensors.index.json",
]
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
_PICKLE_WEIGHTS = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")
_FLOATS = {"F32", "F16", "BF16", "F64"}
_UNUSED_WEIGHTS = "vision_model.head."  # the attention pooling head, which the classifier does not call


@dataclass(frozen=True)
class Checkpoint:
    """Where a checkpoint came from (Hub id, folder as given or "stand-in") and where it lies.

    `revision` is the commit on the Hub; None for anything local.
    """

    model_id: str
    revision: str | None
    folder: Path

    @property
    def weights(self) -> str:
        """What the provenance calls them: "checkpoint" or "stand-in"."""
        return STAND_IN if self.model_id == STAND_IN else "checkpoint"


@contextlib.contextmanager
def open_checkpoint(model: str, revision: str | None, labels: list[str], progress: Progress) -> Iterator[Checkpoint]:
    """The checkpoint named by a local folder, a Hub id or "stand-in"; never one in place of another."""
    local = model == STAND_IN or _is_folder(model)
    if local and revision is not None:
        raise ExportError(f"{model}: a --revision belongs to a model on the Hub; leave it out")
    if model == STAND_IN:
        progress.step("Making stand-in weights")
        with tempfile.TemporaryDirectory(prefix="deepfake-stand-in-") as folder:
            write_stand_in(Path(folder), labels)
            yield Checkpoint(STAND_IN, None, Path(folder))
    elif local:
        try:
            name = os.fsencode(model).decode()  # in an ASCII locale an argument is no text yet
        except UnicodeDecodeError:
            raise ExportError(f"{model}: safetensors reads no folder whose name is not UTF-8; rename it") from None
        yield Checkpoint(name, None, Path(model).expanduser())
    elif _HUB_ID.fullmatch(model):
        progress.step(f"Fetching {model} from the Hugging Face Hub")
        snapshot = download_checkpoint(model, revision)
        yield Checkpoint(model, snapshot.name, snapshot)
    else:
        raise ExportError(f"{model}: no such folder; name a folder, an id on the Hugging Face Hub, or {STAND_IN}")


def _is_folder(model: str) -> bool:
    try:
        return Path(model).expanduser().is_dir()
    except (OSError, RuntimeError, ValueError):
        return False  # too long, of no user, or with a null character: no folder at any rate


def download_checkpoint(model_id: str, revision: str | None) -> Path:
    """Snapshot of a Hub model in the local cache; its folder is named by the commit that `revision` resolved to."""
    at = f"{model_id} at revision {revision}" if revision else model_id
    try:
        with silent_transformers():
            return Path(snapshot_download(model_id, revision=revision, allow_patterns=FETCHED_FILES))
    except GatedRepoError:
        raise ExportError(
            f"{model_id}: its owner asks you to accept conditions on its page first; then set HF_TOKEN"
        ) from None
    except (RevisionNotFoundError, UnicodeEncodeError):  # the latter where it is no text at all
        raise ExportError(f"{model_id}: no revision «{revision}»; name a branch, a tag or a commit of it") from None
    except (RepositoryNotFoundError, HFValidationError):
        raise ExportError(
            f"{model_id}: neither a folder here nor a model on the Hugging Face Hub (a private one needs HF_TOKEN)"
        ) from None
    except LocalEntryNotFoundError:
        raise HubUnreachableError(
            f"{at}: the Hugging Face Hub cannot be reached and it is not in the local cache; check the network, or "
            "name a local folder"
        ) from None
    except Exception as error:  # the disk, HTTP 5xx, a connection that broke midway
        raise ExportError(f"{at}: the download failed: {one_line(error)}; run the command again to go on") from None


def write_stand_in(folder: Path, labels: list[str]) -> None:
    """Write a checkpoint as transformers would, with `labels` in class order; the same bytes at every call."""
    with silent_transformers(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(STAND_IN_SEED)
        config = SiglipConfig(
            vision_config={"image_size": IMAGE_SIZE},  # transformers' defaults are google/siglip2-base-patch16-224's
            id2label=dict(enumerate(labels)),
            label2id={label: index for index, label in enumerate(labels)},
        )
        SiglipForImageClassification(config).save_pretrained(folder)
    SiglipImageProcessorPil(resample=int(RESAMPLE)).save_pretrained(folder)


def weight_files(checkpoint: Checkpoint) -> list[Path]:
    """The safetensors files of a checkpoint, each with a whole header and body."""
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
        names = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
        shards = sorted(folder / name for name in names)
        if all(shard.parent == folder and shard.is_file() for shard in shards):
            return shards
    except (OSError, ValueError, RecursionError, KeyError, AttributeError, TypeError):
        pass
    raise ExportError(f"{index}: not an index of safetensors files beside it; fetch or save the checkpoint again")


def sha256_of(path: Path) -> str:
    """Hex digest of a file, which is not empty."""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        return hashlib.sha256(content).hexdigest()


def load_model(checkpoint: Checkpoint) -> SiglipForImageClassification:
    """The classifier in fp32, in evaluation mode, on the CPU, every weight of it from the checkpoint."""
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
            f"{checkpoint.model_id}: transformers cannot load it: {one_line(error)}; save it anew with save_pretrained()"
        ) from None
    model: SiglipForImageClassification = loaded[0]
    loading: dict[str, Any] = loaded[1]
    # transformers fills what it misses with random numbers and goes on; a classifier with such weights is a coin.
    missing = sorted(key for key in loading["missing_keys"] if not key.startswith(_UNUSED_WEIGHTS))
    if keys := missing + sorted(key for key, *_ in loading["mismatched_keys"]):
        shown = ", ".join(keys[:3]) + (f" and {len(keys) - 3} more" if len(keys) > 3 else "")
        raise ExportError(
            f"{checkpoint.model_id}: its weights do not fit its config.json: missing or of another shape: {shown}; save "
            "the whole model with save_pretrained()"
        )
    model.eval()
    return model


def load_processor(checkpoint: Checkpoint, backend: str | None = "pil") -> BaseImageProcessor:
    """transformers' own image processor, in its Pillow form, which the contract is equal to.

    With None as `backend` it is what transformers takes by itself. Raises `ExportError` where it cannot be loaded.
    """
    try:
        with silent_transformers():
            processor: BaseImageProcessor = AutoImageProcessor.from_pretrained(
                checkpoint.folder, backend=backend, local_files_only=True, trust_remote_code=False
            )
    except Exception as error:
        raise ExportError(
            f"{checkpoint.model_id}: transformers cannot load its image processor: {one_line(error)}"
        ) from None
    return processor

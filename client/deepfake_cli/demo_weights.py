"""Which weights the demonstration serves: what is there, else the Hub's, else the stand-in."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

from deepfake_deploy.export import (
    DEFAULT_MODEL,
    FIRST_VERSION,
    MODEL_FILE,
    MODEL_NAME,
    PROVENANCE_FILE,
    STAND_IN,
    HubUnreachableError,
    Progress,
    export_model,
)
from huggingface_hub import HfApi
from huggingface_hub.constants import HF_HUB_OFFLINE
from huggingface_hub.errors import RepositoryNotFoundError

HUB_PATIENCE_SECONDS = 20.0


def prepare_weights(repository: Path, progress: Progress) -> tuple[str, str]:
    """Make sure that the repository has a model to serve.

    Returns:
        What it serves ("checkpoint" or "stand-in"), and a sentence about how it came to that.

    Raises:
        ExportError: the Hub answered and the export failed, or the repository cannot be written.
    """
    weights = _weights_of(repository)
    if weights not in (None, STAND_IN):
        return str(weights), f"Serving the weights that are in {repository}."
    try:
        if not HF_HUB_OFFLINE:  # else the cache is asked, which answers at once
            progress.step(f"Asking the Hugging Face Hub for {DEFAULT_MODEL}")
            _require_hub()
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
    folder = repository / MODEL_NAME / str(FIRST_VERSION)
    if not (folder / MODEL_FILE).is_file():
        return None
    try:
        provenance: dict[str, Any] = json.loads((folder / PROVENANCE_FILE).read_text())
        return str(provenance["weights"])
    except (OSError, ValueError, KeyError, TypeError):
        return "unknown"  # somebody's own model.pt, which a demonstration must not replace


def _require_hub() -> None:
    """Ask the Hub for the model's entry, in a thread: a name server that never answers heeds no timeout of ours."""
    answered = threading.Event()

    def ask() -> None:
        try:
            HfApi().model_info(DEFAULT_MODEL, timeout=HUB_PATIENCE_SECONDS)
        except RepositoryNotFoundError:
            answered.set()  # an answer, if not the wanted one: the export will say it
        except Exception:  # whatever it was (name server, proxy, HTTP 503), the Hub is out of reach
            return
        answered.set()

    thread = threading.Thread(target=ask, name="ask-hub", daemon=True)
    thread.start()
    thread.join(HUB_PATIENCE_SECONDS)
    if not answered.is_set():
        raise HubUnreachableError(f"{DEFAULT_MODEL}: the Hugging Face Hub cannot be reached")

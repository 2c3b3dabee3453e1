"""Checkpoints on the Hugging Face Hub: only configuration and safetensors are ever fetched."""

from __future__ import annotations

from pathlib import Path

from huggingface_hub import snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from .errors import ExportError, HubUnreachableError
from .silence import hub_bars_on_terminals_only

# Pickle weights never come to this machine: loading one runs whatever code its author put into it.
FETCHED_FILES = ["config.json", "preprocessor_config.json", "*.safetensors", "model.safetensors.index.json"]


def download_checkpoint(model_id: str, revision: str | None) -> Path:
    """Snapshot of a Hub model in the local cache; its folder is named by the commit that `revision` resolved to.

    Args:
        model_id: `owner/name`.
        revision: branch, tag or commit; None is the default branch.

    Raises:
        HubUnreachableError: no connection, and the revision is not in the cache.
        ExportError: the id or the revision is unknown, private or gated, or the download broke off.
    """
    at = f"{model_id} at revision {revision}" if revision else model_id
    try:
        with hub_bars_on_terminals_only():
            return Path(snapshot_download(model_id, revision=revision, allow_patterns=FETCHED_FILES))
    except GatedRepoError:
        raise ExportError(
            f"{model_id}: its owner asks you to accept conditions on its page first; then set HF_TOKEN"
        ) from None
    except RevisionNotFoundError:
        raise ExportError(f"{model_id}: no revision «{revision}»; name a branch, a tag or a commit of it") from None
    except (RepositoryNotFoundError, HFValidationError):
        raise ExportError(
            f"{model_id}: neither a folder here nor a model on the Hugging Face Hub (a private one needs HF_TOKEN)"
        ) from None
    except LocalEntryNotFoundError:
        raise HubUnreachableError(
            f"{at}: the Hugging Face Hub cannot be reached and it is not in the local cache; check the network, or "
            "give --model a local folder"
        ) from None
    except HfHubHTTPError as error:
        status = getattr(error.response, "status_code", "no status")
        raise ExportError(f"{at}: the Hugging Face Hub answered with HTTP {status}; try again later") from None
    except OSError as error:
        raise ExportError(f"{at}: the download failed: {_one_line(error)}; run the command again to go on") from None
    except Exception as error:
        # The Hub library lets its HTTP client's own connection errors through when a download breaks off midway.
        if _is_connection_error(error):
            raise HubUnreachableError(
                f"{at}: the connection to the Hugging Face Hub broke: {_one_line(error)}"
            ) from None
        raise


def _is_connection_error(error: BaseException) -> bool:
    return any(kind.__name__ in ("TransportError", "RequestException", "RequestError") for kind in type(error).__mro__)


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__

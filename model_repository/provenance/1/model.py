"""Triton's `provenance`: what `deepfake export` wrote about the weights that are served."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils

_MAX_BYTES = 1 << 20


class TritonPythonModel:
    """Tells of the weights that are loaded: as they were when the server began, or, where it polls, as they are."""

    def initialize(self, args: dict[str, str]) -> None:
        """Read what lies beside the weights that this server starts with."""
        self._repository = Path(args["model_repository"]).parent
        # Only a polling server loads what is written later.
        self._keeps = b"--model-control-mode=poll" not in Path(f"/proc/{os.getppid()}/cmdline").read_bytes()
        self._documents: dict[tuple[str, str], str] = {}
        for path in self._repository.glob("*/*/provenance.json"):
            self._document(path.parent.parent.name, path.parent.name)
        # As in image_decoder: should this process die, the server ends, and is replaced.
        watch = 'read -r farewell || kill -TERM "$0"'
        self._watcher = subprocess.Popen(["/bin/sh", "-c", watch, str(os.getppid())], stdin=subprocess.PIPE)

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        """Answer each question with the text of the file, or with "" where there is none."""
        return [self._answer(request) for request in requests]

    def finalize(self) -> None:
        """End the watcher without its alarm."""
        self._watcher.communicate(b"farewell\n")

    def _answer(self, request: Any) -> Any:
        asked = [
            pb_utils.get_input_tensor_by_name(request, name).as_numpy().reshape(-1) for name in ("model", "version")
        ]
        texts = [self._document(model.decode(), version.decode()) for model, version in zip(*asked, strict=True)]
        found = np.array([text.encode() for text in texts], dtype=object).reshape(-1, 1)
        return pb_utils.InferenceResponse(output_tensors=[pb_utils.Tensor("provenance", found)])

    def _document(self, model: str, version: str) -> str:
        known = self._documents.get((model, version))
        if known is not None:
            return known
        # Names come from anybody: only a folder that a listing shows is looked into.
        path = next(
            (
                folder / "provenance.json"
                for folder in self._repository.glob("*/*")
                if (folder.parent.name, folder.name) == (model, version)
            ),
            None,
        )
        try:
            text = path.read_text(encoding="utf-8") if path and path.stat().st_size <= _MAX_BYTES else ""
        except (OSError, UnicodeDecodeError):
            text = ""  # not written yet, or not by the export
        if text and self._keeps:
            self._documents[model, version] = text
        return text

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
        self._polls = b"--model-control-mode=poll" in Path(f"/proc/{os.getppid()}/cmdline").read_bytes()
        self._documents = self._read()
        # As in image_decoder: should this process die, the server ends, and is replaced.
        watch = 'read -r farewell || kill -TERM "$0"'
        self._watcher = subprocess.Popen(["/bin/sh", "-c", watch, str(os.getppid())], stdin=subprocess.PIPE)

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        """Answer each question with the text of the file, or with "" where there is none."""
        found = self._read()
        self._documents = found if self._polls else {**found, **self._documents}
        return [self._answer(request) for request in requests]

    def finalize(self) -> None:
        """End the watcher without its alarm."""
        self._watcher.communicate(b"farewell\n")

    def _answer(self, request: Any) -> Any:
        models, versions = (
            pb_utils.get_input_tensor_by_name(request, name).as_numpy().reshape(-1) for name in ("model", "version")
        )
        texts = [self._documents.get(names, b"") for names in zip(models, versions, strict=True)]
        found = np.array(texts, dtype=object).reshape(-1, 1)
        return pb_utils.InferenceResponse(output_tensors=[pb_utils.Tensor("provenance", found)])

    def _read(self) -> dict[tuple[bytes, bytes], bytes]:
        """The documents in the repository by model and version. Names asked for come from anybody, and open no file."""
        documents = {}
        for path in self._repository.glob("*/*/provenance.json"):
            try:
                if path.stat().st_size <= _MAX_BYTES:
                    documents[path.parent.parent.name.encode(), path.parent.name.encode()] = path.read_bytes()
            except OSError:
                continue  # of a version that was removed just now, or not for this user to read
        return documents

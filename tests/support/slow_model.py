"""A model that takes its time without a GPU: deepfake_vs_real's batching, and a pause in place of the network.

The pause is as long as a GPU's batch would take, scaled up: (images + 2) × SECONDS_PER_IMAGE, where 2 stands for the
launch. 64 images so take 0.66 s, and the capacity is 97 images a second.
"""

from __future__ import annotations

import re
from pathlib import Path

from tests.support.project import ROOT

SECONDS_PER_IMAGE = 0.01
BATCH = 64
CAPACITY = BATCH / ((BATCH + 2) * SECONDS_PER_IMAGE)

_MODEL = f"""
import time

import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def execute(self, requests):
        time.sleep((len(requests) + 2) * {SECONDS_PER_IMAGE})
        answer = [pb_utils.get_input_tensor_by_name(request, "pixels") for request in requests]
        return [pb_utils.InferenceResponse([pb_utils.Tensor("probabilities", each.as_numpy())]) for each in answer]
"""

_CONFIGURATION = """
name: "deepfake_vs_real"
backend: "python"
max_batch_size: 64
input [ { name: "pixels", data_type: TYPE_UINT8, dims: [ 1 ] } ]
output [ { name: "probabilities", data_type: TYPE_UINT8, dims: [ 1 ] } ]
instance_group [ { count: 1, kind: KIND_CPU } ]
"""


def write_repository(folder: Path) -> Path:
    """A model repository with the slow model and the production model's own dynamic batching."""
    production = (ROOT / "model_repository" / "deepfake_vs_real" / "config.pbtxt").read_text()
    assert f"max_batch_size: {BATCH}\n" in production
    (batching,) = re.findall(r"^dynamic_batching \{.*?^\}", production, re.MULTILINE | re.DOTALL)
    (folder / "deepfake_vs_real" / "1").mkdir(parents=True)
    (folder / "deepfake_vs_real" / "config.pbtxt").write_text(_CONFIGURATION + batching + "\n")
    (folder / "deepfake_vs_real" / "1" / "model.py").write_text(_MODEL)
    return folder

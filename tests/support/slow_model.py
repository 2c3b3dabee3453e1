"""A model that takes its time without a processor: deepfake_vs_real's batching on CPUs, and a pause in place of the network.

A batch takes (images + 2) × SECONDS_PER_IMAGE, where 2 stands for the launch: eight take 0.16 s, 50 a second at most.
"""

from __future__ import annotations

import re
from pathlib import Path

from tests.support.project import ROOT

SECONDS_PER_IMAGE = 0.016
#: Images a second that it holds with few waiting: four fifths of the most.
CAPACITY = 40

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
max_batch_size: 8
input [ { name: "pixels", data_type: TYPE_UINT8, dims: [ 1 ] } ]
output [ { name: "probabilities", data_type: TYPE_UINT8, dims: [ 1 ] } ]
"""


def write_repository(folder: Path) -> Path:
    """A model repository with the slow model, and the instances and the batching that ship for CPUs."""
    shipped = (ROOT / "model_repository" / "deepfake_vs_real" / "configs" / "cpu.pbtxt").read_text()
    assert "max_batch_size: 8\n" in shipped
    blocks = re.findall(r"^(?:instance_group \[|dynamic_batching \{).*?^[\]}]\n", shipped, re.MULTILINE | re.DOTALL)
    assert len(blocks) == 2
    (folder / "deepfake_vs_real" / "1").mkdir(parents=True)
    (folder / "deepfake_vs_real" / "config.pbtxt").write_text(_CONFIGURATION + "".join(blocks))
    (folder / "deepfake_vs_real" / "1" / "model.py").write_text(_MODEL)
    return folder

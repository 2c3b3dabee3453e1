"""A caller that knows nothing but the protocol: stubs generated from its definition, and the bytes of a photo."""

from __future__ import annotations

import struct
import subprocess
import sys
from pathlib import Path

import pytest
from deepfake_client import DeepfakeClient
from deepfake_deploy.embedded import EmbeddedTriton

from tests.support.calls import BareClient
from tests.support.pictures import encoded, photo_like
from tests.support.project import ROOT

CALL = """
import struct, sys
import grpc, kserve_v2_pb2 as messages, kserve_v2_pb2_grpc as service
image = open(sys.argv[1], "rb").read()
request = messages.ModelInferRequest(
    model_name="deepfake_vs_real_image",
    inputs=[messages.ModelInferRequest.InferInputTensor(name="image", datatype="BYTES", shape=[1, 1])],
    raw_input_contents=[struct.pack("<I", len(image)) + image],
)
output = request.outputs.add(name="probabilities")
output.parameters["classification"].int64_param = 2
with grpc.insecure_channel(sys.argv[2]) as channel:
    answer = service.GRPCInferenceServiceStub(channel).ModelInfer(request, timeout=30)
sys.stdout.buffer.write(answer.raw_output_contents[0])
"""


@pytest.fixture(scope="module")
def stubs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with the generated modules."""
    folder = tmp_path_factory.mktemp("stubs")
    proto = ROOT / "tests" / "support"
    command = [sys.executable, "-m", "grpc_tools.protoc", f"-I{proto}", f"--python_out={folder}"]
    subprocess.run([*command, f"--grpc_python_out={folder}", "kserve_v2.proto"], check=True, timeout=60)
    return folder


def test_generated_stubs_get_the_label_and_the_scores_that_the_client_gets(
    triton: EmbeddedTriton, stubs: Path, tmp_path: Path
) -> None:
    photo = tmp_path / "photo.jpg"
    photo.write_bytes(encoded(photo_like(500, 400, 12), "JPEG"))
    command = [sys.executable, "-c", CALL, photo, triton.grpc_url.removeprefix("grpc://")]
    run = subprocess.run(command, capture_output=True, timeout=60, cwd=stubs)
    assert run.returncode == 0, run.stderr.decode()
    classes, rest = [], run.stdout
    while rest:
        (length,) = struct.unpack_from("<I", rest)
        classes.append(rest[4 : 4 + length].decode().split(":"))
        rest = rest[4 + length :]
    with DeepfakeClient(triton.grpc_url) as client:
        verdict = client.classify(photo)
    assert classes[0][2] == verdict.label
    for score, _, label in classes:
        assert float(score) == pytest.approx(verdict.scores[label], abs=2e-6)


def test_nvidias_client_gets_the_same(url: str, tmp_path: Path) -> None:
    photo = tmp_path / "photo.png"
    photo.write_bytes(encoded(photo_like(300, 400, 13), "PNG"))
    with DeepfakeClient(url) as client, BareClient(url) as bare:
        verdict = client.classify(photo)
        probabilities = bare.classify_image(photo.read_bytes())[0]
    assert list(verdict.scores.values()) == pytest.approx(list(probabilities), abs=1e-6)

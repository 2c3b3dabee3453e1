"""What a caller learns of the weights, before a server that stands in and before a real one."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from deepfake_client import DeepfakeClient, ProtocolError, UnknownModelError

from tests.support.calls import BareClient
from tests.support.exports import exported_files
from tests.support.servers import running
from tests.support.variants import AnyClient

Make = Callable[..., AnyClient]
Fake = Callable[..., Any]
DOCUMENT = {
    "weights": "checkpoint",
    "model_id": "someone/faces",
    "revision": "0123abc",
    "precision": "bf16",
    "model_pt_sha256": "ff" * 32,
    "labels": ["Deepfake", "Real one"],
    "more": {"of": "it"},
}


def test_the_caller_learns_which_weights_answer(make_client: Make, fake: Fake) -> None:
    provenance = make_client(transport=fake(provenance=DOCUMENT, version="3")).provenance()
    assert (provenance.model_version, provenance.model_id, provenance.revision) == ("3", "someone/faces", "0123abc")
    assert (provenance.precision, provenance.model_pt_sha256) == ("bf16", "ff" * 32)
    assert provenance.labels == ("Deepfake", "Real one")
    assert not provenance.stand_in
    assert dict(provenance.document) == DOCUMENT


def test_random_weights_are_told_as_such(make_client: Make, fake: Fake) -> None:
    assert make_client(transport=fake(provenance={**DOCUMENT, "weights": "stand-in"})).provenance().stand_in


def test_a_server_without_provenance_is_no_failure(make_client: Make, fake: Fake) -> None:
    assert make_client(transport=fake()).provenance() is None


@pytest.mark.parametrize("document", [{}, {**DOCUMENT, "labels": 7}, {"weights": "checkpoint"}], ids=repr)
def test_a_document_that_is_none_of_the_exports_is_refused(make_client: Make, fake: Fake, document: dict) -> None:
    with pytest.raises(ProtocolError, match="deepfake export"):
        make_client(transport=fake(provenance=document)).provenance()


@pytest.mark.parametrize("decode", ["client", "server"])
def test_triton_tells_what_the_export_wrote(url: str, repository: Path, decode: Any) -> None:
    with DeepfakeClient(url, decode=decode) as client:
        provenance = client.provenance()
    assert provenance is not None
    assert dict(provenance.document) == json.loads(exported_files(repository)[1].read_text())
    assert provenance.model_version == "1"


def test_a_version_that_is_not_there_has_no_provenance(url: str) -> None:
    with DeepfakeClient(url) as client:
        assert client.provenance("77") is None


def test_a_model_that_is_not_there_is_named(url: str) -> None:
    with DeepfakeClient(url, model="nobody") as client, pytest.raises(UnknownModelError, match="nobody"):
        client.provenance()


@pytest.mark.parametrize(
    ("model", "version"),
    [("..", ".."), ("../provenance", "1"), ("deepfake_vs_real/1", ""), ("*", "*"), ("", ""), ("a" * 5000, "\x00")],
    ids=["up", "up and down", "a path", "a pattern", "nothing", "long"],
)
def test_names_lead_nowhere_but_to_the_models(url: str, model: str, version: str) -> None:
    with BareClient(url) as bare:
        inputs = []
        for name, value in (("model", model), ("version", version)):
            tensor = bare.module.InferInput(name, [1, 1], "BYTES")
            tensor.set_data_from_numpy(np.array([[value.encode()]], dtype=object))
            inputs.append(tensor)
        answer = bare.connection.infer("provenance", inputs)
    assert answer.as_numpy("provenance").tolist() == [[b""]]


@pytest.mark.slow
def test_weights_written_while_the_old_ones_are_served_are_not_claimed(repository: Path, tmp_path: Path) -> None:
    served = Path(shutil.copytree(repository, tmp_path / "model_repository"))
    _, provenance_file = exported_files(served)
    before = json.loads(provenance_file.read_text())
    with running(served) as triton, DeepfakeClient(triton.grpc_url) as client:
        provenance_file.write_text(json.dumps({**before, "model_pt_sha256": "00" * 32}))
        provenance = client.provenance()
        assert provenance is not None
        assert provenance.model_pt_sha256 == before["model_pt_sha256"]

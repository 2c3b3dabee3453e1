"""Results go into a queue, a cache, a JSON document and a FastAPI endpoint as they are."""

from __future__ import annotations

import copy
import dataclasses
import json
import pickle
import warnings
from typing import Any

import deepfake_client
import pytest
from deepfake_client import (
    DecisionPolicy,
    DeepfakeError,
    Failure,
    ImageCorruptError,
    ImageLimits,
    InferRequest,
    InferResponse,
    ModelConfig,
    ModelInfo,
    ModelMetadata,
    ModelQuery,
    OverloadedError,
    PolicyEvidence,
    Provenance,
    RequestedOutput,
    RequestOutcome,
    ServerError,
    Tensor,
    TensorInfo,
    TLSConfig,
    Verdict,
)
from fastapi import FastAPI
from fastapi.testclient import TestClient
from pydantic import BaseModel, TypeAdapter

CORRUPT = ImageCorruptError("truncated JPEG", source="a.jpg", request_id="7", endpoint="grpc://a:1", attempts=2)
FULL = OverloadedError("the queue is full", endpoint="grpc://a:1", attempts=3, retry_after_seconds=1.5)
EVIDENCE = PolicyEvidence(100, 100, 0.05, 0.95, 1, 0.04, 2, 0.06, 5, 0.1, 0.02)
PIXELS = Tensor("UINT8", (1, 1), b"\x07")
TENSOR_INFO = TensorInfo("pixels", "UINT8", (-1, 224, 224, 3))

#: What calls, hooks and files give to a caller.
RESULTS: dict[str, Any] = {
    "DecisionPolicy": DecisionPolicy(2.0, 0.9, None, "deepfake_vs_real", "1", "0" * 64, evidence=EVIDENCE),
    "Failure": Failure("a.jpg", CORRUPT),
    "ModelInfo": ModelInfo(
        "deepfake_vs_real", "1", ("Deepfake", "Real one"), (224, 224, 3), "UINT8", 64, None, "pytorch"
    ),
    "PolicyEvidence": EVIDENCE,
    "Provenance": Provenance(
        "1", "checkpoint", "a/b", None, "fp32", "0" * 64, ("Deepfake", "Real one"), {"parity": {"images": [1, 2.5]}}
    ),
    "RequestOutcome": RequestOutcome("infer", "deepfake_vs_real", "grpc://a:1", "7", 1, 3, 0.5, 100, 8, FULL),
    "Verdict": Verdict(
        "Deepfake", {"Deepfake": 0.75, "Real one": 0.25}, "a.jpg", "deepfake_vs_real", "1", "7", "unsure"
    ),
}
#: What a caller makes, and what a transport of the caller's own takes and gives; holds credentials or tensors.
OTHERS: dict[str, Any] = {
    "ImageLimits": ImageLimits(),
    "InferRequest": InferRequest("m", "", "7", {"pixels": PIXELS}, (RequestedOutput("probabilities"),), 1000),
    "InferResponse": InferResponse("m", "1", "7", {"probabilities": PIXELS}),
    "ModelConfig": ModelConfig("pytorch", 64, 0, 0),
    "ModelMetadata": ModelMetadata("m", ("1",), (TENSOR_INFO,), (TENSOR_INFO,)),
    "ModelQuery": ModelQuery("m"),
    "RequestedOutput": RequestedOutput("probabilities"),
    "TLSConfig": TLSConfig("ca.pem"),
    "Tensor": PIXELS,
    "TensorInfo": TENSOR_INFO,
}
PUBLIC = {name: getattr(deepfake_client, name) for name in deepfake_client.__all__}
ERRORS = [kind for kind in PUBLIC.values() if isinstance(kind, type) and issubclass(kind, DeepfakeError)]

every_result = pytest.mark.parametrize("result", RESULTS.values(), ids=RESULTS)
every_value = pytest.mark.parametrize("value", [*RESULTS.values(), *OTHERS.values()], ids=[*RESULTS, *OTHERS])


def test_no_public_dataclass_is_missing_here() -> None:
    public = {name for name, value in PUBLIC.items() if dataclasses.is_dataclass(value)}
    assert public == RESULTS.keys() | OTHERS.keys()
    assert all(type(value) is PUBLIC[name] for name, value in (RESULTS | OTHERS).items())


@every_value
def test_it_can_be_copied_pickled_hashed_and_compared(value: Any) -> None:
    copies = [copy.copy(value), copy.deepcopy(value), dataclasses.replace(value)]
    copies += [pickle.loads(pickle.dumps(value, protocol)) for protocol in range(pickle.HIGHEST_PROTOCOL + 1)]  # noqa: S301
    for each in copies:
        assert type(each) is type(value)
        assert (each, hash(each), repr(each)) == (value, hash(value), repr(value))
    assert dataclasses.asdict(value).keys() == {field.name for field in dataclasses.fields(value)}


@every_result
def test_json_gives_its_dictionary_back(result: Any) -> None:
    plain = result.to_dict()
    assert json.loads(json.dumps(plain, allow_nan=False)) == plain


def test_the_dictionaries_hold_the_fields_and_errors_as_their_text() -> None:
    assert RESULTS["ModelInfo"].to_dict() == {
        "name": "deepfake_vs_real",
        "version": "1",
        "labels": ["Deepfake", "Real one"],
        "input_shape": [224, 224, 3],
        "input_datatype": "UINT8",
        "max_batch_size": 64,
        "max_queue_size": None,
        "backend": "pytorch",
    }
    assert RESULTS["Failure"].to_dict() == {"source": "a.jpg", "error": "a.jpg: truncated JPEG"}
    assert RESULTS["RequestOutcome"].to_dict()["error"] == "grpc://a:1: the queue is full (3 attempts)"
    assert RESULTS["Provenance"].to_dict()["document"] == {"parity": {"images": [1, 2.5]}}
    assert RESULTS["DecisionPolicy"].to_dict()["evidence"] == EVIDENCE.to_dict()


@every_result
def test_pydantic_takes_it_as_it_is_and_reads_it_again(result: Any) -> None:
    adapter = TypeAdapter(type(result))
    assert adapter.validate_python(result) == result
    text = adapter.dump_json(result)
    again = adapter.validate_json(text)
    assert type(again) is type(result)
    assert adapter.dump_json(again) == text
    assert adapter.validate_python(adapter.dump_python(result, mode="json")) == again
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for mode in ("validation", "serialization"):
            assert adapter.json_schema(mode=mode)["properties"].keys() == {f.name for f in dataclasses.fields(result)}


def test_pydantic_tells_a_verdict_from_a_failure_and_an_error_is_its_text() -> None:
    adapter: TypeAdapter[Any] = TypeAdapter(Verdict | Failure)
    for name in ("Verdict", "Failure"):
        assert adapter.validate_python(RESULTS[name]) == RESULTS[name]
        assert type(adapter.validate_json(adapter.dump_json(RESULTS[name]))) is PUBLIC[name]
    assert json.loads(adapter.dump_json(RESULTS["Failure"])) == RESULTS["Failure"].to_dict()
    schema = TypeAdapter(Failure).json_schema()
    assert schema["properties"]["error"] == {"title": "Error", "type": "string"}


def test_a_model_of_the_callers_may_hold_results() -> None:
    class Report(BaseModel):
        results: list[Verdict | Failure]
        worst: DeepfakeError | None = None

    report = Report(results=[RESULTS["Verdict"], RESULTS["Failure"]], worst=FULL)
    assert json.loads(report.model_dump_json())["worst"] == str(FULL)
    assert [type(each) for each in Report.model_validate_json(report.model_dump_json()).results] == [Verdict, Failure]


@every_result
def test_an_endpoint_may_return_it(result: Any) -> None:
    kind = type(result)
    app = FastAPI()
    app.get("/model", response_model=kind)(lambda: result)
    app.get("/several", response_model=list[kind])(lambda: [result])  # type: ignore[valid-type]
    app.get("/plain")(lambda: result)

    def annotated() -> Any:
        return result

    annotated.__annotations__["return"] = kind
    app.get("/with_annotation")(annotated)
    client = TestClient(app)
    expected = json.loads(TypeAdapter(kind).dump_json(result))
    assert client.get("/model").json() == client.get("/with_annotation").json() == expected
    assert client.get("/several").json() == [expected]
    assert client.get("/plain").json().keys() == expected.keys()
    assert client.get("/openapi.json").status_code == 200


def test_an_endpoint_without_a_type_shows_what_the_error_carries() -> None:
    app = FastAPI()
    app.get("/")(lambda: RESULTS["Failure"])
    shown = TestClient(app).get("/").json()
    assert shown == {"source": "a.jpg", "error": vars(CORRUPT)}


@pytest.mark.parametrize("kind", ERRORS, ids=lambda kind: kind.__name__)
def test_every_error_keeps_all_that_it_carries(kind: type[DeepfakeError]) -> None:
    context = {"retry_after_seconds": 2.5} if issubclass(kind, ServerError) else {}
    error = kind("reason", source="a.jpg", request_id="7", endpoint="grpc://a:1", attempts=3, **context)
    copies = [copy.copy(error), copy.deepcopy(error), dataclasses.asdict(Failure(None, error))["error"]]
    copies += [pickle.loads(pickle.dumps(error, protocol)) for protocol in range(pickle.HIGHEST_PROTOCOL + 1)]  # noqa: S301
    for each in copies:
        assert type(each) is kind
        assert (vars(each), str(each), each.args) == (vars(error), str(error), error.args)
        assert (each, hash(each)) == (error, hash(error))
    assert error != kind("reason")
    assert TypeAdapter(kind).validate_python(error) is error
    assert TypeAdapter(kind).dump_python(error, mode="json") == str(error)

"""A gRPC server that speaks as much of the KServe v2 protocol as a load needs, and fails on demand."""

from __future__ import annotations

import struct
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import grpc
from tritonclient.grpc import service_pb2, service_pb2_grpc

LABELS = (b"Deepfake", b"Real one")

#: Called with the number of an image, counted from 0, and the call's context; returns its scores, or aborts.
Behaviour = Callable[[int, Any], tuple[float, float]]


class _Servicer(service_pb2_grpc.GRPCInferenceServiceServicer):
    """Answers as `behaviour` says, apart from questions for the labels."""

    def __init__(self, behaviour: Behaviour) -> None:
        self._behaviour = behaviour
        self._lock = threading.Lock()
        self._images = 0

    def ModelInfer(self, request: Any, context: Any) -> Any:  # noqa: N802 - the protocol's name
        answer = service_pb2.ModelInferResponse(model_name=request.model_name, model_version="1", id=request.id)
        if request.outputs[0].parameters["classification"].int64_param:
            names = [f"0.5:{index}:{label.decode()}".encode() for index, label in enumerate(LABELS)]
            answer.outputs.add(name="probabilities", datatype="BYTES", shape=[1, 2])
            answer.raw_output_contents.append(b"".join(struct.pack("<I", len(name)) + name for name in names))
            return answer
        with self._lock:
            number = self._images
            self._images += 1
        scores = self._behaviour(number, context)
        answer.outputs.add(name="probabilities", datatype="FP32", shape=[1, 2])
        answer.raw_output_contents.append(struct.pack("<2f", *scores))
        return answer

    def ModelMetadata(self, request: Any, context: Any) -> Any:  # noqa: N802, ARG002
        answer = service_pb2.ModelMetadataResponse(name=request.name, versions=["1"])
        answer.inputs.add(name="pixels", datatype="UINT8", shape=[-1, 224, 224, 3])
        answer.outputs.add(name="probabilities", datatype="FP32", shape=[-1, 2])
        return answer

    def ModelConfig(self, request: Any, context: Any) -> Any:  # noqa: N802, ARG002
        return service_pb2.ModelConfigResponse()


@contextmanager
def fake_triton(behaviour: Behaviour, port: int = 0) -> Iterator[str]:
    """The URL of a server that answers as `behaviour` says."""
    server = grpc.server(ThreadPoolExecutor(16))
    service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(_Servicer(behaviour), server)
    port = server.add_insecure_port(f"127.0.0.1:{port}")
    server.start()
    try:
        yield f"grpc://127.0.0.1:{port}"
    finally:
        server.stop(None).wait()

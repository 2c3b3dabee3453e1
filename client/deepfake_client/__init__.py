"""Asks a Triton Inference Server whether images are deepfakes.

    from deepfake_client import DeepfakeClient

    with DeepfakeClient("grpc://127.0.0.1:8001") as client:
        verdict = client.classify("photo.jpg")
        print(verdict.label, verdict.score)

`DeepfakeClient` is for threads, `AsyncDeepfakeClient` for asyncio; both have the same methods. Errors derive from
`DeepfakeError`. `FakeTransport` stands in for the server in your tests. `deepfake_client.preprocessing` is what turns
images into the model's pixels.
"""

from ._async_client import AsyncDeepfakeClient
from ._calls import CallOptions, RequestOutcome
from ._client import DeepfakeClient
from ._credentials import TLSConfig
from ._errors import (
    AccessDeniedError,
    ClientClosedError,
    ConnectionFailedError,
    DeadlineExceededError,
    DeepfakeError,
    ImageCorruptError,
    ImageError,
    ImageFormatError,
    ImageReadError,
    ImageTooLargeError,
    InternalServerError,
    InvalidArgumentError,
    NotReadyError,
    OverloadedError,
    PolicyMismatchError,
    ProtocolError,
    RequestError,
    RequestRejectedError,
    ServerError,
    TLSError,
    UnknownModelError,
    VerdictLogError,
    WireError,
)
from ._model_info import ModelInfo, Provenance
from ._policy import DecisionPolicy, PolicyEvidence
from ._transports.base import (
    AsyncTransport,
    InferRequest,
    InferResponse,
    ModelConfig,
    ModelMetadata,
    ModelQuery,
    RequestedOutput,
    Tensor,
    TensorInfo,
    Transport,
)
from ._transports.fake import AsyncFakeTransport, FakeTransport
from ._verdict import Failure, Verdict
from .preprocessing import ImageLimits

__all__ = [
    "AccessDeniedError",
    "AsyncDeepfakeClient",
    "AsyncFakeTransport",
    "AsyncTransport",
    "CallOptions",
    "ClientClosedError",
    "ConnectionFailedError",
    "DeadlineExceededError",
    "DecisionPolicy",
    "DeepfakeClient",
    "DeepfakeError",
    "Failure",
    "FakeTransport",
    "ImageCorruptError",
    "ImageError",
    "ImageFormatError",
    "ImageLimits",
    "ImageReadError",
    "ImageTooLargeError",
    "InferRequest",
    "InferResponse",
    "InternalServerError",
    "InvalidArgumentError",
    "ModelConfig",
    "ModelInfo",
    "ModelMetadata",
    "ModelQuery",
    "NotReadyError",
    "OverloadedError",
    "PolicyEvidence",
    "PolicyMismatchError",
    "ProtocolError",
    "Provenance",
    "RequestError",
    "RequestOutcome",
    "RequestRejectedError",
    "RequestedOutput",
    "ServerError",
    "TLSConfig",
    "TLSError",
    "Tensor",
    "TensorInfo",
    "Transport",
    "UnknownModelError",
    "Verdict",
    "VerdictLogError",
    "WireError",
]

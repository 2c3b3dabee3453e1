"""Asks a Triton Inference Server whether images are deepfakes.

    from deepfake_client import DeepfakeClient

    with DeepfakeClient("grpc://127.0.0.1:8001") as client:
        verdict = client.classify("photo.jpg")
        print(verdict.label, verdict.score)

`DeepfakeClient` is for threads, `AsyncDeepfakeClient` for asyncio; both have the same methods. Errors derive from
`DeepfakeError`. `FakeTransport` stands in for the server in your tests. `deepfake_client.preprocessing` is what turns
images into the model's pixels.
"""

import importlib
import typing

from ._calls import CallOptions, RequestOutcome
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

# Who decodes images loads no grpc, aiohttp or urllib3: the clients come when they are first asked for.
if typing.TYPE_CHECKING:
    from ._async_client import AsyncDeepfakeClient
    from ._client import DeepfakeClient
else:
    _CLIENTS = {"AsyncDeepfakeClient": "._async_client", "DeepfakeClient": "._client"}

    def __getattr__(name: str) -> object:
        if name not in _CLIENTS:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        found = getattr(importlib.import_module(_CLIENTS[name], __name__), name)
        return globals().setdefault(name, found)

    def __dir__() -> list[str]:
        return sorted({*globals(), *_CLIENTS})

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

# Modules are loaded when a name of theirs is first asked for: who decodes images loads no grpc.
if typing.TYPE_CHECKING:
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
else:
    # Those that load little come first.
    _MODULES = (
        "_errors",
        "preprocessing",
        "_credentials",
        "_calls",
        "_transports.base",
        "_policy",
        "_model_info",
        "_verdict",
        "_transports.fake",
        "_client",
        "_async_client",
    )

    def __getattr__(name: str) -> object:
        if name == "preprocessing":
            return importlib.import_module(f"{__name__}.{name}")
        if name in __all__:
            for module in _MODULES:
                found = getattr(importlib.import_module(f"{__name__}.{module}"), name, None)
                if found is not None:
                    return globals().setdefault(name, found)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__, "preprocessing"})

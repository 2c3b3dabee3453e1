"""Which error of ours a server's message stands for. Shared by gRPC and HTTP, whose codes for the same thing differ."""

from __future__ import annotations

import re

from ._errors import (
    AccessDeniedError,
    DeepfakeError,
    ImageCorruptError,
    ImageError,
    ImageFormatError,
    ImageReadError,
    ImageTooLargeError,
    NotReadyError,
    OverloadedError,
    RequestRejectedError,
    UnknownModelError,
)

# Triton tells these apart by text only: a full queue, a server that stops and (over gRPC) a restricted API all are
# UNAVAILABLE or 503. Seen on 2.51; lower case.
_OVERLOADED = ("exceeds maximum queue size", "request timeout expired", "too many requests")
_RESTRICTED = ("protocol is restricted", "api is restricted", "restricted")
_UNKNOWN_MODEL = ("unknown model", "is not found", "has no version", "model not found")
# A server that starts or stops says "unknown model … has no available versions", with the code of an unknown model.
_NOT_READY = ("no available versions", "not at ready state", "is not ready", "stopped accepting", "server is stopping")
_REJECTED = ("larger than max", "exceeds maximum message size", "message too large", "unexpected shape")


# How the server's `image_decoder` words what is wrong with an image: the error's name in brackets, then the reason.
_IMAGE_ERROR = re.compile(r"\[(Image\w*Error)\] (.+)", re.DOTALL)
_IMAGE_ERRORS: dict[str, type[ImageError]] = {
    kind.__name__: kind
    for kind in (ImageError, ImageReadError, ImageFormatError, ImageTooLargeError, ImageCorruptError)
}


def from_message(message: str) -> DeepfakeError | None:
    """The error that `message` itself names, whatever code it came with."""
    if (found := _IMAGE_ERROR.search(message)) and found[1] in _IMAGE_ERRORS:
        return _IMAGE_ERRORS[found[1]](found[2])
    text = message.lower()
    if any(mark in text for mark in _OVERLOADED):
        return OverloadedError(f"the server is overloaded: {message}")
    if any(mark in text for mark in _RESTRICTED):
        return AccessDeniedError(f"restricted on this server: {message}")
    if any(mark in text for mark in _NOT_READY):
        return not_ready(message)
    if any(mark in text for mark in _UNKNOWN_MODEL):
        return UnknownModelError(f"the server does not have this model: {message}")
    if any(mark in text for mark in _REJECTED):
        return RequestRejectedError(f"refused by the server: {message}")
    return None


def not_ready(message: str) -> NotReadyError:
    return NotReadyError(f"the server is not ready: {message}" if message else "the server is not ready")

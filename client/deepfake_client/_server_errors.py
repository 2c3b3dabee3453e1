"""Which error of ours a server's message stands for. Shared by gRPC and HTTP, whose codes for the same thing differ."""

from __future__ import annotations

from ._errors import (
    AccessDeniedError,
    DeepfakeError,
    NotReadyError,
    OverloadedError,
    RequestRejectedError,
    UnknownModelError,
)

# Triton tells these apart by text only: a full queue, a server that stops and (over gRPC) a restricted API all are
# UNAVAILABLE or 503. Seen on 2.51; lower case.
_OVERLOADED = ("exceeds maximum queue size", "request timeout expired", "too many requests")
_RESTRICTED = ("protocol is restricted", "api is restricted", "restricted")
_UNKNOWN_MODEL = ("unknown model", "is not found", "no available versions", "has no version", "model not found")
_NOT_READY = ("is not ready", "not accepting", "stopped accepting", "server is stopping", "unavailable", "exiting")
_REJECTED = ("larger than max", "exceeds maximum message size", "message too large", "unexpected shape")


def from_message(message: str) -> DeepfakeError | None:
    """The error that `message` itself names, whatever code it came with."""
    text = message.lower()
    if any(mark in text for mark in _OVERLOADED):
        return OverloadedError(f"the server is overloaded: {message}")
    if any(mark in text for mark in _RESTRICTED):
        return AccessDeniedError(f"restricted on this server: {message}")
    if any(mark in text for mark in _UNKNOWN_MODEL):
        return UnknownModelError(f"the server does not have this model: {message}")
    if any(mark in text for mark in _REJECTED):
        return RequestRejectedError(f"refused by the server: {message}")
    return None


def is_not_ready(message: str) -> bool:
    """Whether a 400 or an internal error only says that the server is starting or stopping."""
    text = message.lower()
    return any(mark in text for mark in _NOT_READY)


def not_ready(message: str) -> NotReadyError:
    return NotReadyError(f"the server is not ready: {message}" if message else "the server is not ready")

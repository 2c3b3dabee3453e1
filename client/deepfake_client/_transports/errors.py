"""What a server's words, a `Retry-After` header or a broken connection mean, as errors of this package."""

from __future__ import annotations

import asyncio
import re
import socket
import ssl
from collections.abc import Iterator
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime

from .._errors import (
    AccessDeniedError,
    ConnectionFailedError,
    DeadlineExceededError,
    DeepfakeError,
    ImageCorruptError,
    ImageError,
    ImageFormatError,
    ImageReadError,
    ImageTooLargeError,
    NotReadyError,
    OverloadedError,
    ProtocolError,
    RequestRejectedError,
    TLSError,
    UnknownModelError,
    one_line,
)

# Triton tells these apart by text only: a full queue, a server that stops and (over gRPC) a restricted API all are
# UNAVAILABLE or 503. Seen on 2.51; lower case.
_OVERLOADED = ("exceeds maximum queue size", "request timeout expired", "too many requests")
_RESTRICTED = ("restricted",)
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


def seconds_until(value: str | None) -> float | None:
    """Reads `Retry-After` (RFC 9110, 10.2.3): seconds to wait, from a number or an HTTP date; None without either."""
    if value is None:
        return None
    text = value.strip()
    # Some gateways send fractions, which the RFC does not know.
    if re.fullmatch(r"\d{1,9}(\.\d{1,9})?", text):
        return float(text)
    try:
        moment = parsedate_to_datetime(text)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=timezone.utc)
    return max(0.0, (moment - datetime.now(timezone.utc)).total_seconds())


def from_http_failure(error: BaseException, endpoint: str, *, late: bool) -> DeepfakeError:
    """The error of ours for what urllib3 or aiohttp raised; `late` when the deadline of the call has passed.

    Only the reason goes on, never the library's error.
    """
    causes = list(_causes(error))
    if (tls := _tls_failure(causes)) is not None:
        return tls
    names = " ".join(type(cause).__name__ for cause in causes)
    if _is_any(causes, TimeoutError, asyncio.TimeoutError) or "ReadTimeoutError" in names:
        if late:
            return DeadlineExceededError("no answer before the deadline")
        return ConnectionFailedError("the connection timed out")
    if _is_any(causes, ConnectionRefusedError):
        return ConnectionFailedError("connection refused: is the server running, and is this its HTTP port?")
    if _is_any(causes, socket.gaierror):
        return ConnectionFailedError("the host name does not resolve")
    if "BadStatusLine" in names or "InvalidHeader" in names:
        return ConnectionFailedError(f"not an HTTP endpoint, or the answer was cut: is {endpoint} Triton's HTTP port?")
    if _is_any(causes, ValueError, RuntimeError):
        return ProtocolError("the request could not be made")
    text = next((str(cause) for cause in reversed(causes) if str(cause)), type(error).__name__)
    return ConnectionFailedError(f"the connection failed: {one_line(text, 200)}")


def _causes(error: BaseException) -> Iterator[BaseException]:
    """`error` and what it was raised for; the libraries wrap the system's error several times."""
    found: list[BaseException] = []
    queue: list[object] = [error]
    while queue and len(found) < 20:
        current = queue.pop(0)
        if isinstance(current, BaseException) and current not in found:
            found.append(current)
            yield current
            # Not the context, which may be an error that the caller was about to handle.
            queue += [current.__cause__, *current.args, getattr(current, "os_error", None)]


def _is_any(causes: list[BaseException], *kinds: type[BaseException]) -> bool:
    return any(isinstance(cause, kinds) for cause in causes)


def _tls_failure(causes: list[BaseException]) -> TLSError | None:
    """The refusal of TLS itself, which no retry mends; a connection cut during the handshake is none."""
    failures = [cause for cause in causes if isinstance(cause, ssl.SSLError)]
    if _is_any(causes, ssl.SSLCertVerificationError):
        return TLSError(
            "the TLS connection was refused: its certificate is not trusted or is for another name; pass "
            "tls=TLSConfig(ca_file=…) for a private CA"
        )
    # OpenSSL's names for what went wrong; aiohttp derives errors from ssl's that lack it.
    reasons = [getattr(cause, "reason", None) for cause in failures]
    if any(reason in ("WRONG_VERSION_NUMBER", "HTTP_REQUEST", "RECORD_LAYER_FAILURE") for reason in reasons):
        return TLSError("the TLS connection was refused: the port does not speak TLS; use http:// for plain text")
    reason = next((reason for reason in reasons if reason not in (None, "UNEXPECTED_EOF_WHILE_READING")), None)
    return None if reason is None else TLSError(f"the TLS connection was refused: {reason}")

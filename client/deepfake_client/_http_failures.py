"""What a failed HTTP connection means, shared by sync and async. Only the reason goes on, never the library's error."""

from __future__ import annotations

import socket
import ssl

from ._errors import ConnectionFailedError, TLSError, one_line

#: A replica whose address no longer answers must not take the whole deadline of a call.
CONNECT_SECONDS = 5.0


def _causes(error: BaseException) -> list[BaseException]:
    """`error` and what it was raised for; the libraries wrap the system's error several times."""
    found: list[BaseException] = []
    queue: list[object] = [error]
    while queue and len(found) < 20:
        current = queue.pop(0)
        if isinstance(current, BaseException) and current not in found:
            found.append(current)
            queue += [current.__cause__, current.__context__, *current.args, getattr(current, "os_error", None)]
    return found


def is_tls_failure(error: BaseException) -> bool:
    """Whether TLS itself was refused, which no retry mends. A connection cut during the handshake is not that."""
    return any(
        isinstance(cause, (ssl.SSLCertVerificationError, ssl.CertificateError))
        or (isinstance(cause, ssl.SSLError) and _reason(cause) not in (None, "UNEXPECTED_EOF_WHILE_READING"))
        for cause in _causes(error)
    )


def _reason(error: BaseException) -> str | None:
    """OpenSSL's name for what went wrong; aiohttp derives errors from ssl's that lack it."""
    return getattr(error, "reason", None) if isinstance(error, ssl.SSLError) else None


def tls_failed(error: BaseException) -> TLSError:
    reasons = [_reason(cause) for cause in _causes(error)]
    if any(reason in ("WRONG_VERSION_NUMBER", "HTTP_REQUEST", "RECORD_LAYER_FAILURE") for reason in reasons):
        return TLSError("the TLS connection was refused: the port does not speak TLS; use http:// for plain text")
    if any(isinstance(cause, ssl.SSLCertVerificationError) for cause in _causes(error)):
        return TLSError(
            "the TLS connection was refused: its certificate is not trusted or is for another name; pass "
            "tls=TLSConfig(ca_file=…) for a private CA"
        )
    return TLSError(f"the TLS connection was refused: {next(filter(None, reasons), 'handshake failed')}")


def connection_failed(error: BaseException | str, endpoint: str) -> ConnectionFailedError:
    if isinstance(error, str):
        return ConnectionFailedError(f"the connection {error}")
    causes = _causes(error)
    if any(isinstance(cause, ConnectionRefusedError) for cause in causes):
        return ConnectionFailedError("connection refused: is the server running, and is this its HTTP port?")
    if any(isinstance(cause, socket.gaierror) or "resolve" in type(cause).__name__.lower() for cause in causes):
        return ConnectionFailedError("the host name does not resolve")
    if any("badstatusline" in (type(cause).__name__ + str(cause)).lower().replace(" ", "") for cause in causes):
        return ConnectionFailedError(f"not an HTTP endpoint, or the answer was cut: is {endpoint} Triton's HTTP port?")
    text = next((str(cause) for cause in reversed(causes) if str(cause)), type(error).__name__)
    return ConnectionFailedError(f"the connection failed: {one_line(text, 200)}")

"""Every error this package raises.

    DeepfakeError
    ├── ImageError                  this image gets no verdict, whatever the server does
    │   ├── ImageReadError          its bytes could not be read (missing, a folder, no permission, a device)
    │   ├── ImageFormatError        not an image, or in a format that is not decoded
    │   ├── ImageTooLargeError      over the limit of bytes or pixels
    │   └── ImageCorruptError       an image, but truncated or damaged
    ├── RequestError                as it stands, this request will never be answered
    │   ├── InvalidArgumentError    refused here, before anything was sent (also a ValueError)
    │   ├── RequestRejectedError    refused by the server as malformed
    │   ├── PolicyMismatchError     the decision policy was fitted for other weights than the server's
    │   └── ClientClosedError       sent through a client that was closed
    ├── ServerError                 the server answered, with an error
    │   ├── OverloadedError         its queue is full, or the request waited there too long   [retried]
    │   ├── NotReadyError           starting, stopping, or behind a gateway that has no pod   [retried]
    │   ├── UnknownModelError       no such model or version
    │   ├── AccessDeniedError       a missing or wrong credential, or a restricted API
    │   └── InternalServerError     the model or the server failed
    ├── WireError                   no usable answer came back
    │   ├── ConnectionFailedError   refused, reset, unresolvable, closed by a restart         [retried]
    │   │   └── TLSError            the certificate is not trusted, or there is no TLS on that port
    │   ├── DeadlineExceededError   no answer before the deadline (also a TimeoutError)
    │   └── ProtocolError           the answer is not what the KServe v2 protocol promises
    └── VerdictLogError             there is a verdict, but the verdict log that must hold it cannot be written

Those marked [retried] are raised only when the retries or the time for them have run out. `str()` of each is one
line; each can be copied, pickled and compared. None carries an object, a traceback or a type of Pillow, gRPC, aiohttp or
urllib3.
"""

from __future__ import annotations

from typing import Any, ClassVar, TypeVar

# Longer messages come from proxies that answer with a web page; the head of it says what there is to know.
_MAX_REASON_CHARS = 400


E = TypeVar("E", bound="DeepfakeError")


def one_line(text: str, limit: int = _MAX_REASON_CHARS) -> str:
    """`text` without line breaks and control characters, at most `limit` characters long."""
    # Cut before the split as well: a name or a server's answer can be megabytes long.
    flat = " ".join(text[: limit * 4].split())
    flat = "".join(char if char.isprintable() else "�" for char in flat)
    return flat if len(flat) <= limit else flat[: limit - 1] + "…"


class DeepfakeError(Exception):
    """Base of all errors of this package.

    Attributes:
        reason: what was wrong and what to do about it, without the name of the image or the endpoint.
        source: name of the image, where it has one (a path, or the name of a file object).
        request_id: the id sent to the server, to be found in its log.
        endpoint: URL of the replica that was asked last; never holds a credential.
        attempts: requests sent to the server for this call, 0 when none was.
    """

    retryable: ClassVar[bool] = False
    reason: str

    def __init__(
        self,
        reason: str,
        *,
        source: str | None = None,
        request_id: str | None = None,
        endpoint: str | None = None,
        attempts: int = 0,
    ) -> None:
        super().__init__(reason)
        self.reword(reason)
        self.source = source
        self.request_id = request_id
        self.endpoint = endpoint
        self.attempts = attempts

    def __str__(self) -> str:
        names = [one_line(name, 200) for name in (self.source, self.endpoint) if name]
        detail = f" ({self.attempts} attempts)" if self.attempts > 1 else ""
        return ": ".join([*names, self.reason]) + detail

    def __eq__(self, other: object) -> bool:
        """Whether the other says and carries the same, as results that were copied or pickled do."""
        return vars(self) == vars(other) if type(self) is type(other) else NotImplemented

    def __hash__(self) -> int:
        return hash((type(self), self.reason))

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: Any) -> Any:
        """For pydantic and FastAPI, an error is its text."""
        from pydantic_core import core_schema  # only pydantic itself calls this

        text = core_schema.no_info_after_validator_function(cls, core_schema.str_schema())
        return core_schema.json_or_python_schema(
            json_schema=text,
            python_schema=core_schema.union_schema([core_schema.is_instance_schema(cls), text]),
            serialization=core_schema.to_string_ser_schema(),
        )

    def reword(self, reason: str) -> None:
        """Replaces the reason everywhere the error shows it."""
        self.reason = one_line(reason)
        self.args = (self.reason,)


class ImageError(DeepfakeError):
    """What was wrong with the image. No request was sent for it."""

    def __str__(self) -> str:
        return f"{one_line(self.source or 'image', 200)}: {self.reason}"


class ImageReadError(ImageError):
    """The bytes of the image could not be read: missing, a folder, no permission, a device or a pipe."""


class ImageFormatError(ImageError):
    """Not an image, or an image in a format or variant that is not decoded (SVG, HEIC, float pixels, …)."""


class ImageTooLargeError(ImageError):
    """The image is over `ImageLimits.max_bytes` or `ImageLimits.max_pixels`, or a side is over 65,535 pixels."""


class ImageCorruptError(ImageError):
    """The file begins as an image but is damaged, or ends before the image does: the part gets no verdict."""


class RequestError(DeepfakeError):
    """What was wrong with the request. Sending it again as it is cannot succeed."""


class InvalidArgumentError(RequestError, ValueError):
    """An argument was refused before anything was sent."""


class RequestRejectedError(RequestError):
    """The server refused the request as malformed: wrong shape, type or size."""


class PolicyMismatchError(RequestError):
    """The client's decision policy was fitted for other weights than the server's, so it gives no decisions on them."""


class ClientClosedError(RequestError):
    """The client was closed before this call, or while it ran."""


class ServerError(DeepfakeError):
    """The server, or a gateway before it, answered with an error."""

    def __init__(self, reason: str, *, retry_after_seconds: float | None = None, **context: Any) -> None:
        super().__init__(reason, **context)
        #: seconds after which the server asked to be tried again, where it said so
        self.retry_after_seconds = retry_after_seconds


class OverloadedError(ServerError):
    """The queue of the model is full, or the request waited there for as long as its deadline allowed."""

    retryable = True


class NotReadyError(ServerError):
    """The server is starting or stopping, or a gateway has no server behind it (502, 503, 504)."""

    retryable = True


class UnknownModelError(ServerError):
    """The server has no such model, or not in that version."""


class AccessDeniedError(ServerError):
    """A credential is missing or wrong, or the API is restricted on this server."""


class InternalServerError(ServerError):
    """The model or the server failed on this request."""


class WireError(DeepfakeError):
    """No usable answer came back."""


class ConnectionFailedError(WireError):
    """The connection was refused, reset or closed, or the name did not resolve."""

    retryable = True


class TLSError(ConnectionFailedError):
    """The server's certificate is not trusted or is for another name, or the port does not speak TLS."""

    retryable = False


class DeadlineExceededError(WireError, TimeoutError):
    """No answer came before the deadline of the call."""


class ProtocolError(WireError):
    """The answer does not follow the KServe v2 protocol, or does not fit the model's contract."""


class VerdictLogError(DeepfakeError):
    """The verdict log cannot be written, so the verdict is not given: what is acted on must be on record."""


def bare(error: E) -> E:
    """`error` without what it was made from.

    The errors of Pillow, gRPC and urllib3, and the frames of this package with the headers among their variables, would else
    travel with it into whatever prints or collects tracebacks.
    """
    error.__cause__ = error.__context__ = None
    return error.with_traceback(None)

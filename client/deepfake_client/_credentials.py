"""TLS files, tokens and headers: what proves who the caller is. Nothing here shows a secret by `repr` or `str`."""

from __future__ import annotations

import os
import re
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from ._errors import InvalidArgumentError

#: A bearer token, or a function that returns the current one (called before each attempt, so that it can be rotated).
Token: TypeAlias = str | Callable[[], str]

Headers: TypeAlias = tuple[tuple[str, str], ...]

_NAME = re.compile(r"[a-z0-9!#$&'*+.^_`|~-]+")
_VALUE = re.compile(r"[\x20-\x7e]*")
_TRACEPARENT = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}(-.*)?")
# These frame the message itself or its answer; a second one makes servers and proxies disagree about where it ends.
# Names that begin or end as here are gRPC's own.
_RESERVED = re.compile(
    "accept-encoding|connection|content-(encoding|length|range|type)|expect|host|http2-settings|"
    "inference-header-content-length|keep-alive|proxy-connection|range|te|trailer|transfer-encoding|upgrade|grpc-.*|.*-bin"
)


@dataclass(frozen=True, slots=True)
class TLSConfig:
    """Files for `grpcs://` and `https://`, each in PEM format.

    Attributes:
        ca_file: certificates to trust in place of the default ones, for a server with a private CA.
        cert_file, key_file: the client's own certificate chain and its unencrypted key, for mutual TLS.
    """

    ca_file: str | os.PathLike[str] | None = None
    cert_file: str | os.PathLike[str] | None = None
    key_file: str | os.PathLike[str] | None = None

    def __post_init__(self) -> None:
        if (self.cert_file is None) != (self.key_file is None):
            raise InvalidArgumentError("mutual TLS needs both cert_file and key_file")

    def read(self) -> tuple[bytes | None, bytes | None, bytes | None]:
        """The contents of (ca_file, key_file, cert_file), as gRPC takes them."""
        self.ssl_context()  # gRPC reports a bad file only as a failed connection, long after
        files = (self.ca_file, self.key_file, self.cert_file)
        ca, key, chain = (None if file is None else Path(file).read_bytes() for file in files)
        return ca, key, chain

    def ssl_context(self) -> ssl.SSLContext:
        """A context that verifies the server and its name, for HTTP."""
        try:
            context = ssl.create_default_context(cafile=self.ca_file)
            if self.cert_file is not None:
                context.load_cert_chain(self.cert_file, self.key_file, password=_no_password)
        except (OSError, ValueError) as error:
            # The files are named, their contents never are.
            names = ", ".join(str(name) for name in (self.ca_file, self.cert_file, self.key_file) if name is not None)
            reason = getattr(error, "strerror", None) or "not in PEM format, encrypted, or of another certificate"
            raise InvalidArgumentError(f"the TLS files cannot be used ({names}): {reason}") from None
        return context


def _no_password() -> str:
    # Without this OpenSSL asks for the password on the terminal, and a service hangs there.
    raise ValueError("the key is encrypted")


class Identity:
    """The headers of every request of one client, a bearer token included."""

    def __init__(self, headers: Mapping[str, str] | None, token: Token | None) -> None:
        self._headers = checked_headers(headers)
        self._token = token
        if token is not None and any(name == "authorization" for name, _ in self._headers):
            raise InvalidArgumentError("pass either token= or an authorization header, not both")
        if isinstance(token, str):
            checked_headers({"authorization": token})

    def __repr__(self) -> str:
        return f"<Identity of {len(self._headers) + (self._token is not None)} headers>"

    def __reduce__(self) -> str | tuple[object, ...]:
        raise TypeError("credentials cannot be pickled")

    @property
    def empty(self) -> bool:
        return not self._headers and self._token is None

    def headers(self, extra: Headers = ()) -> Headers:
        """All headers of a request that is sent now; those of the call, `extra`, replace the client's."""
        if self._token is None and not extra:
            return self._headers
        merged = dict(self._headers)
        if self._token is not None:
            token = self._token if isinstance(self._token, str) else _current(self._token)
            merged.update(checked_headers({"authorization": f"Bearer {token}"}))
        merged.update(extra)
        return tuple(merged.items())


def redact(text: str, headers: Headers) -> str:
    """`text` without the values of `headers`, for a gateway that repeats in its error what it was sent."""
    for _, value in headers:
        for secret in {value, value.removeprefix("Bearer ")}:
            if len(secret) >= 4:
                text = text.replace(secret, "[redacted]")
    return text


def checked_headers(headers: Mapping[str, str] | None, traceparent: str | None = None) -> Headers:
    """Lower-case headers as pairs. What is refused is named, and its value never repeated."""
    pairs: dict[str, str] = {}
    for name, value in (headers or {}).items():
        lower = name.lower() if isinstance(name, str) else ""
        if not _NAME.fullmatch(lower) or _RESERVED.fullmatch(lower):
            raise InvalidArgumentError(f"{name!r:.80} cannot be used as a header")
        if not isinstance(value, str) or not _VALUE.fullmatch(value):
            raise InvalidArgumentError(f"the value of header {lower} must be printable ASCII text")
        pairs[lower] = value
    if traceparent is not None:
        if not isinstance(traceparent, str) or not _TRACEPARENT.fullmatch(traceparent):
            raise InvalidArgumentError("traceparent must look like 00-<32 hex digits>-<16 hex digits>-01 (W3C)")
        pairs["traceparent"] = traceparent
    return tuple(pairs.items())


def _current(token: Callable[[], str]) -> str:
    try:
        return token()
    except Exception as error:
        # Its text may hold the secret.
        raise InvalidArgumentError(f"the token= function raised {type(error).__name__}") from None

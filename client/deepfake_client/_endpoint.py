"""From the URL a user writes to the address of one replica."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from ._errors import InvalidArgumentError, one_line

# 8001 and 8000 are Triton's own ports. TLS is mostly ended by an ingress or a gateway, and those listen on 443.
_DEFAULT_PORTS = {"grpc": 8001, "grpcs": 443, "http": 8000, "https": 443}
_HOST = re.compile(r"[A-Za-z0-9._-]+|\[?[0-9A-Fa-f:.]+(%[A-Za-z0-9._-]+)?\]?")
_PATH = re.compile(r"(/(?!\.\.?(/|$))[A-Za-z0-9._~-]+)*")


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where one replica, or one name that stands for several, is reached."""

    scheme: str
    host: str
    port: int
    path: str = ""

    @property
    def secure(self) -> bool:
        return self.scheme in ("grpcs", "https")

    @property
    def is_grpc(self) -> bool:
        return self.scheme in ("grpc", "grpcs")

    @property
    def is_loopback(self) -> bool:
        return self.host in ("localhost", "::1") or self.host.startswith("127.")

    @property
    def authority(self) -> str:
        """`host:port`, with brackets around an IPv6 address."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    def __str__(self) -> str:
        return f"{self.scheme}://{self.authority}{self.path}"


def parse_endpoint(url: str) -> Endpoint:
    """Reads `grpc://host[:8001]`, `grpcs://host[:443]`, `http://host[:8000][/prefix]` or `https://host[:443][/prefix]`.

    Anything else is refused, a user name or password too. The message never repeats what may be a credential.
    """
    if not isinstance(url, str):
        raise InvalidArgumentError(f"url must be a string, not {type(url).__name__}")
    try:
        if not url.isprintable():
            raise ValueError  # urlsplit would drop line breaks and go on
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        raise InvalidArgumentError("the url cannot be read: write grpc://host:8001 or http://host:8000") from None
    if parts.username is not None or parts.password is not None:
        raise InvalidArgumentError("the url holds a user name or password: pass token= or headers= in its place")
    shown = one_line(f"{parts.scheme}://{parts.netloc}" if parts.netloc else url, 100)
    if parts.scheme not in _DEFAULT_PORTS:
        raise InvalidArgumentError(
            f"{shown}: the url must begin with grpc://, grpcs://, http:// or https://, as grpc://127.0.0.1:8001"
        )
    if not _HOST.fullmatch(host):
        raise InvalidArgumentError(f"{shown}: the url names no valid host")
    if parts.query or parts.fragment:
        raise InvalidArgumentError(f"{shown}: the url must not have a query or a fragment")
    path = parts.path.rstrip("/")
    if not _PATH.fullmatch(path) or (path and parts.scheme.startswith("grpc")):
        raise InvalidArgumentError(f"{shown}: the url must not have such a path")
    if port == 0:
        raise InvalidArgumentError(f"{shown}: port 0 cannot be connected to")
    return Endpoint(parts.scheme, host, _DEFAULT_PORTS[parts.scheme] if port is None else port, path)


def parse_endpoints(url: str | Sequence[str]) -> tuple[Endpoint, ...]:
    """One URL or several, without repetitions, in the order given."""
    urls = [url] if isinstance(url, str) else url
    if not isinstance(urls, (list, tuple)) or not urls:
        raise InvalidArgumentError("url must be a string or a list of strings with at least one")
    return tuple(dict.fromkeys(parse_endpoint(each) for each in urls))

"""TLS and token files that are named on a command line: checked at once, and read again whenever they are needed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from deepfake_client import InvalidArgumentError, TLSConfig

_SECURE = ("grpcs://", "https://")


@dataclass(frozen=True, slots=True)
class CredentialFiles:
    """What proves to a server who calls, as files; holds no secret itself, so it may be shown and pickled.

    Attributes:
        tls_ca: certificates to trust in place of the default ones, PEM.
        tls_cert, tls_key: the caller's certificate and its key, PEM, for mutual TLS.
        token_file: its text is the bearer token; read before each request, so that it can be renewed.
    """

    tls_ca: Path | None = None
    tls_cert: Path | None = None
    tls_key: Path | None = None
    token_file: Path | None = None

    def check(self, urls: Sequence[str]) -> None:
        """Whether the files can be used with `urls`.

        Raises:
            InvalidArgumentError: they cannot; names files, and never what is in them.
        """
        if (self.tls_cert is None) != (self.tls_key is None):
            raise InvalidArgumentError("a TLS certificate and its key go together; name both, or neither")
        if (tls := self.tls) is not None:
            plain = next((url for url in urls if not url.startswith(_SECURE)), None)
            if plain is not None:
                raise InvalidArgumentError(f"{plain}: TLS files are for grpcs:// and https:// URLs")
            tls.ssl_context()
        if self.token_file is not None:
            _read_token(self.token_file)

    @property
    def tls(self) -> TLSConfig | None:
        """For the client's `tls=`; None where no file is named."""
        if self.tls_ca is None and self.tls_cert is None and self.tls_key is None:
            return None
        return TLSConfig(self.tls_ca, self.tls_cert, self.tls_key)

    @property
    def token(self) -> Callable[[], str] | None:
        """For the client's `token=`; None where no file is named."""
        file = self.token_file
        return None if file is None else lambda: _read_token(file)


def _read_token(file: Path) -> str:
    try:
        token = file.read_text(encoding="ascii").strip()
    except OSError as error:
        raise InvalidArgumentError(f"{file}: the token cannot be read ({error.strerror})") from None
    except UnicodeDecodeError:
        token = ""
    if not token or not token.isprintable() or " " in token:
        raise InvalidArgumentError(f"{file}: no token in it; one word of printable ASCII was expected")
    return token

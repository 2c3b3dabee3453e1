"""Options that several commands share, and the client that those of a server describe."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import click
from deepfake_client import DeepfakeClient, DeepfakeError, InvalidArgumentError, TLSConfig
from deepfake_client._images import is_address

from .console import fail

_T = TypeVar("_T")
_Command = TypeVar("_Command", bound=Callable[..., Any])
_SECURE = ("grpcs://", "https://")


class GivenPath(click.ParamType[Path]):
    """A path, existing or not; but not an empty word, which pathlib would take for the current folder."""

    name = "path"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        if not str(value):
            self.fail("empty; is a variable not set?", param, ctx)
        if is_address(str(value)):
            self.fail(f"{str(value)[:100]}: an address, and this takes files: download it first", param, ctx)
        return Path(value)


def file_option(name: str, description: str, *names: str) -> Callable[[_Command], _Command]:
    """An option that names a file."""
    return click.option(name, *names, type=GivenPath(), metavar="FILE", help=description)


def repository_option(description: str) -> Callable[[_Command], _Command]:
    """--repository, as `make` has it."""
    default = Path("model_repository")
    return click.option("--repository", type=GivenPath(), default=default, show_default=True, help=description)


concurrency_option = click.option(
    "--concurrency", type=click.IntRange(1, 256), default=16, show_default=True, help="Requests in flight."
)

decoding_option = click.option(
    "--decoding",
    type=click.Choice(["exact", "fast"]),
    default="exact",
    show_default=True,
    help="fast: in a fraction of the time where no side of a JPEG is under 896 pixels, a few grey levels off.",
)


@dataclass(frozen=True, slots=True)
class CredentialFiles:
    """What proves to a server who calls, as files, like the options of these names.

    Holds no secret itself, so it may be shown and pickled.
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
            for url in urls:
                if not url.startswith(_SECURE):
                    raise InvalidArgumentError(f"{url}: TLS files are for grpcs:// and https:// URLs")
            tls.ssl_context()
        if self.token_file is not None:
            _read_token(self.token_file)

    @property
    def tls(self) -> TLSConfig | None:
        """For the client's `tls=`; None where no file is named."""
        files = (self.tls_ca, self.tls_cert, self.tls_key)
        return TLSConfig(*files) if any(files) else None

    @property
    def token(self) -> Callable[[], str] | None:
        """For the client's `token=`; None where no file is named."""
        file = self.token_file
        return None if file is None else lambda: _read_token(file)


@dataclass(frozen=True, slots=True)
class Server:
    """The server that the options name."""

    url: str
    timeout: float
    credentials: CredentialFiles

    def client(self, **options: Any) -> DeepfakeClient:
        """A client for it; `options` are further ones of `DeepfakeClient`."""
        return DeepfakeClient(
            self.url, timeout=self.timeout, tls=self.credentials.tls, token=self.credentials.token, **options
        )

    @contextmanager
    def ready_client(self, **options: Any) -> Iterator[DeepfakeClient]:
        """The same; ends the command where no server answers.

        Asked first: a server that is away is one error at once, not one for each file after its retries.
        """
        with self.client(**options) as client:
            if not client.ready():
                taken = "" if self.credentials.tls is None else ", or does not take this certificate"
                fail(f"{self.url}: no server answers there, or it is not ready{taken}; start one with `deepfake serve`")
            yield client


def server_options(command: Callable[..., _T]) -> Callable[..., _T]:
    """Adds --url, --timeout and those of TLS and tokens; the command gets them as `server`, checked."""

    @click.option("--url", default="grpc://127.0.0.1:8001", show_default=True, help="grpc, grpcs, http or https.")
    @file_option("--tls-ca", "Authority to trust, PEM; else the system's.")
    @file_option("--tls-cert", "Your certificate for mutual TLS, PEM.")
    @file_option("--tls-key", "Its key, PEM, not encrypted.")
    @file_option("--token-file", "Bearer token for a gateway; read for each request.")
    @click.option(
        "--timeout",
        type=click.FloatRange(0, min_open=True),
        default=30.0,
        show_default=True,
        help="Seconds that one image may take, retries included.",
    )
    @functools.wraps(command)
    def with_server(
        url: str,
        timeout: float,
        tls_ca: Path | None,
        tls_cert: Path | None,
        tls_key: Path | None,
        token_file: Path | None,
        **others: Any,
    ) -> _T:
        credentials = CredentialFiles(tls_ca, tls_cert, tls_key, token_file)
        try:
            credentials.check([url])
        except DeepfakeError as error:
            fail(str(error), status=2)
        return command(server=Server(url, timeout, credentials), **others)

    return with_server


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

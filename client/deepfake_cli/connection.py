"""Options of the commands that ask a server, and the client that they describe."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import click
from deepfake_client import DeepfakeClient, DeepfakeError

from .console import fail
from .credentials import CredentialFiles
from .given_path import GivenPath

_T = TypeVar("_T")

_OPTIONS = (
    click.option("--url", default="grpc://127.0.0.1:8001", show_default=True, help="grpc, grpcs, http or https."),
    click.option("--tls-ca", type=GivenPath(), metavar="FILE", help="Authority to trust, PEM; else the system's."),
    click.option("--tls-cert", type=GivenPath(), metavar="FILE", help="Your certificate for mutual TLS, PEM."),
    click.option("--tls-key", type=GivenPath(), metavar="FILE", help="Its key, PEM, not encrypted."),
    click.option(
        "--token-file", type=GivenPath(), metavar="FILE", help="Bearer token for a gateway; read for each request."
    ),
    click.option(
        "--timeout",
        type=click.FloatRange(0, min_open=True),
        default=30.0,
        show_default=True,
        help="Seconds that one image may take, retries included.",
    ),
)
concurrency_option = click.option(
    "--concurrency", type=click.IntRange(1, 256), default=16, show_default=True, help="Requests in flight."
)


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

    @functools.wraps(command)
    def with_server(
        *,
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

    described: Callable[..., _T] = with_server
    for option in reversed(_OPTIONS):
        described = option(described)
    return described

"""The options that the locustfile adds to Locust's own, and the argparse types that check them."""

from __future__ import annotations

import math
from argparse import ArgumentTypeError, Namespace
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from deepfake_cli.options import CredentialFiles

from .answers import SCORE_TOLERANCE

GRPC_SCHEMES = ("grpc", "grpcs")
HTTP_SCHEMES = ("http", "https")


def checked(wanted: str, holds: Callable[[Any], bool], kind: type = float) -> Callable[[str], Any]:
    """An argparse type: a number of `kind` that `holds`; the error says what is `wanted`."""

    def parse(text: str) -> Any:
        value = kind(text)
        if not holds(value):
            raise ArgumentTypeError(f"must be {wanted}, not {text}")
        return value

    parse.__name__ = kind.__name__  # for argparse's own error, when it is no number
    return parse


share = checked("between 0 and 1", lambda value: 0 <= value <= 1)
part = checked("0 or more and below 1", lambda value: 0 <= value < 1)
zero_or_more = checked("0 or more", lambda value: 0 <= value < math.inf)
above_zero = checked("above 0", lambda value: 0 < value < math.inf)
one_or_more = checked("1 or more", lambda value: value >= 1, int)
image_side = checked("512 at least", lambda value: value >= 512, int)

# Name → type, default and help; those of the second group do not show in Locust's web page.
_IN_THE_PAGE = {
    "--image-side": (image_side, 512, "width and height of the JPEG files, 512 at least"),
    "--repeat-rate": (share, 0.0, "share of requests that repeat an image on purpose, to study a response cache"),
    "--known-rate": (share, 0.05, "share of requests whose scores are known and compared"),
    "--known-answers": (str, "", "output of `deepfake classify --format jsonl` to compare with; else the server's own"),
    "--score-tolerance": (share, SCORE_TOLERANCE, "how far a score may be from the known one"),
    "--rate": (zero_or_more, 0.0, "open loop: requests per second of each user, answered or not; 0: closed loop"),
    "--deadline-seconds": (above_zero, 30.0, "how long a request waits for its answer"),
    "--slo-p95-ms": (zero_or_more, 0.0, "95 %% of all requests must be answered rightly in so many ms; 0: no target"),
    "--max-failure-rate": (share, 0.0, "share of requests that may fail"),
}
# --tls-cert and --tls-key are Locust's own, for its web page.
_ON_THE_COMMAND_LINE = {
    "--wait-ready-seconds": (zero_or_more, 0.0, "how long to wait for a server that is not ready yet, before the load"),
    "--client-tls-ca": (str, "", "grpcs:// and https://: authority to trust, PEM; else the system's"),
    "--client-tls-cert": (str, "", "grpcs:// and https://: the users' certificate for mutual TLS, PEM"),
    "--client-tls-key": (str, "", "its key, PEM, not encrypted"),
    "--token-file": (str, "", "bearer token for a gateway; read for each request"),
    "--shape-base": (share, 0.25, "spike, diurnal: share of --users at the quietest"),
    "--shape-steps": (one_or_more, 5, "steps: how many, of equal height and length"),
    "--spike-share": (share, 0.2, "spike: share of the run time at the top"),
    "--shape-days": (one_or_more, 1, "diurnal: days that the run time stands for"),
}


def add_options(parser: Any) -> None:
    add = parser.add_argument
    add("--payload", choices=["pixels", "image"], default="pixels", help="image: JPEG files, which the server decodes")
    add("--arrivals", choices=["poisson", "constant"], default="poisson", help="of the open loop")
    shapes = ["steps", "spike", "soak", "diurnal"]
    add("--shape", choices=shapes, include_in_web_ui=False, help="default: constant load")
    for shown, options in ((True, _IN_THE_PAGE), (False, _ON_THE_COMMAND_LINE)):
        for name, (kind, default, what) in options.items():
            text = what if default == "" else f"{what} (default: {default:g})"
            add(name, type=kind, default=default, metavar="", include_in_web_ui=shown, help=text)


def credentials(options: Namespace) -> CredentialFiles:
    files = (options.client_tls_ca, options.client_tls_cert, options.client_tls_key, options.token_file)
    return CredentialFiles(*(Path(file) if file else None for file in files))


def client_options(payload: str, deadline_seconds: float, files: CredentialFiles) -> dict[str, Any]:
    """For either client: no retries, so that every failure is seen, and no waiting for a connection."""
    return {
        "decode": "server" if payload == "image" else "client",
        "timeout": deadline_seconds,
        "tls": files.tls,
        "token": files.token,
        "max_retries": 0,
        "max_connections": 100_000,
    }


def urls_for(host: str | None, schemes: Iterable[str]) -> list[str]:
    """Those of the URLs in --host, separated by commas, that begin with one of the schemes."""
    return [url for url in (host or "").split(",") if url.partition("://")[0] in schemes]

"""The options that the locustfile adds to Locust's own."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from deepfake_cli.options import CredentialFiles

from .answers import SCORE_TOLERANCE
from .pool import check_side

GRPC_SCHEMES = ("grpc", "grpcs")
HTTP_SCHEMES = ("http", "https")

# Name, default and what it does; those of the second group do not show in Locust's web page.
_IN_THE_PAGE = {
    "--image-side": (512, "width and height of the JPEG files, a multiple of 16, 512 at least"),
    "--repeat-rate": (0.0, "share of requests that repeat an image on purpose, to study a response cache"),
    "--known-rate": (0.05, "share of requests whose scores are known and compared"),
    "--known-answers": (
        "",
        "file of `deepfake classify --format jsonl` to compare with; else the server is asked before",
    ),
    "--score-tolerance": (SCORE_TOLERANCE, "how far a score may be from the known one"),
    "--rate": (0.0, "open loop: requests per second of each user, whether or not answers come; 0: closed loop"),
    "--deadline-seconds": (30.0, "how long a request waits for its answer"),
    "--slo-p95-ms": (0.0, "95 %% of all requests must be answered, and rightly, within so many ms; 0: no target"),
    "--max-failure-rate": (0.0, "share of requests that may fail"),
}
# --tls-cert and --tls-key are Locust's own, for its web page.
_ON_THE_COMMAND_LINE = {
    "--client-tls-ca": ("", "grpcs:// and https://: authority to trust, PEM; else the system's"),
    "--client-tls-cert": ("", "grpcs:// and https://: the users' certificate for mutual TLS, PEM"),
    "--client-tls-key": ("", "its key, PEM, not encrypted"),
    "--token-file": ("", "bearer token for a gateway; read for each request"),
    "--shape-base": (0.25, "spike, diurnal: share of --users at the quietest"),
    "--shape-steps": (5, "steps: how many, of equal height and length"),
    "--spike-share": (0.2, "spike: share of the run time at the top"),
    "--shape-days": (1, "diurnal: days that the run time stands for"),
}


def add_options(parser: Any) -> None:
    """Adds the options to Locust's parser."""
    parser.add_argument(
        "--payload",
        choices=["pixels", "image"],
        default="pixels",
        help="pixels: preprocessed, 150,528 bytes each; image: JPEG files, which the server decodes (default: pixels)",
    )
    parser.add_argument(
        "--arrivals",
        choices=["poisson", "constant"],
        default="poisson",
        help="open loop: independent callers, or a fixed interval (default: poisson)",
    )
    parser.add_argument(
        "--shape", choices=["steps", "spike", "soak", "diurnal"], include_in_web_ui=False, help="default: constant load"
    )
    for shown, options in ((True, _IN_THE_PAGE), (False, _ON_THE_COMMAND_LINE)):
        for name, (default, what) in options.items():
            said = what if default == "" else f"{what} (default: {default:g})"
            parser.add_argument(
                name, type=type(default), default=default, metavar="", include_in_web_ui=shown, help=said
            )


def check_all(options: Namespace) -> None:
    """Refuses what makes no sense.

    Raises:
        ValueError: an option does not; in one line that names it.
    """
    for name in ("repeat_rate", "known_rate", "score_tolerance", "shape_base", "spike_share", "max_failure_rate"):
        check(options, name, 0 <= getattr(options, name) <= 1, "between 0 and 1")
    if options.repeat_rate + options.known_rate > 1:
        raise ValueError("--repeat-rate and --known-rate must not be more than 1 together")
    for name in ("rate", "slo_p95_ms"):
        check(options, name, 0 <= getattr(options, name) < float("inf"), "0 or more")
    check(options, "deadline_seconds", 0 < options.deadline_seconds <= 3600, "above 0, 3600 at most")
    for name in ("shape_steps", "shape_days"):
        check(options, name, getattr(options, name) >= 1, "1 or more")
    check_side(options.image_side)


def credentials(options: Namespace) -> CredentialFiles:
    """The files that prove who calls."""
    files = (options.client_tls_ca, options.client_tls_cert, options.client_tls_key, options.token_file)
    return CredentialFiles(*(Path(file) if file else None for file in files))


def check(options: Namespace, name: str, holds: bool, wanted: str) -> None:
    """Refuses a value by the name of its option.

    Raises:
        ValueError: it does not hold what is wanted.
    """
    if not holds:
        raise ValueError(f"--{name.replace('_', '-')} must be {wanted}, not {getattr(options, name):g}")


def urls_for(host: str | None, schemes: Iterable[str]) -> list[str]:
    """Those of the URLs in --host, separated by commas, that begin with one of the schemes."""
    return [url for url in (host or "").split(",") if url.partition("://")[0] in schemes]

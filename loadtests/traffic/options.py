"""The options that the locustfile adds to Locust's own."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

from deepfake_cli.connection import CredentialFiles

from loadtests.traffic.known_answers import SCORE_TOLERANCE
from loadtests.traffic.pool import check_side

GRPC_SCHEMES = ("grpc", "grpcs")
HTTP_SCHEMES = ("http", "https")
SHAPES = ("steps", "spike", "soak", "diurnal")
_CREDENTIALS = {
    "--client-tls-ca": "grpcs:// and https://: authority to trust, PEM; else the system's",
    "--client-tls-cert": "grpcs:// and https://: the users' certificate for mutual TLS, PEM",
    "--client-tls-key": "its key, PEM, not encrypted",
    "--token-file": "bearer token for a gateway; read for each request",
}


@dataclass(frozen=True, slots=True)
class TrafficOptions:
    """What is sent, as the workers need it."""

    payload: Literal["pixels", "image"]
    image_side: int
    repeat_rate: float
    known_rate: float
    known_answers: Path | None
    score_tolerance: float
    rate: float
    """Requests per second of each user; 0: each sends the next when it has the answer to the last."""
    arrivals: Literal["poisson", "constant"]
    deadline_seconds: float
    credentials: CredentialFiles


def add_options(parser: Any) -> None:
    """Adds the options to Locust's parser; they show in its web page as well, apart from the shape's."""
    parser.add_argument(
        "--payload",
        choices=["pixels", "image"],
        default="pixels",
        help="pixels: preprocessed, 150,528 bytes each; image: JPEG files, which the server decodes (default: pixels)",
    )
    parser.add_argument(
        "--image-side",
        type=int,
        default=512,
        metavar="<int>",
        help="width and height of the JPEG files, a multiple of 16, 512 at least (default: 512)",
    )
    parser.add_argument(
        "--repeat-rate",
        type=float,
        default=0.0,
        metavar="<0-1>",
        help="share of requests that repeat an image on purpose, to study a response cache (default: 0)",
    )
    parser.add_argument(
        "--known-rate",
        type=float,
        default=0.05,
        metavar="<0-1>",
        help="share of requests whose scores are known and compared (default: 0.05)",
    )
    parser.add_argument(
        "--known-answers",
        default="",
        metavar="<file>",
        help="output of `deepfake classify --format jsonl` to compare with; else the server is asked before the load",
    )
    parser.add_argument(
        "--score-tolerance",
        type=float,
        default=SCORE_TOLERANCE,
        metavar="<0-1>",
        help=f"how far a score may be from the known one (default: {SCORE_TOLERANCE})",
    )
    parser.add_argument(
        "--rate",
        type=float,
        default=0.0,
        metavar="<float>",
        help="open loop: requests per second of each user, sent whether or not answers come; "
        "0: closed loop, each user sends one after the other (default: 0)",
    )
    parser.add_argument(
        "--arrivals",
        choices=["poisson", "constant"],
        default="poisson",
        help="open loop: independent callers, or a fixed interval (default: poisson)",
    )
    parser.add_argument(
        "--deadline-seconds",
        type=float,
        default=30.0,
        metavar="<float>",
        help="how long a request waits for its answer (default: 30)",
    )
    for name, what in _CREDENTIALS.items():
        # --tls-cert and --tls-key are Locust's own, for its web page.
        parser.add_argument(name, default="", metavar="<file>", include_in_web_ui=False, help=what)
    parser.add_argument(
        "--shape", choices=SHAPES, default=None, include_in_web_ui=False, help="default: a constant load"
    )
    parser.add_argument(
        "--shape-base",
        type=float,
        default=0.25,
        metavar="<0-1>",
        include_in_web_ui=False,
        help="spike, diurnal: share of --users at the quietest (default: 0.25)",
    )
    parser.add_argument(
        "--shape-steps",
        type=int,
        default=5,
        metavar="<int>",
        include_in_web_ui=False,
        help="steps: how many, of equal height and length (default: 5)",
    )
    parser.add_argument(
        "--spike-share",
        type=float,
        default=0.2,
        metavar="<0-1>",
        include_in_web_ui=False,
        help="spike: share of the run time at the top (default: 0.2)",
    )
    parser.add_argument(
        "--shape-days",
        type=int,
        default=1,
        metavar="<int>",
        include_in_web_ui=False,
        help="diurnal: days that the run time stands for (default: 1)",
    )
    parser.add_argument(
        "--slo-p95-ms",
        type=float,
        default=0.0,
        metavar="<float>",
        help="95 %% of all requests must be answered, and rightly, within so many ms; 0: no such target (default: 0)",
    )
    parser.add_argument(
        "--max-failure-rate",
        type=float,
        default=0.0,
        metavar="<0-1>",
        help="share of requests that may fail (default: 0)",
    )


def checked(options: Namespace) -> TrafficOptions:
    """The options, where they make sense together.

    Raises:
        ValueError: one does not; in one line that names it.
    """
    for name in ("repeat_rate", "known_rate", "score_tolerance", "shape_base", "spike_share", "max_failure_rate"):
        if not 0 <= getattr(options, name) <= 1:
            raise ValueError(f"--{name.replace('_', '-')} must be between 0 and 1, not {getattr(options, name):g}")
    if options.repeat_rate + options.known_rate > 1:
        raise ValueError("--repeat-rate and --known-rate must not be more than 1 together")
    for name in ("rate", "slo_p95_ms"):
        if not 0 <= getattr(options, name) < float("inf"):
            raise ValueError(f"--{name.replace('_', '-')} must be 0 or more, not {getattr(options, name):g}")
    if not 0 < options.deadline_seconds <= 3600:
        raise ValueError(f"--deadline-seconds must be above 0, 3600 at most, not {options.deadline_seconds:g}")
    for name in ("shape_steps", "shape_days"):
        if getattr(options, name) < 1:
            raise ValueError(f"--{name.replace('_', '-')} must be 1 or more, not {getattr(options, name)}")
    check_side(options.image_side)
    return TrafficOptions(
        payload=cast("Literal['pixels', 'image']", options.payload),
        image_side=options.image_side,
        repeat_rate=options.repeat_rate,
        known_rate=options.known_rate,
        known_answers=Path(options.known_answers) if options.known_answers else None,
        score_tolerance=options.score_tolerance,
        rate=options.rate,
        arrivals=cast("Literal['poisson', 'constant']", options.arrivals),
        deadline_seconds=options.deadline_seconds,
        credentials=CredentialFiles(
            *(
                Path(value) if value else None
                for value in (
                    options.client_tls_ca,
                    options.client_tls_cert,
                    options.client_tls_key,
                    options.token_file,
                )
            )
        ),
    )


def urls_for(host: str | None, schemes: Iterable[str]) -> list[str]:
    """Those of the URLs in --host, separated by commas, that begin with one of the schemes."""
    return [url for url in (host or "").split(",") if url.partition("://")[0] in schemes]

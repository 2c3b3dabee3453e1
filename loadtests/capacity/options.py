"""The options of the command."""

from __future__ import annotations

import argparse
from pathlib import Path

from deepfake_cli.connection import CredentialFiles

from loadtests.traffic.known_answers import SCORE_TOLERANCE
from loadtests.traffic.options import GRPC_SCHEMES, HTTP_SCHEMES
from loadtests.traffic.pool import check_side

from .resources import cores


def parser() -> argparse.ArgumentParser:
    """What is understood; `check` says what makes sense."""
    options = argparse.ArgumentParser(
        prog="capacity.py", description="How many images per second one replica holds within a latency target."
    )
    options.add_argument("--url", help="one replica to measure, grpc://… or http://…; default: a server of its own")
    options.add_argument(
        "--repository",
        type=Path,
        default=Path("model_repository"),
        help="of the server of its own (default: %(default)s)",
    )
    options.add_argument("--metrics-url", help="Triton's metrics; default: port 8002 of the server, where it answers")
    options.add_argument("--tls-ca", type=Path, help="authority to trust, PEM; default: the system's")
    options.add_argument("--tls-cert", type=Path, help="certificate to show the server, for mutual TLS, PEM")
    options.add_argument("--tls-key", type=Path, help="its key, PEM, not encrypted")
    options.add_argument("--token-file", type=Path, help="bearer token for a gateway; read for each request")
    options.add_argument("--slo-p95-ms", type=float, default=1000.0, help="the target (default: %(default)g)")
    options.add_argument("--payload", choices=["pixels", "image"], default="pixels", help="default: %(default)s")
    options.add_argument("--image-side", type=int, default=512, help="of JPEG files, in pixels (default: %(default)s)")
    options.add_argument(
        "--traffic", type=float, help="images per second to be served in all, for the number of replicas"
    )
    options.add_argument(
        "--headroom", type=float, default=0.2, help="share of the capacity left free (default: %(default)s)"
    )
    options.add_argument("--step-seconds", type=float, default=20.0, help="of measurement (default: %(default)g)")
    options.add_argument("--repeats", type=int, default=3, help="runs of the load that holds (default: %(default)s)")
    options.add_argument(
        "--generators", type=int, default=max(1, cores() // 4), help="load generator processes (default: %(default)s)"
    )
    options.add_argument("--known-rate", type=float, default=0.05, help="share of requests whose scores are compared")
    options.add_argument(
        "--known-answers", type=Path, help="output of `deepfake classify --format jsonl` to compare with"
    )
    options.add_argument("--score-tolerance", type=float, default=SCORE_TOLERANCE, help="default: %(default)s")
    options.add_argument(
        "--output",
        type=Path,
        default=Path("capacity-report"),
        help="folder of the report (default: %(default)s)",
    )
    return options


def credentials(options: argparse.Namespace) -> CredentialFiles:
    """The files that prove who calls."""
    return CredentialFiles(options.tls_ca, options.tls_cert, options.tls_key, options.token_file)


def check(options: argparse.Namespace) -> None:
    """Refuses what makes no sense.

    Raises:
        ValueError: an option does not; in one line that names it.
    """
    for name in ("slo_p95_ms", "step_seconds", "traffic"):
        value = getattr(options, name)
        if value is not None and not 0 < value < float("inf"):
            raise ValueError(f"--{name.replace('_', '-')} must be above 0, not {value:g}")
    for name in ("known_rate", "score_tolerance"):
        if not 0 <= getattr(options, name) <= 1:
            raise ValueError(f"--{name.replace('_', '-')} must be between 0 and 1, not {getattr(options, name):g}")
    if not 0 <= options.headroom < 1:
        raise ValueError(f"--headroom must be 0 or more and below 1, not {options.headroom:g}")
    for name in ("repeats", "generators"):
        if getattr(options, name) < 1:
            raise ValueError(f"--{name} must be 1 or more, not {getattr(options, name)}")
    if options.metrics_url and options.metrics_url.partition("://")[0] not in HTTP_SCHEMES:
        raise ValueError(f"--metrics-url must begin with http:// or https://, not {options.metrics_url}")
    if options.metrics_url and not options.url:
        raise ValueError("--metrics-url is for a server that --url names")
    if options.url and options.url.partition("://")[0] not in (*GRPC_SCHEMES, *HTTP_SCHEMES):
        raise ValueError(f"--url must begin with grpc://, grpcs://, http:// or https://, not {options.url}")
    if credentials(options) != CredentialFiles() and not options.url:
        raise ValueError("--tls-ca, --tls-cert, --tls-key and --token-file are for a server that --url names")
    credentials(options).check([options.url])
    check_side(options.image_side)

"""How many images per second one replica holds within a latency target, what limits it, and how to scale it.

    python -m loadtests.capacity --slo-p95-ms 1000 [--repository model_repository] [--traffic 200]
    python -m loadtests.capacity --slo-p95-ms 50 --url grpc://triton:8001 --metrics-url http://triton:8002/metrics

Without `--url` it starts an embedded Triton of its own. It raises the offered load in steps until fewer than 95 % of
all requests are answered, and rightly, within the target, looks closer at where that happens, repeats the load that
holds, and writes report.html and report.json to `--output`. Exit code 0 when a load was found that holds, 1 when not or
when an answer was wrong, 2 for wrong usage.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import itertools
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from deepfake_cli.options import CredentialFiles
from deepfake_client import DeepfakeClient, DeepfakeError
from deepfake_deploy.embedded import EmbeddedTriton, EmbeddedTritonError

from loadtests.capacity.report import Report, write
from loadtests.capacity.resources import command_line, cores, processor_name, scrape, weights
from loadtests.capacity.search import Setup, Step, run_step, search
from loadtests.traffic import options as types
from loadtests.traffic.answers import SCORE_TOLERANCE, known_answers
from loadtests.traffic.loops import Generators, Load, answers_per_second

_PROBE_CALLERS = 32
_PROBE_SHARE = 0.25
_OPTIONS_TOLD = ("generators", "slo_p95_ms", "step_seconds", "repeats", "headroom", "traffic")


def main() -> None:
    options = parsed()
    try:
        with _server(options) as (url, metrics_url):
            setup = Setup(options.slo_p95_ms, options.step_seconds, metrics_url)
            arguments = types.client_options(options.payload, setup.deadline_seconds, options.credentials)
            with DeepfakeClient(url, **arguments) as client:
                report = _measure(url, setup, client, options)
        page = write(report, options.output)
    except (DeepfakeError, EmbeddedTritonError, OSError, ValueError) as error:
        _tell(f"capacity: {error}")
        sys.exit(1)
    except KeyboardInterrupt:
        _tell("capacity: interrupted; nothing was written")
        sys.exit(130)
    _print(report, page)
    sys.exit(0 if report.found.capacity is not None and report.bottleneck != "wrong answers" else 1)


def parsed(arguments: list[str] | None = None) -> argparse.Namespace:
    """The options, those of the credentials together as `credentials`; wrong ones end the program with 2."""
    parser = argparse.ArgumentParser(prog="capacity", description=__doc__.partition("\n")[0])
    add = parser.add_argument
    add("--url", help="one replica to measure, grpc://… or http://…; default: a server of its own")
    add("--repository", type=Path, default=Path("model_repository"), help="of its own server (default: %(default)s)")
    add("--metrics-url", help="Triton's metrics of that replica, http://…:8002/metrics")
    add("--tls-ca", type=Path, help="authority to trust, PEM; default: the system's")
    add("--tls-cert", type=Path, help="certificate to show the server, for mutual TLS, PEM")
    add("--tls-key", type=Path, help="its key, PEM, not encrypted")
    add("--token-file", type=Path, help="bearer token for a gateway; read for each request")
    add("--slo-p95-ms", type=types.above_zero, default=1000.0, help="the target (default: %(default)g)")
    add("--payload", choices=["pixels", "image"], default="pixels", help="default: %(default)s")
    add("--image-side", type=types.image_side, default=512, help="of JPEG files, in pixels (default: %(default)s)")
    add("--traffic", type=types.above_zero, help="images per second to be served in all, for the number of replicas")
    add("--headroom", type=types.part, default=0.3, help="share of the capacity left free (default: %(default)s)")
    add("--step-seconds", type=types.above_zero, default=20.0, help="of measurement (default: %(default)g)")
    add("--repeats", type=types.one_or_more, default=3, help="runs of the load that holds (default: %(default)s)")
    add("--generators", type=types.one_or_more, default=max(1, cores() // 4), help="processes (default: %(default)s)")
    add("--known-rate", type=types.share, default=0.05, help="share of requests whose scores are compared")
    add("--known-answers", type=Path, help="output of `deepfake classify --format jsonl` to compare with")
    add("--score-tolerance", type=types.share, default=SCORE_TOLERANCE, help="default: %(default)s")
    add("--output", type=Path, default=Path("capacity-report"), help="folder of the report (default: %(default)s)")
    options = parser.parse_args(arguments)
    options.credentials = CredentialFiles(options.tls_ca, options.tls_cert, options.tls_key, options.token_file)
    if options.metrics_url and not options.metrics_url.startswith(("http://", "https://")):
        parser.error(f"--metrics-url must begin with http:// or https://, not {options.metrics_url}")
    if not options.url and (options.metrics_url or options.credentials != CredentialFiles()):
        parser.error("--metrics-url, --tls-… and --token-file are for a server that --url names")
    if options.url:
        if options.url.partition("://")[0] not in (*types.GRPC_SCHEMES, *types.HTTP_SCHEMES):
            parser.error(f"--url must begin with grpc://, grpcs://, http:// or https://, not {options.url}")
        try:
            options.credentials.check([options.url])
        except ValueError as error:
            parser.error(str(error))
    return options


@contextlib.contextmanager
def _server(options: argparse.Namespace) -> Iterator[tuple[str, str | None]]:
    """URL and metrics' URL of the server: one of its own, or the one that is named."""
    if options.url:
        if options.metrics_url:
            scrape(options.metrics_url)  # what is wrong with it is said before the search
        yield options.url, options.metrics_url
        return
    _tell("Starting an embedded Triton")
    with EmbeddedTriton(options.repository) as triton:
        yield triton.grpc_url, triton.metrics_url


def _measure(url: str, setup: Setup, client: DeepfakeClient, options: argparse.Namespace) -> Report:
    load = Load(
        url,
        frozenset(client.model_info().labels),
        options.payload,
        options.image_side,
        tuple(known_answers(client, options.known_answers, options.known_rate, options.payload)),
        options.known_rate,
        options.score_tolerance,
        setup.deadline_seconds,
        options.credentials,
    )
    with Generators(load, options.generators) as generators:
        estimate = _estimate(generators, options)

        def offer(rate: float) -> Step:
            step = run_step(generators, setup, rate, seed=next(numbers))
            failed = f", {sum(step.failures.values())} failed" if step.failures else ""
            found = f"answered {step.answered:.3g}/s, p95 {step.p95_ms:,.0f} ms{failed}"
            _tell(f"Offered {rate:.3g}/s: {found} - {'held' if step.met else 'broken'}")
            return step

        numbers = itertools.count(1)
        found = search(offer, estimate, options.repeats)
    return Report(_circumstances(url, setup, client, options) | {"estimate": estimate}, found)


def _estimate(generators: Generators, options: argparse.Namespace) -> float:
    """Images per second with many callers, which the steps are shares of."""
    callers = _PROBE_CALLERS * options.generators
    samples = generators.closed_loop(callers, max(options.step_seconds * _PROBE_SHARE, 1.0))
    rate = sum(answers_per_second(sample.answered_at) for sample in samples)
    if not rate:
        causes = sorted({cause for sample in samples for cause in sample.failures})
        raise ChildProcessError(f"no request of {callers} callers was answered: {', '.join(causes)}")
    _tell(f"{callers} callers in a closed loop: {rate:.3g} images per second")
    return rate


def _circumstances(url: str, setup: Setup, client: DeepfakeClient, options: argparse.Namespace) -> dict[str, Any]:
    """Where, when and how it was measured, for the report."""
    info, side, provenance = client.model_info(), options.image_side, client.provenance()
    return {
        "date": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
        "command": command_line("loadtests.capacity"),
        "url": url,
        "server_is_here": not options.url,
        "payload": f"JPEG files of {side} × {side}" if options.payload == "image" else "pixels, 150,528 bytes",
        "processor": processor_name(),
        "cores": cores(),
        "model": info.name,
        "model_version": info.version,
        "max_batch_size": info.max_batch_size or 0,
        "weights": weights(client),
        "stand_in": provenance is not None and provenance.stand_in,
        "settle_seconds": setup.settle_seconds,
        **{name: getattr(options, name) for name in _OPTIONS_TOLD},
    }


def _print(report: Report, page: Path) -> None:
    print(f"{report.headline}\n{report.evidence}\nWhat limited it: {report.bottleneck}")
    if (recommended := report.recommendation) is not None:
        print(f"\nPlan a replica for {recommended.planned:.3g} images per second.")
        if recommended.replicas is not None:
            traffic = report.circumstances["traffic"]
            print(f"{traffic:,g} images per second need {recommended.replicas} replicas.")
        for component, patch in recommended.patches().items():
            print(f"\n# kustomization.yaml of an overlay with the component {component}\n{patch}")
    print(f"\nWhat to do next, and how far to trust it: {page}")


def _tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()

"""How many images per second one replica holds within a latency target, what limits it, and how to scale it.

    python -m loadtests.capacity --slo-p95-ms 1000 [--repository model_repository] [--traffic 200]
    python -m loadtests.capacity --slo-p95-ms 50 --url grpc://triton:8001 --metrics-url http://triton:8002/metrics

Without `--url` it starts an embedded Triton of its own. It raises the offered load in steps until fewer than 95 % of all
requests are answered, and rightly, within the target, looks closer at where that happens, repeats the load that holds,
and writes report.html, report.json and the plots to `--output`. Exit code 0 when a load was found that holds, 1 when not
or when an answer was wrong, 2 for wrong usage.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import itertools
import shlex
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from deepfake_cli.options import CredentialFiles
from deepfake_client import DeepfakeClient, DeepfakeError
from deepfake_deploy.embedded import EmbeddedTriton, EmbeddedTritonError

from loadtests.capacity.bottleneck import find_bottleneck, shown_ms
from loadtests.capacity.recommendation import recommend
from loadtests.capacity.report import Report, write
from loadtests.capacity.resources import cores, processor_name, server_pid
from loadtests.capacity.search import Offer, search
from loadtests.capacity.step import Setup, Step, run_step
from loadtests.capacity.triton_metrics import scrape
from loadtests.traffic.answers import SCORE_TOLERANCE, learn, read
from loadtests.traffic.generator import Generators, Load
from loadtests.traffic.loops import answers_per_second
from loadtests.traffic.options import GRPC_SCHEMES, HTTP_SCHEMES, check
from loadtests.traffic.pool import check_side

_PROBE_CALLERS = 32
_PROBE_SHARE = 0.25
_SETTLE_SHARE = 0.1
_METRICS_PORT = 8002


def main() -> None:
    options = parser().parse_args()
    try:
        check_all(options)
    except ValueError as error:
        _tell(f"capacity: {error}")
        sys.exit(2)
    try:
        with _server(options) as server, _client(server, options) as client:
            report = _measure(server, client, options)
        page = write(report, options.output)
    except (DeepfakeError, EmbeddedTritonError, OSError, ValueError) as error:
        _tell(f"capacity: {error}")
        sys.exit(1)
    except KeyboardInterrupt:
        _tell("capacity: interrupted; nothing was written")
        sys.exit(130)
    _print(report, page)
    sys.exit(0 if report.found.capacity is not None and report.bottleneck.name != "wrong answers" else 1)


def parser() -> argparse.ArgumentParser:
    """What is understood; `check_all` says what makes sense."""
    options = argparse.ArgumentParser(
        prog="capacity", description="How many images per second one replica holds within a latency target."
    )
    add = options.add_argument
    add("--url", help="one replica to measure, grpc://… or http://…; default: a server of its own")
    add("--repository", type=Path, default=Path("model_repository"), help="of its own server (default: %(default)s)")
    add("--metrics-url", help="Triton's metrics; default: port 8002 of the server, where it answers")
    add("--tls-ca", type=Path, help="authority to trust, PEM; default: the system's")
    add("--tls-cert", type=Path, help="certificate to show the server, for mutual TLS, PEM")
    add("--tls-key", type=Path, help="its key, PEM, not encrypted")
    add("--token-file", type=Path, help="bearer token for a gateway; read for each request")
    add("--slo-p95-ms", type=float, default=1000.0, help="the target (default: %(default)g)")
    add("--payload", choices=["pixels", "image"], default="pixels", help="default: %(default)s")
    add("--image-side", type=int, default=512, help="of JPEG files, in pixels (default: %(default)s)")
    add("--traffic", type=float, help="images per second to be served in all, for the number of replicas")
    add("--headroom", type=float, default=0.2, help="share of the capacity left free (default: %(default)s)")
    add("--step-seconds", type=float, default=20.0, help="of measurement (default: %(default)g)")
    add("--repeats", type=int, default=3, help="runs of the load that holds (default: %(default)s)")
    add("--generators", type=int, default=max(1, cores() // 4), help="load processes (default: %(default)s)")
    add("--known-rate", type=float, default=0.05, help="share of requests whose scores are compared")
    add("--known-answers", type=Path, help="output of `deepfake classify --format jsonl` to compare with")
    add("--score-tolerance", type=float, default=SCORE_TOLERANCE, help="default: %(default)s")
    add("--output", type=Path, default=Path("capacity-report"), help="folder of the report (default: %(default)s)")
    return options


def credentials(options: argparse.Namespace) -> CredentialFiles:
    """The files that prove who calls."""
    return CredentialFiles(options.tls_ca, options.tls_cert, options.tls_key, options.token_file)


def check_all(options: argparse.Namespace) -> None:
    """Refuses what makes no sense."""
    for name in ("slo_p95_ms", "step_seconds", "traffic"):
        value = getattr(options, name)
        check(options, name, value is None or 0 < value < float("inf"), "above 0")
    for name in ("known_rate", "score_tolerance"):
        check(options, name, 0 <= getattr(options, name) <= 1, "between 0 and 1")
    check(options, "headroom", 0 <= options.headroom < 1, "0 or more and below 1")
    for name in ("repeats", "generators"):
        check(options, name, getattr(options, name) >= 1, "1 or more")
    check_side(options.image_side)
    if options.metrics_url and options.metrics_url.partition("://")[0] not in HTTP_SCHEMES:
        raise ValueError(f"--metrics-url must begin with http:// or https://, not {options.metrics_url}")
    if options.metrics_url and not options.url:
        raise ValueError("--metrics-url is for a server that --url names")
    if options.url and options.url.partition("://")[0] not in (*GRPC_SCHEMES, *HTTP_SCHEMES):
        raise ValueError(f"--url must begin with grpc://, grpcs://, http:// or https://, not {options.url}")
    if credentials(options) != CredentialFiles() and not options.url:
        raise ValueError("--tls-ca, --tls-cert, --tls-key and --token-file are for a server that --url names")
    credentials(options).check([options.url])


@dataclass(frozen=True, slots=True)
class _Server:
    url: str
    metrics_url: str | None
    pid: int | None


@contextlib.contextmanager
def _server(options: argparse.Namespace) -> Iterator[_Server]:
    """The server to measure, or one of its own for as long as it takes."""
    if not options.url:
        _tell("Starting an embedded Triton")
        with EmbeddedTriton(options.repository) as triton:
            yield _Server(triton.grpc_url, triton.metrics_url, triton.pid)
        return
    with DeepfakeClient(options.url) as client:  # for its reading of URLs; nothing is sent
        host, _, port = client.endpoints[0].partition("://")[2].partition("/")[0].rpartition(":")
    metrics_url = options.metrics_url
    if metrics_url is None:
        with contextlib.suppress(OSError):
            scrape(found := f"http://{host}:{_METRICS_PORT}/metrics")
            metrics_url = found
    else:
        scrape(metrics_url)
    yield _Server(options.url, metrics_url, server_pid(host, int(port)))


def _client(server: _Server, options: argparse.Namespace) -> DeepfakeClient:
    files = credentials(options)
    decode: Literal["client", "server"] = "server" if options.payload == "image" else "client"
    return DeepfakeClient(server.url, decode=decode, max_retries=0, tls=files.tls, token=files.token)


def _measure(server: _Server, client: DeepfakeClient, options: argparse.Namespace) -> Report:
    if options.known_answers:
        known = read(options.known_answers, options.payload)
    else:
        known = learn(client, options.payload, 30.0) if options.known_rate else []
    deadline = max(5 * options.slo_p95_ms / 1000, 10.0)
    load = Load(
        server.url,
        frozenset(client.model_info().labels),
        options.payload,
        options.image_side,
        tuple(known),
        options.known_rate,
        options.score_tolerance,
        deadline,
        credentials(options),
    )
    setup = Setup(
        slo_p95_ms=options.slo_p95_ms,
        settle_seconds=max(options.step_seconds * _SETTLE_SHARE, 0.5),
        step_seconds=options.step_seconds,
        deadline_seconds=deadline,
        metrics_url=server.metrics_url,
        server=server.pid,
    )
    with Generators(load, options.generators) as generators:
        estimate = _estimate(generators, options)
        found = search(_offer(generators, setup), estimate, options.repeats)
    bottleneck = find_bottleneck(found, options.slo_p95_ms, cores())
    around = _circumstances(options, server, client, setup) | {"estimate": estimate}
    return Report(around, found, bottleneck, recommend(found, options.headroom, options.traffic))


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


def _offer(generators: Generators, setup: Setup) -> Offer:
    """Runs steps, each with a seed of its own, and tells of each."""
    numbers = itertools.count(1)

    def offer(rate: float, repeat: bool) -> Step:
        number = next(numbers)
        step = run_step(generators, setup, rate, number, repeat=repeat)
        failed = f", {sum(step.failures.values())} failed" if step.failures else ""
        found = f"answered {step.answered:.3g}/s, p95 {shown_ms(step.p95_ms)}{failed}"
        _tell(f"{number:2d}. offered {rate:.3g}/s: {found} - {'held' if step.met else 'broken'}")
        return step

    return offer


def _circumstances(
    options: argparse.Namespace, server: _Server, client: DeepfakeClient, setup: Setup
) -> dict[str, Any]:
    """Where, when and how it was measured, for the report."""
    info, provenance = client.model_info(), client.provenance()
    weights = "weights unknown"
    if provenance is not None:
        weights = f"{'stand-in weights' if provenance.stand_in else provenance.model_id}, {provenance.precision}"
    side = options.image_side
    return {
        "date": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
        "command": shlex.join(["python", "-m", "loadtests.capacity", *sys.argv[1:]]),
        "url": server.url,
        "server_is_here": server.pid is not None,
        "payload": f"JPEG files of {side} × {side}" if options.payload == "image" else "pixels, 150,528 bytes",
        "processor": processor_name(),
        "cores": cores(),
        "generators": options.generators,
        "model": info.name,
        "model_version": info.version,
        "max_batch_size": info.max_batch_size or 0,
        "weights": weights,
        "stand_in": provenance is not None and provenance.stand_in,
        "slo_p95_ms": options.slo_p95_ms,
        "step_seconds": options.step_seconds,
        "settle_seconds": setup.settle_seconds,
        "repeats": options.repeats,
        "headroom": options.headroom,
        "traffic": options.traffic,
    }


def _print(report: Report, page: Path) -> None:
    print(report.headline, report.evidence, sep="\n")
    for caution in report.cautions:
        print(f"Caution: {caution}")
    print(f"\nWhat limited it: {report.bottleneck.finding}")
    for advice in report.bottleneck.advice:
        print(f"  - {advice}")
    if (recommended := report.recommendation) is not None:
        print(f"\nPlan a replica for {recommended.planned:.3g} images per second.")
        if recommended.replicas is not None:
            traffic = report.circumstances["traffic"]
            print(f"{traffic:,g} images per second need {recommended.replicas} replicas.")
        for component, patch in report.patches().items():
            print(f"\n# kustomization.yaml of an overlay with the component {component}\n{patch}")
    print(f"\n{page}")


def _tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()

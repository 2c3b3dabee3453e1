"""The command: options in, a report out."""

from __future__ import annotations

import argparse
import contextlib
import datetime
import shlex
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from deepfake_client import DeepfakeClient, DeepfakeError, ModelInfo, Provenance
from deepfake_deploy.embedded import EmbeddedTriton, EmbeddedTritonError

from loadtests.traffic.known_answers import learn, read

from .bottleneck import find_bottleneck, shown_ms
from .generator import Generators, Load
from .options import check, credentials, parser
from .recommendation import recommend
from .report import Circumstances, Report, write
from .resources import cores, processor_name, server_pid
from .search import search
from .step import Setup, Step, run_step
from .triton_metrics import scrape

_PROBE_CALLERS = 32
# Of a step's length; the second for servers that are slow beyond expectation.
_PROBE_SHARES = (0.25, 1.0)
_SETTLE_SHARE = 0.1
_METRICS_PORT = 8002


def main() -> None:
    """Measures and writes the report.

    Ends with 0 when a load holds the target and every answer was right, 1 when not, 2 for wrong usage.
    """
    options = parser().parse_args()
    try:
        check(options)
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
    info, provenance = client.model_info(), client.provenance()
    if options.known_answers:
        known = read(options.known_answers, options.payload)
    else:
        known = learn(client, options.payload, 30.0) if options.known_rate else []
    deadline = max(5 * options.slo_p95_ms / 1000, 10.0)
    load = Load(
        url=server.url,
        payload=options.payload,
        image_side=options.image_side,
        known=tuple(known),
        known_rate=options.known_rate,
        labels=frozenset(info.labels),
        score_tolerance=options.score_tolerance,
        deadline_seconds=deadline,
        credentials=credentials(options),
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
        generators.wait_until_ready()
        estimate = _estimate(generators, setup)
        found = search(_Offer(generators, setup), estimate, options.repeats)
    bottleneck = find_bottleneck(found, options.slo_p95_ms, cores())
    around = _circumstances(options, server, info, provenance, setup, estimate)
    return Report(around, found, bottleneck, recommend(found, options.headroom, options.traffic))


def _estimate(generators: Generators, setup: Setup) -> float:
    """Images per second with many callers, which the steps are shares of.

    Raises:
        ChildProcessError: no request was answered.
    """
    callers = _PROBE_CALLERS * generators.count
    for share in _PROBE_SHARES:
        seconds = max(setup.step_seconds * share, 1.0)
        measure_from = time.monotonic() + setup.settle_seconds
        generators.probe(_PROBE_CALLERS, measure_from, measure_from + seconds)
        samples = generators.collect(seconds + setup.settle_seconds + setup.deadline_seconds + 30)
        if completed := sum(sample.completed for sample in samples):
            _tell(f"{callers} callers in a closed loop: {completed / seconds:.3g} images per second")
            return completed / seconds
    causes = sorted({cause for sample in samples for cause in sample.failures})
    raise ChildProcessError(
        f"no request of {callers} callers was answered in {seconds:.0f} s: {', '.join(causes) or 'only later'}"
    )


class _Offer:
    """Runs steps, each with a seed of its own, and tells of each."""

    def __init__(self, generators: Generators, setup: Setup) -> None:
        self._generators, self._setup, self._count = generators, setup, 0

    def __call__(self, rate: float, repeat: bool) -> Step:
        self._count += 1
        step = run_step(self._generators, self._setup, rate, self._count, repeat=repeat)
        failed = f", {sum(step.failures.values())} failed" if step.failures else ""
        _tell(
            f"{self._count:2d}. offered {rate:.3g}/s: answered {step.answered:.3g}/s, p95 {shown_ms(step.p95_ms)}{failed}"
            f" - {'held' if step.met else 'broken'}"
        )
        return step


def _circumstances(
    options: argparse.Namespace,
    server: _Server,
    info: ModelInfo,
    provenance: Provenance | None,
    setup: Setup,
    estimate: float,
) -> Circumstances:
    weights = "weights unknown"
    if provenance is not None:
        source = "stand-in weights" if provenance.stand_in else provenance.model_id
        weights = f"{source}, {provenance.precision}"
    size = (
        f"JPEG files of {options.image_side} × {options.image_side}"
        if options.payload == "image"
        else "pixels, 150,528 bytes"
    )
    return Circumstances(
        date=datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
        command=shlex.join(["python", "-m", "loadtests.capacity", *sys.argv[1:]]),
        url=server.url,
        server_is_here=server.pid is not None,
        payload=size,
        processor=processor_name(),
        cores=cores(),
        generators=options.generators,
        model=info.name,
        model_version=info.version,
        max_batch_size=info.max_batch_size or 0,
        weights=weights,
        stand_in=provenance is not None and provenance.stand_in,
        slo_p95_ms=options.slo_p95_ms,
        step_seconds=options.step_seconds,
        settle_seconds=setup.settle_seconds,
        repeats=options.repeats,
        estimate=estimate,
        headroom=options.headroom,
        traffic=options.traffic,
    )


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
            print(f"{report.circumstances.traffic:,g} images per second need {recommended.replicas} replicas.")
        for component, patch in report.patches().items():
            print(f"\n# kustomization.yaml of an overlay with the component {component}\n{patch}")
    print(f"\n{page}")


def _tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)

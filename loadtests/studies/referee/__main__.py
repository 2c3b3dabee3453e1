"""NVIDIA's perf_analyzer against the project's Locust users: do both measure the same on the same server?

    python -m loadtests.studies.referee --perf-analyzer .venv/perf_analyzer/bin/perf_analyzer [--rounds 3] [--seconds 8]

`make referee` installs perf_analyzer and runs this. It starts an embedded Triton without a response cache, and in
alternation lets perf_analyzer and Locust send new pixels in every request from the same number of callers, each with one
request at a time, over gRPC and HTTP. Exits with 1 when the medians of throughput or of the median latency are more than
`--tolerance` apart, or a run failed; with 2 for wrong usage. README.md beside this file tells how the two count.
"""

from __future__ import annotations

import argparse
import datetime
import sys
from pathlib import Path

from deepfake_client import DeepfakeClient, DeepfakeError
from deepfake_deploy.embedded import EmbeddedTriton, EmbeddedTritonError

from loadtests.capacity.resources import cores, processor_name
from loadtests.studies.referee.figures import Figures, RunError, table
from loadtests.studies.referee.locust_run import run_locust
from loadtests.studies.referee.perf_analyzer import PerfAnalyzer, prepared

_BINARY = Path(__file__).resolve().parents[3] / ".venv/perf_analyzer/bin/perf_analyzer"
_WARM_UP_SECONDS = 4
_IMAGES = 300  # 60 MB as perf_analyzer takes them

_EXPLANATION = """\
Both are counted from the first request to the last answer: perf_analyzer by its record of every request (above 300 requests
a run, where a batch no longer matters, by its own summary), Locust by its statistics. «printed» is what they say themselves:
perf_analyzer's windows end at whole seconds, and so between two batches, at a few batches a second up to a batch per window
more or less; Locust's clock starts with the first answer, so that the first batch costs no time, here a tenth too much. The mean is not
judged: among the requests that Locust counts are those that were on their way at the end, which wait as long as any;
perf_analyzer leaves them out, so that the first ones, which met an empty queue, weigh more with it. Locust's Python also
takes some of the processor that the server computes with."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--perf-analyzer", type=Path, default=_BINARY, help="default: %(default)s")
    parser.add_argument("--repository", type=Path, default=Path("model_repository"), help="default: %(default)s")
    parser.add_argument("--callers", type=int, nargs="+", default=[8, 32], help="default: 8 32")
    parser.add_argument("--rounds", type=int, default=3, help="of each load (default: %(default)s)")
    parser.add_argument("--seconds", type=int, default=8, help="of each run, about (default: %(default)s)")
    parser.add_argument("--tolerance", type=float, default=0.1, help="default: %(default)s")
    options = parser.parse_args()
    if min(options.rounds, options.seconds, *options.callers) < 1 or not 0 < options.tolerance < 1:
        parser.error("--rounds, --seconds and --callers must be 1 or more, --tolerance between 0 and 1")
    try:
        with prepared(options.perf_analyzer, _IMAGES) as perf_analyzer, EmbeddedTriton(options.repository) as server:
            agree = _referee(server, perf_analyzer, options)
    except (RunError, EmbeddedTritonError, DeepfakeError) as error:
        print(f"referee: {error}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        print("referee: interrupted", file=sys.stderr)
        sys.exit(130)
    sys.exit(0 if agree else 1)


def _referee(server: EmbeddedTriton, perf_analyzer: PerfAnalyzer, options: argparse.Namespace) -> bool:
    rate = run_locust(server.grpc_url, options.callers[0], _WARM_UP_SECONDS).throughput
    rounds: dict[str, tuple[list[Figures], list[Figures]]] = {}
    for number in range(1, options.rounds + 1):
        for url in (server.grpc_url, server.http_url):
            for callers in options.callers:
                load = f"{url.partition('://')[0]}, {callers} callers"
                _tell(f"round {number} of {options.rounds}: {load}")
                referee, ours = rounds.setdefault(load, ([], []))
                referee.append(perf_analyzer.run(url, callers, rate, options.seconds))
                ours.append(run_locust(url, callers, options.seconds))
                _tell(f"  {referee[-1].throughput:.4g} and {ours[-1].throughput:.4g} images/s")
    lines, apart = table(rounds, options.tolerance)
    print(_circumstances(server, options), "", *lines, "", _distinct(rounds), _EXPLANATION, "", sep="\n")
    verdict = f"APART by more than {options.tolerance:.0%}: {'; '.join(apart)}" if apart else None
    print(verdict or f"They agree within {options.tolerance:.0%} in throughput and median latency.")
    return not apart


def _tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _circumstances(server: EmbeddedTriton, options: argparse.Namespace) -> str:
    with DeepfakeClient(server.grpc_url) as client:
        provenance = client.provenance()
    weights = "weights unknown"
    if provenance is not None:
        source = "stand-in weights" if provenance.stand_in else provenance.model_id
        weights = f"{source}, {provenance.precision}"
    date = datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d %H:%M UTC")
    return (
        f"{date}, {processor_name()}, {cores()} cores, server and load on the same machine; {weights}\n"
        f"pixels, {options.rounds} rounds of about {options.seconds} s, perf_analyzer and Locust in turn; "
        "median (lowest to highest)"
    )


def _distinct(rounds: dict[str, tuple[list[Figures], list[Figures]]]) -> str:
    recorded = [run.distinct_images for referee, _ in rounds.values() for run in referee]
    known = [images for images in recorded if images is not None]
    if len(known) < len(recorded):
        return f"No response cache; perf_analyzer took its {_IMAGES} different images in turn."
    return f"No response cache; {sum(known)} requests of perf_analyzer's, no two of a run with the same image."


if __name__ == "__main__":
    main()

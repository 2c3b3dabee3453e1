"""Real faults, a real Prometheus, and the alerts that come of them.

    python -m loadtests.observability.faults [--repository model_repository] [--only FAULT …]

For each fault: starts embedded Tritons with a light load and a Prometheus with the rules of deploy/observability, waits
until all is quiet, breaks something, and prints which alerts fire and when. Exits with 1 when one that is expected does
not fire, or any other does, before the fault or in the twenty minutes after it.

Prometheus runs `--faster` times as fast as in a cluster: at 20 a minute of the rules is three seconds long. Queues hold
32 requests. Triton 2.51 has no histogram of latencies, so TritonLatencyBudgetBurnsFast cannot fire; promtool tests it.
"""

from __future__ import annotations

import argparse
import io
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil
from deepfake_deploy.embedded import EmbeddedTriton, EmbeddedTritonError

from loadtests.capacity.resources import MODEL, cores, processor_name
from loadtests.observability.load import Callers
from loadtests.observability.prometheus import Prometheus, PrometheusError, local_prometheus, read_groups, target

# The usual 256 take longer to answer than the queue's timeout on a slow machine; these do not, unless it is very busy.
QUEUE_REQUESTS, FLOOD_CALLERS = 32, 80
# So many wait behind one that hangs: too few for their timeouts to burn the error budget while this watches.
WAITING_CALLERS = 4
_PATIENCE_SECONDS = 180.0
# Appended to image_decoder's model.py: it waits for as long as the file `hang` lies beside it.
_HANG = """
import time
_execute = TritonPythonModel.execute

def execute(self, requests):
    while Path(__file__).with_name("hang").exists():
        time.sleep(0.1)
    return _execute(self, requests)

TritonPythonModel.execute = execute
"""


@dataclass
class Testbed:
    """What runs while one fault is played; `stack` ends what the fault itself starts."""

    servers: list[EmbeddedTriton]
    repositories: list[Path]
    prometheus: Prometheus
    stack: ExitStack

    def add_callers(self, callers: int, *, mixed: bool = False) -> None:
        """So many more, none of whom pauses."""
        self.stack.enter_context(Callers(self.servers[0].grpc_url, callers, pause_seconds=0, mixed=mixed))


@dataclass(frozen=True)
class Fault:
    """What is broken, in a sentence, and the alerts that must fire within twenty minutes of the rules; no other may."""

    what: str
    fires: tuple[str, ...]
    inject: Callable[[Testbed], None]
    replicas: int = 1
    """Servers; the callers know the first."""


def _kill_worker(testbed: Testbed) -> None:
    children = psutil.Process(testbed.servers[0].pid).children()
    next(child for child in children if any(f"/{MODEL}/" in word for word in child.cmdline())).kill()


def _hang(testbed: Testbed) -> None:
    (testbed.repositories[0] / "image_decoder" / "1" / "hang").touch()
    testbed.add_callers(1, mixed=True)
    time.sleep(2)  # until its image is in a batch of its own
    testbed.add_callers(WAITING_CALLERS, mixed=True)


def _restart_with_broken_model(testbed: Testbed) -> None:
    testbed.servers[-1].kill()
    (testbed.repositories[-1] / MODEL / "1" / "model.pt").write_bytes(b"no TorchScript")
    with suppress(EmbeddedTritonError):
        testbed.servers[-1].start()


FAULTS = {
    "overload": Fault(
        f"{FLOOD_CALLERS} callers at once", ("TritonQueueFull",), lambda testbed: testbed.add_callers(FLOOD_CALLERS)
    ),
    # Triton 2.72 turns unready, which 2.51 does not: there TritonReplicaNotReady fires.
    "killed-worker": Fault(
        "a worker process of deepfake_vs_real is killed, and nobody ends the server",
        ("TritonModelFails", "TritonErrorBudgetBurnsFast"),
        _kill_worker,
    ),
    "hanging-decoder": Fault("image_decoder answers nothing any more", ("TritonModelHangs",), _hang),
    "stopped-server": Fault(
        "the only server is killed",
        ("TritonNoReadyReplica",),
        lambda testbed: psutil.Process(testbed.servers[0].pid).kill(),
    ),
    "broken-model": Fault(
        "one of two replicas is restarted with a model.pt that does not load",
        ("TritonReplicaNotScraped",),
        _restart_with_broken_model,
        replicas=2,
    ),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repository", type=Path, default=Path("model_repository"))
    parser.add_argument("--rules", type=Path, default=Path("deploy/observability"))
    parser.add_argument("--faster", type=int, default=20, help="than a cluster's (default: %(default)s)")
    parser.add_argument("--only", nargs="+", choices=list(FAULTS), metavar="FAULT", help=f"of: {', '.join(FAULTS)}")
    parser.add_argument("--settling-minutes", type=float, default=7.0, help="of the rules (default: %(default)s)")
    parser.add_argument("--watching-minutes", type=float, default=20.0, help="of the rules (default: %(default)s)")
    options = parser.parse_args()
    minute, good = 60 / options.faster, True
    print(f"{processor_name()}, {cores()} cores, Triton, Prometheus and the load on the same machine")
    print(f"Prometheus {options.faster} times as fast: {minute:.3g} s here are a minute there", flush=True)
    try:
        for name in options.only or FAULTS:
            with _testbed(FAULTS[name], options.repository, options.rules, options.faster) as testbed:
                time.sleep(options.settling_minutes * minute)
                good &= _play(name, testbed, options.watching_minutes * minute, minute)
    except (EmbeddedTritonError, PrometheusError) as error:
        sys.exit(f"faults: {error}")
    sys.exit(0 if good else 1)


@contextmanager
def _testbed(fault: Fault, repository: Path, rules: Path, faster: int) -> Iterator[Testbed]:
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="deepfake-faults-")))
        repositories = [_copy(repository, folder / str(number)) for number in range(fault.replicas)]
        servers = [EmbeddedTriton(copy, log=io.StringIO()) for copy in repositories]
        for server in servers:
            server.start()
            stack.callback(server.kill)
        targets = [target(server.metrics_url, f"triton-{number}") for number, server in enumerate(servers, 1)]
        stack.enter_context(Callers(servers[0].grpc_url, callers=2))
        groups = read_groups(rules, {"deepfake:queue_limit:requests": QUEUE_REQUESTS}, faster)
        prometheus = stack.enter_context(local_prometheus(targets, groups, faster=faster))
        yield Testbed(servers, repositories, prometheus, stack)


def _copy(repository: Path, destination: Path) -> Path:
    """A copy with short queues, whose image_decoder can be told to hang."""
    shutil.copytree(repository, destination)
    for configuration in (*destination.glob("*/config.pbtxt"), *destination.glob("*/configs/cpu.pbtxt")):
        text = re.sub(r"(max_queue_size: )\d+", rf"\g<1>{QUEUE_REQUESTS}", configuration.read_text(encoding="utf-8"))
        configuration.write_text(text, encoding="utf-8")
    with (destination / "image_decoder" / "1" / "model.py").open("a", encoding="utf-8") as model:
        model.write(_HANG)
    return destination


def _play(name: str, testbed: Testbed, watching_seconds: float, minute: float) -> bool:
    """Break it, watch, and print what fired; whether that was what should."""
    fault = FAULTS[name]
    too_early = set(testbed.prometheus.firing())
    fired: set[str] = set()
    print(f"{name}: {fault.what}", flush=True)
    began = time.monotonic()
    fault.inject(testbed)
    while (passed := time.monotonic() - began) < watching_seconds or (
        passed < _PATIENCE_SECONDS and not fired.issuperset(fault.fires)
    ):
        for alert, description in testbed.prometheus.firing().items():
            if alert not in fired:
                print(f"  {passed:5.1f} s = {passed / minute:4.1f} min  {alert} {description}", flush=True)
                fired.add(alert)
        time.sleep(0.2)
    silent = ", ".join(alert for alert in fault.fires if alert not in fired)
    others = ", ".join(sorted(too_early | (fired - set(fault.fires))))
    print(f"  expected and silent: {silent or 'none'}; fired and not expected: {others or 'none'}", flush=True)
    return not silent and not others


if __name__ == "__main__":
    main()

"""The faults, and the alerts that should come of each."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from dataclasses import dataclass

import psutil
from deepfake_deploy.embedded import EmbeddedTritonError

from .scene import Scene

FLOOD_CALLERS = 150  # more than twice what the scene's queue holds
# The stub answers Triton's question whether it is healthy several times a second; frozen for longer it counts as dead.
FROZEN_SECONDS, RUNNING_SECONDS = 0.25, 0.012


@dataclass(frozen=True)
class Fault:
    """One fault.

    Attributes:
        what: what is broken, in a sentence.
        fires: the alerts that must fire within twenty minutes, by the rules' clock. No other may.
        inject: breaks it.
        replicas, poll_seconds, kubelet, measured_latency: what the scene must have.
    """

    what: str
    fires: tuple[str, ...]
    inject: Callable[[Scene], None]
    replicas: int = 1
    poll_seconds: int = 0
    kubelet: bool = False
    measured_latency: bool = False


def _overload(scene: Scene) -> None:
    scene.callers.flood(FLOOD_CALLERS)


def _kill_worker(scene: Scene) -> None:
    _workers(scene, "deepfake_vs_real")[0].kill()


def _kill_server(scene: Scene) -> None:
    psutil.Process(scene.replicas[0].server.pid).kill()


def _restart_with_broken_model(scene: Scene) -> None:
    broken = scene.replicas[-1]
    broken.server.kill()
    broken.model_file.write_bytes(b"no TorchScript")
    try:
        broken.server.start()
    except EmbeddedTritonError:
        return
    raise AssertionError(f"{broken.model_file}: loaded, though it is no TorchScript")


def _add_broken_version(scene: Scene) -> None:
    version = scene.replicas[-1].model_file.parent.parent / "2"
    version.mkdir()
    (version / "model.pt").write_bytes(b"no TorchScript")


def _slow_down(scene: Scene) -> None:
    workers, end = _workers(scene, "deepfake_vs_real"), threading.Event()

    def freeze() -> None:
        while not end.wait(RUNNING_SECONDS):
            for worker in workers:
                worker.send_signal(signal.SIGSTOP)
            end.wait(FROZEN_SECONDS)
            for worker in workers:
                worker.send_signal(signal.SIGCONT)

    thread = threading.Thread(target=freeze, name="freeze")
    thread.start()
    scene.resources.callback(thread.join)
    scene.resources.callback(end.set)


def _workers(scene: Scene, model: str) -> list[psutil.Process]:
    """The stubs of one of the first server's models, one for each instance."""
    children = psutil.Process(scene.replicas[0].server.pid).children()
    return [child for child in children if any(f"/{model}/" in word for word in child.cmdline())]


FAULTS = {
    "overload": Fault(
        f"{FLOOD_CALLERS} callers at once",
        # What is refused first, then what those who wait see, and last why it does not end by itself.
        fires=("TritonQueueFull", "TritonLatencyBudgetBurnsFast", "TritonQueueOutweighsCompute"),
        inject=_overload,
        measured_latency=True,
    ),
    "killed-worker": Fault(
        "a worker process of deepfake_vs_real is killed, and nobody ends the server",
        fires=("TritonModelFails", "TritonErrorBudgetBurnsFast"),
        inject=_kill_worker,
    ),
    "stopped-server": Fault(
        "the only server is killed",
        fires=("TritonNoReadyReplica",),
        inject=_kill_server,
    ),
    "broken-model": Fault(
        "one of two replicas is restarted with a model.pt that does not load",
        fires=("TritonReplicaNotScraped",),
        inject=_restart_with_broken_model,
        replicas=2,
    ),
    "broken-version": Fault(
        "the only server polls and finds a new version that does not load; its readiness is seen as a kubelet sees it",
        fires=("TritonNoReadyReplica",),
        inject=_add_broken_version,
        poll_seconds=5,
        kubelet=True,
    ),
    "broken-version-on-one": Fault(
        "the same with one of two servers",
        fires=("TritonReplicaNotReady",),
        inject=_add_broken_version,
        replicas=2,
        poll_seconds=5,
        kubelet=True,
    ),
    "slow-inference": Fault(
        f"the workers of deepfake_vs_real run {RUNNING_SECONDS * 1000:.0f} of every "
        f"{(RUNNING_SECONDS + FROZEN_SECONDS) * 1000:.0f} ms",
        fires=("TritonLatencyBudgetBurnsFast",),
        inject=_slow_down,
        measured_latency=True,
    ),
}

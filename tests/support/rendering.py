"""Every overlay with every set of components, as `kubectl kustomize` renders them."""

from __future__ import annotations

import functools
import itertools
import os
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tests.support.programs import require_program
from tests.support.project import ROOT

KUBERNETES = ROOT / "deploy" / "kubernetes"
OVERLAYS = sorted(path.parent.name for path in KUBERNETES.glob("overlays/*/kustomization.yaml"))
COMPONENTS = sorted(path.parent.name for path in KUBERNETES.glob("components/*/kustomization.yaml"))

# Two ways to the same end; a Deployment takes one of them.
EXCLUSIVE = (
    ("autoscaling-hpa", "autoscaling-keda"),
    ("model-image-volume", "model-pvc"),
    ("monitoring", "monitoring-cpu"),
)

# A gateway speaks plain text to the pods, and Locust has no certificate.
INCOMPATIBLE = ({"gateway", "grpc-mtls"}, {"loadtest", "grpc-mtls"})
# There monitoring-cpu takes its place, which contains it.
NOT_ON = {"cpu": {"monitoring"}}

_TIMEOUT_SECONDS = 60


@dataclass(frozen=True)
class Rendering:
    """What one combination renders to."""

    overlay: str
    added: tuple[str, ...]
    """Components on top of those that the overlay has."""
    documents: tuple[str, ...]
    """YAML text of each object."""

    @property
    def components(self) -> frozenset[str]:
        return frozenset(self.added) | components_of(self.overlay)

    @property
    def objects(self) -> list[dict[str, Any]]:
        """The objects; not to be changed, other combinations share them."""
        return [parsed(document) for document in self.documents]

    def __str__(self) -> str:
        return " + ".join([self.overlay, *self.added])

    def of_kind(self, kind: str) -> list[dict[str, Any]]:
        return [found for found in self.objects if found["kind"] == kind]

    def named(self, kind: str, name: str) -> dict[str, Any]:
        """The one object of this kind and name."""
        (found,) = (found for found in self.of_kind(kind) if found["metadata"]["name"] == name)
        return found


@functools.cache
def parsed(document: str) -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.load(document, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))  # noqa: S506 - both are safe
    return loaded


@functools.cache
def components_of(overlay: str) -> frozenset[str]:
    """Components that the overlay, or an overlay that it stands on, names."""
    folder = KUBERNETES / "overlays" / overlay
    kustomization = yaml.safe_load((folder / "kustomization.yaml").read_text())
    found = {Path(component).name for component in kustomization.get("components", [])}
    for resource in kustomization["resources"]:
        if (folder / resource).resolve().parent.name == "overlays":
            found |= components_of(Path(resource).name)
    return frozenset(found)


def combinations() -> Iterator[tuple[str, tuple[str, ...]]]:
    """(overlay, components to add): every set that the overlay does not have and that takes one of each exclusive group."""
    for overlay in OVERLAYS:
        present = components_of(overlay)
        groups = [group for group in EXCLUSIVE if not present & set(group)]
        fitting = [name for name in COMPONENTS if name not in present | NOT_ON.get(overlay, set())]
        free = [name for name in fitting if not any(name in group for group in EXCLUSIVE)]
        for choice in itertools.product(*[(None, *(name for name in group if name in fitting)) for group in groups]):
            for bits in itertools.product((False, True), repeat=len(free)):
                chosen = [name for name in choice if name]
                chosen += [name for name, bit in zip(free, bits, strict=True) if bit]
                if not any(pair <= present.union(chosen) for pair in INCOMPATIBLE):
                    yield overlay, tuple(chosen)


def render_all(scratch: Path) -> list[Rendering]:
    """Every combination, rendered from a kustomization of its own in `scratch`, as a user would write it."""
    kubectl = require_program("kubectl", instead=KUBECTL)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return list(pool.map(lambda wanted: _render(kubectl, scratch, *wanted), enumerate(combinations())))


def render(scratch: Path, overlay: str, *added: str) -> Rendering:
    """One combination."""
    return _render(require_program("kubectl", instead=KUBECTL), scratch, 0, (overlay, added))


KUBECTL = "install kubectl 1.30 or newer, https://kubernetes.io/docs/tasks/tools/"


def _render(kubectl: str, scratch: Path, number: int, combination: tuple[str, tuple[str, ...]]) -> Rendering:
    overlay, added = combination
    folder = scratch / str(number)
    folder.mkdir()
    # kustomize takes relative paths only.
    above = os.path.relpath(KUBERNETES.resolve(), folder.resolve())
    kustomization = {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "namespace": "deepfake",
        "resources": [f"{above}/overlays/{overlay}"],
        "components": [f"{above}/components/{name}" for name in added],
    }
    (folder / "kustomization.yaml").write_text(yaml.safe_dump(kustomization))
    run = subprocess.run(
        [kubectl, "kustomize", str(folder)],
        env={**os.environ, "GOGC": "off"},  # a sixth faster: it ends before its memory is worth collecting
        capture_output=True,
        text=True,
        timeout=_TIMEOUT_SECONDS,
        check=False,
    )
    assert run.returncode == 0, f"{overlay} + {added}: {run.stderr}"
    # kustomize tells of what will not work any more on stderr.
    assert run.stderr == "", f"{overlay} + {added}: {run.stderr}"
    return Rendering(overlay, added, tuple(run.stdout.split("\n---\n")))

"""Overlays with components, as `kubectl kustomize` renders them, and the parts of what comes out."""

from __future__ import annotations

import functools
import itertools
import os
import subprocess
from collections.abc import Callable, Iterable, Iterator, Mapping
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

INCOMPATIBLE = (
    # Two ways to the same end.
    {"autoscaling-hpa", "autoscaling-keda"},
    {"model-image-volume", "model-pvc"},
    {"monitoring", "monitoring-cpu"},
    # There monitoring-cpu takes its place, which contains it.
    {"cpu", "monitoring"},
    # No GPU, no slice of one.
    {"cpu", "mig"},
    # A gateway speaks plain text to the pods, and Locust has no certificate.
    {"gateway", "grpc-mtls"},
    {"loadtest", "grpc-mtls"},
)

KUBECTL = "install kubectl 1.30 or newer, https://kubernetes.io/docs/tasks/tools/"
TRITON = {"app.kubernetes.io/name": "deepfake-vs-real", "app.kubernetes.io/component": "triton"}

_TIMEOUT_SECONDS = 60


@dataclass(frozen=True)
class Combination:
    """An overlay and the components that a user adds to it."""

    overlay: str
    added: tuple[str, ...] = ()

    @property
    def components(self) -> frozenset[str]:
        """Those added, and those that the overlay has."""
        return components_of(self.overlay).union(self.added)

    @property
    def fits(self) -> bool:
        return not any(pair <= {self.overlay, *self.components} for pair in INCOMPATIBLE)

    def __str__(self) -> str:
        return " + ".join([self.overlay, *self.added])


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


def combinations() -> Iterator[Combination]:
    """Every overlay with every set of components that fits."""
    for overlay in OVERLAYS:
        free = [name for name in COMPONENTS if name not in components_of(overlay)]
        for size in range(len(free) + 1):
            for added in itertools.combinations(free, size):
                if (combination := Combination(overlay, added)).fits:
                    yield combination


def pairs(combination: Combination) -> set[frozenset[str]]:
    """Every two components, each present or absent, on this overlay."""
    absent = {f"no {name}" for name in set(COMPONENTS) - combination.components}
    pairs = itertools.combinations(combination.components | absent, 2)
    return {frozenset({combination.overlay, *pair}) for pair in pairs}


def pairwise() -> list[Combination]:
    """The overlays alone, and few combinations beside them, so that all pairs of all combinations are in one."""
    candidates = {combination: pairs(combination) for combination in combinations()}
    chosen = [Combination(overlay) for overlay in OVERLAYS]
    missing = set[frozenset[str]]().union(*candidates.values()).difference(*map(pairs, chosen))
    while missing:
        chosen.append(max(candidates, key=lambda each: len(candidates[each] & missing)))
        missing -= candidates[chosen[-1]]
    return chosen


@dataclass(frozen=True)
class Rendering:
    """What one combination renders to."""

    combination: Combination
    documents: tuple[str, ...]
    """YAML text of each object."""

    @property
    def overlay(self) -> str:
        return self.combination.overlay

    @property
    def components(self) -> frozenset[str]:
        return self.combination.components

    @property
    def objects(self) -> list[dict[str, Any]]:
        """The objects; not to be changed, other combinations share them."""
        return [parsed(document) for document in self.documents]

    def of_kind(self, kind: str) -> list[dict[str, Any]]:
        return [found for found in self.objects if found["kind"] == kind]

    def named(self, kind: str, name: str) -> dict[str, Any]:
        """The one object of this kind and name."""
        (found,) = (found for found in self.of_kind(kind) if found["metadata"]["name"] == name)
        return found

    @property
    def pod_templates(self) -> dict[str, dict[str, Any]]:
        """Kind and name → pod template of all that makes pods."""
        makers = self.of_kind("Deployment") + self.of_kind("Job")
        return {f"{found['kind']} {found['metadata']['name']}": found["spec"]["template"] for found in makers}

    @property
    def triton_pod(self) -> dict[str, Any]:
        spec: dict[str, Any] = self.pod_templates["Deployment triton"]["spec"]
        return spec

    @property
    def triton(self) -> dict[str, Any]:
        """Triton's container."""
        (container,) = self.triton_pod["containers"]
        found: dict[str, Any] = container
        return found


@functools.cache
def parsed(document: str) -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.load(document, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))  # noqa: S506 - both are safe
    return loaded


def render_all(scratch: Path, wanted: Iterable[Combination]) -> list[Rendering]:
    """Render each from a kustomization of its own in `scratch`, as a user would write it."""
    kubectl = require_program("kubectl", instead=KUBECTL)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return list(pool.map(lambda each: _render(kubectl, scratch / str(each[0]), each[1], {}), enumerate(wanted)))


def render(scratch: Path, overlay: str, *added: str, **fields: Any) -> Rendering:
    """One combination, with other fields in the user's kustomization."""
    kubectl = require_program("kubectl", instead=KUBECTL)
    return _render(kubectl, scratch / "-".join([overlay, *added]), Combination(overlay, added), fields)


def _render(kubectl: str, folder: Path, combination: Combination, fields: Mapping[str, Any]) -> Rendering:
    folder.mkdir()
    # kustomize takes relative paths only.
    above = os.path.relpath(KUBERNETES.resolve(), folder.resolve())
    kustomization = {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "namespace": "deepfake",
        "resources": [f"{above}/overlays/{combination.overlay}"],
        "components": [f"{above}/components/{name}" for name in combination.added],
        **fields,
    }
    (folder / "kustomization.yaml").write_text(yaml.safe_dump(kustomization))
    command = [kubectl, "kustomize", str(folder)]
    run = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT_SECONDS, check=False)
    # kustomize tells of what will not work any more on stderr: only of `vars`, which autoscaling-keda explains.
    warnings = [line for line in run.stderr.splitlines() if "vars" not in line]
    assert (run.returncode, warnings) == (0, []), f"{combination}: {run.stderr}"
    return Rendering(combination, tuple(run.stdout.split("\n---\n")))


def each(check: Callable[[Rendering], None]) -> Callable[[list[Rendering]], None]:
    """A test of every rendering that names the combination it failed for."""

    def test(renderings: list[Rendering]) -> None:
        for rendering in renderings:
            try:
                check(rendering)
            except AssertionError as error:
                raise AssertionError(f"{rendering.combination}: {error}") from error

    test.__name__, test.__doc__ = check.__name__, check.__doc__
    return test


def container_ports(container: Mapping[str, Any]) -> dict[str, int]:
    return {port["name"]: port["containerPort"] for port in container.get("ports", [])}


def arguments(given: Iterable[str]) -> dict[str, list[str]]:
    """Flag → its values, in order."""
    found: dict[str, list[str]] = {}
    for argument in given:
        flag, _, value = argument.partition("=")
        found.setdefault(flag, []).append(value)
    return found


def argument(container: Mapping[str, Any], flag: str) -> str:
    """The value of a flag that a container is given once."""
    (value,) = arguments(container["args"])[flag]
    return value

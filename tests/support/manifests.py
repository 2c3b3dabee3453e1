"""Parts of rendered objects, by the names that the tests speak of."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from tests.support.rendering import Rendering

TRITON = {"app.kubernetes.io/name": "deepfake-vs-real", "app.kubernetes.io/component": "triton"}


def pod_templates(rendering: Rendering) -> Iterator[tuple[str, dict[str, Any]]]:
    """(kind and name, pod template) of all that makes pods."""
    for found in rendering.of_kind("Deployment") + rendering.of_kind("Job"):
        yield f"{found['kind']} {found['metadata']['name']}", found["spec"]["template"]


def triton_pod(rendering: Rendering) -> dict[str, Any]:
    spec: dict[str, Any] = rendering.named("Deployment", "triton")["spec"]["template"]["spec"]
    return spec


def triton_container(rendering: Rendering) -> dict[str, Any]:
    (container,) = triton_pod(rendering)["containers"]
    found: dict[str, Any] = container
    return found


def container_ports(container: Mapping[str, Any]) -> dict[str, int]:
    return {port["name"]: port["containerPort"] for port in container.get("ports", [])}


def arguments(container: Mapping[str, Any]) -> dict[str, list[str]]:
    """Flag → its values, in order."""
    found: dict[str, list[str]] = {}
    for argument in container["args"]:
        flag, _, value = argument.partition("=")
        found.setdefault(flag, []).append(value)
    return found


def argument(container: Mapping[str, Any], flag: str) -> str:
    """The value of a flag that is given once."""
    (value,) = arguments(container)[flag]
    return value


def gibibytes(quantity: str) -> float:
    """A Kubernetes quantity of bytes."""
    for suffix, factor in (("Gi", 1.0), ("Mi", 1 / 1024), ("Ki", 1 / 1024**2)):
        if quantity.endswith(suffix):
            return float(quantity.removesuffix(suffix)) * factor
    return float(quantity) / 1024**3

"""Whatever is combined, the API servers of today and the operators' definitions accept it."""

from __future__ import annotations

import pytest

from tests.support.rendering import (
    COMPONENTS,
    EXCLUSIVE,
    INCOMPATIBLE,
    NOT_ON,
    OVERLAYS,
    Rendering,
    components_of,
    parsed,
)
from tests.support.schemas import CRDS, KUBERNETES_VERSIONS, custom_errors, errors, is_custom


def test_every_overlay_and_component_is_combined(renderings: list[Rendering]) -> None:
    assert OVERLAYS == ["cpu", "gpu", "gpu-hpa", "gpu-mtls"]
    assert len({(rendering.overlay, rendering.added) for rendering in renderings}) == len(renderings)
    for overlay in OVERLAYS:
        seen = frozenset().union(*(each.components for each in renderings if each.overlay == overlay))
        # An overlay that has one of two exclusive components cannot take the other.
        groups = [*EXCLUSIVE, *INCOMPATIBLE]
        barred = {name for group in groups if components_of(overlay) & set(group) for name in group}
        assert seen | barred | NOT_ON.get(overlay, set()) == frozenset(COMPONENTS), overlay


@pytest.mark.parametrize("version", KUBERNETES_VERSIONS)
def test_kubernetes_accepts_every_object(renderings: list[Rendering], version: str) -> None:
    documents = {document for rendering in renderings for document in rendering.documents}
    own = [parsed(document) for document in documents if not is_custom(parsed(document))]
    wrong = {f"{each['kind']} {each['metadata']['name']}": found for each in own if (found := errors(each, version))}
    assert wrong == {}
    assert {"Deployment", "Job", "NetworkPolicy", "HorizontalPodAutoscaler"} <= {each["kind"] for each in own}


def test_the_operators_definitions_accept_every_custom_object(renderings: list[Rendering]) -> None:
    if not CRDS.is_dir():
        pytest.skip("no custom resource definitions; name a folder of them in DEEPFAKE_TEST_CRDS")
    documents = {document for rendering in renderings for document in rendering.documents}
    custom = [parsed(document) for document in documents if is_custom(parsed(document))]
    wrong = {f"{each['kind']} {each['metadata']['name']}": found for each in custom if (found := custom_errors(each))}
    assert wrong == {}
    assert {"ScaledObject", "PodMonitor", "PrometheusRule", "HTTPRoute", "GRPCRoute"} == {
        each["kind"] for each in custom
    }


def test_a_mistake_would_be_found(cpu: Rendering) -> None:
    deployment = cpu.named("Deployment", "triton")
    spec = {**deployment["spec"], "replica": 1}
    assert any("replica" in error for error in errors({**deployment, "spec": spec}, KUBERNETES_VERSIONS[-1]))

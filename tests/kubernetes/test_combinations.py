"""Whatever is combined, API servers and operators accept it, and its objects fit each other."""

from __future__ import annotations

import itertools
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from loadtests.observability.prometheus import CPU_OBJECTIVES
from tests.support.network import selected
from tests.support.project import ROOT
from tests.support.rendering import (
    COMPONENTS,
    INCOMPATIBLE,
    KUBERNETES,
    OVERLAYS,
    TRITON,
    Combination,
    Rendering,
    argument,
    components_of,
    container_ports,
    each,
    parsed,
    render,
)
from tests.support.schemas import CRDS, KUBERNETES_VERSIONS, custom_error, error, is_custom


def test_every_two_components_that_fit_are_rendered_together_on_every_overlay(renderings: list[Rendering]) -> None:
    assert OVERLAYS == ["cpu", "gpu", "gpu-hpa", "gpu-mtls"]
    assert len(renderings) < 40
    for overlay, *pair in itertools.product(OVERLAYS, COMPONENTS, COMPONENTS):
        wanted = components_of(overlay).union(pair)
        if not any(barred <= {overlay, *wanted} for barred in INCOMPATIBLE):
            assert any(each.overlay == overlay and wanted <= each.components for each in renderings), (overlay, pair)


def distinct(renderings: list[Rendering], *, custom: bool) -> list[dict[str, Any]]:
    documents = {document for rendering in renderings for document in rendering.documents}
    return [parsed(document) for document in sorted(documents) if is_custom(parsed(document)) is custom]


@pytest.mark.parametrize("version", KUBERNETES_VERSIONS)
def test_kubernetes_accepts_every_object(renderings: list[Rendering], version: str) -> None:
    own = distinct(renderings, custom=False)
    assert {
        f"{each['kind']} {each['metadata']['name']}": wrong for each in own if (wrong := error(each, version))
    } == {}
    assert {"Deployment", "Job", "NetworkPolicy", "HorizontalPodAutoscaler"} <= {each["kind"] for each in own}


def test_the_operators_definitions_accept_every_custom_object(renderings: list[Rendering]) -> None:
    if not CRDS.is_dir():
        pytest.skip("no custom resource definitions; name a folder of them in DEEPFAKE_TEST_CRDS")
    custom = distinct(renderings, custom=True)
    known = [each for each in custom if each["kind"] != "Certificate"]  # checked below: its definition is not at hand
    assert {
        f"{each['kind']} {each['metadata']['name']}": wrong for each in known if (wrong := custom_error(each))
    } == {}
    assert {"ScaledObject", "PodMonitor", "PrometheusRule", "HTTPRoute", "GRPCRoute"} == {
        each["kind"] for each in known
    }


def test_a_mistake_would_be_found(cpu: Rendering) -> None:
    deployment = cpu.named("Deployment", "triton")
    wrong = {**deployment, "spec": {**deployment["spec"], "replica": 1}}
    assert "replica" in str(error(wrong, KUBERNETES_VERSIONS[-1]))


@each
def test_all_is_in_the_namespace_that_the_overlay_names(rendering: Rendering) -> None:
    (namespace,) = rendering.of_kind("Namespace")
    assert namespace["metadata"]["name"] == "deepfake"
    for found in rendering.objects:
        if found["kind"] != "Namespace":
            assert found["metadata"]["namespace"] == "deepfake", found["metadata"]["name"]


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_an_overlay_on_top_changes_the_namespace_everywhere(tmp_path: Path, overlay: str) -> None:
    added: list[str] = []
    for name in COMPONENTS:
        if name not in components_of(overlay) and Combination(overlay, (*added, name)).fits:
            added.append(name)
    rendering = render(tmp_path, overlay, *added, namespace="newsroom")
    assert rendering.of_kind("Namespace")[0]["metadata"]["name"] == "newsroom"
    named = set(re.findall(r'namespace(?:: |=~?\\?")([a-z][\w-]*)', "\n".join(rendering.documents)))
    # A Gateway is where its owner has it.
    assert named - {"gateway-system"} == {"newsroom"}
    assert "deepfake.svc" not in "".join(rendering.documents)
    for scaled in rendering.of_kind("ScaledObject"):
        for trigger in scaled["spec"]["triggers"]:
            query = trigger["metadata"]["query"]
            assert query.count('{namespace="newsroom",') == query.count("{") > 0


@each
def test_selectors_match_the_pods_that_are_meant(rendering: Rendering) -> None:
    pods = rendering.pod_templates
    triton = pods["Deployment triton"]["metadata"]["labels"]
    deployment = rendering.named("Deployment", "triton")["spec"]
    # Cannot be changed once the Deployment exists: the same in every combination.
    assert deployment["selector"] == {"matchLabels": TRITON}
    assert selected(deployment["selector"], triton)
    assert rendering.named("PodDisruptionBudget", "triton")["spec"]["selector"] == {"matchLabels": TRITON}
    for constraint in rendering.triton_pod["topologySpreadConstraints"]:
        assert selected(constraint["labelSelector"], triton)
    for monitor in rendering.of_kind("PodMonitor"):
        assert selected(monitor["spec"]["selector"], triton)
    for found in rendering.of_kind("NetworkPolicy"):
        assert any(selected(found["spec"]["podSelector"], pod["metadata"]["labels"]) for pod in pods.values())


@each
def test_services_reach_ports_of_the_pods_that_they_select(rendering: Rendering) -> None:
    for service in rendering.of_kind("Service"):
        selector = {"matchLabels": service["spec"]["selector"]}
        (pod,) = (pod for pod in rendering.pod_templates.values() if selected(selector, pod["metadata"]["labels"]))
        ports = container_ports(pod["spec"]["containers"][0])
        for port in service["spec"]["ports"]:
            assert ports[port["targetPort"]] == port["port"]
    assert rendering.named("Service", "triton-headless")["spec"]["clusterIP"] == "None"
    names = {port["name"] for port in rendering.named("Service", "triton")["spec"]["ports"]}
    assert names == {"http", "grpc"}, "metrics are for Prometheus, which goes to the pods"
    for monitor in rendering.of_kind("PodMonitor"):
        (endpoint,) = monitor["spec"]["podMetricsEndpoints"]
        assert container_ports(rendering.triton)[endpoint["port"]] == 8002


@each
def test_images_carry_this_projects_version_and_never_latest(rendering: Rendering) -> None:
    (version,) = re.findall(r'^version = "(.+)"', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    pods = rendering.pod_templates.values()
    images = [container["image"] for pod in pods for container in pod["spec"]["containers"]]
    images += [volume["image"]["reference"] for volume in rendering.triton_pod["volumes"] if "image" in volume]
    # Weights of another precision are another image; with the model's own image it is the server's alone.
    suffix = "(-cpu)?" if rendering.overlay == "cpu" else ""
    name = rf"registry\.example\.com/deepfake-vs-real/(server|model|loadtest):{re.escape(version)}{suffix}"
    assert all(re.fullmatch(name, image) for image in images), images


@each
def test_budgets_and_autoscalers_aim_at_the_deployment(rendering: Rendering) -> None:
    deployment = rendering.named("Deployment", "triton")
    assert "replicas" not in deployment["spec"], "an apply would undo what the autoscaler did"
    scalers = rendering.of_kind("ScaledObject") + rendering.of_kind("HorizontalPodAutoscaler")
    for scaler in scalers:
        target = {"apiVersion": "apps/v1", "kind": "Deployment", "name": "triton"}
        assert scaler["spec"]["scaleTargetRef"] == target
    assert len(scalers) == len(rendering.components & {"autoscaling-keda", "autoscaling-hpa"})
    # Percentages of a budget are rounded up: one pod may always go.
    assert re.fullmatch(r"[1-9]\d?%", rendering.named("PodDisruptionBudget", "triton")["spec"]["maxUnavailable"])
    rolling = deployment["spec"]["strategy"]["rollingUpdate"]
    assert rolling["maxSurge"] == "10%"
    # One pod and no autoscaler: the new one first. Else one may go first, for clusters without a spare GPU.
    assert rolling["maxUnavailable"] == (0 if rendering.overlay == "cpu" else 1)


@each
def test_routes_lead_to_service_ports(rendering: Rendering) -> None:
    ports = {port["port"]: port for port in rendering.named("Service", "triton")["spec"]["ports"]}
    routes = rendering.of_kind("HTTPRoute") + rendering.of_kind("GRPCRoute")
    for route in routes:
        for backend in (backend for rule in route["spec"]["rules"] for backend in rule["backendRefs"]):
            assert backend["name"] == "triton"
            assert ports[backend["port"]]["name"] == ("grpc" if route["kind"] == "GRPCRoute" else "http")
    hostnames = [name for route in routes for name in route["spec"]["hostnames"]]
    assert len(hostnames) == len(set(hostnames)), "one listener gives a host name to one kind of route"
    protocol = ports[8001].get("appProtocol")
    assert protocol == (None if "grpc-mtls" in rendering.components else "kubernetes.io/h2c")


def test_the_certificate_is_for_the_names_that_callers_use_and_lies_where_triton_reads_it(tmp_path: Path) -> None:
    rendering = render(tmp_path, "gpu-mtls", namespace="newsroom")
    certificate = rendering.named("Certificate", "triton-grpc")["spec"]
    assert set(certificate) == {"secretName", "issuerRef", "usages", "dnsNames"}
    names = {service["metadata"]["name"] for service in rendering.of_kind("Service")}
    assert set(certificate["dnsNames"]) == names | {f"{name}.newsroom.svc" for name in names}
    assert "server auth" in certificate["usages"]
    secrets = [volume["secret"]["secretName"] for volume in rendering.triton_pod["volumes"] if "secret" in volume]
    assert secrets == [certificate["secretName"]]


@each
def test_every_load_generator_finds_its_master_and_triton(rendering: Rendering) -> None:
    if "loadtest" not in rendering.components:
        assert rendering.of_kind("Job") == []
        return
    (master,) = rendering.pod_templates["Job locust-master"]["spec"]["containers"]
    worker = rendering.named("Job", "locust-worker")["spec"]
    (worker_container,) = worker["template"]["spec"]["containers"]
    assert int(argument(master, "--expect-workers")) == worker["parallelism"] == worker["completions"]
    # It waits for a new node and its image (deploy/kubernetes/README.md), runs, and has time left to end.
    wait, run = (
        int(argument(master, "--wait-ready-seconds")),
        int(argument(master, "--run-time").removesuffix("m")) * 60,
    )
    assert 555 < wait < rendering.named("Job", "locust-master")["spec"]["activeDeadlineSeconds"] - run
    names = {service["metadata"]["name"] for service in rendering.of_kind("Service")}
    assert argument(worker_container, "--master-host") in names
    assert argument(master, "--host").removeprefix("grpc://").removesuffix(":8001") in names


@each
def test_monitoring_calls_that_queue_full_which_the_overlays_configuration_has(rendering: Rendering) -> None:
    if not rendering.components & {"monitoring", "monitoring-cpu"}:
        return
    rules = rendering.named("PrometheusRule", "deepfake-vs-real-objectives")["spec"]["groups"][0]["rules"]
    (limit,) = (rule["expr"] for rule in rules if rule["record"] == "deepfake:queue_limit:requests")
    name = "configs/cpu.pbtxt" if rendering.overlay == "cpu" else "config.pbtxt"
    config = (ROOT / "model_repository" / "deepfake_vs_real" / name).read_text()
    assert re.findall(r"max_queue_size: (\d+)", config) == re.findall(r"\d+", limit)


def test_the_objectives_for_cpus_are_those_of_make_observe(tmp_path: Path) -> None:
    rules = render(tmp_path, "cpu", "monitoring-cpu").named("PrometheusRule", "deepfake-vs-real-objectives")
    expressions = {rule["record"]: rule["expr"] for rule in rules["spec"]["groups"][0]["rules"]}
    for record, value in CPU_OBJECTIVES.items():
        assert expressions[record] == f"vector({value:g})"


def test_each_component_says_when_to_use_it() -> None:
    for component in COMPONENTS:
        readme = (KUBERNETES / "components" / component / "README.md").read_text()
        assert readme.startswith(f"# {component}\n")
        assert "**When**" in readme


def test_the_patches_in_the_components_documents_can_be_applied(tmp_path: Path) -> None:
    on = {
        "grpc-mtls": ("gpu-mtls",),
        "autoscaling-keda": ("gpu",),
        "gateway": ("gpu", "gateway"),
        "mig": ("gpu",),
        "model-image-volume": ("gpu", "model-image-volume"),
        "model-pvc": ("gpu", "model-pvc"),
        "monitoring": ("gpu",),
        "loadtest": ("gpu-mtls", "loadtest"),
    }
    # What ships in place of the user's own, and is gone with the document's first block.
    placeholders = {
        "gateway": r"gateway-system|deepfake(-grpc)?\.example\.com",
        "model-image-volume": r"registry\.example\.com/deepfake-vs-real/model:",
        "monitoring": r"git\.example\.com",
        "loadtest": r"registry\.example\.com/deepfake-vs-real/loadtest:",
    }
    found = 0
    for component in COMPONENTS:
        readme = (KUBERNETES / "components" / component / "README.md").read_text()
        for number, block in enumerate(re.findall(r"^```yaml\n(.*?)^```", readme, re.MULTILINE | re.DOTALL)):
            folder = tmp_path / str(found)
            folder.mkdir()
            rendering = render(folder, *on[component], **yaml.safe_load(block))
            found += 1
            if number == 0 and component in placeholders:
                assert not re.search(placeholders[component], "".join(rendering.documents)), component
            if "$patch: delete" in block:
                assert rendering.of_kind("Certificate") == []
    assert found == 10


def test_the_overlay_that_the_document_shows_can_be_applied(tmp_path: Path) -> None:
    (block,) = re.findall(
        r"^   ```yaml\n(.*?)^   ```", (KUBERNETES / "README.md").read_text(), re.MULTILINE | re.DOTALL
    )
    shown = yaml.safe_load(block)
    (overlay,) = shown.pop("resources")
    triton = render(tmp_path, Path(overlay).name, **shown).triton
    assert triton["image"] == "ghcr.io/newsroom/deepfake-server:2026-11-23"
    assert [triton["resources"][kind]["cpu"] for kind in ("requests", "limits")] == ["4", "4"]


def test_another_volume_of_weights_is_a_patch(tmp_path: Path) -> None:
    readme = (KUBERNETES / "components" / "model-pvc" / "README.md").read_text()
    (block,) = re.findall(r"^```yaml\n(.*?)^```", readme, re.MULTILINE | re.DOTALL)
    (operation,) = re.findall(r"`(\{op: replace, path: /metadata/name.*?\})`", readme)
    patch = yaml.safe_load(block)["patches"][0]
    patch |= {"options": {"allowNameChange": True}, "patch": f"{patch['patch']}- {operation}\n"}
    rendering = render(tmp_path, "gpu", "model-pvc", patches=[patch])
    (claim,) = rendering.of_kind("PersistentVolumeClaim")
    (volume,) = (found for found in rendering.triton_pod["volumes"] if found["name"] == "models")
    assert claim["metadata"]["name"] == volume["persistentVolumeClaim"]["claimName"] == "models-2"
    assert claim["spec"]["storageClassName"] == "shared-files"


def test_each_resource_has_a_file_of_its_own() -> None:
    partial = ("kustomization.yaml", "-patch.yaml", "-values.yaml", "image-volumes.yaml", "namespace-var.yaml")
    for path in [*KUBERNETES.glob("base/*.yaml"), *KUBERNETES.glob("components/*/*.yaml")]:
        if not path.name.endswith(partial):
            (resource,) = yaml.safe_load_all(path.read_text())
            assert path.name == f"{resource['metadata']['name']}-{resource['kind'].lower()}.yaml"

"""What no schema says: that the objects of each combination fit each other."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from loadtests.observability.rules import CPU_OBJECTIVES
from tests.support.every_combination import each
from tests.support.manifests import TRITON, argument, container_ports, pod_templates, triton_container, triton_pod
from tests.support.network import selected
from tests.support.project import ROOT
from tests.support.rendering import COMPONENTS, KUBERNETES, Rendering, render


@each
def test_all_is_in_the_namespace_that_the_overlay_names(rendering: Rendering) -> None:
    (namespace,) = rendering.of_kind("Namespace")
    assert namespace["metadata"]["name"] == "deepfake"
    for found in rendering.objects:
        if found["kind"] != "Namespace":
            assert found["metadata"]["namespace"] == "deepfake", found["metadata"]["name"]


@each
def test_selectors_match_the_pods_that_are_meant(rendering: Rendering) -> None:
    pods = dict(pod_templates(rendering))
    triton = pods["Deployment triton"]["metadata"]["labels"]
    deployment = rendering.named("Deployment", "triton")["spec"]
    # Cannot be changed once the Deployment exists: the same in every combination.
    assert deployment["selector"] == {"matchLabels": TRITON}
    assert selected(deployment["selector"], triton)
    assert rendering.named("PodDisruptionBudget", "triton")["spec"]["selector"] == {"matchLabels": TRITON}
    for constraint in deployment["template"]["spec"]["topologySpreadConstraints"]:
        assert selected(constraint["labelSelector"], triton)
    for monitor in rendering.of_kind("PodMonitor"):
        assert selected(monitor["spec"]["selector"], triton)
    for found in rendering.of_kind("NetworkPolicy"):
        assert any(selected(found["spec"]["podSelector"], pod["metadata"]["labels"]) for pod in pods.values())


@each
def test_services_reach_ports_of_the_pods_that_they_select(rendering: Rendering) -> None:
    for service in rendering.of_kind("Service"):
        selector = {"matchLabels": service["spec"]["selector"]}
        pods = [pod for _, pod in pod_templates(rendering) if selected(selector, pod["metadata"]["labels"])]
        assert len(pods) == 1, service["metadata"]["name"]
        ports = container_ports(pods[0]["spec"]["containers"][0])
        for port in service["spec"]["ports"]:
            assert ports[port["targetPort"]] == port["port"]
    assert rendering.named("Service", "triton-headless")["spec"]["clusterIP"] == "None"
    names = {port["name"] for port in rendering.named("Service", "triton")["spec"]["ports"]}
    assert names == {"http", "grpc"}, "metrics are for Prometheus, which goes to the pods"
    for monitor in rendering.of_kind("PodMonitor"):
        (endpoint,) = monitor["spec"]["podMetricsEndpoints"]
        assert container_ports(triton_container(rendering))[endpoint["port"]] == 8002


@each
def test_images_carry_this_projects_version_and_never_latest(rendering: Rendering) -> None:
    (version,) = re.findall(r'^version = "(.+)"', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    images = [container["image"] for _, pod in pod_templates(rendering) for container in pod["spec"]["containers"]]
    images += [volume["image"]["reference"] for volume in triton_pod(rendering)["volumes"] if "image" in volume]
    # Weights of another precision are another image; with the model's own image it is the server's alone.
    suffix = "(-cpu)?" if rendering.overlay == "cpu" else ""
    for image in images:
        assert re.fullmatch(
            rf"registry\.example\.com/deepfake-vs-real/(server|model|loadtest):{re.escape(version)}{suffix}", image
        )


@each
def test_budgets_and_autoscalers_aim_at_the_deployment(rendering: Rendering) -> None:
    deployment = rendering.named("Deployment", "triton")
    assert "replicas" not in deployment["spec"], "an apply would undo what the autoscaler did"
    targets = [scaled["spec"]["scaleTargetRef"] for scaled in rendering.of_kind("ScaledObject")]
    targets += [scaled["spec"]["scaleTargetRef"] for scaled in rendering.of_kind("HorizontalPodAutoscaler")]
    assert all(target == {"apiVersion": "apps/v1", "kind": "Deployment", "name": "triton"} for target in targets)
    assert len(targets) == len(rendering.components & {"autoscaling-keda", "autoscaling-hpa"})
    # Percentages of a budget are rounded up: one pod may always go.
    assert re.fullmatch(r"[1-9]\d?%", rendering.named("PodDisruptionBudget", "triton")["spec"]["maxUnavailable"])
    rolling = deployment["spec"]["strategy"]["rollingUpdate"]
    assert rolling["maxSurge"] == "10%"
    # One pod and no autoscaler: the new one first. Else one may go first, for clusters without a spare GPU.
    assert rolling["maxUnavailable"] == (0 if rendering.overlay == "cpu" else 1)


@each
def test_no_answer_never_scales_down(rendering: Rendering) -> None:
    for scaled in rendering.of_kind("ScaledObject"):
        spec = scaled["spec"]
        assert spec["fallback"]["behavior"] == "currentReplicasIfHigher"
        assert spec["fallback"]["replicas"] == spec["minReplicaCount"] >= 2
        for trigger in spec["triggers"]:
            assert trigger["metadata"]["ignoreNullValues"] == "false"
            # KEDA's fallback divides its answer over the replicas, as AverageValue is.
            assert trigger["metricType"] == "AverageValue"


@each
def test_routes_lead_to_service_ports(rendering: Rendering) -> None:
    ports = {port["port"]: port for port in rendering.named("Service", "triton")["spec"]["ports"]}
    routes = rendering.of_kind("HTTPRoute") + rendering.of_kind("GRPCRoute")
    for route in routes:
        for rule in route["spec"]["rules"]:
            for backend in rule["backendRefs"]:
                assert backend["name"] == "triton"
                assert ports[backend["port"]]["name"] == ("grpc" if route["kind"] == "GRPCRoute" else "http")
    hostnames = [name for route in routes for name in route["spec"]["hostnames"]]
    assert len(hostnames) == len(set(hostnames)), "one listener gives a host name to one kind of route"
    protocol = ports[8001].get("appProtocol")
    assert protocol == (None if "grpc-mtls" in rendering.components else "kubernetes.io/h2c")


@each
def test_every_load_generator_finds_its_master_and_triton(rendering: Rendering) -> None:
    if "loadtest" not in rendering.components:
        assert rendering.of_kind("Job") == []
        return
    master = rendering.named("Job", "locust-master")["spec"]["template"]["spec"]["containers"][0]
    worker = rendering.named("Job", "locust-worker")["spec"]
    assert int(argument(master, "--expect-workers")) == worker["parallelism"] == worker["completions"]
    names = {service["metadata"]["name"] for service in rendering.of_kind("Service")}
    assert argument(worker["template"]["spec"]["containers"][0], "--master-host") in names
    assert re.fullmatch(r"grpc://([a-z-]+):8001", argument(master, "--host"))[1] in names  # type: ignore[index]


@pytest.mark.parametrize("component", COMPONENTS)
def test_each_component_says_when_to_use_it(component: str) -> None:
    readme = (KUBERNETES / "components" / component / "README.md").read_text()
    assert readme.startswith(f"# {component}\n")
    assert "**When**" in readme


def test_each_resource_has_a_file_of_its_own() -> None:
    for path in [*KUBERNETES.glob("base/*.yaml"), *KUBERNETES.glob("components/*/*.yaml")]:
        if path.name == "kustomization.yaml" or path.name.endswith(
            ("-patch.yaml", "-values.yaml", "image-volumes.yaml")
        ):
            continue
        (resource,) = yaml.safe_load_all(path.read_text())
        name = "triton-headless" if path.name.startswith("triton-headless") else resource["metadata"]["name"]
        assert path.name == f"{name}-{resource['kind'].lower()}.yaml"


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

"""What no schema says about the pods of each combination: that they do what Triton and Kubernetes expect of them."""

from __future__ import annotations

import re
from typing import Any

import yaml
from deepfake_deploy.embedded.command import RATE_LIMIT_ARGUMENTS

from tests.support.every_combination import each
from tests.support.manifests import (
    argument,
    arguments,
    container_ports,
    gibibytes,
    pod_templates,
    triton_container,
    triton_pod,
)
from tests.support.project import ROOT
from tests.support.rendering import KUBERNETES, Rendering
from tests.support.schemas import KUBERNETES_VERSIONS, errors

# What Triton answers at its HTTP port about itself.
READY, LIVE = "/v2/health/ready", "/v2/health/live"

# Callers reconnect after this share more than --grpc-max-connection-age at the latest (gRPC's jitter).
CONNECTION_AGE_JITTER = 1.1
# The longest that cluster DNS goes on naming a pod that is going away (CoreDNS's `cache 30`).
DNS_SECONDS = 30
# client/deepfake_client/_transports/grpc_channel.py: dns_min_time_between_resolutions_ms.
RESOLUTION_PAUSE_SECONDS = 5
# Unloading the models and ending the Python processes: 4 s were seen on a loaded machine.
UNLOADING_SECONDS = 15


@each
def test_triton_listens_where_the_ports_and_probes_say(rendering: Rendering) -> None:
    container = triton_container(rendering)
    ports = container_ports(container)
    for name in ("http", "grpc", "metrics"):
        assert int(argument(container, f"--{name}-port")) == ports[name]
    paths = {probe: container[probe]["httpGet"] for probe in ("startupProbe", "readinessProbe", "livenessProbe")}
    assert paths == {
        "startupProbe": {"path": READY, "port": "http"},
        "readinessProbe": {"path": READY, "port": "http"},
        "livenessProbe": {"path": LIVE, "port": "http"},
    }
    # Liveness waits longer than readiness: a busy pod loses its traffic before it is killed.
    budgets = {probe: container[probe]["periodSeconds"] * container[probe]["failureThreshold"] for probe in paths}
    assert budgets["readinessProbe"] < budgets["livenessProbe"] < budgets["startupProbe"]


@each
def test_no_flag_is_given_twice(rendering: Rendering) -> None:
    for flag, values in arguments(triton_container(rendering)).items():
        if flag == "--http-restricted-api":  # one group of APIs in each
            apis = [api for value in values for api in value.partition(":")[0].split(",")]
            assert len(apis) == len(set(apis))
        elif flag == "--rate-limit-resource":  # one resource in each
            resources = [value.partition(":")[0] for value in values]
            assert len(resources) == len(set(resources))
        else:
            assert len(values) == 1, flag


@each
def test_instances_take_turns_as_in_the_embedded_server(rendering: Rendering) -> None:
    assert [given for given in triton_container(rendering)["args"] if "--rate-limit" in given] == [
        *RATE_LIMIT_ARGUMENTS
    ]


@each
def test_the_grace_period_is_as_long_as_what_must_happen_in_it(rendering: Rendering) -> None:
    pod, container = triton_pod(rendering), triton_container(rendering)
    pause = container["lifecycle"]["preStop"]["sleep"]["seconds"]
    exit_timeout = int(argument(container, "--exit-timeout-secs"))
    grace = pod["terminationGracePeriodSeconds"]
    if "spot" in rendering.components:
        assert pause + exit_timeout <= grace <= 25  # what Google gives, the least of the three clouds
        return
    assert grace >= pause + exit_timeout + UNLOADING_SECONDS
    age = int(argument(container, "--grpc-max-connection-age")) / 1000
    assert pause >= DNS_SECONDS + age * CONNECTION_AGE_JITTER + RESOLUTION_PAUSE_SECONDS
    assert exit_timeout > longest_wait_seconds("configs/cpu.pbtxt" if rendering.overlay == "cpu" else "config.pbtxt")


def longest_wait_seconds(configuration: str) -> float:
    """In the model's queue; on a GPU also in the decoder's, which on a CPU is never the one that waits."""
    models = ["deepfake_vs_real"] if configuration.startswith("configs") else ["deepfake_vs_real", "image_decoder"]
    texts = [(ROOT / "model_repository" / model / configuration).read_text() for model in models]
    return sum(int(re.findall(r"default_timeout_microseconds: (\d+)", text)[0]) / 1e6 for text in texts)


@each
def test_every_container_is_restricted(rendering: Rendering) -> None:
    accounts = {found["metadata"]["name"]: found for found in rendering.of_kind("ServiceAccount")}
    for name, template in pod_templates(rendering):
        check_restricted(name, template["spec"])
        assert accounts[template["spec"]["serviceAccountName"]]["automountServiceAccountToken"] is False
    labels = rendering.named("Namespace", "deepfake")["metadata"]["labels"]
    assert labels["pod-security.kubernetes.io/enforce"] == "restricted"


def check_restricted(name: str, pod: dict[str, Any]) -> None:
    """The restricted Pod Security Standard, and a read-only root, requests and limits beside it."""
    assert pod["automountServiceAccountToken"] is False, name
    assert pod["securityContext"]["runAsNonRoot"] is True, name
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}, name
    assert not {"hostNetwork", "hostPID", "hostIPC"} & set(pod), name
    allowed = {"name", "emptyDir", "secret", "persistentVolumeClaim", "image"}
    assert all(set(volume) <= allowed for volume in pod["volumes"]), name
    for container in pod["containers"] + pod.get("initContainers", []):
        context = container["securityContext"]
        assert context["capabilities"] == {"drop": ["ALL"]}, name
        assert context["readOnlyRootFilesystem"] is True, name
        assert context["allowPrivilegeEscalation"] is False, name
        assert (context["runAsUser"], context["runAsGroup"]) == (1000, 1000), name
        for resource in ("cpu", "memory", "ephemeral-storage"):
            assert resource in container["resources"]["requests"], name
            assert resource in container["resources"]["limits"], name


@each
def test_one_gpu_per_pod_or_none(rendering: Rendering) -> None:
    pod, resources = triton_pod(rendering), triton_container(rendering)["resources"]
    tolerated = {toleration["key"] for toleration in pod.get("tolerations", [])}
    if rendering.overlay == "cpu":
        assert "nvidia.com/gpu" not in resources["requests"] | resources["limits"]
        assert "nvidia.com/gpu" not in tolerated
        assert argument(triton_container(rendering), "--model-config-name") == "cpu"
    else:
        assert resources["requests"]["nvidia.com/gpu"] == resources["limits"]["nvidia.com/gpu"] == "1"
        assert "nvidia.com/gpu" in tolerated
        assert "--model-config-name" not in arguments(triton_container(rendering))


@each
def test_what_is_written_at_run_time_fits_the_memory(rendering: Rendering) -> None:
    container, volumes = (
        triton_container(rendering),
        {volume["name"]: volume for volume in triton_pod(rendering)["volumes"]},
    )
    mounts = {mount["mountPath"]: mount for mount in container["volumeMounts"]}
    assert volumes[mounts["/dev/shm"]["name"]]["emptyDir"]["medium"] == "Memory"
    shared = gibibytes(volumes[mounts["/dev/shm"]["name"]]["emptyDir"]["sizeLimit"])
    cache = sum(int(value.rpartition("=")[2]) for value in arguments(container).get("--cache-config", [])) / 1024**3
    # Both count as memory of the container, beside what Triton and its processes take themselves.
    own = 1 if rendering.overlay == "cpu" else 6
    assert own + shared + cache < gibibytes(container["resources"]["limits"]["memory"])
    written = [mount for path, mount in mounts.items() if path not in ("/dev/shm", "/tmp")]
    assert all(mount["readOnly"] for mount in written)
    if "models" in volumes:
        assert argument(container, "--model-repository") == mounts_of(mounts, "models") == "/models"


def mounts_of(mounts: dict[str, Any], name: str) -> str:
    (path,) = (path for path, mount in mounts.items() if mount["name"] == name)
    return path


@each
def test_mutual_tls_closes_what_would_pass_in_the_clear(rendering: Rendering) -> None:
    container = triton_container(rendering)
    closed = {
        api for value in arguments(container)["--http-restricted-api"] for api in value.partition(":")[0].split(",")
    }
    assert {"model-repository", "shared-memory", "trace", "logging"} <= closed
    if "grpc-mtls" not in rendering.components:
        assert "inference" not in closed
        return
    assert {"metadata", "inference", "model-config", "statistics"} <= closed
    assert "health" not in closed
    assert argument(container, "--grpc-use-ssl-mutual") == "true"
    mount = next(mount for mount in container["volumeMounts"] if mount["name"] == "tls")
    for flag in ("--grpc-server-cert", "--grpc-server-key", "--grpc-root-cert"):
        assert argument(container, flag).startswith(f"{mount['mountPath']}/")


def test_the_job_that_fills_the_volume_is_restricted_and_fills_the_one_that_is_mounted() -> None:
    component = KUBERNETES / "components" / "model-pvc"
    job, claim = (
        yaml.safe_load((component / name).read_text())
        for name in ("fill-models-job.yaml", "models-persistentvolumeclaim.yaml")
    )
    assert all(errors(job, version) == [] for version in KUBERNETES_VERSIONS)
    check_restricted("fill-models", job["spec"]["template"]["spec"])
    (volume,) = job["spec"]["template"]["spec"]["volumes"]
    assert volume["persistentVolumeClaim"]["claimName"] == claim["metadata"]["name"]

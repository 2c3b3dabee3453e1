"""What no schema says about pods: that they do what Triton and Kubernetes expect of them, in each combination."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml
from deepfake_deploy.embedded import EmbeddedTriton
from deepfake_deploy.embedded.command import TORCH_ENVIRONMENT

from tests.support.project import ROOT
from tests.support.rendering import KUBERNETES, Rendering, argument, arguments, container_ports, each
from tests.support.schemas import KUBERNETES_VERSIONS, error

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

GIBIBYTES = {"Gi": 1.0, "Mi": 1 / 1024}


@each
def test_triton_listens_where_the_ports_and_probes_say(rendering: Rendering) -> None:
    container = rendering.triton
    ports = container_ports(container)
    for name in ("http", "grpc", "metrics"):
        assert int(argument(container, f"--{name}-port")) == ports[name]
    probes = {"startupProbe": READY, "readinessProbe": READY, "livenessProbe": LIVE}
    for probe, path in probes.items():
        assert container[probe]["httpGet"] == {"path": path, "port": "http"}
    # Liveness waits longer than readiness: a busy pod loses its traffic before it is killed.
    budgets = {probe: container[probe]["periodSeconds"] * container[probe]["failureThreshold"] for probe in probes}
    assert budgets["readinessProbe"] < budgets["livenessProbe"] < budgets["startupProbe"]


@each
def test_no_flag_is_given_twice(rendering: Rendering) -> None:
    for flag, values in arguments(rendering.triton["args"]).items():
        if flag == "--http-restricted-api":  # one group of APIs in each
            apis = restricted(values)
            assert len(apis) == len(set(apis))
        else:
            assert len(values) == 1, flag


def restricted(values: list[str]) -> list[str]:
    return [api for value in values for api in value.partition(":")[0].split(",")]


def test_deepfake_serve_gives_its_server_the_same_arguments(cpu: Rendering, triton: EmbeddedTriton) -> None:
    """All that both pass, but for places, ports and the time that a stop may take."""
    command_line = Path(f"/proc/{triton.pid}/cmdline").read_text().rstrip("\0").split("\0")[1:]
    served, pod = arguments(command_line), arguments(cpu.triton["args"])
    apis = {"--http-restricted-api", "--grpc-restricted-protocol"}
    for flag in apis:
        assert restricted(served[flag]) == restricted(pod[flag])
    own = {"--model-repository", "--http-port", "--grpc-port", "--metrics-port", "--exit-timeout-secs"}
    shared = served.keys() & pod.keys() - apis - own
    assert {flag: served[flag] for flag in shared} == {flag: pod[flag] for flag in shared}
    assert {"--model-control-mode", "--rate-limit", "--rate-limit-resource", "--model-config-name"} <= shared
    environment = {variable["name"]: variable.get("value") for variable in cpu.triton["env"]}
    assert TORCH_ENVIRONMENT.items() <= environment.items()


@each
def test_the_grace_period_is_as_long_as_what_must_happen_in_it(rendering: Rendering) -> None:
    pause = rendering.triton["lifecycle"]["preStop"]["sleep"]["seconds"]
    exit_timeout = int(argument(rendering.triton, "--exit-timeout-secs"))
    grace = rendering.triton_pod["terminationGracePeriodSeconds"]
    if "spot" in rendering.components:
        assert pause + exit_timeout < grace <= 15, "GKE gives ordinary pods 15 s"
        return
    assert grace >= pause + exit_timeout + UNLOADING_SECONDS
    age = int(argument(rendering.triton, "--grpc-max-connection-age")) / 1000
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
    for name, template in rendering.pod_templates.items():
        check_restricted(name, template["spec"], user=None if "openshift" in rendering.components else 1000)
        assert accounts[template["spec"]["serviceAccountName"]]["automountServiceAccountToken"] is False
    labels = rendering.named("Namespace", "deepfake")["metadata"]["labels"]
    assert labels["pod-security.kubernetes.io/enforce"] == "restricted"


def check_restricted(name: str, pod: dict[str, Any], user: int | None = 1000) -> None:
    """The restricted Pod Security Standard, and a read-only root, requests and limits beside it.

    Args:
        user: and group; None where the cluster assigns them.
    """
    assert pod["automountServiceAccountToken"] is False, name
    assert pod["securityContext"]["runAsNonRoot"] is True, name
    assert [pod["securityContext"].get(field) for field in ("runAsUser", "runAsGroup", "fsGroup")] == [user] * 3, name
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}, name
    assert not {"hostNetwork", "hostPID", "hostIPC"} & set(pod), name
    allowed = {"name", "emptyDir", "secret", "persistentVolumeClaim", "image"}
    assert all(set(volume) <= allowed for volume in pod["volumes"]), name
    for container in pod["containers"] + pod.get("initContainers", []):
        context = container["securityContext"]
        assert context["capabilities"] == {"drop": ["ALL"]}, name
        assert context["readOnlyRootFilesystem"] is True, name
        assert context["allowPrivilegeEscalation"] is False, name
        assert context["runAsNonRoot"] is True, name
        assert (context.get("runAsUser"), context.get("runAsGroup")) == (user, user), name
        for resource in ("cpu", "memory", "ephemeral-storage"):
            assert resource in container["resources"]["requests"], name
            assert resource in container["resources"]["limits"], name


@each
def test_one_gpu_per_pod_or_none(rendering: Rendering) -> None:
    resources = rendering.triton["resources"]
    tolerated = {toleration["key"] for toleration in rendering.triton_pod.get("tolerations", [])}
    if rendering.overlay == "cpu":
        assert "nvidia.com/gpu" not in resources["requests"] | resources["limits"]
        assert "nvidia.com/gpu" not in tolerated
        assert argument(rendering.triton, "--model-config-name") == "cpu"
    else:
        gpu = "nvidia.com/mig-1g.10gb" if "mig" in rendering.components else "nvidia.com/gpu"
        for asked in (resources["requests"], resources["limits"]):
            assert {name: count for name, count in asked.items() if name.startswith("nvidia.com/")} == {gpu: "1"}
        assert "nvidia.com/gpu" in tolerated
        assert "--model-config-name" not in arguments(rendering.triton["args"])


@each
def test_what_is_written_at_run_time_fits_the_memory(rendering: Rendering) -> None:
    container = rendering.triton
    volumes = {volume["name"]: volume for volume in rendering.triton_pod["volumes"]}
    mounts = {mount["mountPath"]: mount for mount in container["volumeMounts"]}
    shm = volumes[mounts["/dev/shm"]["name"]]["emptyDir"]
    assert shm["medium"] == "Memory"
    cache = sum(int(value.rpartition("=")[2]) for value in arguments(container["args"]).get("--cache-config", []))
    # Both count as memory of the container, beside what Triton and its processes take themselves.
    own = 1 if rendering.overlay == "cpu" else 6
    assert own + gibibytes(shm["sizeLimit"]) + cache / 1024**3 < gibibytes(container["resources"]["limits"]["memory"])
    assert all(mount["readOnly"] for path, mount in mounts.items() if path not in ("/dev/shm", "/tmp"))
    if "models" in volumes:
        (path,) = (path for path, mount in mounts.items() if mount["name"] == "models")
        assert argument(container, "--model-repository") == path == "/models"


def gibibytes(quantity: str) -> float:
    return float(quantity[:-2]) * GIBIBYTES[quantity[-2:]]


@each
def test_mutual_tls_closes_what_would_pass_in_the_clear(rendering: Rendering) -> None:
    container = rendering.triton
    closed = set(restricted(arguments(container["args"])["--http-restricted-api"]))
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
    assert [error(job, version) for version in KUBERNETES_VERSIONS] == [None] * len(KUBERNETES_VERSIONS)
    check_restricted("fill-models", job["spec"]["template"]["spec"])
    (volume,) = job["spec"]["template"]["spec"]["volumes"]
    assert volume["persistentVolumeClaim"]["claimName"] == claim["metadata"]["name"]

"""What no schema says about pods: that they do what Triton and Kubernetes expect of them, in each combination."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import yaml
from deepfake_deploy.embedded import EmbeddedTriton
from deepfake_deploy.embedded.command import TORCH_ENVIRONMENT
from tritonclient.grpc.model_config_pb2 import ModelConfig

from tests.support.model_configurations import MODELS, configuration, instances
from tests.support.project import ROOT
from tests.support.rendering import KUBERNETES, Rendering, argument, arguments, container_ports, each
from tests.support.schemas import KUBERNETES_VERSIONS, error

# What Triton answers at its HTTP port about itself.
READY, LIVE = "/v2/health/ready", "/v2/health/live"

# Callers reconnect after this share more than --grpc-max-connection-age at the latest (gRPC's jitter).
CONNECTION_AGE_JITTER = 1.1
# The longest that cluster DNS goes on naming a pod that is going away (CoreDNS's `cache 30`).
DNS_SECONDS = 30
# client/deepfake_client/_transports/grpc.py: dns_min_time_between_resolutions_ms.
RESOLUTION_PAUSE_SECONDS = 5
# Unloading the models and ending the Python processes: 4 s were seen on a loaded machine.
UNLOADING_SECONDS = 15

MIB = 2**20
UNITS = {"Mi": MIB, "Gi": 2**30}
# Triton's /dev/shm for each Python process, before a request comes (--backend-config=python,shm-default-byte-size).
REGION_BYTES = MIB
# Of what a batch has, Triton and the Python process keep two copies each: counted on 2.51, beside the one in /dev/shm.
COPIES = 4
# deepfake_client.preprocessing.ImageLimits: what decoding takes for a pixel, at most.
DECODING_BYTES_PER_PIXEL = 18
# What Triton takes without a request: 0.75 GiB were seen without a GPU; with one it is an assumption.
OWN_BYTES = {"cpu": 2**30, "gpu": 6 * 2**30}

ARGUMENTS = set((ROOT / "tests" / "support" / "tritonserver-2.72-arguments.txt").read_text().split())


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


@each
def test_the_containers_triton_knows_every_argument(rendering: Rendering) -> None:
    assert arguments(rendering.triton["args"]).keys() <= ARGUMENTS


def test_the_containers_triton_knows_every_argument_of_docker_run() -> None:
    (command,) = re.findall(
        r"^CMD (\[.*?\])", (ROOT / "deploy" / "docker" / "Dockerfile").read_text().replace("\\\n", ""), re.MULTILINE
    )
    assert arguments(json.loads(command)).keys() <= ARGUMENTS


@each
def test_instances_take_turns_on_a_cpu_alone(rendering: Rendering) -> None:
    assert ("--rate-limit" in arguments(rendering.triton["args"])) == (rendering.overlay == "cpu")


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
    assert {"--grpc-keepalive-permit-without-calls", "--grpc-http2-min-recv-ping-interval-without-data"} <= shared
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
def test_a_pod_with_a_gpu_is_guaranteed(rendering: Rendering) -> None:
    """Its CPUs and memory are its own, and it is the last that its node evicts."""
    if rendering.overlay == "cpu":
        return
    for container in rendering.triton_pod["containers"] + rendering.triton_pod.get("initContainers", []):
        resources = container["resources"]
        for resource in ("cpu", "memory"):
            assert resources["requests"][resource] == resources["limits"][resource], container["name"]


@each
def test_shared_memory_holds_a_batch_of_the_largest_files_in_every_decoder(rendering: Rendering) -> None:
    shm = shared_memory(rendering)
    assert shm["medium"] == "Memory"
    assert shared_memory_bytes(cpu=rendering.overlay == "cpu") <= size(shm["sizeLimit"])


def test_docker_run_is_given_as_much_shared_memory() -> None:
    (gigabytes,) = re.findall(r"docker run .*--shm-size (\d+)g", (ROOT / "deploy" / "README.md").read_text())
    assert shared_memory_bytes(cpu=False) <= int(gigabytes) * UNITS["Gi"]


def test_docker_stop_waits_as_long_as_triton_may_take() -> None:
    (stop,) = re.findall(r"docker run .*--stop-timeout (\d+)", (ROOT / "deploy" / "README.md").read_text())
    (exit_timeout,) = re.findall(r"--exit-timeout-secs=(\d+)", (ROOT / "deploy/docker/Dockerfile").read_text())
    assert int(stop) >= int(exit_timeout) + UNLOADING_SECONDS


@each
def test_the_memory_limit_holds_all_that_can_be_in_memory_at_once(rendering: Rendering) -> None:
    cpu = rendering.overlay == "cpu"
    limits = rendering.triton["resources"]["limits"]
    decoder = configuration("image_decoder", cpu=cpu)
    threads = instances(decoder) * max(1, int(limits["cpu"]) // instances(decoder))
    needed = {
        "Triton": OWN_BYTES["cpu" if cpu else "gpu"],
        "/dev/shm": size(shared_memory(rendering)["sizeLimit"]),
        "cache": sum(int(value.rpartition("=")[2]) for value in arguments(rendering.triton["args"])["--cache-config"])
        if "response-cache" in rendering.components
        else 0,
        "files": COPIES * instances(decoder) * decoder.max_batch_size * parameter(decoder, "max_bytes"),
        "decoding": threads * parameter(decoder, "max_pixels") * DECODING_BYTES_PER_PIXEL,
    }
    assert sum(needed.values()) <= size(limits["memory"]), needed


def shared_memory_bytes(*, cpu: bool) -> int:
    """What Triton and its Python processes exchange at most.

    A region grows by what does not fit and may leave a gap of one file: nine lay in one after a batch of eight.
    """
    decoder = configuration("image_decoder", cpu=cpu)
    pixels = 224 * 224 * 3
    batch = (decoder.max_batch_size + 1) * parameter(decoder, "max_bytes") + decoder.max_batch_size * pixels
    configs = [configuration(model, cpu=cpu) for model in MODELS]
    processes = sum(instances(config) for config in configs if config.backend == "python")
    return instances(decoder) * batch + processes * REGION_BYTES


def shared_memory(rendering: Rendering) -> dict[str, Any]:
    (mount,) = (mount for mount in rendering.triton["volumeMounts"] if mount["mountPath"] == "/dev/shm")
    (volume,) = (volume for volume in rendering.triton_pod["volumes"] if volume["name"] == mount["name"])
    found: dict[str, Any] = volume["emptyDir"]
    return found


def parameter(config: ModelConfig, name: str) -> int:
    return int(config.parameters[name].string_value)


def size(quantity: str) -> int:
    return int(quantity[:-2]) * UNITS[quantity[-2:]]


@each
def test_what_is_not_written_at_run_time_is_read_only(rendering: Rendering) -> None:
    mounts = {mount["mountPath"]: mount for mount in rendering.triton["volumeMounts"]}
    assert all(mount["readOnly"] for path, mount in mounts.items() if path not in ("/dev/shm", "/tmp"))
    if "models" in {volume["name"] for volume in rendering.triton_pod["volumes"]}:
        (path,) = (path for path, mount in mounts.items() if mount["name"] == "models")
        assert argument(rendering.triton, "--model-repository") == path == "/models"


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

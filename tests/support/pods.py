"""A pod's container without Kubernetes: the image's entrypoint and the embedded Triton, with the rendered arguments."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import signal
import subprocess
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from deepfake_deploy.embedded.command import server_environment, write_backend_directory
from deepfake_deploy.embedded.installation import find_installation
from deepfake_deploy.embedded.ports import reserved_ports

from tests.support.project import ROOT

ENTRYPOINT = ROOT / "deploy" / "docker" / "entrypoint.sh"
START_SECONDS = 90

# Where the container's Triton 2.72 and its folders differ from the embedded 2.51, and what a test cannot wait for. All
# else is passed as the manifests have it.
DROPPED = {
    "--http-max-input-size": "2.51 does not know it yet",
    "--grpc-infer-thread-count": "the same",
}
REPLACED = {
    "--model-repository": "the test's repository",
    "--http-port": "a free port",
    "--grpc-port": "a free port",
    "--metrics-port": "a free port",
    "--exit-timeout-secs": "8 s, not 35",
    "--grpc-max-connection-age": "2 s, not 30",
    "--grpc-server-cert": "the test's certificate",
    "--grpc-server-key": "the test's key",
    "--grpc-root-cert": "the test's authority",
}
ADDED = {
    "--backend-directory": "the container's is the default",
    "--cache-directory": "the container's is the default",
    "--http-address": "a pod is reached from outside, a test is not",
    "--grpc-address": "the same",
    "--metrics-address": "the same",
    "--backend-config": "a pod has a /dev/shm of its own, a test cleans up after itself",
}


@dataclass
class Pod:
    """A running `tritonserver`."""

    process: subprocess.Popen[str]
    address: str
    ports: Mapping[str, int]
    before_ready: list[object]
    """What the readiness probe saw before its first success."""
    log: list[str]

    @property
    def http_url(self) -> str:
        return f"http://{self.address}:{self.ports['http']}"

    @property
    def metrics_url(self) -> str:
        return f"http://{self.address}:{self.ports['metrics']}/metrics"

    @property
    def command_line(self) -> list[str]:
        return Path(f"/proc/{self.process.pid}/cmdline").read_bytes().decode().rstrip("\0").split("\0")

    def probe(self, path: str) -> int | str:
        """As the kubelet does it: a status, or the name of the error of the connection."""
        request = urllib.request.Request(f"{self.http_url}{path}", headers={"Connection": "close"})
        try:
            with urllib.request.urlopen(request, timeout=10) as response:
                return int(response.status)
        except urllib.error.HTTPError as error:
            error.close()
            return error.code
        except OSError as error:
            return type(getattr(error, "reason", error)).__name__

    def terminate(self) -> None:
        """What the kubelet sends when preStop is over."""
        self.process.send_signal(signal.SIGTERM)


@contextlib.contextmanager
def running_pod(
    args: Sequence[str],
    repository: Path,
    folder: Path,
    *,
    address: str = "127.0.0.1",
    grpc_port: int = 0,
    replace: Mapping[str, object] | None = None,
) -> Iterator[Pod]:
    """Start a container's `args` on `repository` and wait until its startup probe would succeed.

    `replace` gives the values of flags in REPLACED that are not found here.
    """
    installation = find_installation()
    folder.mkdir()
    (folder / "bin").mkdir()
    (folder / "bin" / "tritonserver").symlink_to(installation.binary)
    environment = server_environment(installation, os.environ)
    environment["PATH"] = f"{folder / 'bin'}{os.pathsep}{environment['PATH']}"
    prefix = f"deepfake_pod_{secrets.token_hex(8)}_"
    with reserved_ports(address, {"http": 0, "grpc": grpc_port, "metrics": 0}) as ports:
        replaced = {f"--{name}-port": port for name, port in ports.items()}
        replaced |= {"--model-repository": repository, **(replace or {})}
        added = {f"--{name}-address": address for name in ports} | {
            "--backend-directory": write_backend_directory(folder / "backends", installation),
            "--cache-directory": installation.caches,
            "--backend-config": f"python,shm-region-prefix-name={prefix}",
        }
        process = subprocess.Popen(
            [str(ENTRYPOINT), *_adapted(args, replaced, added)],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        pod = Pod(process, address, ports, [], [])
        reader = threading.Thread(target=_read, args=(process, pod.log), daemon=True)
        reader.start()
        try:
            _wait_until_ready(pod)
            yield pod
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            reader.join(10)
            assert process.stdout is not None
            process.stdout.close()
            shutil.rmtree(folder)
            for region in Path("/dev/shm").glob(f"{prefix}*"):
                region.unlink(missing_ok=True)


def _adapted(args: Sequence[str], replaced: Mapping[str, object], added: Mapping[str, object]) -> Iterator[str]:
    """The container's arguments, for the embedded server."""
    assert set(replaced) <= set(REPLACED)
    assert set(added) == set(ADDED)
    for argument in args:
        flag, _, _ = argument.partition("=")
        if flag not in DROPPED:
            yield f"{flag}={replaced[flag]}" if flag in replaced else argument
    for flag, value in added.items():
        yield f"{flag}={value}"


def _wait_until_ready(pod: Pod) -> None:
    deadline = time.monotonic() + START_SECONDS
    while (status := pod.probe("/v2/health/ready")) != 200:
        pod.before_ready.append(status)
        assert pod.process.poll() is None, "".join(pod.log[-20:])
        assert time.monotonic() < deadline, "".join(pod.log[-20:])
        time.sleep(0.05)


def _read(process: subprocess.Popen[str], log: list[str]) -> None:
    assert process.stdout is not None
    log.extend(process.stdout)

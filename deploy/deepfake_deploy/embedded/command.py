"""The command line and the environment that the embedded `tritonserver` is started with."""

from __future__ import annotations

import os
import secrets
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from deepfake_client import InvalidArgumentError, TLSConfig

from .installation import EmbeddedTritonError, Installation

if TYPE_CHECKING:
    from .server import EmbeddedTriton

# What an outsider must not reach: loading models, registering memory, and changing traces and logs.
ADMIN_APIS = ("model-repository", "shared-memory", "trace", "logging")
# Triton's HTTP has no TLS. Where gRPC is given it, what would pass in the clear is closed, and HTTP says whether the
# server is alive and ready.
CLEAR_TEXT_APIS = ("metadata", "inference", "model-config", "statistics")

LOOPBACK = "127.0.0.1"
CPU_CONFIG_NAME = "cpu"

# On a CPU one instance of deepfake_vs_real computes at a time (model_repository/README.md, «Turns»).
RATE_LIMIT_ARGUMENTS = ("--rate-limit=execution_count", "--rate-limit-resource=turn:1")

# For torch in the backend's process, unless the caller's environment says otherwise.
TORCH_ENVIRONMENT = {
    # OpenMP's threads sleep while they wait: spinning ones keep a core from callers, Triton and the decoder.
    "OMP_WAIT_POLICY": "PASSIVE",
    # Large tensors lie in pages of 2 MiB where the kernel gives them.
    "THP_MEM_ALLOC_ENABLE": "1",
    # glibc keeps the memory of one forward pass for the next one; given back, it comes anew page by page. The largest
    # activation of a batch of eight has 18 MiB in fp32.
    "MALLOC_MMAP_THRESHOLD_": str(32 * 2**20),
    "MALLOC_TRIM_THRESHOLD_": str(512 * 2**20),
}


@dataclass(frozen=True)
class TlsFiles:
    """PEM files for gRPC."""

    certificate: Path
    key: Path
    client_ca: Path | None = None
    """With it callers must show a certificate that it signed (mutual TLS)."""

    def check(self) -> None:
        """Refuse what Triton would only call a taken port."""
        try:
            TLSConfig(self.client_ca, self.certificate, self.key).ssl_context()
        except InvalidArgumentError as error:
            raise EmbeddedTritonError(str(error)) from None


def server_arguments(
    options: EmbeddedTriton, installation: Installation, repository: Path, backends: Path, shm_prefix: str, *, gpu: bool
) -> list[str]:
    """`tritonserver` and its arguments; without a GPU it reads each model's configs/cpu.pbtxt, not its config.pbtxt."""
    closed_over_http = ADMIN_APIS if options.tls is None else ADMIN_APIS + CLEAR_TEXT_APIS
    arguments = [
        str(installation.binary),
        f"--model-repository={repository}",
        f"--backend-directory={backends}",
        # Every model carries its whole configuration; completing it would start one more stub, with torch, per model.
        "--disable-auto-complete-config",
        f"--model-control-mode={'poll' if options.poll_seconds else 'none'}",
        f"--exit-timeout-secs={options.drain_seconds}",
        # Triton binds to 0.0.0.0 unless each address is given.
        f"--http-address={options.host}",
        f"--grpc-address={options.host}",
        f"--metrics-address={options.host}",
        f"--http-port={options.http_port}",
        f"--grpc-port={options.grpc_port}",
        f"--metrics-port={options.metrics_port}",
        # The key is drawn anew at each start and told to nobody: these APIs answer no one.
        f"--http-restricted-api={','.join(closed_over_http)}:closed={secrets.token_hex(16)}",
        f"--grpc-restricted-protocol={','.join(ADMIN_APIS)}:closed={secrets.token_hex(16)}",
        # Clients ping every 180 s, also without calls; Triton's defaults would end such a connection.
        "--grpc-keepalive-permit-without-calls=1",
        "--grpc-http2-min-recv-ping-interval-without-data=60000",
        # A prefix of its own lets this server remove what a killed stub leaves in /dev/shm.
        f"--backend-config=python,shm-region-prefix-name={shm_prefix}",
        f"--log-info={str(options.verbose).lower()}",
        f"--log-warning={str(options.verbose).lower()}",
    ]
    if options.poll_seconds:
        arguments += [f"--repository-poll-secs={options.poll_seconds}"]
    if (tls := options.tls) is not None:
        arguments += [
            "--grpc-use-ssl=true",
            f"--grpc-server-cert={tls.certificate.resolve()}",
            f"--grpc-server-key={tls.key.resolve()}",
        ]
        if tls.client_ca is not None:
            arguments += ["--grpc-use-ssl-mutual=true", f"--grpc-root-cert={tls.client_ca.resolve()}"]
    if options.latency_summaries:
        arguments += ["--metrics-config=summary_latencies=true"]
    if options.trace_otlp_url is not None:
        arguments += [
            "--trace-config=mode=opentelemetry",
            "--trace-config=level=TIMESTAMPS",
            # None by itself: Triton traces the requests that carry a trace context, so the caller chooses which.
            "--trace-config=rate=0",
            f"--trace-config=opentelemetry,url={options.trace_otlp_url}",
            "--trace-config=opentelemetry,resource=service.name=deepfake-vs-real",
        ]
    if options.response_cache_bytes:
        arguments += [
            f"--cache-config=local,size={options.response_cache_bytes}",
            f"--cache-directory={installation.caches}",
        ]
    if not gpu:
        # Without the last two the server looks for a driver and calls its absence an error.
        arguments += [
            *RATE_LIMIT_ARGUMENTS,
            f"--model-config-name={CPU_CONFIG_NAME}",
            "--pinned-memory-pool-byte-size=0",
            "--allow-gpu-metrics=false",
        ]
    return arguments


def server_environment(installation: Installation, environment: Mapping[str, str]) -> dict[str, str]:
    """`environment` with what the stub needs: it finds this Python by PATH, its libraries by LD_LIBRARY_PATH.

    `TORCH_ENVIRONMENT` is added where `environment` does not have it.
    """
    libraries = [str(folder) for folder in installation.libraries]
    libraries += [environment["LD_LIBRARY_PATH"]] if environment.get("LD_LIBRARY_PATH") else []
    return {
        **TORCH_ENVIRONMENT,
        **environment,
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), environment.get("PATH", os.defpath)]),
        "LD_LIBRARY_PATH": os.pathsep.join(libraries),
    }


def write_backend_directory(folder: Path, installation: Installation) -> Path:
    """Fill `folder` with the Python backend of the wheel and our `pytorch` backend, and return it.

    Triton runs `pytorch/model.py` through `python/`, which must hold the stub beside its library, for every model that
    names `backend: "pytorch"`. Copies (3 MB), because it refuses links that lead out of the folder.
    """
    python, pytorch = folder / "python", folder / "pytorch"
    python.mkdir(parents=True)
    pytorch.mkdir()
    for part in (*installation.python_backend.iterdir(), installation.stub):
        if part.is_file():
            shutil.copy2(part, python)
    shutil.copy2(Path(__file__).parent / "backends" / "pytorch" / "model.py", pytorch)
    return folder


def ending_with_this_process(command: Sequence[str]) -> list[str]:
    """`command`, so started that the kernel ends it should this process be killed; from a thread that outlives it.

    By util-linux's `setpriv`. What `subprocess` has for this, `preexec_fn`, runs Python between fork and exec: where
    threads and gRPC were at work, that ended in segmentation faults.
    """
    return ["setpriv", "--pdeathsig", "TERM", "--", *command]

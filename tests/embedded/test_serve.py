"""`deepfake serve`: the ready line, an orderly stop, and one clear sentence when it cannot start."""

from __future__ import annotations

import contextlib
import re
import shutil
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path

import psutil
import pytest
from click.testing import CliRunner
from deepfake_cli.app import deepfake
from deepfake_deploy.embedded import EmbeddedTriton, EmbeddedTritonError, server
from deepfake_deploy.embedded.ports import reserved_ports

from tests.support.exports import exported_files
from tests.support.serving import DEADLINE_SECONDS, serving, shared_memory


def refusal(repository: Path, *arguments: str) -> str:
    """The one line that `deepfake serve` ends with."""
    ports = ["--http-port", "0", "--grpc-port", "0", "--metrics-port", "0"]
    result = CliRunner().invoke(deepfake, ["serve", "--repository", str(repository), *ports, *arguments])
    assert result.exit_code == 1, result.output
    assert result.stdout == ""
    assert result.stderr.count("\n") == 1, result.stderr
    assert result.stderr.startswith("deepfake: ")
    return result.stderr


@pytest.fixture
def own_repository(repository: Path, tmp_path: Path) -> Path:
    """A copy of the served repository, to be damaged."""
    return Path(shutil.copytree(repository, tmp_path / "model_repository"))


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_says_where_it_listens_and_stops_on_a_signal_without_a_trace(
    repository: Path, number: signal.Signals
) -> None:
    with serving(repository) as command:
        assert re.fullmatch(
            r"Ready: http://127\.0\.0\.1:\d+  grpc://127\.0\.0\.1:\d+  http://127\.0\.0\.1:\d+/metrics  \(Ctrl-C stops\)\n",
            command.ready_line,
        )
        assert urllib.request.urlopen(f"{command.http_url}/v2/health/ready").status == 200
        assert b"nv_inference_exec_count" in urllib.request.urlopen(command.metrics_url).read()
        assert len(command.children) >= 2  # tritonserver and the stub of the model
        assert shared_memory(command.process.pid)
        command.signal(number)
        status, stdout, stderr = command.end()
        assert (status, stdout) == (0, "")
        assert stderr == (
            "Stopping; requests in flight and connected HTTP callers have 30 s (again to stop at once)\nStopped\n"
        )
        assert command.remains() == []
        assert shared_memory(command.process.pid) == set()


@pytest.mark.slow
def test_a_second_signal_does_not_wait_for_the_drain(repository: Path) -> None:
    with serving(repository) as command:
        # An idle connection keeps Triton's HTTP server, and so the drain, for as long as it may take.
        with socket.create_connection(("127.0.0.1", int(command.http_url.rsplit(":", 1)[1]))) as connection:
            connection.sendall(b"GET /v2/health/live HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert connection.recv(12) == b"HTTP/1.1 200"
            command.signal(signal.SIGINT)
            assert command.read_until("^Stopping")
            command.signal(signal.SIGINT)
            assert command.end()[0] == 0
        assert command.remains() == []


@pytest.mark.slow
def test_nothing_survives_when_the_command_itself_is_killed(repository: Path) -> None:
    with serving(repository) as command:
        command.signal(signal.SIGKILL)
        command.process.wait(DEADLINE_SECONDS)
        assert command.remains() == []


@pytest.mark.slow
def test_it_notices_that_the_server_died(repository: Path) -> None:
    with serving(repository) as command:
        next(child for child in command.children if child.name() == "tritonserver").kill()
        status, _, stderr = command.end()
        assert status == 1
        assert "Triton ended by itself with status -9" in stderr
        assert command.remains() == []


def test_it_listens_on_loopback_alone(triton: object) -> None:
    connections = psutil.Process(triton.pid).net_connections("tcp")  # type: ignore[attr-defined]
    listening = {connection.laddr.ip for connection in connections if connection.status == psutil.CONN_LISTEN}
    assert listening <= {"127.0.0.1", "::ffff:127.0.0.1"}  # the second is the first, as IPv6 sockets write it
    assert listening


@pytest.mark.slow
def test_the_whole_log_is_shown_on_request(repository: Path) -> None:
    with serving(repository, "--verbose") as command:
        command.signal(signal.SIGTERM)
        _, stdout, stderr = command.end()
    assert stdout == ""
    assert "successfully unloaded 'deepfake_vs_real' version 1" in stderr


@pytest.mark.parametrize("purpose", ["http", "grpc", "metrics"])
def test_a_port_that_is_taken(repository: Path, purpose: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = str(other.getsockname()[1])
        message = refusal(repository, f"--{purpose}-port", port)
    assert f"port {port} on 127.0.0.1 cannot be bound (Address already in use)" in message
    assert f"--{purpose}-port" in message


def test_one_port_for_two_purposes(repository: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = str(other.getsockname()[1])
    assert f"port {port} is given twice" in refusal(repository, "--http-port", port, "--grpc-port", port)


def test_a_host_that_is_not_this_machine(repository: Path) -> None:
    assert "on 192.0.2.1 cannot be bound (Cannot assign requested address)" in refusal(
        repository, "--host", "192.0.2.1"
    )


def test_no_model_repository(tmp_path: Path) -> None:
    assert "nowhere: no such folder" in refusal(tmp_path / "nowhere")
    assert "not a model repository" in refusal(tmp_path)


def test_weights_that_were_never_exported(empty_repository: Path) -> None:
    message = refusal(empty_repository)
    assert "deepfake_vs_real/1/model.pt: not there; write it with `deepfake export`" in message


@pytest.mark.slow
def test_a_model_that_is_no_torchscript(own_repository: Path) -> None:
    exported_files(own_repository)[0].write_bytes(b"not a model")
    assert "a model did not load: deepfake_vs_real version 1: " in refusal(own_repository)


@pytest.mark.slow
def test_a_configuration_that_does_not_fit_the_model(own_repository: Path) -> None:
    path = own_repository / "deepfake_vs_real" / "configs" / "cpu.pbtxt"
    text = path.read_text()
    path.write_text(
        text.replace('name: "logits"\n    data_type: TYPE_FP32', 'name: "logits"\n    data_type: TYPE_FP64')
    )
    message = refusal(own_repository)
    assert "expects torch.float64 for output 'logits', the model provides torch.float32" in message


def test_a_configuration_that_is_not_valid(own_repository: Path) -> None:
    (own_repository / "deepfake_vs_real" / "configs" / "cpu.pbtxt").write_text("max_batch_size: many")
    assert "deepfake: " in refusal(own_repository)


def test_a_gpu_configuration_on_a_machine_without_one(own_repository: Path) -> None:
    model = own_repository / "deepfake_vs_real"
    shutil.copy(model / "config.pbtxt", model / "configs" / "cpu.pbtxt")
    message = refusal(own_repository)
    assert "a model did not load: " in message or "GPU" in message


def test_the_command_without_its_packages() -> None:
    blocked = "import sys; sys.modules['click'] = None; from deepfake_cli import main; main()"
    run = subprocess.run([sys.executable, "-c", blocked], capture_output=True, text=True, timeout=60)
    assert (run.returncode, run.stdout) == (1, "")
    assert run.stderr == "deepfake: the command line is not installed; pip install 'deepfake-vs-real[cli]'\n"


@pytest.mark.slow
def test_a_name_of_loopback_is_as_good_as_its_address(repository: Path) -> None:
    with serving(repository, "--host", "localhost") as command:
        assert command.http_url.startswith("http://127.0.0.1:")
        assert urllib.request.urlopen(f"{command.http_url}/v2/health/ready").status == 200


@pytest.mark.parametrize("host", ["::1", "no.such.host.invalid", "a" * 300])
def test_a_host_without_an_ipv4_address(repository: Path, host: str) -> None:
    assert "no IPv4 address or name of one" in refusal(repository, "--host", host)


def test_tls_files_that_are_none(repository: Path, tmp_path: Path) -> None:
    nonsense = tmp_path / "nonsense.pem"
    nonsense.write_text("no PEM")
    files = ["--grpc-tls-cert", str(nonsense), "--grpc-tls-key", str(nonsense)]
    assert f"the TLS files cannot be used ({nonsense}, {nonsense}): " in refusal(repository, *files)


def test_a_configuration_in_another_encoding_or_in_the_place_of_a_folder(own_repository: Path) -> None:
    configuration = own_repository / "deepfake_vs_real_image" / "config.pbtxt"
    configuration.unlink()
    configuration.mkdir()
    assert "config.pbtxt: Is a directory" in refusal(own_repository)


def test_a_reserved_port_can_be_listened_on_by_whom_it_is_for_and_is_given_to_nobody_else() -> None:
    with reserved_ports("127.0.0.1", {"http": 0, "grpc": 0}) as ports:
        assert ports["http"] != ports["grpc"]
        with socket.socket() as somebody, pytest.raises(OSError, match="in use"):
            somebody.bind(("127.0.0.1", ports["http"]))
        with (
            socket.create_server(("127.0.0.1", ports["http"])),  # sets SO_REUSEADDR
            socket.create_connection(("127.0.0.1", ports["http"]), timeout=5),
        ):
            pass


@pytest.mark.slow
def test_a_server_without_its_metrics_is_not_ready(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Triton opens them last, when it already answers over HTTP and gRPC, and ends where it cannot."""

    @contextlib.contextmanager
    def then_taken(host: str, wanted: Mapping[str, int]) -> Iterator[dict[str, int]]:
        with reserved_ports(host, wanted) as ports, socket.create_server((host, ports["metrics"])):
            yield ports

    monkeypatch.setattr(server, "reserved_ports", then_taken)
    triton = EmbeddedTriton(repository)
    with pytest.raises(EmbeddedTritonError, match=r"ended before it was ready: .* in use"):
        triton.start()

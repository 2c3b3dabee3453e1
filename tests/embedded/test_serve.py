"""`deepfake serve`: the ready line, an orderly stop, and one clear sentence when it cannot start."""

from __future__ import annotations

import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import urllib.request
from pathlib import Path

import numpy as np
import psutil
import pytest
import tritonclient.http
from click.testing import CliRunner
from deepfake_cli.app import deepfake
from tritonclient.utils import InferenceServerException

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


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_says_where_it_listens_and_stops_on_a_signal_without_a_trace(
    repository: Path, number: signal.Signals
) -> None:
    with serving(repository) as server:
        assert re.fullmatch(
            r"Ready: http://127\.0\.0\.1:\d+  grpc://127\.0\.0\.1:\d+  http://127\.0\.0\.1:\d+/metrics  \(Ctrl-C stops\)\n",
            server.ready_line,
        )
        assert urllib.request.urlopen(f"{server.http_url}/v2/health/ready").status == 200
        assert b"nv_inference_exec_count" in urllib.request.urlopen(server.metrics_url).read()
        assert len(server.children) >= 2  # tritonserver and the stub of the model
        assert shared_memory(server.process.pid)
        server.signal(number)
        status, stdout, stderr = server.end()
        assert (status, stdout) == (0, "")
        assert stderr == "Stopping; requests in flight have 30 s to finish (again to stop at once)\nStopped\n"
        assert server.remains() == []
        assert shared_memory(server.process.pid) == set()


def test_requests_in_flight_are_answered_before_it_stops(repository: Path) -> None:
    answers: list[object] = []

    def call(url: str, started: threading.Barrier) -> None:
        client = tritonclient.http.InferenceServerClient(url.removeprefix("http://"), network_timeout=DEADLINE_SECONDS)
        pixels = tritonclient.http.InferInput("pixels", [8, 224, 224, 3], "UINT8")
        pixels.set_data_from_numpy(np.zeros((8, 224, 224, 3), np.uint8))
        started.wait()
        try:
            answers.append(client.infer("deepfake_vs_real", [pixels]).as_numpy("logits").shape)
        except (InferenceServerException, OSError) as error:
            answers.append(error)
        client.close()

    with serving(repository) as server:
        barrier = threading.Barrier(9)
        callers = [threading.Thread(target=call, args=(server.http_url, barrier)) for _ in range(8)]
        for caller in callers:
            caller.start()
        barrier.wait()
        # The last caller's request has reached the server once the queue shows it; then the stop begins.
        while pending(server.metrics_url) == 0 and any(caller.is_alive() for caller in callers):
            pass
        server.signal(signal.SIGTERM)
        for caller in callers:
            caller.join(DEADLINE_SECONDS)
        assert server.end()[0] == 0
    refused = [answer for answer in answers if answer != (8, 2)]
    assert len(refused) < 8, refused
    assert all("shutting" in str(answer).lower() or isinstance(answer, OSError) for answer in refused), refused


def pending(metrics_url: str) -> float:
    text = urllib.request.urlopen(metrics_url).read().decode()
    return sum(
        float(value) for value in re.findall(r"^nv_inference_pending_request_count\{.*\} (\S+)$", text, re.MULTILINE)
    )


def test_a_second_signal_does_not_wait_for_the_drain(repository: Path) -> None:
    with serving(repository) as server:
        # An idle connection keeps Triton's HTTP server, and so the drain, for as long as it may take.
        with socket.create_connection(("127.0.0.1", int(server.http_url.rsplit(":", 1)[1]))) as connection:
            connection.sendall(b"GET /v2/health/live HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert connection.recv(12) == b"HTTP/1.1 200"
            server.signal(signal.SIGINT)
            assert server._read_until("^Stopping")
            server.signal(signal.SIGINT)
            assert server.end()[0] == 0
        assert server.remains() == []


def test_nothing_survives_when_the_command_itself_is_killed(repository: Path) -> None:
    with serving(repository) as server:
        server.signal(signal.SIGKILL)
        server.process.wait(DEADLINE_SECONDS)
        assert server.remains() == []


def test_it_notices_that_the_server_died(repository: Path) -> None:
    with serving(repository) as server:
        next(child for child in server.children if child.name() == "tritonserver").kill()
        status, _, stderr = server.end()
        assert status == 1
        assert "Triton ended by itself with status -9" in stderr
        assert server.remains() == []


def test_it_listens_on_loopback_alone(triton: object) -> None:
    connections = psutil.Process(triton.pid).net_connections("tcp")  # type: ignore[attr-defined]
    listening = {connection.laddr.ip for connection in connections if connection.status == psutil.CONN_LISTEN}
    assert listening <= {"127.0.0.1", "::ffff:127.0.0.1"}  # the second is the first, as IPv6 sockets write it
    assert listening


def test_the_whole_log_is_shown_on_request(repository: Path) -> None:
    with serving(repository, "--verbose") as server:
        server.signal(signal.SIGTERM)
        _, stdout, stderr = server.end()
    assert stdout == ""
    assert "successfully unloaded 'deepfake_vs_real' version 1" in stderr


@pytest.mark.parametrize("purpose", ["http", "grpc", "metrics"])
def test_a_port_that_is_taken(repository: Path, purpose: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = str(other.getsockname()[1])
        message = refusal(repository, f"--{purpose}-port", port)
    assert f"port {port} on 127.0.0.1 is taken" in message
    assert f"--{purpose}-port" in message


def test_one_port_for_two_purposes(repository: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = str(other.getsockname()[1])
    assert f"port {port} is given twice" in refusal(repository, "--http-port", port, "--grpc-port", port)


def test_a_host_that_is_not_this_machine(repository: Path) -> None:
    assert "host 192.0.2.1 is no address of this machine" in refusal(repository, "--host", "192.0.2.1")


def test_no_model_repository(tmp_path: Path) -> None:
    assert "nowhere: no such folder" in refusal(tmp_path / "nowhere")
    assert "not a model repository" in refusal(tmp_path)


def test_weights_that_were_never_exported(empty_repository: Path) -> None:
    message = refusal(empty_repository)
    assert "deepfake_vs_real/1/model.pt: not there; write it with `deepfake export`" in message


def test_a_model_that_is_no_torchscript(own_repository: Path) -> None:
    exported_files(own_repository)[0].write_bytes(b"not a model")
    assert "a model did not load: deepfake_vs_real version 1: " in refusal(own_repository)


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
    assert "a model did not load: " in refusal(own_repository) or "GPU" in refusal(own_repository)


def test_the_command_without_its_packages() -> None:
    blocked = "import sys; sys.modules['click'] = None; from deepfake_cli import main; main()"
    run = subprocess.run([sys.executable, "-c", blocked], capture_output=True, text=True, timeout=60)
    assert (run.returncode, run.stdout) == (1, "")
    assert run.stderr == "deepfake: the command line is not installed; pip install 'deepfake-vs-real[cli]'\n"


def test_a_name_of_loopback_is_as_good_as_its_address(repository: Path) -> None:
    with serving(repository, "--host", "localhost") as server:
        assert server.http_url.startswith("http://127.0.0.1:")
        assert urllib.request.urlopen(f"{server.http_url}/v2/health/ready").status == 200


@pytest.mark.parametrize("host", ["::1", "no.such.host.invalid", "a" * 300])
def test_a_host_without_an_ipv4_address(repository: Path, host: str) -> None:
    assert "no IPv4 address or name of one" in refusal(repository, "--host", host)


def test_tls_files_that_are_none(repository: Path, tmp_path: Path) -> None:
    nonsense = tmp_path / "nonsense.pem"
    nonsense.write_text("no PEM")
    files = ["--grpc-tls-cert", str(nonsense), "--grpc-tls-key", str(nonsense)]
    assert "are no certificate with its unencrypted key" in refusal(repository, *files)


def test_a_configuration_in_another_encoding_or_in_the_place_of_a_folder(own_repository: Path) -> None:
    configuration = own_repository / "deepfake_vs_real_image" / "config.pbtxt"
    configuration.unlink()
    configuration.mkdir()
    assert "config.pbtxt: Is a directory" in refusal(own_repository)

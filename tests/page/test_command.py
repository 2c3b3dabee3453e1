"""`deepfake page` as a command: how it begins and ends."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.page_process import DEADLINE_SECONDS, file_data, page_process
from tests.support.pictures import encoded, photo_like

NOBODY = "grpc://127.0.0.1:9"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "host"),
    [(signal.SIGINT, "127.0.0.1"), (signal.SIGTERM, "0.0.0.0")],  # noqa: S104 - it has to say so
)
def test_it_says_where_it_listens_and_stops_with_a_page_open(tmp_path: Path, number: signal.Signals, host: str) -> None:
    with page_process(tmp_path, "--url", NOBODY, "--host", host) as page:
        port = int(page.url.rpartition(":")[2])
        assert ("there is no authentication" in page.log) == (host != "127.0.0.1")
        assert f"{NOBODY}: no server answers there yet" in page.log
        with socket.create_connection(("127.0.0.1", port), DEADLINE_SECONDS) as heartbeat:
            heartbeat.sendall(b"GET /gradio_api/heartbeat/visitor HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert heartbeat.recv(12) == b"HTTP/1.1 200"
            assert page.stop(number) == 0
        assert page.log.endswith("Stopped\n")
        assert "Traceback" not in page.log
        assert {host} <= page.hosts() <= {"127.0.0.1", host}  # where it listens itself
        assert not page.memory.exists()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_it_stops_while_a_visitor_waits_for_a_server_that_does_not_answer(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        with page_process(tmp_path, "--url", url) as page:
            photo = tmp_path / "photo.jpg"
            photo.write_bytes(encoded(photo_like(64, 64, 1), "JPEG"))
            assert page.call("call/predict", {"data": [file_data(page.upload(photo))]})[0] == 200
            with silent.accept()[0], silent.accept()[0]:  # at its start, and for the visitor
                assert page.stop() == 0
            assert "Traceback" not in page.log
            assert not page.memory.exists()


def test_a_port_that_is_taken_is_one_line() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert refusal("--port", str(port)) == (
            f"deepfake: port {port} on 127.0.0.1 cannot be bound (Address already in use); stop what listens there, or "
            "choose another with --port (0 picks a free one) or --host\n"
        )


def test_a_url_of_another_kind_is_one_line() -> None:
    assert refusal("--url", "ftp://localhost", "--port", "0").startswith("deepfake: ftp://localhost: the url must")


def test_a_policy_that_is_none_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "policy.json").write_text("{")
    assert "policy.json: not JSON" in refusal("--policy", str(tmp_path / "policy.json"), "--port", "0")


def test_without_its_extra_it_says_what_to_install() -> None:
    code = "import sys; sys.modules['gradio'] = None; from deepfake_cli import main; main()"
    run = subprocess.run([sys.executable, "-c", code, "page"], capture_output=True, text=True, timeout=DEADLINE_SECONDS)
    assert (run.returncode, run.stdout) == (1, "")
    assert run.stderr == "deepfake: page needs gradio; pip install 'deepfake-vs-real[page]'\n"


def refusal(*arguments: str) -> str:
    """The one line that the command ends with."""
    command = [sys.executable, "-m", "deepfake_cli", "page", *arguments]
    run = subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE_SECONDS)
    assert (run.returncode, run.stdout, run.stderr.count("\n")) == (1, "", 1), run.stderr
    return run.stderr

"""TLS and tokens from the command line: files that work, files that do not, and a token that shows nowhere."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from click.testing import CliRunner
from deepfake_cli.app import deepfake
from deepfake_cli.options import CredentialFiles
from deepfake_client import InvalidArgumentError
from deepfake_deploy.embedded import EmbeddedTriton, TlsFiles

from tests.support.certificates import Authority
from tests.support.locust_runs import run_locust
from tests.support.pictures import encoded, photo_like
from tests.support.servers import running

TOKEN = "s3cret-of-the-gateway"  # noqa: S105 - of this test
URL = "grpcs://127.0.0.1:9"


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def caller(authority: Authority) -> tuple[Path, Path]:
    return authority.issue("caller")


@pytest.fixture(scope="module")
def mutual(repository: Path, authority: Authority) -> Iterator[EmbeddedTriton]:
    certificate, key = authority.issue("server")
    with running(repository, tls=TlsFiles(certificate, key, client_ca=authority.ca_file)) as server:
        yield server


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    file = tmp_path / "photo.jpg"
    file.write_bytes(encoded(photo_like(64, 64, 1), "JPEG"))
    return file


def classify(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "deepfake_cli", "classify", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


def test_a_server_with_mutual_tls_is_called_with_a_certificate(
    mutual: EmbeddedTriton, authority: Authority, caller: tuple[Path, Path], photo: Path
) -> None:
    certificate, key = caller
    files = ["--tls-ca", authority.ca_file, "--tls-cert", certificate, "--tls-key", key]
    run = classify(photo, "--url", mutual.grpc_url, *files, "--format", "jsonl")
    assert run.returncode == 0, run.stderr
    assert '"label"' in run.stdout


def test_without_a_certificate_it_is_not_there(mutual: EmbeddedTriton, authority: Authority, photo: Path) -> None:
    run = classify(photo, "--url", mutual.grpc_url, "--tls-ca", authority.ca_file)
    assert run.returncode == 1
    (line,) = run.stderr.splitlines()
    assert "does not take this certificate" in line


def test_locust_calls_it_as_well(mutual: EmbeddedTriton, authority: Authority, caller: tuple[Path, Path]) -> None:
    certificate, key = map(str, caller)
    files = ["--client-tls-ca", str(authority.ca_file), "--client-tls-cert", certificate, "--client-tls-key", key]
    run = run_locust(None, "--host", mutual.grpc_url, "-u", "2", "-r", "2", "-t", "1s", *files)
    assert run.status == 0, run.stderr
    assert run.verdict.startswith("passed")


@pytest.mark.parametrize("command", ["classify", "evaluate", "calibrate", "page"])
def test_every_command_that_asks_a_server_refuses_files_that_are_not_there(command: str) -> None:
    given = [] if command == "page" else ["photos"]
    run = CliRunner().invoke(deepfake, [command, *given, "--url", URL, "--tls-ca", "missing.pem"])
    assert run.exit_code == 2
    assert run.output == ("deepfake: the TLS files cannot be used (missing.pem): No such file or directory\n")


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["--tls-cert", "{folder}/caller.pem"], "a TLS certificate and its key go together"),
        (["--tls-key", "{folder}/caller.key"], "a TLS certificate and its key go together"),
        (["--tls-ca", "{folder}/caller.key"], "caller.key): "),
        (
            ["--tls-ca", "{folder}/ca.pem", "--url", "grpc://127.0.0.1:9"],
            "TLS files are for grpcs:// and https:// URLs",
        ),
        (["--token-file", "{folder}/missing"], "missing: the token cannot be read (No such file or directory)"),
        (["--token-file", "{folder}"], "the token cannot be read (Is a directory)"),
        (["--token-file", "{folder}/empty"], "empty: no token in it"),
        (["--token-file", "{folder}/two"], "two: no token in it"),
        (["--token-file", "{folder}/binary"], "binary: no token in it"),
    ],
)
@pytest.mark.usefixtures("caller")
def test_files_that_cannot_be_used_are_wrong_usage_in_one_line(
    authority: Authority, options: list[str], reason: str
) -> None:
    folder = authority.ca_file.parent
    for name, content in {"empty": b"\n", "two": TOKEN.encode() + b"\nand more", "binary": b"\xff\xfe"}.items():
        (folder / name).write_bytes(content)
    given = [option.format(folder=folder) for option in options]
    run = CliRunner().invoke(deepfake, ["classify", "photo.jpg", "--url", URL, *given])
    assert run.exit_code == 2
    (line,) = run.output.splitlines()
    assert reason in line
    assert TOKEN not in run.output


class Gateway(BaseHTTPRequestHandler):
    """Says that a server is ready behind it, and refuses everything else with what it was sent."""

    seen: list[str]

    def do_GET(self) -> None:
        self.seen.append(self.headers.get("Authorization", ""))
        ready = self.path.endswith("/ready")
        body = b"" if ready else f'{{"error": "{self.seen[-1]} is not allowed"}}'.encode()
        self.send_response(200 if ready else 403)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None: ...


def test_the_token_goes_to_the_gateway_and_shows_nowhere(tmp_path: Path, photo: Path) -> None:
    seen: list[str] = []
    handler = type("ThisGateway", (Gateway,), {"seen": seen})
    token_file = tmp_path / "token"
    token_file.write_text(f"{TOKEN}\n")
    with HTTPServer(("127.0.0.1", 0), handler) as gateway:
        threading.Thread(target=gateway.serve_forever, daemon=True).start()
        run = classify(photo, "--url", f"http://127.0.0.1:{gateway.server_port}", "--token-file", token_file)
        gateway.shutdown()
    assert run.returncode == 1
    assert set(seen) == {f"Bearer {TOKEN}"}
    assert run.stderr
    assert TOKEN not in run.stdout + run.stderr


def test_a_token_that_was_renewed_is_read_again(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("first\n")
    files = CredentialFiles(token_file=file)
    assert files.token is not None
    assert files.token() == "first"
    file.write_text("second")
    assert files.token() == "second"
    assert "second" not in repr(files)


def test_no_files_are_no_credentials() -> None:
    files = CredentialFiles()
    files.check(["grpc://127.0.0.1:8001"])
    assert (files.tls, files.token) == (None, None)
    with pytest.raises(InvalidArgumentError, match="go together"):
        CredentialFiles(tls_key=Path("key")).check([URL])

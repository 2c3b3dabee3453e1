"""What programs get from the page's port, and what nobody gets."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import json
import re
import secrets
import subprocess
import sys
import threading
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from deepfake_client import DeepfakeClient
from deepfake_deploy.embedded import EmbeddedTriton
from deepfake_page.classification import MAX_IMAGES

from tests.support.page_process import DEADLINE_SECONDS, PageProcess, file_data
from tests.support.project import ROOT

LOOPBACK = {"127.0.0.1", "localhost", "::1", "None"}


@pytest.fixture
def elsewhere() -> Iterator[tuple[str, list[str]]]:
    """A web server that the page must not ask: its URL, and what it was asked for."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_error(404)

        def log_message(self, *arguments: object) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}", asked
        server.shutdown()


def test_programs_get_the_scores_by_label(page: PageProcess, triton: EmbeddedTriton, uploads: Path) -> None:
    files = sorted(uploads.iterdir())
    with DeepfakeClient(triton.grpc_url) as client:
        expected = list(client.classify_many(files))
    for path, result in zip(files, expected, strict=True):
        answer = page.join("predict", file_data(page.upload(path), path.name), secrets.token_hex(6))
        if result.ok:
            (scores,) = answer["data"]
            assert list(scores) == list(result.scores)
            assert scores == pytest.approx(dict(result.scores), abs=1e-5)
        else:
            assert answer["error"] == f"{path.name}: {result.error.reason}"


def test_an_address_is_not_fetched_and_a_path_not_read(
    page: PageProcess, uploads: Path, elsewhere: tuple[str, list[str]]
) -> None:
    address, asked = elsewhere
    photo = uploads / "photo.jpg"
    ticket = page.upload(photo)
    for path in [
        f"{address}/a.jpg",
        "http://elsewhere.invalid/a.jpg",
        "//elsewhere.invalid/a.jpg",
        str(photo),
        f"file://{photo}",
        "/etc/hostname",
        "nothing",
        "../../../../../../etc/hostname",
        f"{page.memory}/../../../etc/hostname",
        str(page.memory),
        None,
    ]:
        data = {**file_data(str(path)), "path": path, "url": f"{address}/b.jpg"}
        for value in (data, [data], {"deep": [{"down": data}]}):
            assert page.call("queue/join", {"data": [value], "fn_index": 0, "session_hash": "x"})[0] == 403
            assert page.call("call/predict", {"data": [value]})[0] == 403
        assert page.call("call/v2/predict", {"image": data})[0] == 403
        assert page.status_of(f"/gradio_api/file={urllib.parse.quote(str(path))}") == 404
        assert page.status_of(f"/gradio_api/file/{urllib.parse.quote(str(path))}") == 404
    assert page.status_of(f"/gradio_api/proxy={address}/d.jpg") == 400
    # An address beside an upload is not looked at, and a path of a folder in memory that nobody uploaded is none.
    session = secrets.token_hex(6)
    data = {**file_data(ticket), "url": f"{address}/c.jpg"}
    assert set(page.join("predict", data, session)["data"][0]) == {"Deepfake", "Real one"}
    guessed = file_data(f"{page.memory}/{'0' * 64}/photo.jpg")
    assert "send the file again" in page.join("predict", guessed, session)["error"]
    assert "No verdict" in page.join("one", guessed, session)["data"][0]
    assert "1 no verdict" in json.dumps(page.join("several", [guessed], session)["data"])
    assert asked == []
    assert {"127.0.0.1"} <= page.hosts() <= LOOPBACK


def test_calls_that_are_no_json_or_too_deep_are_refused(page: PageProcess) -> None:
    for body in (b"", b"{", b"[" * 100_000, b'{"data":' * 2_000, b"\xff\xfe"):
        assert page.call("queue/join", body)[0] == 400
    assert "Traceback" not in page.log


def test_an_upload_is_answered_once_and_never_on_a_disk(page: PageProcess, uploads: Path, verdict_log: Path) -> None:
    written = page.written()
    assert page.memory.parent == Path("/dev/shm")
    assert page.memory.stat().st_mode & 0o777 == 0o700
    path = page.upload(uploads / "photo.jpg")
    # It waits in memory; its sender can look at it until it is answered.
    assert Path(path).is_relative_to(page.memory)
    shown = urllib.request.urlopen(f"{page.url}/gradio_api/file={path}", timeout=DEADLINE_SECONDS)
    assert shown.read() == (uploads / "photo.jpg").read_bytes()
    assert shown.headers["Cache-Control"] == "no-store"
    session = secrets.token_hex(6)
    assert "data" in page.join("predict", file_data(path), session)
    assert "send the file again" in page.join("predict", file_data(path), session)["error"]
    assert page.status_of(f"/gradio_api/file={path}") == 403
    broken = page.upload(uploads / "truncated.jpg")
    assert "truncated" in page.join("predict", file_data(broken), session)["error"]
    assert "2 images" in json.dumps(
        page.join("several", [file_data(page.upload(uploads / name)) for name in ("cmyk.jpg", "text.jpg")], session)
    )
    assert page.files() == []
    assert page.written() - written <= {verdict_log}
    assert "Traceback" not in page.log


def test_equal_files_at_once_are_answered_each(page: PageProcess, uploads: Path) -> None:
    """gradio keeps them under one path."""

    def scores(_: int) -> dict[str, float]:
        answer = page.join("predict", file_data(page.upload(uploads / "webp.webp")), secrets.token_hex(6))
        return dict(answer["data"][0])

    with ThreadPoolExecutor(4) as pool:
        first, *others = pool.map(scores, range(16))
    for other in others:
        assert other == pytest.approx(first, abs=1e-5)
    assert page.files() == []


def test_an_upload_that_is_broken_off_leaves_nothing(page: PageProcess) -> None:
    begin = b'--x\r\nContent-Disposition: form-data; name="files"; filename="a.jpg"\r\n\r\n' + bytes(200_000)
    connection = http.client.HTTPConnection(page.url.removeprefix("http://"), timeout=DEADLINE_SECONDS)
    with contextlib.closing(connection):
        connection.putrequest("POST", "/gradio_api/upload")
        connection.putheader("Content-Type", "multipart/form-data; boundary=x")
        connection.putheader("Content-Length", "1000000")
        connection.endheaders(begin)
        deadline = time.monotonic() + DEADLINE_SECONDS
        while not page.files() and time.monotonic() < deadline:
            time.sleep(0.05)
        assert page.files() != []
    assert page.files_at_last() == []
    # Names that gradio refuses, and files that are in no field of its own.
    assert page.post(("..", b"x"))[0] == 400
    assert page.post(("a.jpg", b"x"), field="others") == (200, "[]")
    assert page.files_at_last() == []
    assert "Traceback" not in page.log


def test_each_verdict_is_on_record_with_the_sum_of_the_file(
    page: PageProcess, uploads: Path, verdict_log: Path
) -> None:
    before = len(verdict_log.read_text().splitlines())
    scores = page.join("predict", file_data(page.upload(uploads / "turned.jpg")), secrets.token_hex(6))["data"][0]
    page.join("predict", file_data(page.upload(uploads / "text.jpg")), secrets.token_hex(6))
    (entry,) = map(json.loads, verdict_log.read_text().splitlines()[before:])
    assert entry["sha256"] == hashlib.sha256((uploads / "turned.jpg").read_bytes()).hexdigest()
    assert (entry["sha256_of"], entry["scores"]) == ("file", scores)
    assert "turned" not in json.dumps(entry)


def test_too_large_and_too_many_are_refused(page: PageProcess) -> None:
    large = page.post(("small.jpg", b"x"), ("large.jpg", bytes(33_600_000)))
    assert large == (413, "File size exceeded maximum allowed size of 33554432 bytes.")
    assert page.post(content_type="text/plain")[0] == 400
    assert page.post(content_type="multipart/form-data")[0] == 400
    status, answer = page.post(*[(f"{number}.jpg", b"x") for number in range(MAX_IMAGES + 1)])
    assert status == 200
    many = page.join("several", [file_data(path) for path in json.loads(answer)], secrets.token_hex(6))
    assert f"{MAX_IMAGES + 1} images are too many" in json.dumps(many)
    assert page.files_at_last() == []
    assert "Traceback" not in page.log


@pytest.mark.parametrize(
    "address",
    ["/monitoring", "/docs", "/gradio_api/deep_link?session_hash=x", "/gradio_api/runs",
     "/gradio_api/run-history/records", "/gradio_api/vibe-code", "/gradio_api/profiling/traces", "/gradio_api/mcp/",
     "/gradio_api/custom_component/1/client/component/index.js"],
)  # fmt: skip
def test_what_else_gradio_has_is_closed(page: PageProcess, address: str) -> None:
    assert page.status_of(address) in (403, 404)


def test_no_call_passes_the_queue(page: PageProcess) -> None:
    for address in ("run/predict", "api/predict"):
        assert page.call(address, {"data": [None]})[0] == 404
    for address in ("process_recording", "component_server"):
        assert page.post(("a.jpg", b"x"), address=address)[0] == 400


def test_other_hosts_are_forbidden_to_the_browser_too(page: PageProcess) -> None:
    with urllib.request.urlopen(page.url, timeout=DEADLINE_SECONDS) as response:
        policy = response.headers["Content-Security-Policy"]
        assert "default-src 'self'" in policy
        assert "frame-ancestors 'none'" in policy
        assert "http" not in policy
        assert response.headers["Referrer-Policy"] == "no-referrer"
        config = response.read().decode()
    assert '"analytics_enabled":false' in config
    assert '"run_history":false' in config
    assert "fonts.googleapis.com" not in config


@pytest.mark.parametrize(("address", "size", "status"), [("call/predict", 2 << 20, 413), ("upload", 513 << 20, 503)])
def test_a_long_request_is_not_read(page: PageProcess, address: str, size: int, status: int) -> None:
    connection = http.client.HTTPConnection(page.url.removeprefix("http://"), timeout=DEADLINE_SECONDS)
    with contextlib.closing(connection):
        connection.putrequest("POST", f"/gradio_api/{address}")
        connection.putheader("Content-Length", str(size))
        connection.endheaders()
        assert connection.getresponse().status == status  # before a byte of it was sent


def test_another_website_cannot_use_the_page_through_its_visitors_browser(page: PageProcess) -> None:
    for site, status in [("cross-site", 403), ("same-site", 403), ("same-origin", 200)]:
        assert page.post(("a.jpg", b"x"), headers={"Sec-Fetch-Site": site})[0] == status


def test_the_example_of_the_readme_works(page: PageProcess, uploads: Path) -> None:
    readme = (ROOT / "client" / "deepfake_page" / "README.md").read_text()
    code = re.findall(r"<!-- run before the page -->\n```python\n(.*?)```", readme, re.DOTALL)
    assert len(code) == 1
    command = [sys.executable, "-c", code[0].replace("http://127.0.0.1:7860", page.url)]
    run = subprocess.run(command, cwd=uploads, capture_output=True, text=True, timeout=DEADLINE_SECONDS)
    assert run.returncode == 0, run.stderr
    assert re.search(r"\{'Deepfake': 0\.\d+, 'Real one': 0\.\d+\}\n$", run.stdout)

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
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from deepfake_client import DeepfakeClient
from deepfake_deploy.embedded import EmbeddedTriton
from deepfake_page.limits import MAX_IMAGES

from tests.support.page_process import DEADLINE_SECONDS, PageProcess
from tests.support.project import ROOT

CLIENT = """
import json, sys
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError
client = Client(sys.argv[1], verbose=False)
answers = []
for path in sys.argv[2:]:
    try:
        answers.append(client.predict(handle_file(path), api_name="/predict"))
    except AppError as error:
        answers.append(str(error))
print(json.dumps(answers))
"""


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


def test_gradio_client_gets_the_scores_by_label(page: PageProcess, triton: EmbeddedTriton, uploads: Path) -> None:
    files = sorted(uploads.iterdir())
    command = [sys.executable, "-c", CLIENT, page.url, *map(str, files)]
    run = subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE_SECONDS)
    assert run.returncode == 0, run.stderr
    with DeepfakeClient(triton.grpc_url) as client:
        expected = list(client.classify_many(files))
    for path, result, answer in zip(files, expected, json.loads(run.stdout), strict=True):
        if result.ok:
            assert list(answer) == list(result.scores)
            assert answer == pytest.approx(dict(result.scores), abs=1e-5)
        else:
            assert answer == f"{path.name}: {result.error.reason}"


def test_an_address_is_not_fetched_and_a_path_not_read(
    page: PageProcess, uploads: Path, elsewhere: tuple[str, list[str]]
) -> None:
    address, asked = elsewhere
    photo = uploads / "photo.jpg"
    session = secrets.token_hex(6)
    # A visitor who has behaved until now: gradio makes its components anew after a visitor's first event.
    assert set(join(page, "predict", file_data(upload(page, photo)), session)["data"][0]) == {"Deepfake", "Real one"}
    for path, url in [
        (f"{address}/a.jpg", None),
        (f"{address}/b.jpg", f"{address}/b.jpg"),
        ("http://elsewhere.invalid/a.jpg", None),
        (str(photo), None),
        (f"file://{photo}", None),
        ("nothing", f"{address}/c.jpg"),
        ("../../../../../../etc/hostname", None),
    ]:
        data = {**file_data(path), "url": url}
        assert "image: " in join(page, "predict", data, session)["error"]
        assert "No verdict" in join(page, "one", data, session)["data"][0]
        assert "1 no verdict" in json.dumps(join(page, "several", [data], session)["data"])
    assert asked == []
    for closed in (
        f"/gradio_api/proxy={address}/d.jpg",
        f"/gradio_api/file={address}/e.jpg",
        f"/gradio_api/file={photo}",
    ):
        assert status_of(page, closed) == 404
    assert asked == []
    assert {"127.0.0.1"} <= page.hosts() <= LOOPBACK


def test_an_upload_is_answered_once_and_never_on_a_disk(page: PageProcess, uploads: Path) -> None:
    ticket = upload(page, uploads / "photo.jpg")
    # It waits in memory; its sender can look at it until it is answered.
    assert page.files() == []
    shown = urllib.request.urlopen(f"{page.url}/gradio_api/file={ticket}", timeout=DEADLINE_SECONDS)
    assert shown.read() == (uploads / "photo.jpg").read_bytes()
    assert shown.headers["Cache-Control"] == "no-store"
    session = secrets.token_hex(6)
    assert "data" in join(page, "predict", file_data(ticket), session)
    assert "send the file again" in join(page, "predict", file_data(ticket), session)["error"]
    assert status_of(page, f"/gradio_api/file={ticket}") == 404
    broken = upload(page, uploads / "truncated.jpg")
    assert "truncated" in join(page, "predict", file_data(broken), session)["error"]
    assert status_of(page, f"/gradio_api/file={broken}") == 404
    assert page.files() == []
    assert "Traceback" not in page.log


def test_each_verdict_is_on_record_with_the_sum_of_the_file(
    page: PageProcess, uploads: Path, verdict_log: Path
) -> None:
    before = len(verdict_log.read_text().splitlines())
    scores = join(page, "predict", file_data(upload(page, uploads / "turned.jpg")), secrets.token_hex(6))["data"][0]
    join(page, "predict", file_data(upload(page, uploads / "text.jpg")), secrets.token_hex(6))
    (entry,) = map(json.loads, verdict_log.read_text().splitlines()[before:])
    assert entry["sha256"] == hashlib.sha256((uploads / "turned.jpg").read_bytes()).hexdigest()
    assert (entry["sha256_of"], entry["scores"]) == ("file", scores)
    assert "turned" not in json.dumps(entry)


def test_too_large_and_too_many_are_refused_by_name_and_number(page: PageProcess) -> None:
    large = post(page, ("small.jpg", b"x"), ("large.jpg", bytes(33_600_000)))
    assert large == (413, "large.jpg: larger than 33 MB, the most that is taken")
    many = post(page, *[(f"{number}.jpg", b"x") for number in range(MAX_IMAGES + 1)])
    assert many == (413, f"{MAX_IMAGES + 1} images at once are too many: {MAX_IMAGES} at most")
    assert post(page, content_type="text/plain")[0] == 400
    assert post(page, content_type="multipart/form-data")[0] == 400
    assert page.files() == []
    assert "Traceback" not in page.log


@pytest.mark.parametrize(
    "address",
    ["/monitoring", "/login", "/logout", "/docs", "/openapi.json", "/pwa_icon", "/gradio_api/deep_link",
     "/gradio_api/runs", "/gradio_api/run-history/records", "/gradio_api/vibe-code", "/gradio_api/profiling/traces",
     "/gradio_api/mcp/", "/gradio_api/custom_component/1/client/component/index.js"],
)  # fmt: skip
def test_what_else_gradio_has_is_not_there(page: PageProcess, address: str) -> None:
    assert status_of(page, address) == 404


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


def test_a_long_request_is_not_read(page: PageProcess) -> None:
    connection = http.client.HTTPConnection(page.url.removeprefix("http://"), timeout=DEADLINE_SECONDS)
    with contextlib.closing(connection):
        connection.putrequest("POST", "/gradio_api/call/predict")
        connection.putheader("Content-Length", str(2 << 20))
        connection.endheaders()
        assert connection.getresponse().status == 413  # before a byte of it was sent


def test_another_website_cannot_use_the_page_through_its_visitors_browser(page: PageProcess) -> None:
    for site, status in [("cross-site", 403), ("same-site", 403), ("same-origin", 200)]:
        assert post(page, ("a.jpg", b"x"), headers={"Sec-Fetch-Site": site})[0] == status


def test_the_example_of_the_readme_works(page: PageProcess, uploads: Path) -> None:
    readme = (ROOT / "README.md").read_text()
    code = re.findall(r"<!-- run before the page -->\n```python\n(.*?)```", readme, re.DOTALL)
    assert len(code) == 1
    command = [sys.executable, "-c", code[0].replace("http://127.0.0.1:7860", page.url)]
    run = subprocess.run(command, cwd=uploads, capture_output=True, text=True, timeout=DEADLINE_SECONDS)
    assert run.returncode == 0, run.stderr
    assert re.search(r"\{'Deepfake': 0\.\d+, 'Real one': 0\.\d+\}\n$", run.stdout)


def file_data(path: str) -> dict[str, Any]:
    return {"path": path, "meta": {"_type": "gradio.FileData"}}


def upload(page: PageProcess, path: Path) -> str:
    """Ticket of an upload."""
    status, answer = post(page, (path.name, path.read_bytes()))
    assert status == 200
    return str(json.loads(answer)[0])


def post(
    page: PageProcess, *files: tuple[str, bytes], content_type: str = "", headers: Mapping[str, str] | None = None
) -> tuple[int, str]:
    """Status and text of the answer to an upload."""
    boundary = secrets.token_hex(8)
    parts = [
        f'--{boundary}\r\nContent-Disposition: form-data; name="files"; filename="{name}"\r\n\r\n'.encode()
        + content
        + b"\r\n"
        for name, content in files
    ]
    request = urllib.request.Request(
        f"{page.url}/gradio_api/upload",
        data=b"".join(parts) + f"--{boundary}--\r\n".encode(),
        headers={"Content-Type": content_type or f"multipart/form-data; boundary={boundary}", **(headers or {})},
    )
    try:
        with urllib.request.urlopen(request, timeout=DEADLINE_SECONDS) as response:
            return response.status, response.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def join(page: PageProcess, name: str, data: Any, session: str) -> dict[str, Any]:
    """Output of one event of the page in a visitor's session, as the browser asks for it."""
    with urllib.request.urlopen(f"{page.url}/config", timeout=DEADLINE_SECONDS) as response:
        events = json.load(response)["dependencies"]
    index = next(each["id"] for each in events if each["api_name"] == name)
    body = json.dumps({"data": [data], "fn_index": index, "session_hash": session}).encode()
    request = urllib.request.Request(
        f"{page.url}/gradio_api/queue/join", data=body, headers={"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=DEADLINE_SECONDS) as response:
        response.read()
    output: dict[str, Any] = {}
    stream = f"{page.url}/gradio_api/queue/data?session_hash={session}"
    with urllib.request.urlopen(stream, timeout=DEADLINE_SECONDS) as response:
        for line in response:
            message = json.loads(line.removeprefix(b"data: ") if line.strip() else b"{}")
            if message.get("msg") in ("process_generating", "process_completed") and message["output"].get("data"):
                output = message["output"]
            elif message.get("msg") == "process_completed":
                output = output or message["output"]
    return output


def status_of(page: PageProcess, address: str) -> int:
    """HTTP status of a GET."""
    try:
        with urllib.request.urlopen(f"{page.url}{address}", timeout=DEADLINE_SECONDS) as response:
            return int(response.status)
    except urllib.error.HTTPError as error:
        with error:
            return error.code

"""`deepfake classify`: verdicts to stdout, everything else to stderr, and an exit code to rely on."""

from __future__ import annotations

import csv
import io
import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner
from deepfake_cli.app import deepfake
from deepfake_deploy.embedded import EmbeddedTriton

from tests.support.checkpoints import LABELS
from tests.support.pictures import encoded, photo_like

CLASSIFY = [sys.executable, "-m", "deepfake_cli", "classify"]


def classify(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*CLASSIFY, *map(str, arguments)], capture_output=True, text=True, timeout=120)


@pytest.fixture
def good(tmp_path: Path) -> Path:
    """A folder of three good images, one of them in a folder of its own."""
    folder = tmp_path / "good"
    (folder / "more").mkdir(parents=True)
    (folder / "a.jpg").write_bytes(encoded(photo_like(300, 200, 1), "JPEG"))
    (folder / "b c.png").write_bytes(encoded(photo_like(100, 200, 2), "PNG"))
    (folder / "more" / "d.webp").write_bytes(encoded(photo_like(64, 64, 3), "WEBP"))
    (folder / ".hidden").write_bytes(b"no image, and none of ours")
    return folder


@pytest.fixture
def mixed(good: Path) -> Path:
    """The same with a text file named .jpg, an empty file and a truncated JPEG."""
    (good / "text.jpg").write_text("this is no picture")
    (good / "empty.jpg").write_bytes(b"")
    (good / "truncated.jpg").write_bytes(encoded(photo_like(400, 400, 4), "JPEG")[:6000])
    return good


def test_a_folder_with_three_good_and_three_broken_files(url: str, mixed: Path) -> None:
    run = classify(mixed, "--url", url, "--format", "json")
    assert run.returncode == 1
    assert run.stderr == ""
    results = {Path(result["source"]).name: result for result in json.loads(run.stdout)}
    assert set(results) == {"a.jpg", "b c.png", "d.webp", "text.jpg", "empty.jpg", "truncated.jpg"}
    for name in ("a.jpg", "b c.png", "d.webp"):
        verdict = results[name]
        assert set(verdict) == {"source", "label", "scores", "model", "model_version"}
        assert list(verdict["scores"]) == LABELS
        assert verdict["label"] == max(verdict["scores"], key=verdict["scores"].get)
        assert sum(verdict["scores"].values()) == pytest.approx(1, abs=1e-6)
        assert (verdict["model"], verdict["model_version"]) == ("deepfake_vs_real", "1")
    for name, reason in {
        "text.jpg": "not an image",
        "empty.jpg": "empty file",
        "truncated.jpg": "truncated JPEG",
    }.items():
        assert set(results[name]) == {"source", "error"}
        assert name in results[name]["error"]
        assert reason in results[name]["error"]


def test_all_good_is_exit_code_zero(url: str, good: Path) -> None:
    run = classify(good, "--url", url)
    assert (run.returncode, run.stderr) == (0, "")
    lines = run.stdout.splitlines()
    assert lines[0].split() == ["label", "score", "source"]
    assert [line.split(maxsplit=2)[-1].split("good/")[1] for line in lines[1:]] == ["a.jpg", "b c.png", "more/d.webp"]


def test_the_formats_say_the_same(triton: EmbeddedTriton, mixed: Path) -> None:
    # One at a time: in batches of other sizes the last digits of a score are others.
    outputs = {
        name: classify(mixed, "--url", triton.grpc_url, "--format", name, "--concurrency", "1").stdout
        for name in ("json", "jsonl", "csv")
    }
    results = json.loads(outputs["json"])
    assert [json.loads(line) for line in outputs["jsonl"].splitlines()] == results
    rows = list(csv.DictReader(io.StringIO(outputs["csv"])))
    assert list(rows[0]) == ["source", "label", *LABELS, "model", "model_version", "error"]
    for row, result in zip(rows, results, strict=True):
        assert row["source"] == result["source"]
        assert row["label"] == result.get("label", "")
        assert row["error"] == result.get("error", "")
        for label in LABELS:
            assert row[label] == str(result.get("scores", {}).get(label, ""))


def test_a_file_that_does_not_exist_is_a_failure_of_its_own(triton: EmbeddedTriton, good: Path) -> None:
    run = classify(good / "a.jpg", good / "nowhere.jpg", "--url", triton.http_url, "--format", "jsonl")
    assert run.returncode == 1
    verdict, failure = map(json.loads, run.stdout.splitlines())
    assert verdict["label"] in LABELS
    assert "nowhere.jpg" in failure["error"]


def test_an_empty_folder(triton: EmbeddedTriton, tmp_path: Path) -> None:
    run = classify(tmp_path, "--url", triton.grpc_url, "--format", "json")
    assert (run.returncode, json.loads(run.stdout)) == (1, [])
    assert run.stderr.endswith("no files in it\n")


@pytest.mark.parametrize("url", ["grpc://127.0.0.1:9", "http://127.0.0.1:9"])
def test_a_server_that_is_away_is_one_line(good: Path, url: str) -> None:
    run = classify(good, "--url", url)
    assert (run.returncode, run.stdout) == (1, "")
    assert (
        run.stderr == f"deepfake: {url}: no server answers there, or it is not ready; start one with `deepfake serve`\n"
    )


def test_a_url_of_another_kind_is_one_line(good: Path) -> None:
    run = classify(good, "--url", "ftp://localhost")
    assert (run.returncode, run.stdout) == (1, "")
    assert run.stderr.startswith("deepfake: ")
    assert run.stderr.count("\n") == 1


@pytest.mark.parametrize(
    "arguments", [[], ["--format", "xml", "."], ["--concurrency", "0", "."], ["--no-such-option", "."]]
)
def test_wrong_usage_is_exit_code_two(arguments: list[str]) -> None:
    run = classify(*arguments)
    assert (run.returncode, run.stdout) == (2, "")
    assert "Traceback" not in run.stderr


def test_a_file_name_cannot_steer_the_terminal(triton: EmbeddedTriton, tmp_path: Path) -> None:
    (tmp_path / "a\x1b[31m\nb.jpg").write_bytes(encoded(photo_like(64, 64, 3), "JPEG"))
    (tmp_path / "broken\x1b[2J.jpg").write_bytes(b"no image")
    run = classify(tmp_path, "--url", triton.grpc_url)
    assert "\x1b" not in run.stdout + run.stderr
    assert len(run.stdout.splitlines()) == 3


def test_a_file_name_that_is_no_utf8(triton: EmbeddedTriton, tmp_path: Path) -> None:
    path = os.fsencode(tmp_path) + b"/caf\xe9.jpg"
    Path(os.fsdecode(path)).write_bytes(encoded(photo_like(64, 64, 3), "JPEG"))
    for name in ("table", "json", "jsonl", "csv"):
        run = classify(tmp_path, "--url", triton.grpc_url, "--format", name)
        assert run.returncode == 0, run.stderr


def test_a_reader_that_has_enough_is_no_error(triton: EmbeddedTriton, good: Path) -> None:
    command = " ".join([*CLASSIFY, *[f"'{good / 'a.jpg'}'"] * 200, "--url", triton.grpc_url, "--format", "jsonl"])
    run = subprocess.run(["/bin/bash", "-c", f"{command} | head -n 1"], capture_output=True, text=True, timeout=120)
    assert json.loads(run.stdout)["label"] in LABELS
    assert run.stderr == ""


def test_progress_is_shown_on_a_terminal_and_not_mixed_into_the_result(triton: EmbeddedTriton, good: Path) -> None:
    terminal, stderr = pty.openpty()
    command = [*CLASSIFY, str(good), "--url", triton.grpc_url, "--format", "json"]
    run = subprocess.run(
        command, stdout=subprocess.PIPE, stderr=stderr, env={**os.environ, "TERM": "xterm"}, timeout=120
    )
    os.close(stderr)
    shown = os.read(terminal, 1 << 16)
    os.close(terminal)
    assert b"Classifying" in shown
    assert b"3/3" in shown
    assert len(json.loads(run.stdout)) == 3


def test_an_empty_word_is_not_the_current_folder(triton: EmbeddedTriton) -> None:
    run = classify("", "--url", triton.grpc_url)
    assert (run.returncode, run.stdout) == (2, "")
    assert "is a variable not set?" in run.stderr


def test_a_full_disk_behind_stdout_is_one_line(triton: EmbeddedTriton, good: Path) -> None:
    # Buffered, so that the interpreter itself has something left to write at its end.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    with Path("/dev/full").open("w") as full:
        command = [*CLASSIFY, str(good), "--url", triton.grpc_url]
        run = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, timeout=60, env=environment)
    assert run.returncode == 1
    assert run.stderr == "deepfake: cannot write the result: No space left on device\n"


def classify_stdin(content: bytes, *arguments: str | Path) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run([*CLASSIFY, *map(str, arguments)], input=content, capture_output=True, timeout=120)


def test_a_dash_is_an_image_on_the_standard_input(triton: EmbeddedTriton, good: Path) -> None:
    content = (good / "a.jpg").read_bytes()
    run = classify_stdin(content, good / "a.jpg", "-", "--url", triton.grpc_url, "--format", "jsonl")
    assert (run.returncode, run.stderr) == (0, b"")
    file, stdin = map(json.loads, run.stdout.splitlines())
    assert (file["source"], stdin["source"]) == (str(good / "a.jpg"), "-")
    assert stdin["scores"] == pytest.approx(file["scores"], abs=1e-6)


@pytest.mark.parametrize(("content", "error"), [(b"", "-: empty file"), (b"text", "-: not an image")])
def test_a_standard_input_that_is_no_image_is_a_failure(triton: EmbeddedTriton, content: bytes, error: str) -> None:
    run = classify_stdin(content, "-", "--url", triton.grpc_url, "--format", "jsonl")
    assert (run.returncode, run.stderr) == (1, b"")
    assert json.loads(run.stdout)["error"].startswith(error)


def test_the_standard_input_is_read_once(good: Path) -> None:
    run = classify_stdin(b"", "-", str(good), "-")
    assert (run.returncode, run.stdout) == (2, b"")
    assert b"- is given twice" in run.stderr


def test_a_file_called_dash_is_a_file(triton: EmbeddedTriton, good: Path) -> None:
    (good / "a.jpg").rename(good / "-")
    command = [*CLASSIFY, "./-", "--url", triton.grpc_url, "--format", "jsonl"]
    run = subprocess.run(command, cwd=good, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120)
    assert (run.returncode, json.loads(run.stdout)["label"] in LABELS) == (0, True)


def test_no_standard_input_is_one_line(triton: EmbeddedTriton) -> None:
    command = " ".join([*CLASSIFY, "-", "--url", triton.grpc_url])
    run = subprocess.run(["/bin/bash", "-c", f"{command} <&-"], capture_output=True, text=True, timeout=120)
    assert (run.returncode, run.stderr) == (1, "deepfake: there is no standard input to read from\n")


@pytest.mark.parametrize("command", ["classify", "demo", "evaluate", "calibrate"])
@pytest.mark.parametrize(
    "address", ["https://a.b/c.jpg", "HTTP://a", "data:image/png;base64,AA", "s3://b/c", "file:/a"]
)
def test_an_address_is_wrong_usage(command: str, address: str) -> None:
    run = CliRunner().invoke(deepfake, [command, address])
    assert (run.exit_code, run.stdout) == (2, "")
    assert f"{address}: an address, and this takes files: download it first" in run.stderr

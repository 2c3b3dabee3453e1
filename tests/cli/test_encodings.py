"""stdout and stderr that cannot say «Δ», «…» or a file's name: every command says what it can, and escapes the rest."""

from __future__ import annotations

import ast
import contextlib
import csv
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from deepfake_cli import app
from deepfake_deploy.embedded import EmbeddedTriton

from tests.support.checkpoints import LABELS
from tests.support.exports import exported_files
from tests.support.pictures import encoded, photo_like
from tests.support.project import ROOT

COMMANDS = ["calibrate", "classify", "demo", "evaluate", "export", "page", "serve"]
ENCODINGS = ["ascii", "latin-1", "cp1252", "utf-8"]
#: Neither text nor in any of the encodings; the last is a byte that is no UTF-8, as Python hands it on.
NAME = "Δ…é\udce9"
# Python would otherwise take UTF-8 in the C locale.
C_LOCALE = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}


class Terminal:
    """Runs commands in this process, with streams of one encoding, strict as Python opens stdout."""

    def __init__(self, encoding: str, monkeypatch: pytest.MonkeyPatch) -> None:
        self.encoding, self._patch = encoding, monkeypatch

    def run(self, *arguments: object) -> tuple[int, str, str]:
        """Exit status, stdout and stderr; an exception that the command lets through goes on."""
        streams = [io.TextIOWrapper(io.BytesIO(), self.encoding, "strict", write_through=True) for _ in range(2)]
        before = signal.getsignal(signal.SIGTERM)
        try:
            with self._patch.context() as patch:
                patch.setattr(sys, "argv", ["deepfake", *map(str, arguments)])
                patch.setattr(sys, "stdout", streams[0])
                patch.setattr(sys, "stderr", streams[1])
                with pytest.raises(SystemExit) as end:
                    app.run()
        finally:
            signal.signal(signal.SIGTERM, before)
        stdout, stderr = (stream.buffer.getvalue().decode(self.encoding) for stream in streams)  # type: ignore[attr-defined]
        assert "Traceback" not in stderr
        return end.value.code, stdout, stderr  # type: ignore[return-value]


@pytest.fixture(params=ENCODINGS)
def terminal(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Terminal:
    return Terminal(request.param, monkeypatch)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Labelled images, all of them in folders and under names that few encodings can say."""
    folder = tmp_path_factory.mktemp("images") / NAME
    for seed in range(24):
        file = folder / LABELS[seed % 2] / f"{NAME} {seed}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(encoded(photo_like(48, 48, seed), "PNG"))
    (folder / LABELS[0] / f"broken {NAME}.jpg").write_bytes(b"no image")
    return folder


@pytest.mark.parametrize("command", COMMANDS)
def test_the_help_needs_no_more_than_ascii(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    status, stdout, stderr = Terminal("ascii", monkeypatch).run(command, "--help")
    assert (status, stderr) == (0, "")
    assert f"deepfake {command} " in stdout


def test_every_command_is_looked_at(terminal: Terminal) -> None:
    assert re.findall(r"^  (\w+) ", terminal.run("--help")[1].partition("Commands:")[2], re.MULTILINE) == COMMANDS
    assert terminal.run("--version")[0] == 0


@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        (["nonsense" + NAME], 2),
        (["classify", f"--{NAME}"], 2),
        (["classify", "a.jpg", "--format", NAME], 2),
        (["classify", "a.jpg", "--url", f"grpc://{NAME}"], 1),
        (["classify", "a.jpg", "--url", NAME], 1),
        (["classify", "a.jpg", "--token-file", NAME], 2),
        (["calibrate", NAME], 2),
        (["evaluate", NAME], 2),
        (["evaluate", ".", "--policy", NAME], 2),
        (["export", "--model", NAME], 1),
        (["export", "--model", "a/b", "--revision", NAME], 1),
        (["export", "--repository", NAME], 1),
        (["serve", "--repository", NAME], 1),
        (["serve", "--grpc-tls-cert", NAME], 2),
        (["page", "--policy", NAME, "--port", "0"], 1),
        (["page", "--host", NAME, "--port", "0"], 1),
    ],
)
def test_an_error_that_holds_what_the_caller_wrote(terminal: Terminal, arguments: list[str], status: int) -> None:
    repository = [] if arguments[0] != "export" or "--repository" in arguments else ["--repository", ROOT / "nowhere"]
    found, stdout, stderr = terminal.run(*arguments, *repository)
    assert (found, stdout) == (status, "")
    assert stderr.isprintable() or stderr.count("\n") >= 1


def test_export_writes_and_ends_with_0(
    terminal: Terminal, checkpoint: Path, empty_repository: Path, tmp_path: Path
) -> None:
    repository, model = empty_repository.rename(tmp_path / NAME), tmp_path / "Modèle Δ"
    shutil.copytree(checkpoint, model)
    status, stdout, stderr = terminal.run("export", "--model", model, "--repository", repository, "--precision", "fp32")
    assert (status, stderr) == (0, "")
    assert "logit|" in stdout
    assert ("Δlogit" in stdout) == (terminal.encoding == "utf-8")
    assert json.loads(exported_files(repository)[1].read_bytes())["model_id"] == str(model)


@pytest.mark.parametrize("form", ["table", "json", "jsonl", "csv"])
def test_classify(terminal: Terminal, triton: EmbeddedTriton, images: Path, form: str) -> None:
    status, stdout, _ = terminal.run("classify", images, "--url", triton.grpc_url, "--format", form)
    assert status == 1  # one is broken
    rows = {
        "table": lambda: stdout.splitlines()[1:],
        "json": lambda: json.loads(stdout),
        "jsonl": lambda: [json.loads(line) for line in stdout.splitlines()],
        "csv": lambda: list(csv.DictReader(io.StringIO(stdout))),
    }[form]()
    assert len(rows) == 25


def test_evaluate(terminal: Terminal, triton: EmbeddedTriton, images: Path, tmp_path: Path) -> None:
    output = tmp_path / NAME
    status, stdout, _ = terminal.run("evaluate", images, "--url", triton.grpc_url, "--output", output)
    assert status == 1  # one is broken
    assert "95 % CI" in stdout
    assert ("–" in stdout) == (terminal.encoding in ("utf-8", "cp1252"))
    assert json.loads((output / "report.json").read_bytes())["images"]["measured"] == 24


def test_calibrate(terminal: Terminal, triton: EmbeddedTriton, images: Path, tmp_path: Path) -> None:
    output = tmp_path / f"{NAME}.json"
    status, stdout, stderr = terminal.run(
        "calibrate", images, "--url", triton.grpc_url, "--output", output, "--false-positive-rate", 0.4
    )
    assert status == 1, stderr  # one is broken
    assert "left out" in stderr
    assert ("→" in stdout) == (terminal.encoding == "utf-8")
    assert json.loads(output.read_bytes())


@pytest.mark.slow
def test_a_session_in_the_c_locale(checkpoint: Path, images: Path, empty_repository: Path, tmp_path: Path) -> None:
    """Export, serve, classify, evaluate, page and demo as processes, in folders whose names the locale cannot say."""
    repository, model = empty_repository.rename(tmp_path / f"{NAME} $(served)'"), tmp_path / "Modèle Δ"
    shutil.copytree(checkpoint, model)
    export = deepfake("export", "--model", model, "--repository", repository, "--precision", "fp32")
    assert export.returncode == 0, export.stderr
    assert json.loads(exported_files(repository)[1].read_bytes())["model_id"] == str(model)
    ports = [option for kind in ("http", "grpc", "metrics") for option in (f"--{kind}-port", "0")]
    with background("serve", "--repository", repository, *ports) as (server, ready):
        url = re.findall(r"grpc://\S+", ready)[0]
        for arguments in (
            ["classify", images],
            ["evaluate", images, "--output", tmp_path / NAME],
            ["calibrate", images, "--output", tmp_path / f"{NAME}.json", "--false-positive-rate", "0.4"],
        ):
            run = deepfake(*arguments, "--url", url)
            assert run.returncode == 1, run.stderr  # one image is broken
            assert "Traceback" not in run.stderr
        policy = tmp_path / f"{NAME}.json"
        with background("page", "--url", url, "--port", "0", "--policy", policy) as (page, ready):
            assert urllib.request.urlopen(re.findall(r"http://\S+", ready)[0]).status == 200
            assert ended(page) == 0
        assert ended(server) == 0
    demo = deepfake("demo", "--repository", repository, images / LABELS[1])
    assert demo.returncode == 0, demo.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    "module",
    [
        ".".join(path.relative_to(ROOT).with_suffix("").parts)
        for path in sorted((ROOT / "loadtests").rglob("*.py"))
        if "__main__" in path.read_text(encoding="utf-8") and "servers" not in path.parts
    ],
)
def test_the_programs_of_the_load_tests(module: str) -> None:
    run = python("-m", module, "--help", **C_LOCALE)
    assert run.returncode == 0, run.stderr
    assert b"Traceback" not in run.stderr


def test_whatever_the_load_tests_print() -> None:
    run = python("-c", "import loadtests; print('served ÷ best – «Δ»')", PYTHONIOENCODING="ascii")
    assert run.returncode == 0, run.stderr
    assert run.stdout == rb"served \xf7 best \u2013 \xab\u0394\xbb" + b"\n"


def test_files_are_utf8_whatever_the_locale() -> None:
    """A call that reads or writes text names its encoding."""
    unnamed = [
        f"{path.relative_to(ROOT)}:{call.lineno}"
        for folder in ("client", "deploy", "loadtests", "model_repository")
        for path in (ROOT / folder).rglob("*.py")
        for call in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(call, ast.Call) and _is_text(call) and "encoding" not in {each.arg for each in call.keywords}
    ]
    assert unnamed == []


def _is_text(call: ast.Call) -> bool:
    """Whether it opens, reads or writes text, as far as can be seen."""
    name = getattr(call.func, "attr", None)
    modes = [each.value for each in call.args if isinstance(each, ast.Constant) and name == "open"]
    return (
        name in ("read_text", "write_text")
        or any(isinstance(mode, str) and re.fullmatch(r"[rwax]\+?", mode) for mode in modes)
        or any(
            each.arg in ("text", "universal_newlines") and isinstance(each.value, ast.Constant)
            for each in call.keywords
        )
    )


def python(*arguments: str, **environment: str) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, *arguments]
    return subprocess.run(command, capture_output=True, cwd=ROOT, env={**os.environ, **environment}, timeout=120)


def deepfake(*arguments: object) -> subprocess.CompletedProcess[str]:
    """A process in the C locale, whose every byte is ASCII."""
    command = [sys.executable, "-m", "deepfake_cli", *map(str, arguments)]
    environment = {**os.environ, **C_LOCALE}
    return subprocess.run(command, capture_output=True, encoding="ascii", env=environment, timeout=240)


@contextlib.contextmanager
def background(*arguments: object) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """The same, as it runs, with its ready line."""
    command = [sys.executable, "-m", "deepfake_cli", *map(str, arguments)]
    environment = {**os.environ, **C_LOCALE}
    with subprocess.Popen(command, stderr=subprocess.PIPE, encoding="ascii", env=environment) as process:
        assert process.stderr is not None
        try:
            ready = next((line for line in process.stderr if line.startswith("Ready: ")), "")
            assert ready, "it ended"
            yield process, ready
        finally:
            process.kill()


def ended(process: subprocess.Popen[str]) -> int:
    """Exit status after SIGTERM."""
    process.send_signal(signal.SIGTERM)
    _, stderr = process.communicate(timeout=60)
    assert "Traceback" not in stderr
    return process.returncode

"""The GPU benchmark, as far as a machine without a GPU can try it: the same way on the CPU, with a small checkpoint."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from deepfake_deploy.export import Precision

from loadtests.studies import gpu
from loadtests.studies.model_speed.served import ServedRun
from loadtests.studies.model_speed.variants import Variant


def run(rate: float) -> ServedRun:
    return ServedRun(rate, 64.0, 5.0, 8.0, 0.9, 3.0, 2000.0)


def test_without_a_gpu_it_says_so_in_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr(gpu, "cuda_device_count", lambda: 0)
    monkeypatch.setattr(sys, "argv", ["gpu.py", "--output", str(tmp_path / "gpu.md")])
    with pytest.raises(SystemExit) as ended:
        gpu.main()
    assert ended.value.code == 1
    told = capsys.readouterr()
    assert told.err == "gpu: no CUDA device here; loadtests/tuning.py and ceiling.py measure a CPU\n"
    assert told.out == ""
    assert not (tmp_path / "gpu.md").exists()


def test_the_whole_way_on_the_cpu(
    checkpoint: Path, repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = tmp_path / "gpu.md"
    monkeypatch.setattr(gpu, "LAYOUTS", ("channels_last weights",))
    arguments = ["--device", "cpu", "--model", str(checkpoint), "--repository", str(repository), "--output", str(page)]
    sizes = ["--rounds", "1", "--seconds", "0.05", "--served-seconds", "0.5", "--matrix-size", "256", "--batch", "2"]
    monkeypatch.setattr(sys, "argv", ["gpu.py", *arguments, *sizes, "--generators", "2"])
    monkeypatch.setattr(gpu, "BARE_SHARE", 0.0)
    monkeypatch.setattr(gpu, "SERVED_SHARE", 0.0)
    with pytest.raises(SystemExit) as ended:
        gpu.main()
    assert ended.value.code == 0
    text = page.read_text()
    assert "from 2 client processes" in text
    rows = [line for line in text.splitlines() if line.startswith("| bf16 |")]
    attention = [row.split("|")[3].strip() for row in rows]
    assert attention[:4] == ["PyTorch's choice", "flash", "math", "eager"]
    assert [row.split("|")[4].strip() for row in rows] == ["8", "8", "8", "8", "2"]


def test_half_of_the_peak_bare_and_four_fifths_of_it_served_are_enough() -> None:
    best = gpu.BareRow(Variant(Precision.FP16), "flash", 64, [12_000.0])
    assert gpu.judge(best, [run(9_700.0)], 790e12) == []


def test_what_stays_below_is_named() -> None:
    best = gpu.BareRow(Variant(Precision.FP16), "flash", 64, [10_000.0])
    assert gpu.judge(best, [run(7_000.0)], 790e12) == [
        "the bare model uses 44% of the measured matrix peak, under 50%",
        "the served model does 70% of the bare one, under 80%",
    ]

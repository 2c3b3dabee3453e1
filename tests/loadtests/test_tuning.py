"""The sweep over settings: its rows, the repositories it serves, and its page."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from deepfake_deploy.export import Precision

from loadtests.studies.model_speed.bare import bare_model
from loadtests.studies.model_speed.repositories import (
    Settings,
    configuration_path,
    read_configuration,
    write_repository,
)
from loadtests.studies.tune import command
from loadtests.studies.tune.rows import BareRow, ServedRow, bare_rows, image_rows, served_rows
from tests.support.project import ROOT


def test_each_row_differs_from_what_is_shipped_in_one_setting() -> None:
    shipped, *others = bare_rows(Precision.BF16, 8, 2, complete=True)
    names = ("variant", "batch", "threads", "attention", "keep_memory", "environment")
    for row in others:
        different = [name for name in names if getattr(row, name) != getattr(shipped, name)]
        # To go back to glibc's own allocator takes both of what was set.
        assert len(different) == (2 if not row.keep_memory else 1), row


@pytest.mark.parametrize("cores", [1, 2, 16])
def test_no_setting_is_measured_twice(cores: int) -> None:
    bare = bare_rows(Precision.FP32, 8, cores, complete=True)
    served = served_rows(8, 10_000, cores, complete=True)
    assert len({(row.factor, row.setting) for row in bare}) == len(bare)
    assert len({(row.factor, row.setting) for row in served}) == len(served)
    assert all(row.threads is None or row.threads >= 1 for row in bare)


def test_a_repository_serves_the_settings_and_nothing_else_changes(repository: Path, tmp_path: Path) -> None:
    model = repository / "deepfake_vs_real" / "1" / "model.pt"
    settings = Settings(max_batch_size=4, max_queue_delay_microseconds=0, instances=3, at_once=True, threads=1)
    target = write_repository(repository, tmp_path / "changed", model, settings, gpu=False)
    changed = read_configuration(configuration_path(target, gpu=False))
    shipped = read_configuration(configuration_path(repository, gpu=False))
    assert (changed.max_batch_size, changed.instance_group[0].count) == (4, 3)
    assert shipped.instance_group[0].HasField("rate_limiter")
    assert not changed.instance_group[0].HasField("rate_limiter")
    assert changed.dynamic_batching.max_queue_delay_microseconds == 0
    assert changed.parameters["INTRA_OP_THREAD_COUNT"].string_value == "1"
    assert [entry.batch_size for entry in changed.model_warmup] == [1, 4]
    assert changed.input == shipped.input
    assert changed.output == shipped.output
    assert changed.dynamic_batching.default_queue_policy == shipped.dynamic_batching.default_queue_policy
    same = write_repository(repository, tmp_path / "same", model, Settings(), gpu=False)
    assert read_configuration(configuration_path(same, gpu=False)) == shipped
    assert (same / "image_decoder").is_dir()
    assert not (target / "image_decoder").exists()
    settings = Settings(decoder_queue_delay_microseconds=0)
    hasty = write_repository(repository, tmp_path / "hasty", model, settings, gpu=False)
    delays = [
        read_configuration(configuration_path(each, gpu=False, model="image_decoder")).dynamic_batching
        for each in (hasty, repository)
    ]
    assert [each.max_queue_delay_microseconds for each in delays] == [0, 4000]


def test_the_sweep_measures_and_names_what_each_shipped_number_rests_on(
    checkpoint: Path, repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = tmp_path / "tuning.md"

    def few_bare(precision: Precision, batch: int, cores: int, *, complete: bool) -> list[BareRow]:
        return [
            row
            for row in bare_rows(precision, batch, cores, complete=complete)
            if row.factor in ("as shipped", "batch size")
        ]

    def few_served(batch: int, delay_us: int, cores: int, *, complete: bool) -> list[ServedRow]:
        return served_rows(batch, delay_us, cores, complete=complete)[:1]

    monkeypatch.setattr(command, "bare_rows", few_bare)
    monkeypatch.setattr(command, "image_rows", lambda: image_rows()[:1])
    monkeypatch.setattr(command, "served_rows", few_served)
    arguments = ["--model", str(checkpoint), "--repository", str(repository), "--rounds", "1", "--output", str(page)]
    monkeypatch.setattr(sys, "argv", ["tuning.py", *arguments, "--bare-seconds", "0.05", "--served-seconds", "0.5"])
    with pytest.raises(SystemExit) as ended:
        command.main()
    assert ended.value.code == 0
    lines = page.read_text().splitlines()
    assert sum(line.startswith("| as shipped |") for line in lines) == 3
    assert any(line.startswith("| max_queue_delay_microseconds of image_decoder | 4000 |") for line in lines)
    assert sum(line.startswith("| batch size |") for line in lines) == 4
    batch = next(line for line in lines if line.startswith("| max_batch_size | 8 |"))
    assert "bare: 1: " in batch
    assert any(line == "| max_batch_size on a GPU | 64 | derived in config.pbtxt, no GPU measured |" for line in lines)


def test_memory_that_is_kept_is_not_faulted_in_again(repository: Path) -> None:
    model = repository / "deepfake_vs_real" / "1" / "model.pt"
    faults = []
    for keep in (True, False):
        pages = {"THP_MEM_ALLOC_ENABLE": "0"}
        with bare_model(model, keep_memory=keep, environment=pages) as bare:
            bare.ask(60.0, batch=16, seconds=0.0)
            faults.append(bare.ask(60.0, batch=16, seconds=0.2)["faults_per_image"])
    kept, default = faults
    assert kept < default / 4


def test_a_measuring_process_that_fails_says_why(tmp_path: Path) -> None:
    model = tmp_path / "model.pt"
    model.write_bytes(b"no model")
    with pytest.raises(ChildProcessError, match=r"model_speed\.bare ended: RuntimeError"), bare_model(model):
        pass


def test_the_documented_targets_exist() -> None:
    makefile = (ROOT / "Makefile").read_text()
    for target, script in (("tune", "tune"), ("ceiling", "ceiling"), ("bench-gpu", "gpu")):
        assert f"\n{target}: " in makefile
        assert f"-m loadtests.studies.{script} $(ARGS)" in makefile

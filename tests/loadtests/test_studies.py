"""The studies: what they conclude from figures, and each of them once with a small checkpoint."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from deepfake_deploy.embedded import EmbeddedTriton
from deepfake_deploy.export import Precision

from loadtests.studies import ceiling, cost, decoding, gpu, overload, referee, serving, tune
from loadtests.studies.serving import bare_model, read_configuration
from loadtests.studies.table import circumstances, figure, markdown_table, ratio, run_study, shown, study_parser
from loadtests.traffic.answers import REJECTED_FULL, REJECTED_WAITED
from loadtests.traffic.loops import Sample
from tests.support.metrics import metric
from tests.support.pictures import encoded, photo_like
from tests.support.project import ROOT

RESULTS = ROOT / "loadtests" / "results"
STUDIES = {
    "ceiling": ceiling,
    "cost": cost,
    "decoding": decoding,
    "overload": overload,
    "referee": referee,
    "tune": tune,
}
PERF_ANALYZER = ROOT / ".venv" / "perf_analyzer" / "bin" / "perf_analyzer"


def run(study: ModuleType, folder: Path, monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    """The exit code of a study's command; its result is in `folder`."""
    name = study.__name__.rpartition(".")[2]
    rounds = () if study is overload else ("--rounds", "1")
    monkeypatch.setattr(sys, "argv", [name, "--output", str(folder), *rounds, *arguments])
    with pytest.raises(SystemExit) as ended:
        study.main()
    return int(ended.value.code or 0)


def result(folder: Path, name: str) -> Any:
    return json.loads((folder / f"{name}.json").read_text())


def test_a_figure_shows_its_median_and_its_spread() -> None:
    assert shown(figure([8.0, 9.5, 8.25])) == "8.25 (8.00–9.50)"
    assert shown(figure([1200.4, 1300.0, 1100.0])) == "1200 (1100–1300)"
    assert shown({"median": 8.0}) == "8.00"


def test_a_ratio_is_of_the_same_round() -> None:
    assert ratio([4.0, 9.0], [5.0, 10.0]) == {"median": pytest.approx(0.85), "low": 0.8, "high": 0.9}


def test_a_table_is_markdown() -> None:
    assert markdown_table(["a", "b"], [["x", "1"]]) == ["| a | b |", "| --- | ---: |", "| x | 1 |"]


def test_a_page_that_cannot_be_made_leaves_the_old_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["study", "--output", str(tmp_path)])

    def study(result: dict[str, Any]) -> None:
        run_study("study", study_parser("A study."), lambda *_: result, lambda found: [str(found["rate"])])

    with pytest.raises(SystemExit, match="0"):
        study({"rate": 1.0})
    with pytest.raises(KeyError):
        study({})
    assert (tmp_path / "study.md").read_text() == "1.0\n"
    assert result(tmp_path, "study") == {"rate": 1.0}


def test_a_result_tells_its_options_and_no_path_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["tune", "--output=/home/me/out", "--rounds", "2", "--repository", "/home/me/in"])
    assert circumstances("tune", "any")[0].startswith("`python -m loadtests.studies.tune --rounds 2`, ")


@pytest.mark.parametrize("name", STUDIES)
def test_target_module_and_result_have_one_name_and_the_page_is_made_of_the_result(name: str) -> None:
    assert f"\n{name}: " in (ROOT / "Makefile").read_text()
    assert f"-m loadtests.studies.{name} " in (ROOT / "Makefile").read_text()
    page = "\n".join(STUDIES[name].page(result(RESULTS, name))) + "\n"
    assert page == (RESULTS / f"{name}.md").read_text()


def outcome(share: float, lead: float) -> dict[str, Any]:
    return {"served_to_bare": {"median": share}, "served_to_card": {"median": lead}}


def found(precisions: dict[str, Any], **best_to_others: float) -> dict[str, Any]:
    others = {other: {"median": factor} for other, factor in best_to_others.items()}
    return {"precisions": precisions, "best": [*precisions][-1], "best_to_others": others}


def test_a_served_model_near_the_bare_one_is_enough() -> None:
    assert ceiling.judge(found({"bf16": outcome(0.96, 2.9)}), "cpu") == []


def test_a_served_model_that_loses_too_much_is_named() -> None:
    assert ceiling.judge(found({"bf16": outcome(0.94, 2.9)}), "cpu") == [
        "bf16: served 0.94 of the bare model, under 0.95"
    ]


def test_the_card_is_held_against_the_best_precision_alone() -> None:
    judged = ceiling.judge(found({"fp32": outcome(0.97, 1.0), "bf16": outcome(0.99, 1.78)}), "cpu")
    assert judged == ["bf16: served 1.78 times the card's own code, under 1.8"]


def test_int8_is_held_against_the_others() -> None:
    measured = {"fp32": outcome(0.97, 1.3), "bf16": outcome(0.99, 2.4), "int8": outcome(0.95, 3.4)}
    assert ceiling.judge(found(measured, fp32=2.6, bf16=1.4), "cpu") == []
    assert ceiling.judge(found(measured, fp32=2.59, bf16=1.39), "cpu") == [
        "int8: served 2.59 times fp32, under 2.6",
        "int8: served 1.39 times bf16, under 1.4",
    ]


@pytest.mark.slow
def test_the_ceiling_is_measured_and_its_table_written(
    checkpoint: Path, repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A small model computes in a millisecond, so that most of a request is not the model: only the way is tried here.
    monkeypatch.setattr(ceiling, "SERVED_SHARE", {"cpu": 0.0})
    monkeypatch.setattr(ceiling, "BATCHES", {"cpu": (4, 8)})
    model = ["--model", str(checkpoint), "--repository", str(repository)]
    monkeypatch.setattr(serving, "precisions", lambda: [Precision.FP32])
    monkeypatch.setattr(ceiling, "CARD_FACTOR", {"fp32": 0.0})
    assert run(ceiling, tmp_path, monkeypatch, *model, "--seconds", "0.5") == 0
    found = result(tmp_path, "ceiling")["precisions"]["fp32"]
    bare, served = (found[name]["median"] for name in ("bare", "served"))
    assert found["served_to_bare"]["median"] == pytest.approx(served / bare)
    assert 1 <= found["batch"]["median"] <= 8
    assert 0 < found["busy"]["median"] <= 1
    assert "| fp32 |" in (tmp_path / "ceiling.md").read_text()


def test_four_fifths_of_the_bare_model_are_enough_on_a_gpu() -> None:
    assert ceiling.judge(found({"fp16": outcome(0.81, 2.9)}), "cuda") == []
    reasons = ceiling.judge(found({"fp16": outcome(0.79, 2.9)}), "cuda")
    assert reasons == ["fp16: served 0.79 of the bare model, under 0.8"]


@pytest.mark.skipif(gpu.torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_says_so_in_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert run(gpu, tmp_path, monkeypatch) == 1
    told = capsys.readouterr()
    assert told.err == "gpu: no CUDA device here; `make tune` and `make ceiling` measure a CPU\n"
    assert told.out == ""
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_the_gpus_whole_way_on_the_cpu(
    checkpoint: Path, repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ceiling, "SERVED_SHARE", {"cpu": 0.0})
    monkeypatch.setattr(ceiling, "CARD_FACTOR", {"fp32": 0.0})
    monkeypatch.setattr(serving, "precisions", lambda: [Precision.FP32])
    monkeypatch.setattr(ceiling, "BATCHES", {"cpu": (2,)})
    model = ["--device", "cpu", "--model", str(checkpoint), "--repository", str(repository)]
    assert run(gpu, tmp_path, monkeypatch, *model, "--seconds", "0.5", "--generators", "2") == 0
    document = result(tmp_path, "gpu")
    assert document["circumstances"][0].startswith("`python -m loadtests.studies.gpu --rounds 1 --device cpu ")
    found = document["precisions"]["fp32"]
    assert found["bare_batch"] == 2
    assert found["batch"]["median"] > 1
    assert "| fp32 |" in (tmp_path / "gpu.md").read_text()


PRECISIONS = (Precision.BF16, Precision.FP32)


@pytest.mark.parametrize("cores", [1, 2, 16])
def test_no_setting_is_measured_twice(cores: int) -> None:
    rows = tune.served_rows(PRECISIONS, 8, 10_000, cores)
    assert len({(factor, setting) for factor, setting, _ in rows}) == len(rows)
    assert all(differs.get("threads") != 0 for _, _, differs in rows)
    assert [differs for factor, _, differs in rows if factor == "precision"] == [{"precision": Precision.FP32}]


def test_a_repository_serves_the_setting_and_nothing_else_changes(repository: Path, tmp_path: Path) -> None:
    def written(factor: str, setting: str) -> Any:
        (changes,) = (differs for *names, differs in rows if names == [factor, setting])
        tune.write_repository(repository, tmp_path / f"{factor} {setting}", **changes)
        return read_configuration(tmp_path / f"{factor} {setting}")

    shipped = read_configuration(repository)
    rows = tune.served_rows(PRECISIONS, 8, 10_000, 2)
    changed = written("max_batch_size", "4")
    assert changed.max_batch_size == 4
    assert [entry.batch_size for entry in changed.model_warmup] == [1, 4]
    assert changed.input == shipped.input
    assert changed.output == shipped.output
    assert changed.dynamic_batching == shipped.dynamic_batching
    assert not (tmp_path / "max_batch_size 4" / "image_decoder").exists()
    whole = "bf16, batch 8, delay 10 ms, 2 instances in turns, 2 threads"
    assert written("as shipped", whole) == shipped
    assert (tmp_path / f"as shipped {whole}" / "image_decoder").is_dir()
    assert (tmp_path / f"as shipped {whole}" / "deepfake_vs_real" / "1" / "model.pt").is_file()
    assert written("queue delay", "0").dynamic_batching.max_queue_delay_microseconds == 0
    at_once = written("instances", "2 at once, each on 1 of 2 cores")
    assert shipped.instance_group[0].HasField("rate_limiter")
    assert not at_once.instance_group[0].HasField("rate_limiter")
    assert at_once.parameters["INTRA_OP_THREAD_COUNT"].string_value == "1"


@pytest.mark.slow
def test_the_sweep_measures_what_is_shipped_and_what_is_not(
    checkpoint: Path, repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    served_rows = tune.served_rows
    monkeypatch.setattr(tune, "served_rows", lambda *shipped: served_rows(*shipped)[:2])
    model = ["--model", str(checkpoint), "--repository", str(repository)]
    assert run(tune, tmp_path, monkeypatch, *model, "--seconds", "0.5") == 0
    found = result(tmp_path, "tune")
    assert [row["factor"] for row in found["served"]][:2] == ["as shipped", "precision"]
    assert found["served"][0]["compute_ms"]["median"] > 0
    lines = (tmp_path / "tune.md").read_text().splitlines()
    assert sum(line.startswith("| as shipped |") for line in lines) == 1


@pytest.mark.slow
def test_a_measuring_process_that_fails_says_why(tmp_path: Path) -> None:
    model = tmp_path / "model.pt"
    model.write_bytes(b"no model")
    with (
        pytest.raises(ChildProcessError, match=r"the bare model failed: RuntimeError"),
        bare_model(model),
    ):
        pass


def sample(full: int = 1000, full_ms: float = 50.0, waited_ms: float = 30_500.0, **others: list[float]) -> Sample:
    """Eight answers a second for ten seconds, and refusals."""
    answered = [float(second) for second in range(10) for _ in range(8)]
    return Sample(answered, [1.0], {REJECTED_FULL: [full_ms] * full, REJECTED_WAITED: [waited_ms], **others})


@pytest.mark.parametrize(
    ("seen", "capacity", "memory", "reason"),
    [
        (sample(), 8.4, 100.0, None),
        (sample(), 9.4, 100.0, "the goodput is 85% of the capacity, under 90%"),
        (sample(full=0), 8.4, 100.0, "the queue was never full"),
        (sample(full_ms=120.0), 8.4, 100.0, "a full queue took 120 ms to say so"),
        (sample(waited_ms=31_200.0), 8.4, 100.0, "a request waited for 31.2 s"),
        (sample(), 8.4, 150.0, "memory grew by 50 MiB"),
        (sample(deadline=[1.0]), 8.4, 100.0, "other errors: {'deadline': 1}"),
    ],
)
def test_an_overload_that_was_not_borne_is_named(
    seen: Sample, capacity: float, memory: float, reason: str | None
) -> None:
    found = {"grpc": overload.outcome(capacity, seen) | {"memory_filled_mib": 100.0, "memory_last_mib": memory}}
    assert overload.judge(found, 30.0) == ([] if reason is None else [f"grpc: {reason}"])


@pytest.mark.slow
def test_an_overload_is_measured_over_both_protocols(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A small model on a shared machine is refused by neither queue; the way is tried, and the verdict may be either.
    assert run(overload, tmp_path, monkeypatch, "--repository", str(repository), "--seconds", "2") in (0, 1)
    found = result(tmp_path, "overload")["protocols"]
    assert set(found) == {"grpc", "http"}
    assert all(each["capacity"] > 0 and each["goodput"] > 0 and not each["other_errors"] for each in found.values())


@pytest.mark.slow
def test_the_clients_cost_is_measured_beside_bare_tritonclient(
    triton: EmbeddedTriton, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    urls = ["--grpc-url", triton.grpc_url, "--http-url", triton.http_url]
    assert run(cost, tmp_path, monkeypatch, *urls, "--images", "16") == 0
    callers = result(tmp_path, "cost")["callers"]
    assert set(callers) == {"gRPC, threads", "HTTP, threads", "gRPC, asyncio", "HTTP, asyncio"}
    assert all(each["ours"]["cpu_ms"]["median"] > 0 for each in callers.values())


@pytest.mark.slow
def test_decoding_is_measured_by_size_of_photo(
    checkpoint: Path, repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decoding, "MEGAPIXELS", (0.3, 2))
    model = ["--model", str(checkpoint), "--repository", str(repository), "--images", "4"]
    photos = tmp_path / "photos"
    photos.mkdir()
    for seed in range(2):
        (photos / f"{seed}.png").write_bytes(encoded(photo_like(120, 100, seed), "PNG"))
    for arguments, photos_told in ((model, "4 of each size, drawn"), ([*model, "--photos", str(photos)], "2 of each")):
        assert run(decoding, tmp_path, monkeypatch, *arguments) == 0
        found = result(tmp_path, "decoding")
        assert found["photos"].startswith(photos_told)
        small, large = found["sizes"]["0.3"], found["sizes"]["2"]
        assert (small["largest_pixel_difference"], small["largest_probability_difference"]) == (0, 0.0)
        assert 0 < large["largest_pixel_difference"] < 32
        assert large["largest_probability_difference"] > 0
        assert all(large[each]["images_per_second"]["median"] > 0 for each in ("exact", "fast"))
    assert "| 0 (0.00) | 0.0000 | 0 |" in (tmp_path / "decoding.md").read_text()
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "README.md").write_text("no image")
    assert run(decoding, tmp_path, monkeypatch, *model, "--photos", str(tmp_path / "empty")) == 1


def record(*requests: tuple[float, float]) -> dict[str, Any]:
    """perf_analyzer's, of (sent, answered), in seconds."""
    rows = [{"timestamp": int(sent * 1e9), "response_timestamps": [int(end * 1e9)]} for sent, end in requests]
    return {"experiments": [{"requests": rows}]}


#: Locust's.
STATISTICS = {
    "num_requests": 4,
    "start_time": 100.5,  # of the first answer
    "min_response_time": 500.0,
    "last_request_timestamp": 102.0,
    "response_times": {"900": 1, "300": 2, "500": 1},
}


def test_a_record_is_counted_from_the_first_request_to_the_last_answer() -> None:
    assert referee.read_record(record((10, 11), (10, 12), (11, 12))) == {"throughput": 1.5, "p50_ms": 1000.0}
    assert referee.read_statistics(json.dumps([STATISTICS])) == {"throughput": 2.0, "p50_ms": 300.0}


@pytest.mark.parametrize(("rate", "agrees"), [(1.0, True), (1.1, True), (1.11, False), (0.91, True), (0.9, False)])
def test_they_agree_within_the_tolerance_in_both_directions(rate: float, agrees: bool) -> None:
    theirs, ours = ([{"throughput": by * each, "p50_ms": 800.0} for each in (0.5, 1.0, 3.0)] for by in (rate, 1.0))
    apart = referee.judge({"grpc, 8 callers": referee.compare(theirs, ours)})
    assert apart == ([] if agrees else [f"grpc, 8 callers: throughput, ratio {rate:.3f}"])


def test_without_perf_analyzer_it_says_how_to_get_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(referee, tmp_path / "out", monkeypatch, "--perf-analyzer", str(tmp_path / "missing")) == 1
    told = capsys.readouterr().err
    assert told == f"referee: {tmp_path / 'missing'}: no perf_analyzer there; `make referee` installs it\n"


@pytest.mark.slow
@pytest.mark.skipif(not PERF_ANALYZER.is_file(), reason="perf_analyzer is not installed; `make referee` does it")
def test_perf_analyzer_runs_over_both_protocols(triton: EmbeddedTriton, tmp_path: Path) -> None:
    referee.prepare(PERF_ANALYZER, tmp_path)
    for url in (triton.grpc_url, triton.http_url):
        before = metric(triton.metrics_url, "nv_inference_request_success")
        found = referee.run_perf_analyzer(PERF_ANALYZER, tmp_path, url, callers=1, rate=6.0, seconds=1.0)
        assert found["throughput"] > 0
        assert 0 < found["p50_ms"] < 60_000
        assert metric(triton.metrics_url, "nv_inference_request_success") > before

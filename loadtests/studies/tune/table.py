"""The page: both tables, and each shipped number with the rows that it rests on."""

from __future__ import annotations

from dataclasses import dataclass

from tritonclient.grpc.model_config_pb2 import ModelConfig

from loadtests.studies.model_speed.figures import Figure
from loadtests.studies.model_speed.report import markdown_table

from .image_callers import CALLERS, ImageResult
from .sweep import BareResult, ServedResult


@dataclass(frozen=True)
class Sweep:
    """What was measured, and the configurations that it is measured for."""

    bare: list[BareResult]
    served: list[ServedResult]
    images: list[ImageResult]
    cpu: ModelConfig
    gpu: ModelConfig
    decoder: ModelConfig
    """image_decoder's on a CPU."""


def page(head: list[str], sweep: Sweep) -> list[str]:
    """Lines of Markdown."""
    return [
        "# What each setting is worth",
        "",
        *head,
        "",
        "Images per second, median of the rounds (lowest–highest). One setting at a time differs from what is shipped, the "
        "first row; a share is of that row. The rows of a table ran in turns.",
        "",
        "## The bare TorchScript model in one process",
        "",
        *_bare_table(sweep.bare),
        "",
        "## Served by the embedded Triton, saturated over gRPC with distinct pixels",
        "",
        *_served_table(sweep.served),
        "",
        "Queue and compute time are Triton's, a request's mean. Memory is that of the server and its processes which no other "
        "process shares. The Python backend, which runs TorchScript in the embedded Triton, has a process for each instance, and "
        "these cannot share weights: two instances hold them twice. NVIDIA's LibTorch backend can (`ENABLE_WEIGHT_SHARING`); that "
        "was not run here. What the second instance is for, a full queue and callers now and then, is not in this table "
        "(`make overload`, `make capacity`).",
        "",
        f"## {CALLERS} callers with image files over HTTP, each with one request at a time",
        "",
        *_images_table(sweep.images),
        "",
        "## What each shipped number rests on",
        "",
        *_numbers_table(sweep),
    ]


def _bare_table(results: list[BareResult]) -> list[str]:
    base = results[0].figure.median
    rows = [
        [
            result.row.factor,
            result.row.setting,
            str(result.figure),
            f"{result.figure.median / base:.2f}",
            f"{Figure(tuple(result.faults_per_image)).median:.0f}",
        ]
        for result in results
    ]
    return markdown_table(["factor", "setting", "images/s", "share", "page faults an image"], rows, words=2)


def _served_table(results: list[ServedResult]) -> list[str]:
    base = results[0].figure.median
    rows = [
        [
            result.row.factor,
            result.row.setting,
            str(result.figure),
            f"{result.figure.median / base:.2f}",
            f"{result.mean('batch'):.1f}",
            f"{result.mean('queue_ms'):.0f}",
            f"{result.mean('compute_ms'):.0f}",
            f"{result.mean('memory_mib'):.0f}",
        ]
        for result in results
    ]
    return markdown_table(
        ["factor", "setting", "images/s", "share", "mean batch", "queue, ms", "compute, ms", "memory, MiB"],
        rows,
        words=2,
    )


def _images_table(results: list[ImageResult]) -> list[str]:
    rows = [
        [
            result.row.factor,
            result.row.setting,
            str(Figure(tuple(result.rates))),
            _whole(result.percentile_ms(50)),
            _whole(result.percentile_ms(99)),
            f"{Figure(tuple(result.batches)).median:.1f}",
        ]
        for result in results
    ]
    return markdown_table(["factor", "setting", "images/s", "p50, ms", "p99, ms", "mean batch"], rows, words=2)


def _numbers_table(sweep: Sweep) -> list[str]:
    """Shipped numbers; the GPU's are derived in config.pbtxt until they are measured."""
    derived = "derived in config.pbtxt, no GPU measured"
    bare, cpu, gpu = sweep.bare, sweep.cpu, sweep.gpu
    bare_shares, served_shares = _shares(bare), _shares(sweep.served)
    delay_cpu = cpu.dynamic_batching.max_queue_delay_microseconds
    delay_gpu = gpu.dynamic_batching.max_queue_delay_microseconds
    rows = [
        [
            "max_batch_size",
            str(cpu.max_batch_size),
            f"bare: {_said(bare_shares, 'batch size')}; served: {_said(served_shares, 'max_batch_size')}; everyone in a batch "
            "waits for all of it",
        ],
        ["max_queue_delay_microseconds", str(delay_cpu), f"served: {_said(served_shares, 'queue delay')}"],
        [
            "max_queue_delay_microseconds of image_decoder",
            str(sweep.decoder.dynamic_batching.max_queue_delay_microseconds),
            f"p99 of {CALLERS} callers with image files: {_p99(sweep.images)}",
        ],
        [
            "instance_group count",
            str(cpu.instance_group[0].count),
            f"served: {_said(served_shares, 'instances')}; at once, each takes longer for its batch (compute, ms)",
        ],
        [
            "threads of torch",
            "usable cores",
            f"bare: {_said(bare_shares, 'threads')}; served: {_said(served_shares, 'threads')}",
        ],
        ["`--precision auto`", bare[0].row.variant.precision.value, f"bare: {_said(bare_shares, 'precision')}"],
        ["memory layout", "as exported", f"bare: {_said(bare_shares, 'layout')}"],
        ["attention", "PyTorch's choice (flash)", f"bare: {_said(bare_shares, 'attention')}"],
        ["allocator", "freed memory kept, 2 MiB pages", f"bare: {_said(bare_shares, 'memory')}"],
        [
            "OMP_WAIT_POLICY",
            "PASSIVE",
            f"bare: {_said(bare_shares, 'waiting threads')}; served: {_said(served_shares, 'waiting threads')}",
        ],
        ["max_batch_size on a GPU", str(gpu.max_batch_size), derived],
        ["max_queue_delay_microseconds on a GPU", str(delay_gpu), derived],
        ["instance_group count on a GPU", str(gpu.instance_group[0].count), derived],
    ]
    return markdown_table(["setting", "shipped", "measured against it"], rows, words=3)


def _shares(results: list[BareResult] | list[ServedResult]) -> dict[str, list[str]]:
    """Factor → what each of its other settings does of what is shipped; in doubt where their rounds overlap."""
    base = results[0].figure
    shares: dict[str, list[str]] = {}
    for result in results[1:]:
        share = f"{result.figure.median / base.median:.2f}"
        doubt = " (within the spread)" if result.figure.overlaps(base) else ""
        shares.setdefault(result.row.factor, []).append(f"{result.row.setting}: {share}{doubt}")
    return shares


def _whole(figure: Figure) -> str:
    return f"{figure.median:.0f} ({min(figure.rounds):.0f}–{max(figure.rounds):.0f})"


def _p99(results: list[ImageResult]) -> str:
    """Of what is shipped and each other row."""
    return ", ".join(
        f"{result.row.factor} ({result.row.setting}): {result.percentile_ms(99).median:.0f} ms" for result in results
    )


def _said(shares: dict[str, list[str]], factor: str) -> str:
    return ", ".join(shares.get(factor, ["nothing else on this machine"]))

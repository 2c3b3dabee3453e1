"""What kept the load from rising further, and what to do about it."""

from __future__ import annotations

from dataclasses import dataclass

from .search import Found
from .step import Step

# A core that runs one Python process is busy long before it is full: garbage collection and the kernel come on top.
GENERATOR_CPU = 0.8
_GENERATOR_LATE_SHARE = 0.1
_SERVER_CPU = 0.85
_GPU = 0.9
_BUSY = 0.85
_OTHERS = 0.1
_OTHERS_AT_FAULT = 0.25
_DECODE_SHARE = 0.5
_LONGER_DELAY = "If the mean batch is far below `max_batch_size`, a longer `max_queue_delay_microseconds` may help."


@dataclass(frozen=True, slots=True)
class Bottleneck:
    """One sentence on what it was, with its evidence, and what to do next, the best first."""

    name: str
    """generator, wrong answers, latency, others, gpu, cpu, instance, unknown, none."""
    finding: str
    advice: tuple[str, ...]


def generator_bound(step: Step, slo_p95_ms: float) -> bool:
    """Whether the step measured the load generator rather than the server."""
    return step.generator_cpu >= GENERATOR_CPU or step.late_p99_ms > slo_p95_ms * _GENERATOR_LATE_SHARE


def disturbed(step: Step, cores: int, *, server_is_here: bool) -> bool:
    """Whether other programs took a noticeable share of this machine; unknown, and so no, for a server elsewhere."""
    return server_is_here and step.other_cores > _OTHERS * cores


def find_bottleneck(found: Found, slo_p95_ms: float, cores: int) -> Bottleneck:
    """Judges by the lightest load that did not hold; without one, by the heaviest that did.

    Args:
        cores: processors of the machine that the server is on, if it is this one.
    """
    wrong = sum(count for step in found.steps for cause, count in step.failures.items() if cause.startswith("wrong"))
    if wrong:
        return Bottleneck(
            "wrong answers",
            f"{wrong} answers were wrong. Until that is understood, no figure here counts.",
            (
                "Run it again with `--known-answers` from a server that you trust. It tells a broken server from one whose "
                "weights were replaced meanwhile.",
                "Look into the server's log, and at the replicas one by one if the URL stands for several.",
            ),
        )
    step = found.broken or max(found.steps, key=lambda each: each.offered)
    if found.broken and step.other_cores > _OTHERS_AT_FAULT * cores and _full(step, cores):
        return Bottleneck(
            "others",
            f"Other programs on this machine: they kept {step.other_cores:.1f} of {cores} cores busy, the server "
            f"{step.server_cores:.1f}, at {step.offered:.3g} requests per second.",
            ("Measure again with nothing else running: this figure is a lower bound.",),
        )
    if generator_bound(step, slo_p95_ms):
        return Bottleneck(
            "generator",
            f"The load generator, not the server: its busiest process used {step.generator_cpu:.0%} of a core, and requests "
            f"left up to {step.late_p99_ms:.0f} ms late. The server may hold more than this.",
            ("Raise `--generators`, or run this on a machine of its own, and measure again.",),
        )
    if found.broken is None:
        return Bottleneck(
            "none",
            "Nothing yet: the target still held at the highest load that was offered.",
            ("Run it again with a longer `--step-seconds`, so that the estimate it starts from is better.",),
        )
    if found.capacity is None:
        return Bottleneck(
            "latency",
            f"Time, not throughput: even at {step.offered:.2g} requests per second the 95th percentile is "
            f"{shown_ms(step.p95_ms)}, over the target of {slo_p95_ms:.0f} ms.",
            (
                "A target below the time of one image cannot be held by more replicas: take faster hardware, a lower "
                "precision (`deepfake export --precision`), or another target.",
                "If `queue` in the table below is most of it, lower `max_queue_delay_microseconds`.",
            ),
        )
    return _server_side(step, cores)


def _full(step: Step, cores: int) -> bool:
    """Whether the machine was; unknown, and so no, when the server is on another one."""
    if step.server_cores is None:
        return False
    return step.server_cores + step.other_cores + step.generator_cpu >= _SERVER_CPU * cores


def _server_side(step: Step, cores: int) -> Bottleneck:
    decoding = step.decode_ms is not None and step.compute_ms and step.decode_ms > _DECODE_SHARE * step.compute_ms
    used = "an unknown use of cores" if step.server_cores is None else f"{step.server_cores:.1f} of {cores} cores busy"
    if step.gpu is not None and step.gpu >= _GPU:
        return Bottleneck(
            "gpu",
            f"The GPU: {step.gpu:.0%} busy at {step.offered:.3g} requests per second, in batches of {step.batch or 0:.1f}.",
            ("Add replicas, one GPU each: the model is at its limit, and so is this pod.", _LONGER_DELAY),
        )
    if step.server_cores is not None and step.server_cores >= _SERVER_CPU * cores:
        what = "decoding images and the model" if decoding else "the model"
        return Bottleneck(
            "cpu",
            f"The processors: the server kept {used} with {what} at {step.offered:.3g} requests per second.",
            (
                *(
                    ('Decode at the callers (`decode="client"`), which takes that work off the server.',)
                    * bool(decoding)
                ),
                "Add replicas, or move to a GPU.",
                "With fp32 weights on a processor with AVX512_BF16 or AMX: `deepfake export --precision bf16` does about "
                "twice as much.",
            ),
        )
    if step.busy is not None and step.busy >= _BUSY:
        return Bottleneck(
            "instance",
            f"The model: its instances take turns, and one of them computed {step.busy:.0%} of the time, with {used}.",
            (
                "Add replicas; or, where the device itself is not full, let both instances compute at once (tritonserver's "
                "`--rate-limit-resource=turn:2`).",
                _LONGER_DELAY,
            ),
        )
    share = "an unknown share" if step.busy is None else f"{step.busy:.0%}"
    return Bottleneck(
        "unknown",
        f"Not visible from here: the classifier computed {share} of the time, with {used}.",
        (
            "Run this next to the server (`--url` on the same machine) and pass `--metrics-url`, so that it is seen.",
            "Then look at what lies between: network, gateway, TLS, or limits on the pod's CPU.",
        ),
    )


def shown_ms(value: float) -> str:
    """A latency for people; failed requests have none."""
    return f"{value:,.0f} ms" if value != float("inf") else "without an answer"

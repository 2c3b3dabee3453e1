"""What kept the load from rising further, and what to do about it."""

from __future__ import annotations

from dataclasses import dataclass

from .search import Found
from .step import Step

# A core that runs one Python process is busy long before it is full: garbage collection and the kernel come on top.
_GENERATOR_CPU = 0.8
_GENERATOR_LATE_SHARE = 0.1
_SERVER_CPU = 0.85
_GPU = 0.9
_BUSY = 0.85
_OTHERS_AT_FAULT = 0.25
_DECODE_SHARE = 0.5
_LONGER_DELAY = "If the mean batch is far below `max_batch_size`, a longer `max_queue_delay_microseconds` may help."


@dataclass(frozen=True, slots=True)
class Bottleneck:
    """What it was in a word, one sentence with the evidence, and what to do next, the best first."""

    name: str
    """wrong answers, others, generator, none, latency, gpu, cpu, instance, unknown."""
    finding: str
    advice: tuple[str, ...]


def generator_bound(step: Step, slo_p95_ms: float) -> bool:
    """Whether the step measured the load generator rather than the server."""
    return step.generator_cpu >= _GENERATOR_CPU or step.late_p99_ms > slo_p95_ms * _GENERATOR_LATE_SHARE


def find_bottleneck(found: Found, slo_p95_ms: float, cores: int) -> Bottleneck:
    """The first that holds, by the lightest load that did not hold; without one, by the heaviest that did.

    Args:
        cores: processors of the machine that the server is on, if it is this one.
    """
    step = found.broken or max(found.steps, key=lambda each: each.offered)
    at = f"at {step.offered:.3g} images per second"
    wrong = sum(count for each in found.steps for cause, count in each.failures.items() if cause.startswith("wrong"))
    server_cores = step.server_cores or 0.0
    full = server_cores + step.other_cores + step.generator_cpu >= _SERVER_CPU * cores
    disturbed = step.other_cores > _OTHERS_AT_FAULT * cores and full and step.server_cores is not None
    decoding = (step.decode_ms or 0.0) > _DECODE_SHARE * (step.compute_ms or float("inf"))
    cases = [
        (
            wrong > 0,
            "wrong answers",
            f"{wrong} answers were wrong. Until that is understood, no figure here counts.",
            (
                "Run it again with `--known-answers` from a server that you trust.",
                "Look into the server's log, and at the replicas one by one if the URL stands for several.",
            ),
        ),
        (
            found.broken is not None and disturbed,
            "others",
            f"Other programs on this machine: they kept {step.other_cores:.1f} of {cores} cores busy {at}.",
            ("Measure again with nothing else running: this figure is a lower bound.",),
        ),
        (
            generator_bound(step, slo_p95_ms),
            "generator",
            f"The load generator: its busiest process used {step.generator_cpu:.0%} of a core, and requests left up to "
            f"{step.late_p99_ms:.0f} ms late. The server may hold more than this.",
            ("Raise `--generators`, or run this on a machine of its own, and measure again.",),
        ),
        (
            found.broken is None,
            "none",
            "Nothing yet: the target still held at the highest load that was offered.",
            ("Run it again with a longer `--step-seconds`, so that the estimate it starts from is better.",),
        ),
        (
            found.capacity is None,
            "latency",
            f"Time, not throughput: even {at} the 95th percentile is {shown_ms(step.p95_ms)}, over the target of "
            f"{slo_p95_ms:.0f} ms.",
            (
                "More replicas do not help. Take faster hardware, a lower precision (`deepfake export --precision`), or "
                "another target.",
                "If `queue` in the table below is most of it, lower `max_queue_delay_microseconds`.",
            ),
        ),
        (
            (step.gpu or 0.0) >= _GPU,
            "gpu",
            f"The GPU: {step.gpu or 0:.0%} busy {at}, in batches of {step.batch or 0:.1f}.",
            ("Add replicas, one GPU each.", _LONGER_DELAY),
        ),
        (
            server_cores >= _SERVER_CPU * cores,
            "cpu",
            f"The processors: {'decoding images and the model' if decoding else 'the model'} kept {server_cores:.1f} of "
            f"{cores} cores busy {at}.",
            (
                *(
                    ['Decode at the callers (`decode="client"`), which takes that work off the server.']
                    if decoding
                    else []
                ),
                "Add replicas, or move to a GPU.",
                "With fp32 weights on a processor with AVX512_BF16 or AMX: `deepfake export --precision bf16` does about "
                "twice as much.",
            ),
        ),
        (
            (step.busy or 0.0) >= _BUSY,
            "instance",
            f"The model: its instances take turns, and one of them computed {step.busy or 0:.0%} of the time {at}.",
            (
                "Add replicas; or, where the device itself is not full, let both instances compute at once (tritonserver's "
                "`--rate-limit-resource=turn:2`).",
                _LONGER_DELAY,
            ),
        ),
        (
            True,
            "unknown",
            f"Not visible from here: neither the processors nor the model were full {at}, as far as they were seen.",
            (
                "Run this next to the server (`--url` on the same machine) and pass `--metrics-url`, so that it is seen.",
                "Then look at what lies between: network, gateway, TLS, or limits on the pod's CPU.",
            ),
        ),
    ]
    return next(Bottleneck(name, finding, advice) for holds, name, finding, advice in cases if holds)


def shown_ms(value: float) -> str:
    """A latency for people; failed requests have none."""
    return f"{value:,.0f} ms" if value != float("inf") else "without an answer"

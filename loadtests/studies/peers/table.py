"""The comparison as Markdown."""

from __future__ import annotations

from collections.abc import Sequence

from loadtests.studies.model_speed.report import markdown_table

from .contestants import CONTESTANTS, OURS, Contestant
from .judge import Finding
from .result import Comparison, Summary

_NAMES = {each.key: each for each in CONTESTANTS}
_SHOWN_VERSIONS = ("torch", "transformers", "pillow", "gradio", "fastapi", "uvicorn", "litserve", "bentoml", "ray")


def render(comparison: Comparison, findings: Sequence[Finding]) -> list[str]:
    """The lines of peers.md."""
    contestants = [_NAMES[key] for key in comparison.contestants]
    lines = ["# This server and its peers", ""]
    if comparison.rounds < comparison.rounds_wanted:
        lines += [f"**Partial: {comparison.rounds} of {comparison.rounds_wanted} rounds.**", ""]
    lines += [*comparison.circumstances, ""]
    versions = [f"{name} {comparison.versions[name]}" for name in _SHOWN_VERSIONS if name in comparison.versions]
    if versions:
        lines += [f"In the peers' environment: {', '.join(versions)}.", ""]
    lines += [
        f"Closed loop, rounds: {comparison.rounds}; {comparison.seconds:g} s and more for each figure (half for one caller)"
        " after as many answers as there are callers. A figure is the median of the rounds, with the lowest and highest;"
        " «ratio» is to the embedded Triton with image bytes.",
        "",
        *_verdict(findings),
        "",
        "![Images per second and p99](peers.png)",
    ]
    for precision in comparison.precisions:
        lines += ["", f"## {precision}", ""]
        if rounds := comparison.ceiling.get(precision):
            best = sorted(rounds)
            lines += [
                f"The bare model in one process, batches of {comparison.ceiling_batch[precision]} from memory: "
                f"**{best[len(best) // 2]:.2f}** images/s ({best[0]:.2f}–{best[-1]:.2f}).",
                "",
            ]
        lines += _figures(comparison, contestants, precision)
        if precision != "fp32" and (fixed := [each.name for each in contestants if each.fp32_only]):
            lines += ["", f"Only in fp32, which is its best: {', '.join(fixed)}."]
    lines += ["", "## How each is set up", "", *(f"- **{each.name}**: {each.setup}" for each in contestants)]
    lines += ["", "## On the wire", "", *_wire(comparison, contestants), ""]
    lines += [
        "Bytes for one image, counted by a relay between caller and server outside the timed runs, on open connections: what"
        " TCP carries, both ways, without its own headers. Images are distinct JPEG files of 512 × 512. Memory is the peak"
        " of the proportional set sizes of all of a server's processes.",
    ]
    return lines


def _verdict(findings: Sequence[Finding]) -> list[str]:
    behind = [each for each in findings if not each.ahead]
    if not findings:
        return ["Nothing was compared."]
    if not behind:
        return [
            "**The embedded Triton, taking image bytes, is ahead of every peer measured**: more images per second, and a"
            " p99 no worse, at every number of callers from 8 up, at equal precision."
        ]
    return ["**Not ahead everywhere:**", "", *(f"- {each.sentence}" for each in behind)]


def _figures(comparison: Comparison, contestants: Sequence[Contestant], precision: str) -> list[str]:
    rows = []
    for callers in comparison.callers:
        ours = comparison.summary(OURS, precision, callers)
        for contestant in contestants:
            if contestant.fp32_only and precision != "fp32":
                continue
            found = comparison.summary(contestant.key, precision, callers)
            start = [contestant.name, str(callers)]
            if found is None:
                reason = comparison.absent.get(contestant.key) or comparison.absent.get(f"{contestant.key} {precision}")
                rows.append([*start, f"not measured: {reason or 'no round was finished'}", *[""] * 5])
            else:
                rows.append([*start, *_cells(found, ours)])
    head = ["server", "callers", "images/s", "ratio", "p50 ms", "p99 ms", "errors", "memory MiB"]
    return markdown_table(head, rows)


def _cells(found: Summary, ours: Summary | None) -> list[str]:
    rate = found.images_per_second
    base = ours.images_per_second.median if ours else 0.0
    p99 = found.p99_ms
    failed = found.errors.total()
    causes = ", ".join(sorted(found.errors))
    return [
        str(rate),
        f"{rate.median / base:.2f}" if base else "–",
        "–" if found.p50_ms is None else f"{found.p50_ms:.0f}",
        "–" if p99 is None else f"{p99.median:.0f} ({min(p99.rounds):.0f}–{max(p99.rounds):.0f})",
        f"{failed} of {failed + found.answers} ({causes})" if failed else "0",
        f"{found.memory_mib:.0f}",
    ]


def _wire(comparison: Comparison, contestants: Sequence[Contestant]) -> list[str]:
    rows = []
    for each in contestants:
        wire = comparison.wire.get(each.key)
        rows.append([each.name, *((f"{wire.sent:,.0f}", f"{wire.received:,.0f}") if wire else ("–", "–"))])
    return markdown_table(["server", "bytes to it", "bytes from it"], rows)

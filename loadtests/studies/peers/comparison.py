"""What the figures of all servers come to: findings, a page and a plot."""

from __future__ import annotations

import statistics
from collections import Counter
from dataclasses import dataclass

from loadtests.studies.table import Figure, Result, figure, markdown_table, shown

from .contestants import CONTESTANTS, OURS

#: One caller at a time never fills a batch; what counts there is the model alone.
FEWEST_CALLERS = 8


@dataclass(frozen=True, slots=True)
class Summary:
    """All rounds of one server with so many callers."""

    rounds: dict[int, float]
    """Images per second by the number of the round."""
    p50_ms: float | None
    p99_ms: Figure | None
    answers: int
    errors: Counter[str]
    memory_mib: float

    @property
    def images_per_second(self) -> Figure:
        return figure(list(self.rounds.values()))

    def times(self, other: Summary) -> Figure | None:
        """Its images per second over the other's, round by round; None where no round has both."""
        common = self.rounds.keys() & other.rounds.keys()
        found = [self.rounds[number] / other.rounds[number] for number in common if other.rounds[number]]
        return figure(found) if found else None


@dataclass(frozen=True, slots=True)
class Finding:
    """One comparison with one peer."""

    ahead: bool
    sentence: str


def summary(result: Result, key: str, precision: str, callers: int) -> Summary | None:
    """None where nothing was measured."""
    wanted = (key, precision, callers)
    found = [each for each in result["measured"] if (each["contestant"], each["precision"], each["callers"]) == wanted]
    if not found:
        return None
    p50, p99 = ([each[name] for each in found if each[name] is not None] for name in ("p50_ms", "p99_ms"))
    return Summary(
        {each["round"]: each["images_per_second"] for each in found},
        statistics.median(p50) if p50 else None,
        figure(p99) if p99 else None,
        sum(each["answers"] for each in found),
        sum((Counter(each["errors"]) for each in found), Counter[str]()),
        max(each["memory_mib"] for each in found),
    )


def judge(result: Result) -> list[Finding]:
    """A finding for each peer, precision and number of callers from 8 up, by the medians of the rounds.

    Ahead is: more images per second, a p99 no worse, and none of our answers wrong or missing. A peer that was asked for
    and has no figures, or not in every round, is not claimed to be behind. Empty when nothing could be compared.
    """
    peers = [key for key in result["contestants"] if not CONTESTANTS[key].is_triton]
    found = [
        finding
        for precision in result["precisions"]
        for callers in result["callers"]
        if callers >= FEWEST_CALLERS
        for peer in peers
        if (finding := _compare(result, peer, precision, callers))
    ]
    absent = [Finding(False, f"{_name(key)}: not compared ({reason})") for key, reason in result["absent"].items()]
    return [*found, *absent] if found else []


def best_peer(result: Result, precision: str, callers: int) -> tuple[str, Figure] | None:
    """The name of the fastest peer, and our images per second over its own; None where none was measured."""
    ours = summary(result, OURS, precision, callers)
    found = {
        key: each
        for key in result["contestants"]
        if not CONTESTANTS[key].is_triton and (each := summary(result, key, precision, callers))
    }
    if ours is None or not found:
        return None
    best = max(found, key=lambda key: found[key].images_per_second["median"])
    times = ours.times(found[best])
    return (CONTESTANTS[best].name, times) if times else None


def _compare(result: Result, peer: str, precision: str, callers: int) -> Finding | None:
    ours, theirs = (summary(result, key, precision, callers) for key in (OURS, peer))
    if ours is None or theirs is None:
        return None
    reasons = []
    rate, their_rate = ours.images_per_second["median"], theirs.images_per_second["median"]
    if ours.errors:
        reasons.append(f"{ours.errors.total()} of our requests failed")
    if theirs.errors:
        reasons.append(f"{theirs.errors.total()} of its requests failed, so that nothing is claimed")
    if rate <= their_rate:
        reasons.append(f"{their_rate:.2f} images/s against our {rate:.2f}")
    if ours.p99_ms is None or (theirs.p99_ms is not None and ours.p99_ms["median"] > theirs.p99_ms["median"]):
        p99 = [f"{each.p99_ms['median']:.0f} ms" if each.p99_ms else "none" for each in (theirs, ours)]
        reasons.append(f"p99 {p99[0]} against our {p99[1]}")
    where = f"{_name(peer)}, {precision}, {callers} callers"
    if reasons:
        return Finding(False, f"{where}: not behind ({'; '.join(reasons)})")
    return Finding(True, f"{where}: behind; we do {rate / their_rate:.2f} times its images per second")


def _name(key: str) -> str:
    """Of a contestant, from its key or "key precision"."""
    contestant, _, precision = key.partition(" ")
    return f"{CONTESTANTS[contestant].name}{', ' + precision if precision else ''}"


def page(result: Result) -> list[str]:
    """The lines of peers.md."""
    lines = ["# This server and its peers", ""]
    if result["rounds"] < result["rounds_wanted"]:
        lines += [f"**Partial: {result['rounds']} of {result['rounds_wanted']} rounds.**", ""]
    lines += [
        *result["circumstances"],
        "",
        f"In the peers' environment: {', '.join(result['versions'])}.",
        "",
        f"Closed loop, {result['rounds']} rounds, {result['seconds']:g} s and more for each figure. A figure is the median "
        "of the rounds, with the lowest and highest. «Ratio» is to the embedded Triton with image bytes, round by round.",
        "",
        *_verdict(judge(result)),
    ]
    for precision in result["precisions"]:
        lines += ["", f"## {precision}", ""]
        if rounds := result["ceiling"].get(precision):
            batch = result["ceiling_batch"][precision]
            bare = (
                f"The bare model in one process, batches of {batch} from memory: **{shown(figure(rounds))}** images/s."
            )
            lines += [bare, ""]
        lines += _figures(result, precision)
    lines += ["", "## How each is set up", ""]
    lines += [f"- **{CONTESTANTS[key].name}**: {CONTESTANTS[key].setup}" for key in result["contestants"]]
    lines += [
        "",
        "Images are distinct JPEG files of 512 × 512. Memory is the peak of the proportional set sizes of all of a server's "
        "processes. The card's app runs in fp32 only, as the card has it.",
    ]
    return lines


def _verdict(findings: list[Finding]) -> list[str]:
    if not findings:
        return ["Nothing was compared."]
    if all(each.ahead for each in findings):
        return [
            "**The embedded Triton, taking image bytes, is ahead of every peer measured**: more images per second, and a"
            " p99 no worse, at every number of callers from 8 up, at equal precision."
        ]
    return ["**Not ahead everywhere:**", "", *(f"- {each.sentence}" for each in findings if not each.ahead)]


def _figures(result: Result, precision: str) -> list[str]:
    rows = []
    for callers in result["callers"]:
        ours = summary(result, OURS, precision, callers)
        for key in result["contestants"]:
            if CONTESTANTS[key].fp32_only and precision != "fp32":
                continue
            found = summary(result, key, precision, callers)
            start = [CONTESTANTS[key].name, str(callers)]
            if found is None:
                reason = result["absent"].get(f"{key} {precision}")
                rows.append([*start, f"not measured: {reason or 'no round was finished'}", *[""] * 5])
            else:
                rows.append([*start, *_cells(found, ours)])
    head = ["server", "callers", "images/s", "ratio", "p50 ms", "p99 ms", "errors", "memory MiB"]
    return markdown_table(head, rows)


def _cells(found: Summary, ours: Summary | None) -> list[str]:
    times = found.times(ours) if ours else None
    failed = found.errors.total()
    return [
        shown(found.images_per_second),
        shown(times) if times else "–",
        "–" if found.p50_ms is None else f"{found.p50_ms:.0f}",
        "–" if found.p99_ms is None else shown(found.p99_ms, 0),
        f"{failed} of {failed + found.answers} ({', '.join(sorted(found.errors))})" if failed else "0",
        f"{found.memory_mib:.0f}",
    ]

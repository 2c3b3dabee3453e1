"""What the figures of all servers come to: what was missed, and a page."""

from __future__ import annotations

from typing import Any

from loadtests.studies.table import Figure, Result, figure, figures, markdown_table, page_of, shown

from .contestants import CONTESTANTS, OURS

#: One caller at a time never fills a batch; what counts there is the model alone.
FEWEST_CALLERS = 8


def rounds_of(result: Result, key: str, precision: str, callers: int) -> dict[int, dict[str, Any]]:
    """What was measured of one server with so many callers, by the number of the round."""
    wanted = (key, precision, callers)
    return {
        each["round"]: each
        for each in result["measured"]
        if (each["contestant"], each["precision"], each["callers"]) == wanted
    }


def rate(rounds: dict[int, dict[str, Any]]) -> Figure:
    """Images per second."""
    return figure([each["images_per_second"] for each in rounds.values()])


def times(rounds: dict[int, dict[str, Any]], others: dict[int, dict[str, Any]]) -> Figure | None:
    """Images per second over the others', round by round; None where no round has both."""
    common = rounds.keys() & others.keys()
    found = [rounds[number]["images_per_second"] / others[number]["images_per_second"] for number in common]
    return figure(found) if found else None


def failed(rounds: dict[int, dict[str, Any]]) -> int:
    """Requests without a right answer."""
    return sum(sum(each["errors"].values()) for each in rounds.values())


def judge(result: Result) -> list[str]:
    """Why the embedded Triton is not ahead of every peer, from 8 callers up and by the medians of the rounds.

    Ahead is: more images per second, a p99 no worse, and none of our answers wrong or missing. Nothing is claimed over a
    peer that failed or is missing, nor where none was measured.
    """
    missed = [f"{CONTESTANTS[key.split()[0]].name}, {key.split()[1]}: {why}" for key, why in result["absent"].items()]
    compared = 0
    for precision in result["precisions"]:
        for callers in (each for each in result["callers"] if each >= FEWEST_CALLERS):
            ours = rounds_of(result, OURS, precision, callers)
            for key in result["contestants"]:
                theirs = rounds_of(result, key, precision, callers)
                if ours and theirs and CONTESTANTS[key].program:
                    compared += 1
                    where = f"{CONTESTANTS[key].name}, {precision}, {callers} callers"
                    missed += [f"{where}: {reason}" for reason in _reasons(ours, theirs)]
    return missed if compared else [*missed, "nothing was compared"]


def _reasons(ours: dict[int, dict[str, Any]], theirs: dict[int, dict[str, Any]]) -> list[str]:
    our_rate, their_rate = rate(ours)["median"], rate(theirs)["median"]
    our_p99, their_p99 = (figure([each["p99_ms"] for each in side.values()])["median"] for side in (ours, theirs))
    reasons = {
        f"{failed(ours)} of our requests failed": failed(ours) > 0,
        f"{failed(theirs)} of its requests failed, so that nothing is claimed": failed(theirs) > 0,
        f"{their_rate:.2f} images/s against our {our_rate:.2f}": our_rate <= their_rate,
        f"p99 {their_p99:.0f} ms against our {our_p99:.0f} ms": our_p99 > their_p99,
    }
    return [reason for reason, holds in reasons.items() if holds]


def best_peer(result: Result, precision: str, callers: int) -> tuple[str, Figure] | None:
    """The name of the fastest peer, and our images per second over its own; None where none was measured."""
    peers = [key for key in result["contestants"] if CONTESTANTS[key].program]
    found = {key: rounds for key in peers if (rounds := rounds_of(result, key, precision, callers))}
    if not found:
        return None
    best = max(found, key=lambda key: rate(found[key])["median"])
    ratio = times(rounds_of(result, OURS, precision, callers), found[best])
    return (CONTESTANTS[best].name, ratio) if ratio else None


def page(result: Result) -> list[str]:
    """The lines of peers.md."""
    blocks: list[str | list[str]] = [
        f"In the peers' environment: {', '.join(result['versions'])}.",
        f"{result['rounds']} of {result['rounds_wanted']} rounds, {result['seconds']:g} s and more for each figure. «Ratio» is "
        "to the embedded Triton with image bytes, round by round.",
    ]
    for precision in result["precisions"]:
        blocks += [f"## {precision}", _table(result, precision)]
    return page_of("This server and its peers", result, *blocks)


def _table(result: Result, precision: str) -> list[str]:
    rows = []
    for callers in result["callers"]:
        ours = rounds_of(result, OURS, precision, callers)
        for contestant in (CONTESTANTS[key] for key in result["contestants"]):
            if contestant.fp32_only and precision != "fp32":
                continue
            found = rounds_of(result, contestant.key, precision, callers)
            cells = _cells(found, ours) if found else ["not measured", *[""] * 5]
            rows.append([contestant.name, str(callers), *cells])
    header = ["server", "callers", "images/s", "ratio", "p50 ms", "p99 ms", "errors", "memory MiB"]
    return markdown_table(header, rows)


def _cells(found: dict[int, dict[str, Any]], ours: dict[int, dict[str, Any]]) -> list[str]:
    names = ("images_per_second", "p50_ms", "p99_ms")
    of = figures([{name: each[name] for name in names} for each in found.values()])
    ratio = times(found, ours)
    return [
        shown(of["images_per_second"]),
        shown(ratio) if ratio else "–",
        f"{of['p50_ms']['median']:.0f}",
        shown(of["p99_ms"], 0),
        str(failed(found)),
        f"{max(each['memory_mib'] for each in found.values()):.0f}",
    ]

"""What the figures of all servers come to: what was missed, and a page."""

from __future__ import annotations

import itertools
from typing import Any

from loadtests.studies.table import Figure, Result, figure, markdown_table, page_of, shown

from .contestants import CONTESTANTS, OURS

#: One caller at a time never fills a batch; what counts there is the model alone.
FEWEST_CALLERS = 8
#: What was measured of one server with so many callers, by the number of the round.
Rounds = dict[int, dict[str, Any]]


def rounds_of(result: Result, key: str, precision: str, callers: int) -> Rounds:
    wanted = (key, precision, callers)
    return {
        each["round"]: each
        for each in result["measured"]
        if (each["contestant"], each["precision"], each["callers"]) == wanted
    }


def spread(rounds: Rounds, name: str) -> Figure:
    return figure([each[name] for each in rounds.values()])


def ratio(rounds: Rounds, others: Rounds) -> Figure | None:
    """Images per second over the others', round by round; None where no round has both."""
    name, common = "images_per_second", rounds.keys() & others.keys()
    return figure([rounds[number][name] / others[number][name] for number in common]) if common else None


def failed(rounds: Rounds) -> int:
    return sum(sum(each["errors"].values()) for each in rounds.values())


def judge(result: Result) -> list[str]:
    """Why the embedded Triton is not ahead of every peer, from 8 callers up and by the medians of the rounds.

    Ahead is: more images per second, a p99 no worse, and none of our answers wrong or missing. Nothing is claimed over
    a peer that failed or is missing, nor where none was measured.
    """
    missed = [f"{CONTESTANTS[key.split()[0]].name}, {key.split()[1]}: {why}" for key, why in result["absent"].items()]
    compared = False
    for precision, callers, key in itertools.product(result["precisions"], result["callers"], result["contestants"]):
        ours, theirs = (rounds_of(result, each, precision, callers) for each in (OURS, key))
        if ours and theirs and CONTESTANTS[key].program and callers >= FEWEST_CALLERS:
            compared = True
            where = f"{CONTESTANTS[key].name}, {precision}, {callers} callers"
            missed += [f"{where}: {reason}" for reason in _reasons(ours, theirs)]
    return missed if compared else [*missed, "nothing was compared"]


def _reasons(ours: Rounds, theirs: Rounds) -> list[str]:
    our_rate, their_rate = (spread(side, "images_per_second")["median"] for side in (ours, theirs))
    our_p99, their_p99 = (spread(side, "p99_ms")["median"] for side in (ours, theirs))
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
    best = max(found, key=lambda key: spread(found[key], "images_per_second")["median"])
    lead = ratio(rounds_of(result, OURS, precision, callers), found[best])
    return (CONTESTANTS[best].name, lead) if lead else None


def page(result: Result) -> list[str]:
    blocks: list[str | list[str]] = [
        f"In the peers' environment: {', '.join(result['versions'])}.",
        f"{result['rounds']} rounds, {result['seconds']:g} s and more for each figure. «Ratio» is to the embedded "
        "Triton with image bytes, round by round.",
    ]
    header = ["server", "callers", "images/s", "ratio", "p50 ms", "p99 ms", "errors", "memory MiB"]
    for precision in result["precisions"]:
        rows = [_row(result, key, precision, n) for n in result["callers"] for key in result["contestants"]]
        blocks += [f"## {precision}", markdown_table(header, rows)]
    return page_of("This server and its peers", result, *blocks)


def _row(result: Result, key: str, precision: str, callers: int) -> list[str]:
    found = rounds_of(result, key, precision, callers)
    name = [CONTESTANTS[key].name, str(callers)]
    if not found:
        return [*name, "not measured", *[""] * 5]
    to_ours = ratio(found, rounds_of(result, OURS, precision, callers))
    return [
        *name,
        shown(spread(found, "images_per_second")),
        shown(to_ours) if to_ours else "–",
        f"{spread(found, 'p50_ms')['median']:.0f}",
        shown(spread(found, "p99_ms"), 0),
        str(failed(found)),
        f"{spread(found, 'memory_mib')['high']:.0f}",
    ]

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

    Ahead is: more images per second, a p99 no worse, and none of our answers wrong or missing. A peer counts at the
    best precision up to ours in which none of its answers was. Nothing is claimed over one that has none or is
    missing, nor where none was measured.
    """
    missed = [f"{CONTESTANTS[key.split()[0]].name}, {key.split()[1]}: {why}" for key, why in result["absent"].items()]
    compared = False
    for precision, callers, key in itertools.product(result["precisions"], result["callers"], result["contestants"]):
        ours, theirs = rounds_of(result, OURS, precision, callers), best_of(result, key, precision, callers)
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


def best_of(result: Result, key: str, precision: str, callers: int) -> Rounds:
    """A server's rounds in its fastest precision up to this one; of those with failures only where all have some."""
    upto = result["precisions"][: result["precisions"].index(precision) + 1]
    found = [rounds for each in upto if (rounds := rounds_of(result, key, each, callers))]
    right = [rounds for rounds in found if not failed(rounds)]
    return max(right or found, key=lambda rounds: spread(rounds, "images_per_second")["median"], default={})


def best_peer(result: Result, precision: str, callers: int) -> tuple[str, Figure] | None:
    """The fastest peer, each at its best precision up to ours, and our images per second over its own; or None."""
    peers = [key for key in result["contestants"] if CONTESTANTS[key].program]
    found = {key: rounds for key in peers if (rounds := best_of(result, key, precision, callers))}
    if not found:
        return None
    best = max(found, key=lambda key: spread(found[key], "images_per_second")["median"])
    lead = ratio(rounds_of(result, OURS, precision, callers), found[best])
    at = next(iter(found[best].values()))["precision"]
    return (CONTESTANTS[best].name if at == precision else f"{CONTESTANTS[best].name} in {at}", lead) if lead else None


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

"""Writes the figures of loadtests/results/ into the README, as one table between `<!-- figures -->` and its end.

    python -m loadtests.summary [--check]

`--check` writes nothing, and ends with 1 when the table is not what the results say.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from pathlib import Path

from loadtests.studies.peers.comparison import best_peer
from loadtests.studies.table import markdown_table, shown

ROOT = Path(__file__).resolve().parents[1]
README, RESULTS = ROOT / "README.md", ROOT / "loadtests" / "results"
_BETWEEN = re.compile(r"(?<=<!-- figures -->\n).*?(?=<!-- /figures -->)", re.DOTALL)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="only say whether the table is up to date")
    options = parser.parse_args()
    text = README.read_text(encoding="utf-8")
    if not _BETWEEN.search(text):
        sys.exit(f"summary: {README}: no line <!-- figures --> with a <!-- /figures --> after it")
    written = _BETWEEN.sub(lambda _: "\n".join(table(RESULTS)) + "\n", text)
    if options.check:
        sys.exit(0 if written == text else f"summary: {README}: the figures are stale; run python -m loadtests.summary")
    README.write_text(written, encoding="utf-8")


def table(results: Path) -> list[str]:
    """Lines of Markdown: what was measured, the figure, and the result that it is from."""
    names = ("ceiling", "peers", "cost", "overload", "capacity/report")
    ceiling, peers, cost, overload, capacity = (
        json.loads((results / f"{name}.json").read_text(encoding="utf-8")) for name in names
    )
    rows = [
        [what, ", ".join(f"{name} {shown(found[key])}" for name, found in ceiling["precisions"].items()), "ceiling.md"]
        for what, key in (
            ("Served ÷ the bare TorchScript model", "served_to_bare"),
            ("Served ÷ the model card's own code (fp32)", "served_to_card"),
        )
    ]
    for callers in (8, 32):
        found = {precision: best_peer(peers, precision, callers) for precision in peers["precisions"]}
        ratios = [f"{precision} {shown(best[1])} ({best[0]})" for precision, best in found.items() if best]
        rows.append([f"Served ÷ the best peer, {callers} callers", ", ".join(ratios), "peers.md"])
    around, held = capacity["circumstances"], capacity["capacity"]
    rate = "none found" if held is None else f"{held:.3g} images per second"
    within = f"One replica holds, 95 % within {around['slo_p95_ms']:,.0f} ms"
    rows.append([within, f"{around['weights'].rpartition(', ')[2]} {rate}", "capacity/report.html"])
    protocols = overload["protocols"]
    factor = protocols["grpc"]["offered"] / protocols["grpc"]["capacity"]
    kept = ", ".join(f"{found['kept']:.0%} over {name}" for name, found in protocols.items())
    rows.append([f"Of its capacity it keeps when {factor:.0f} times as much is asked", kept, "overload.md"])
    more = "; ".join(f"{name} {found['more']:+.1%}" for name, found in cost["callers"].items())
    rows.append(["The client's processor time, over bare tritonclient", more, "cost.md"])
    cells = [[what, figure, f"[{name}](loadtests/results/{name})"] for what, figure, name in rows]
    header = [f"On {around['cores']} cores of an {around['processor']}", "measured", "result"]
    return markdown_table(header, cells, words=3)


if __name__ == "__main__":
    main()

"""Make the tables of scores in README, docs and cards from one file, docs/scores.json.

After an evaluation, take it over and write all tables anew:

    speakup evaluate PAIRS --json > found.json
    python tools/tables.py --take chain found.json

Without `--take` the tables are written from what the file holds, and with `--check` nothing is
written: it says which pages differ, and exits with 1. A table stands below a line such as
`<!-- table: chain pesq estoi lsd -->`: the name of an evaluation and the metrics to show.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

from speakup.judge.scores import INPUT, METRICS

ROOT = Path(__file__).parents[1]
SCORES = ROOT / "docs" / "scores.json"
PAGES = (
    *(ROOT / "README.md", ROOT / "docs" / "results.md"),
    *sorted((ROOT / "weights").glob("*/CARD.md")),
)

_TABLE = re.compile(r"(?<=<!-- table: )(\w+)((?: \w+)+)( -->\n\n?)((?:\|.*\n)*)")


def main(words: list[str]) -> int:
    """Do what the command line says; give the exit code."""
    if words[:1] == ["--take"]:
        name, found = words[1:]
        _take(name, json.loads(Path(found).read_text("utf-8")))
    differ = [page for page in PAGES if filled(page.read_text("utf-8")) != page.read_text("utf-8")]
    for page in differ:
        print(page.relative_to(ROOT))
        if words != ["--check"]:
            page.write_text(filled(page.read_text("utf-8")), encoding="utf-8")
    return int(words == ["--check"] and bool(differ))


def filled(text: str) -> str:
    """Give a page with every table as the file of scores has it."""
    scores = json.loads(SCORES.read_text("utf-8"))

    def table(found: re.Match[str]) -> str:
        name, metrics = found[1], found[2].split()
        return f"{name}{found[2]}{found[3]}{_table(scores[name], metrics)}"

    return _TABLE.sub(table, text)


def _table(kinds: dict[str, Any], metrics: list[str]) -> str:
    headings = ["kind", "n", *(METRICS[key].name for key in metrics)]
    lines = [f"| {' | '.join(headings)} |", f"|{'---|' * len(headings)}"]
    for kind, one in sorted(kinds.items()):
        cells = [_cell(one, key) for key in metrics]
        lines.append(f"| {kind} | {one['cases']} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _cell(one: dict[str, Any], key: str) -> str:
    decimals = METRICS[key].decimals
    return " → ".join(f"{one[part][key]:.{decimals}f}" for part in ("before", "after"))


def _take(name: str, evaluation: dict[str, Any]) -> None:
    """Put the means of an evaluation by kind into the file."""
    scores = json.loads(SCORES.read_text("utf-8"))
    (system,) = (one for one in evaluation["systems"] if one != INPUT)
    shown = {item["value"]: item for item in evaluation["summary"]}
    kinds = [value for value, item in shown.items() if item["group"] == "kind"]
    kinds += [value for value in ("all_but_bandlimit",) if value in scores[name]]
    scores[name] = {
        kind: {
            "cases": shown[kind]["cases"],
            "before": _means(shown[kind]["systems"][INPUT]),
            "after": _means(shown[kind]["systems"][system]),
        }
        for kind in sorted(kinds)
    }
    SCORES.write_text(json.dumps(scores, indent=1) + "\n", encoding="utf-8")


def _means(found: dict[str, Any]) -> dict[str, float]:
    return {key: round(one["mean"], 4) for key, one in found.items() if one["mean"] is not None}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

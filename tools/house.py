"""Draw the rooms of the package and what they import, as a Mermaid graph, from its source.

python tools/house.py            # print the graph
python tools/house.py --write    # put it into CONTRIBUTING.md
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

import grimp

PAGE = Path(__file__).parents[1] / "CONTRIBUTING.md"
GROUND = ("errors", "config", "result", "blocks", "files", "spool")
START = "```mermaid\n"


def rooms() -> dict[str, set[str]]:
    """Give each room above the ground floor, and the rooms that it imports."""
    graph = grimp.build_graph("speakup", exclude_type_checking_imports=True, cache_dir=None)
    found: dict[str, set[str]] = {}
    for module in graph.modules - {"speakup", "speakup.__main__"}:
        room = module.split(".")[1]
        if room in GROUND:
            continue
        targets = {
            name.split(".")[1]
            for name in graph.find_modules_directly_imported_by(module)
            if "." in name
        }
        found.setdefault(room, set()).update(targets - {room, *GROUND})
    return found


def mermaid(found: dict[str, set[str]]) -> str:
    """Draw the rooms; an arrow that a longer way implies is left out."""

    def reached(room: str, without: str) -> set[str]:
        ways = found[room] - {without}
        return ways.union(*(reached(way, "") for way in ways)) if ways else set()

    lines = ["flowchart TD"]
    for room in sorted(found):
        for target in sorted(found[room]):
            if target not in reached(room, target):
                lines.append(f"    {room} --> {target}")
    return START + "\n".join(lines) + "\n```\n"


def main() -> None:
    """Print the graph, or write it."""
    graph = mermaid(rooms())
    if sys.argv[1:] == ["--write"]:
        page = PAGE.read_text(encoding="utf-8")
        drawn = re.sub(re.escape(START) + r".*?```\n", lambda _: graph, page, flags=re.DOTALL)
        PAGE.write_text(drawn, encoding="utf-8")
    else:
        print(graph, end="")


if __name__ == "__main__":
    main()

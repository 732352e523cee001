"""`speakup analyze`: what recordings are like, and whether platforms would take them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from speakup.cli.terminal import Terminal, printable, show
from speakup.errors import SpeakupError

if TYPE_CHECKING:
    from speakup.judge.analysis import Analysis, DeliveryCheck

_PAIRS_PER_LINE = 2


def analyze(
    inputs: Annotated[list[Path], typer.Argument(metavar="INPUT", help="Recordings.")],
    dnsmos: Annotated[
        bool,
        typer.Option(
            "--dnsmos", metavar="", help="Also predict listeners' scores (extra eval; slow)"
        ),
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", metavar="", help="One JSON object per file")
    ] = False,
) -> int:
    """Measure recordings, and check them against what platforms ask for."""
    from speakup.media import recording

    terminal = Terminal()
    failures: list[SpeakupError] = []
    for path in inputs:
        try:
            recording.probe(path)  # What cannot be read is said before the meters load.
            from speakup.judge.analysis import analyze as measure
            from speakup.judge.analysis import delivery_checks

            measured = measure(path, dnsmos=dnsmos)
        except SpeakupError as error:
            failures.append(error)
            terminal.error(error)
            continue
        checks = delivery_checks(measured)
        if as_json:
            delivery = [{"spec": c.spec, "passed": c.passed, "why": c.why} for c in checks]
            event = {"event": "analysis", **measured.to_json(), "delivery": delivery}
            terminal.result(json.dumps(event))
        else:
            _show(measured, checks)
    if not failures:
        return 0
    return failures[0].exit_code if len(inputs) == 1 else SpeakupError.exit_code


def _show(measured: Analysis, checks: list[DeliveryCheck]) -> None:
    from rich.padding import Padding
    from rich.table import Table
    from rich.text import Text

    show(Text(printable(measured.path), "bold"))
    table = Table.grid(padding=(0, 3, 0, 0))
    rows = measured.rows()
    half = -(-len(rows) // _PAIRS_PER_LINE)
    for index in range(half):
        cells = [cell for row in rows[index::half] for cell in (Text(row[0], "dim"), Text(row[1]))]
        table.add_row(*cells)
    show(Padding(table, (0, 0, 0, 2), expand=False))
    table = Table.grid(padding=(0, 2, 0, 0))
    for check in checks:
        mark = Text("pass", "green") if check.passed else Text("fail", "red")
        table.add_row(mark, check.spec, Text(check.why, "dim"))
    show(Padding(table, (1, 0, 1, 2), expand=False))
    for warning in measured.warnings:
        show(Text("  warning: ", "yellow") + Text(printable(warning)))

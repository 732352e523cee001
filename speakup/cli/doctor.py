"""`speakup doctor`: whether it works on this machine, and what to do if not."""

from __future__ import annotations

import dataclasses
import sys
import traceback
from typing import Annotated

import typer

from speakup.cli.options import OneJson
from speakup.cli.terminal import Terminal, debugging, show


def doctor(
    versions: Annotated[
        bool,
        typer.Option(
            "--versions", metavar="", help="Only list the packages, and the versions tried"
        ),
    ] = False,
    as_json: OneJson = False,
) -> int:
    """Check the installation, and say what is wrong and how to mend it."""
    if versions:
        return _show_versions(as_json)
    from speakup.machine.doctor import examine

    def show_trace(error: Exception) -> None:
        if debugging():
            traceback.print_exception(error)

    with Terminal().busy("trying everything out"):
        findings = examine(sys.stdout.encoding, on_error=show_trace)
    healthy = all(finding.status != "wrong" for finding in findings)
    if as_json:
        found = [dataclasses.asdict(finding) for finding in findings]
        Terminal().event({"event": "doctor", "healthy": healthy, "findings": found})
        return int(not healthy)
    from rich.table import Table
    from rich.text import Text

    marks = {
        "good": Text("ok", "green"),
        "note": Text("note", "yellow"),
        "wrong": Text("wrong", "bold red"),
    }
    table = Table.grid(padding=(0, 2, 0, 0))
    for finding in findings:
        table.add_row(marks[finding.status], finding.name, finding.detail)
        if finding.remedy:
            table.add_row("", "", Text(f"→ {finding.remedy}", "bold"))
    show(table)
    typer.echo("\nAll is well." if healthy else "\nSomething is wrong; see the arrows.")
    return int(not healthy)


def _show_versions(as_json: bool) -> int:
    from speakup.machine.doctor import list_versions

    found = list_versions()
    if as_json:
        packages = [dataclasses.asdict(item) for item in found]
        Terminal().event({"event": "versions", "packages": packages})
        return 0
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for heading in ("package", "lowest", "newest tried", "here"):
        table.add_column(heading)
    for item in found:
        table.add_row(item.package, item.lowest, item.tried or "", item.here or "missing")
    show(table)
    return 0

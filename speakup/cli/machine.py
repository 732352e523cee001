"""`speakup doctor` and `speakup bench`: whether it works on this machine, and how fast."""

from __future__ import annotations

import dataclasses
import json
import sys
import traceback
from pathlib import Path
from typing import Annotated

import typer

from speakup.cli.options import COMPUTE_FIELDS, MODEL_FIELDS, takes_config
from speakup.cli.terminal import LOADING, Terminal, debugging, show, times
from speakup.config import Config
from speakup.result import duration

Json = Annotated[bool, typer.Option("--json", metavar="", help="Give one JSON object")]


def doctor(
    versions: Annotated[
        bool,
        typer.Option(
            "--versions", metavar="", help="Only list the packages, and the versions tried"
        ),
    ] = False,
    as_json: Json = False,
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
        typer.echo(json.dumps({"event": "doctor", "healthy": healthy, "findings": found}))
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
        typer.echo(json.dumps({"event": "versions", "packages": packages}))
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


@takes_config(*MODEL_FIELDS, *COMPUTE_FIELDS)
def bench(
    inputs: Annotated[
        Path | None,
        typer.Argument(metavar="[INPUT]", help="A recording; by default a synthetic one"),
    ] = None,
    seconds: Annotated[
        float, typer.Option(metavar="S", min=1.0, help="Length of the synthetic recording")
    ] = 60.0,
    as_json: Json = False,
    *,
    config: Config,
) -> int:
    """Measure how many times faster than real time this machine is, and what each step takes.

    Steps are measured in CPU time, one after the other; in the total they work at the same time.
    """
    from speakup.cli.compute import set_up

    terminal = Terminal()
    if inputs is not None:
        from speakup.media import recording

        recording.probe(inputs)  # What cannot be read is said before anything heavy loads.
    with terminal.busy(LOADING):
        set_up(config)
        from speakup.machine.bench import run_bench

    terminal.say("measuring ...")
    found = run_bench(config, inputs, seconds=seconds)
    if as_json:
        typer.echo(json.dumps(found.to_json()))
        return 0
    from rich import box
    from rich.table import Table

    typer.echo(
        f"{found.recording}: {duration(found.seconds)}, {found.channels} channel(s), "
        f"{found.sample_rate / 1000:g} kHz; {found.device}, {found.precision}, "
        f"{found.threads} thread(s)"
    )
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for heading in ("step", "CPU s", "speed", "share"):
        table.add_column(heading, justify="left" if heading == "step" else "right")
    for step in found.steps:
        share = f"{100 * step.share:.1f} %"
        table.add_row(step.name, f"{step.seconds:.2f}", times(step.speed), share)
    table.add_section()
    busy = sum(step.seconds for step in found.steps)
    table.add_row("on one core", f"{busy:.2f}", times(found.seconds / max(busy, 1e-6)))
    table.add_row("total", f"{found.total.seconds:.2f}", times(found.total.speed), style="bold")
    show(table)
    return 0

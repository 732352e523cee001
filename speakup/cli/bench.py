"""`speakup bench`: how fast the chain is on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from speakup.cli.options import COMPUTE_FIELDS, MODEL_FIELDS, OneJson, takes_config
from speakup.cli.terminal import LOADING, Terminal, show, times
from speakup.config import Config
from speakup.result import duration


@takes_config(*MODEL_FIELDS, *COMPUTE_FIELDS)
def bench(
    inputs: Annotated[
        Path | None,
        typer.Argument(metavar="[INPUT]", help="A recording; by default a synthetic one"),
    ] = None,
    seconds: Annotated[
        float, typer.Option(metavar="S", min=1.0, help="Length of the synthetic recording")
    ] = 60.0,
    as_json: OneJson = False,
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
        terminal.event(found.to_json())
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

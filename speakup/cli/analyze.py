"""`speakup analyze`: what recordings are like, and whether platforms would take them."""

from __future__ import annotations

import contextlib
import glob
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from speakup.cli.terminal import Terminal, printable, show
from speakup.errors import ConfigError, InputError, SpeakupError

if TYPE_CHECKING:
    from speakup.judge.analysis import Analysis
    from speakup.judge.delivery import DeliveryCheck

_PAIRS_PER_LINE = 2
_STDIN = "-"


def analyze(
    inputs: Annotated[
        list[str],
        typer.Argument(metavar="INPUT", help="Recordings, folders, globs, or - (standard input)"),
    ],
    check: Annotated[
        str | None,
        typer.Option(
            metavar="NAME|LUFS",
            help="Exit with 1 unless all meet this: podcast, spotify, youtube, ebu, aes, acx, or "
            "a loudness",
        ),
    ] = None,
    plot: Annotated[
        Path | None,
        typer.Option(
            metavar="PNG", help="Draw waveform, spectrogram and loudness of one recording"
        ),
    ] = None,
    dnsmos: Annotated[
        bool,
        typer.Option(
            "--dnsmos", metavar="", help="Also predict listeners' scores (extra eval; slow)"
        ),
    ] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", metavar="", help="Replace a picture that exists")
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", metavar="", help="One JSON object per file")
    ] = False,
) -> int:
    """Measure recordings, and check them against what platforms ask for."""
    from speakup.measure.delivery import resolve_target
    from speakup.media import recording

    if check is not None and resolve_target(check, None) is None:
        raise ConfigError(
            "there is nothing to check against", None, "Name a platform or a loudness"
        )
    terminal = Terminal()
    failures: list[SpeakupError] = []
    passed = True
    paths = list(_recordings(inputs))
    if plot is not None and len(paths) != 1:
        raise ConfigError(f"a picture shows one recording, not {len(paths)}", plot, "Name one")
    for name in paths:
        try:
            with _file(name) as path:
                recording.probe(path)  # What cannot be read is said before the meters load.
                from speakup.judge.analysis import analyze as measure

                measured = measure(path, dnsmos=dnsmos, name=name)
                if plot is not None:
                    from speakup.judge.plot import write_plot

                    write_plot(path, plot, title=Path(name).name, overwrite=overwrite)
        except SpeakupError as error:
            if name == _STDIN and isinstance(error, InputError):
                error = InputError(error.problem, "standard input", error.remedy)
            failures.append(error)
            terminal.error(error)
            continue
        passed = _tell(measured, check, as_json=as_json, terminal=terminal) and passed
    if plot is not None and not failures:
        terminal.say(f"picture: {plot}")
    if failures:
        return failures[0].exit_code if len(paths) == 1 else SpeakupError.exit_code
    return 0 if passed else 1


def _recordings(inputs: list[str]) -> Iterator[str]:
    """Yield what is named, what a glob matches, and the recordings in folders, outputs too."""
    from speakup.folders.naming import is_recording

    for item in inputs:
        found = [item]
        if glob.has_magic(item) and not os.path.lexists(item):
            found = sorted(glob.glob(item, recursive=True)) or [item]
        for name in found:
            if not os.path.isdir(name):
                yield name
                continue
            inside = [path for path in sorted(Path(name).rglob("*")) if is_recording(path.name)]
            if not inside:
                raise InputError("holds no recordings", name, "Name another folder")
            yield from map(str, inside)


@contextlib.contextmanager
def _file(name: str) -> Iterator[Path]:
    """Give a recording as a file: standard input is kept in a private one."""
    if name != _STDIN:
        yield Path(name)
        return
    from speakup.files import TemporaryFolder
    from speakup.media import pipes

    if sys.stdin is None or sys.stdin.isatty():
        raise InputError("no sound comes", "standard input", "Send some into it, or name a file")
    with TemporaryFolder() as folder:
        path = folder / "input"
        pipes.spool(sys.stdin.buffer, path)
        yield path


def _tell(measured: Analysis, check: str | None, *, as_json: bool, terminal: Terminal) -> bool:
    """Give what was measured; tell whether what was asked for is met."""
    from speakup.judge.delivery import check_delivery, delivery_checks

    asked = None if check is None else check_delivery(measured, check)
    checks = delivery_checks(measured) if asked is None else [asked]
    if as_json:
        delivery = [vars(one) for one in checks]
        terminal.event({"event": "analysis", **measured.to_json(), "delivery": delivery})
    else:
        _show(measured, checks)
    return asked is None or asked.passed


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
        why = Text(check.why, "dim")
        table.add_row(mark, check.spec, why)
        if check.change:
            table.add_row("", "", Text(f"→ {check.change}"))
    show(Padding(table, (1, 0, 1, 2), expand=False))
    for warning in measured.warnings:
        show(Text("  warning: ", "yellow") + Text(printable(warning)))

"""Where words go: results to stdout, everything else to stderr."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import re
import sys
import traceback
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from speakup.config import Config
from speakup.errors import SpeakupError

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.progress import Progress

SCHEMA = 1
"""The version of what `--json` writes: it rises when a field goes or changes its meaning."""

LOADING = "loading PyTorch"
"""What to say while the networks' library loads, which takes seconds."""


_SETTINGS = [*(field.name for field in dataclasses.fields(Config)), "overwrite", "resume"]
_SETTING = re.compile(f"`({'|'.join(_SETTINGS)})`")


def debugging() -> bool:
    """Tell whether errors are to be shown with their tracebacks."""
    return os.environ.get("SPEAKUP_DEBUG", "") not in ("", "0")


def console(*, stderr: bool) -> Console:
    """Give a console that wraps no line, nor takes names for markup.

    Where there is no terminal, there is room for any table.
    """
    from rich.console import Console

    made = Console(stderr=stderr, highlight=False, markup=False, emoji=False, soft_wrap=True)
    if not made.is_terminal:
        made.width = 240
    return made


def show(table: RenderableType) -> None:
    """Write a table to stdout; what fills up its lines is left out at their ends."""
    from rich.segment import Segment, Segments

    to = console(stderr=False)
    for line in to.render_lines(table, pad=False):
        while line and not line[-1].text.strip():
            line.pop()
        if line:
            line[-1] = Segment(line[-1].text.rstrip(), line[-1].style)
        to.print(Segments([*line, Segment.line()]), end="")


def say_error(
    problem: BaseException | str, to: Console | None = None, *, subject: str | None = None
) -> None:
    """Say on one line of stderr what is wrong; with SPEAKUP_DEBUG=1, also where it came up.

    Args:
        problem: An error, or its text.
        to: Where to say it.
        subject: The input that an error which nobody foresaw is about.
    """
    from rich.text import Text

    if debugging() and isinstance(problem, BaseException):
        traceback.print_exception(problem)
    text = as_options(str(problem))
    if isinstance(problem, BaseException) and not isinstance(problem, SpeakupError):
        text = unexpected(type(problem).__name__, text)
        text = text if subject is None else f"{subject}: {text}"
    line = Text("speakup: ") + Text("error: ", "bold red") + Text(printable(text))
    (to or console(stderr=True)).print(line)


def as_options(text: str) -> str:
    """Name settings as this command line does: what the library calls `bit_depth`, --bit-depth."""
    return _SETTING.sub(lambda found: "--" + found[1].replace("_", "-"), text)


def unexpected(kind: str, text: str) -> str:
    """Say that an error is the program's own fault, and how to find it."""
    what = f"{kind}: {text}" if text else kind
    return f"unexpected {what}. This is a fault in speakup; SPEAKUP_DEBUG=1 shows where"


def printable(text: str) -> str:
    """Keep what a name may hold from moving the cursor: one line, no control characters."""
    return "".join(
        letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in text
    )


def times(speed: float) -> str:
    """Write a speed as a multiple of real time."""
    return f"{speed:.1f}×" if speed < 9.95 else f"{speed:.0f}×"


def give_up_output() -> None:
    """Send nothing more to stdout, which takes no more, also not at the program's end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


class Terminal:
    """What a command says, and how much of it.

    Args:
        quiet: Say nothing but errors; results are given all the same.
        verbose: Say more.
        progress: Show how far things are.
    """

    closed_said = False
    output_lost = False
    """Whether stdout has failed to take a result; the work goes on."""

    def __init__(
        self, *, quiet: bool = False, verbose: bool = False, progress: bool = True
    ) -> None:
        self.quiet, self.verbose = quiet, verbose and not quiet
        self.console = console(stderr=True)
        self.shows_progress = progress and not quiet
        self._live: Progress | None = None

    def result(self, text: str) -> None:
        """Write a line to stdout, or above the progress bar if that is on the same terminal."""
        if self._live is not None and sys.stdout.isatty():
            self._live.console.print(printable(text))
            return
        if sys.__stdout__ is None and not Terminal.closed_said:
            Terminal.closed_said = True
            self.warn("standard output is closed, so that nothing is listed there")
        if Terminal.output_lost:
            return
        try:
            sys.stdout.write(text + "\n")
            sys.stdout.flush()
        except OSError as error:
            Terminal.output_lost = True
            give_up_output()
            why = "its reader has gone" if isinstance(error, BrokenPipeError) else error.strerror
            self.error(
                f"standard output: {why}. The work goes on, but is not listed there any more"
            )

    def event(self, values: dict[str, Any]) -> None:
        """Write a line of JSON to stdout, as docs/output.schema.json describes it.

        What is wrong is said in the words of this program.
        """
        said = dict(values)
        if error := values.get("error"):
            said["error"] = error | {"message": as_options(error["message"])}
        if values.get("reason"):
            said["reason"] = as_options(values["reason"])
        if "warnings" in values:
            said["warnings"] = [as_options(warning) for warning in values["warnings"]]
        self.result(json.dumps({"event": values["event"], "schema": SCHEMA, **said}))

    def say(self, *parts: str | tuple[str, str]) -> None:
        """Write a line to stderr: text, or pairs of text and style; nothing if quiet."""
        from rich.text import Text

        if not self.quiet:
            whole = [(part, "") if isinstance(part, str) else part for part in parts]
            clean = [(printable(as_options(text)), style) for text, style in whole]
            self.console.print(Text.assemble(*clean))

    def error(self, problem: BaseException | str, subject: str | None = None) -> None:
        """Say what is wrong, also if quiet, above any progress bar; as `say_error`."""
        say_error(problem, self.console, subject=subject)

    def warn(self, text: str) -> None:
        """Write what the user should know to stderr, below the line it belongs to."""
        self.say("  ", ("warning: ", "yellow"), text)

    @contextlib.contextmanager
    def busy(self, doing: str) -> Iterator[None]:
        """Say on the terminal what takes a while, until the end of the block; elsewhere if verbose.

        Args:
            doing: What is done, such as "loading PyTorch".
        """
        if self.verbose and not self.console.is_terminal:
            self.say(doing)
        shown = self.bars() if self._live is None else contextlib.nullcontext(self._live)
        with shown as live:
            task = live.add_task(doing, total=None, doing="", speed="", left="")
            try:
                yield
            finally:
                live.remove_task(task)

    @contextlib.contextmanager
    def bars(self, *, doing: bool = False) -> Iterator[Progress]:
        """Show progress bars on the terminal until the end of the block, and then none.

        Tasks have the fields `speed` and `left`, and `doing` if so wished.
        """
        from rich.progress import BarColumn, Progress, SpinnerColumn, TaskProgressColumn, TextColumn
        from rich.table import Column

        columns = (
            SpinnerColumn("line"),
            TextColumn("{task.description}", table_column=Column(no_wrap=True, ratio=1)),
            *(
                [TextColumn("{task.fields[doing]}", style="dim", table_column=Column(min_width=7))]
                if doing
                else []
            ),
            BarColumn(bar_width=24 if self.console.width >= 100 else 12),
            TaskProgressColumn(),
            TextColumn("{task.fields[speed]}", justify="right", table_column=Column(min_width=5)),
            TextColumn("{task.fields[left]}", style="dim", table_column=Column(min_width=10)),
        )
        live = Progress(
            *columns,
            console=self.console,
            transient=True,
            expand=True,
            redirect_stdout=False,
            redirect_stderr=False,
            disable=not self.shows_progress or not self.console.is_terminal,
        )
        # Unless shown, it is not even started: at its end, some versions write a line all the same.
        with contextlib.nullcontext() if live.disable else live:
            self._live = live
            try:
                yield live
            finally:
                self._live = None

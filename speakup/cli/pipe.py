"""`speakup enhance` between two other programs: `-` as input, as output, or both."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from speakup.cli import progress
from speakup.cli.terminal import LOADING, give_up_output
from speakup.config import Config
from speakup.errors import ConfigError, InputError, OutputError, SpeakupError

if TYPE_CHECKING:
    from speakup.cli.terminal import Terminal
    from speakup.media.pipes import RawFormat
    from speakup.result import Result

PIPE = "-"


def check_pipe(
    inputs: Sequence[str],
    output: str | None,
    raw: str | None,
    *,
    as_json: bool,
    **unfit: object,
) -> tuple[str, str]:
    """See whether the options go with a pipe; give the input and the output.

    Args:
        inputs: What the user names.
        output: Where it goes; standard output where standard input has no other.
        raw: What is said of samples without a header.
        as_json: Whether JSON is to go to standard output.
        unfit: Options that work on files alone, by their names.

    Raises:
        ConfigError: they do not.
        OutputError: standard output is to be written, and is closed.
    """
    if raw is not None and list(inputs) != [PIPE]:
        raise ConfigError("--raw is for standard input", None, "Give - as the input")
    if raw is not None:
        from speakup.media.pipes import RawFormat

        RawFormat.parse(raw)
    if len(inputs) != 1:
        raise ConfigError(f"- goes with one recording, not {len(inputs)}", None, "Name one")
    target = output or PIPE
    for name, value in unfit.items():
        if value:
            raise ConfigError(f"--{name.replace('_', '-')} needs files", None, "Name files, not -")
    if as_json and target == PIPE:
        problem = "--json and the sound would both go to standard output"
        raise ConfigError(problem, None, "Name a file with -o")
    if target != PIPE and (target.endswith(("/", os.sep)) or os.path.isdir(target)):
        raise ConfigError("is a folder, and - has no name to give", target, "Name a file")
    if inputs[0] == PIPE and sys.stdin is not None and sys.stdin.isatty():
        problem = "standard input is the terminal"
        raise ConfigError(problem, None, "Send sound into it: speakup enhance - < talk.wav")
    if target == PIPE and sys.__stdout__ is None:  # Else the sound would go nowhere, unnoticed.
        raise OutputError("is closed", "standard output", "Send it into a file or a program")
    if target == PIPE and sys.stdout.isatty():
        problem = "standard output is the terminal, which cannot show sound"
        raise ConfigError(problem, None, "Name a file with -o, or send it into a program")
    return inputs[0], target


def run_pipe(
    source: str,
    target: str,
    config: Config,
    terminal: Terminal,
    tell: Callable[[Result], None],
    *,
    raw: str | None,
    overwrite: bool,
) -> int:
    """Enhance one recording that comes or goes through a pipe; give the exit code.

    What comes is kept in a private file, as it is decoded twice, and so is what goes, so that its
    header states the true length and nothing goes that is not whole.

    Raises:
        SpeakupError: as `Pipeline.run`.
    """
    from speakup.files import TemporaryFolder
    from speakup.media import pipes

    layout = None if raw is None else pipes.RawFormat.parse(raw)
    with TemporaryFolder() as folder:
        read = folder / "input" if source == PIPE else Path(source)
        written = folder / "output" if target == PIPE else Path(target)
        names = {
            str(read): pipes.STDIN if source == PIPE else source,
            str(written): pipes.STDOUT if target == PIPE else target,
        }
        try:
            if source == PIPE:
                _take(read, layout)
            result = _enhanced(read, written, config, terminal, names, overwrite=overwrite)
            tell(_renamed(result, source, target))
            if target == PIPE:
                pipes.pour(written, sys.stdout.buffer)
        except BrokenPipeError:
            give_up_output()  # Who reads it has had enough; there is nothing to say.
            return OutputError.exit_code
    return 0


def _take(path: Path, layout: RawFormat | None) -> None:
    from speakup.media import pipes

    if sys.stdin is None:
        raise InputError("is closed", pipes.STDIN, "Send sound into it")
    pipes.spool(sys.stdin.buffer, path, layout)


def _enhanced(
    source: Path,
    target: Path,
    config: Config,
    terminal: Terminal,
    names: dict[str, str],
    *,
    overwrite: bool,
) -> Result:
    from speakup.cli.compute import set_up
    from speakup.measure.delivery import resolve_target
    from speakup.media.tracks import plan_tracks

    label = names[str(source)]
    try:
        with progress.track(terminal, {label: 0.0}) as tracker:
            resolve_target(config.loudness, config.true_peak)
            plan_tracks(source, target, config, [])  # What cannot be had is said at once.
            with terminal.busy(LOADING):
                set_up(config)
                from speakup.pipeline import Pipeline

            def tell(doing: str, done: float, total: float | None) -> None:
                tracker.tell(label, doing, done, total)

            result = Pipeline(config).run(source, target, overwrite=overwrite, progress=tell)
            tracker.end(label, result.seconds, worked=result.status == "ok")
            return result
    except SpeakupError as error:
        if error.subject not in names:
            raise
        raise type(error)(error.problem, names[error.subject], error.remedy) from error


def _renamed(result: Result, source: str, target: str) -> Result:
    import dataclasses

    return dataclasses.replace(result, input=source, output=target)

"""`speakup evaluate`: scores of recordings whose clean originals are known, by system."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from speakup.cli.downloads import prepare_models
from speakup.cli.options import (
    COMPUTE_FIELDS,
    MODEL_FIELDS,
    STAGE_FIELDS,
    NoProgress,
    OneJson,
    takes_config,
)
from speakup.cli.terminal import LOADING, Terminal, printable, show
from speakup.config import Config
from speakup.errors import ConfigError, InputError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from speakup.judge.pairs import Enhancer
    from speakup.judge.scores import CaseScores, Evaluation


@takes_config(*MODEL_FIELDS, *STAGE_FIELDS, *COMPUTE_FIELDS)
def evaluate(
    pairs: Annotated[
        Path,
        typer.Argument(
            metavar="PAIRS",
            help="A folder of <case>/input.* and <case>/reference.*, or a CSV with the columns "
            "input, reference, kind ...",
        ),
    ],
    limit: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Only N pairs, evenly spread")
    ] = None,
    system: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=DIR",
            help="Also score another system's outputs, <case>.* or <case>/*; several times",
        ),
    ] = None,
    no_chain: Annotated[
        bool, typer.Option("--no-chain", metavar="", help="Leave speakup's own chain out")
    ] = False,
    words: Annotated[
        bool,
        typer.Option("--words", metavar="", help="Also count words that are heard wrong (slow)"),
    ] = False,
    recogniser: Annotated[
        str | None,
        typer.Option(
            metavar="NAME|DIR",
            help="What hears them: pocketsphinx, or a folder of faster-whisper; by default the "
            "best that is installed",
        ),
    ] = None,
    jobs: Annotated[
        int, typer.Option("--jobs", "-j", metavar="N", min=1, help="Processes that score")
    ] = 1,
    as_json: OneJson = False,
    no_progress: NoProgress = False,
    *,
    config: Config,
) -> int:
    """Score the chain, and other systems, on recordings whose clean originals are known.

    The chain is scored at the loudness it gets. Means stand with 95 % confidence intervals.
    """
    from speakup.cli.compute import set_up
    from speakup.judge.pairs import evaluate_pairs, read_pairs

    terminal = Terminal(progress=not no_progress)
    systems = _systems(system or [])
    found = read_pairs(pairs, limit)
    if not no_chain:
        prepare_models(config, terminal)  # once, and not pair by pair
    with terminal.busy(LOADING):
        set_up(config)
    hears = (recogniser or "") if words or recogniser is not None else None
    if hears is not None:
        from speakup.judge.words import recogniser as choose_recogniser

        terminal.say(f"words by {choose_recogniser(hears).name}")
    with terminal.bars() as bars:
        task = bars.add_task(f"{len(found)} pairs", total=len(found), speed="", left="")

        def done(case: CaseScores) -> None:
            bars.update(task, advance=1, description=case.name)
            if case.error is not None:
                terminal.error(f"{case.name}: {case.error}")
            for warning in case.warnings:
                terminal.warn(f"{case.name}: {warning}")

        evaluation = evaluate_pairs(
            found,
            None if no_chain else _enhancer(config),
            systems=systems,
            recogniser=hears,
            jobs=jobs,
            progress=done,
        )
    if as_json:
        terminal.event(evaluation.to_json())
    else:
        _show(evaluation)
    return int(any(case.error is not None for case in evaluation.cases))


def _systems(given: list[str]) -> dict[str, Path]:
    """Read NAME=DIR; names are kept apart from those of the input and of the chain."""
    from speakup.judge.pairs import CHAIN
    from speakup.judge.scores import INPUT

    systems: dict[str, Path] = {}
    for text in given:
        name, equals, folder = text.partition("=")
        if not (name and equals and folder):
            raise ConfigError(f"--system is {text!r}", None, "Give NAME=DIR")
        if name in (*systems, INPUT, CHAIN):
            raise ConfigError(f"two systems are called {name}", None, "Give each its own name")
        if not Path(folder).is_dir():
            raise InputError("no such folder", folder)
        systems[name] = Path(folder)
    return systems


def _enhancer(config: Config) -> Enhancer:
    """Make the chain without its last stage: gain is no merit, and metrics undo it anyway."""
    from speakup.pipeline import Pipeline

    pipeline = Pipeline(dataclasses.replace(config, loudness="off"))

    def enhance(waveform: NDArray[np.float32], rate: int) -> tuple[NDArray[np.float32], int]:
        return pipeline.process(waveform, rate), pipeline.output_rate(rate)

    return enhance


def _show(evaluation: Evaluation) -> None:
    """Write the groups below one another: whatever the terminal's width, no number is cut."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    from speakup.judge.scores import INPUT, METRICS

    tables = evaluation.tables()
    for table in tables:
        show(Text(table.title, "bold"))
        shown = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
        for index, heading in enumerate(table.headings):
            shown.add_column(
                printable(heading), justify="right" if index else "left", no_wrap=index == 0
            )
        for row in table.rows:
            shown.add_row(*(Text(cell, no_wrap=True) for cell in row))
        show(shown)
        typer.echo()
    named = {row[0] for table in tables for row in table.rows}
    less = [one.name for one in METRICS.values() if not one.more_is_better and one.name in named]
    if less:
        typer.echo(f"Less is better: {', '.join(less)}. More is better: all others.")
    first = next(iter([name for name in evaluation.systems if name != INPUT]), "")
    if len(evaluation.systems) > 2:
        typer.echo(f"+ better, - worse than {first}: significant at 95 %, by pairs.")

"""`speakup evaluate`: scores of pairs of recordings, before and after."""

from __future__ import annotations

import dataclasses
import json
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
from speakup.cli.terminal import LOADING, Terminal, show
from speakup.config import Config

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from speakup.judge.pairs import Enhancer, Pair
    from speakup.judge.scores import CaseScores, EvaluationTable


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
    words: Annotated[
        bool,
        typer.Option("--words", metavar="", help="Also count recognised words (English; slow)"),
    ] = False,
    jobs: Annotated[
        int, typer.Option("--jobs", "-j", metavar="N", min=1, help="Processes that score")
    ] = 1,
    as_json: OneJson = False,
    no_progress: NoProgress = False,
    *,
    config: Config,
) -> int:
    """Score the chain, at the loudness it gets, on recordings whose clean originals are known."""
    from speakup.cli.compute import set_up
    from speakup.judge.pairs import evaluate_pairs, read_pairs

    terminal = Terminal(progress=not no_progress)
    found = read_pairs(pairs, limit)
    prepare_models(config, terminal)  # once, and not pair by pair
    with terminal.busy(LOADING):
        set_up(config)
    with terminal.bars() as bars:
        task = bars.add_task(f"{len(found)} pairs", total=len(found), speed="", left="")

        def done(case: CaseScores) -> None:
            bars.update(task, advance=1, description=case.name)
            if case.error is not None:
                terminal.error(f"{case.name}: {case.error}")

        table = evaluate_pairs(found, _enhancer(config), words=words, jobs=jobs, progress=done)
    if as_json:
        typer.echo(json.dumps(table.to_json()))
    else:
        _show(table, found)
    return int(any(case.error is not None for case in table.cases))


def _enhancer(config: Config) -> Enhancer:
    """Make the chain without its last stage: gain is no merit, and metrics undo it anyway."""
    from speakup.pipeline import Pipeline

    pipeline = Pipeline(dataclasses.replace(config, loudness="off"))

    def enhance(waveform: NDArray[np.float32], rate: int) -> tuple[NDArray[np.float32], int]:
        return pipeline.process(waveform, rate), pipeline.output_rate(rate)

    return enhance


def _show(table: EvaluationTable, pairs: list[Pair]) -> None:
    from rich import box
    from rich.table import Table

    headings, rows = table.text_rows()
    shown = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for index, heading in enumerate(headings):
        shown.add_column(heading, justify="right" if index not in (0, 2) else "left")
    styles = {"change": "bold", "95 %": "dim"}
    for index, row in enumerate(rows):
        last = index + 1 == len(rows) or bool(rows[index + 1][0])
        shown.add_row(*row, style=styles.get(row[2], ""), end_section=last)
    show(shown)

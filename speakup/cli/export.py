"""`speakup export`: from a checkpoint to a model folder."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from speakup.cli.terminal import LOADING, Terminal
from speakup.errors import ModelError


def export(
    checkpoint: Annotated[Path, typer.Argument(help="A run's checkpoint.pt.")],
    folder: Annotated[Path, typer.Argument(help="The model folder to write.")],
    licence: Annotated[
        str, typer.Option(metavar="SPDX", help="Under which the weights are given")
    ] = "Apache-2.0",
    language: Annotated[
        list[str] | None,
        typer.Option(metavar="CODE", help="Of the voices, such as en, for the card; several times"),
    ] = None,
) -> int:
    """Turn a checkpoint into a model: safetensors, config and a card, ready for hf upload."""
    if not checkpoint.is_file():
        raise ModelError("no such file", checkpoint, "Name a run's checkpoint.pt")
    with Terminal().busy(LOADING):
        from speakup.training.export import export as write_model

    made = write_model(checkpoint, folder, licence=licence, languages=language or ())
    typer.echo(str(made))
    return 0

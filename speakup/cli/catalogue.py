"""`speakup models`: what models there are, and where they lie."""

from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

from speakup.cli.terminal import Terminal, show

if TYPE_CHECKING:
    from speakup.catalogue import ModelCard

app = typer.Typer(help="List the models, and say where they lie.", no_args_is_help=True)

Json = Annotated[bool, typer.Option("--json", metavar="", help="Give JSON")]
Name = Annotated[str, typer.Argument(metavar="MODEL", help="A name, a folder, or hf://org/repo")]
Offline = Annotated[bool, typer.Option("--offline", metavar="", help="Make no network request")]


@app.command("list")
def list_command(as_json: Json = False) -> int:
    """List the models that come with the program."""
    from speakup.catalogue import list_models

    cards = list_models()
    if as_json:
        typer.echo(json.dumps([_plain(card) for card in cards], indent=2))
        return 0
    if not cards:
        Terminal().say("none came with this installation")
        return 0
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for heading in ("model", "task", "rate", "weights", "size", "licence", "revision"):
        table.add_column(heading, justify="right" if heading in ("weights", "size") else "left")
    for card in cards:
        table.add_row(
            card.name,
            card.task,
            f"{card.sample_rate / 1000:g} kHz",
            f"{card.parameters / 1e6:.2f} M",
            f"{card.bytes / 1e6:.1f} MB",
            card.licence,
            card.revision,
        )
    show(table)
    return 0


@app.command()
def info(name: Name, as_json: Json = False, offline: Offline = False) -> int:
    """Say what is known of a model."""
    from speakup.catalogue import read_card, resolve

    values = _plain(read_card(resolve(name, offline=offline)))
    if as_json:
        typer.echo(json.dumps(values, indent=2))
        return 0
    for key, value in values.items():
        typer.echo(f"{key.replace('_', ' '):<16}{value}")
    return 0


@app.command()
def path(name: Name, offline: Offline = False) -> int:
    """Say in which folder a model lies; one of the Hub's is fetched first."""
    from speakup.catalogue import resolve

    typer.echo(str(resolve(name, offline=offline)))
    return 0


def _plain(card: ModelCard) -> dict[str, Any]:
    return {**dataclasses.asdict(card), "folder": str(card.folder)}

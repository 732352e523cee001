"""`speakup train` and `speakup export`."""

from __future__ import annotations

import dataclasses
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from speakup.cli.terminal import LOADING, Terminal, times
from speakup.errors import ModelError

if TYPE_CHECKING:
    from speakup.training.trainer import TrainingLog


def train(
    recipe: Annotated[
        str, typer.Argument(metavar="RECIPE", help="A TOML file, or the name of a recipe of ours")
    ],
    data: Annotated[
        Path, typer.Option(metavar="DIR", help="The folder that the recipe's patterns are below")
    ] = Path("data"),
    run: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Where checkpoints go; by default runs/<recipe's name>"),
    ] = None,
    device: Annotated[str, typer.Option(metavar="NAME", help="auto, cpu or cuda[:N]")] = "auto",
    steps: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Instead of the recipe's steps")
    ] = None,
) -> int:
    """Train a network by its recipe, going on from the run's last checkpoint."""
    from speakup.training.recipe import read_recipe

    terminal = Terminal()
    plan = read_recipe(_recipe_path(recipe))
    with terminal.busy(LOADING):
        from speakup.training.trainer import train as run_training

    if steps is not None:
        plan = dataclasses.replace(plan, optimiser=dataclasses.replace(plan.optimiser, steps=steps))
    folder = run or Path("runs") / plan.name
    from speakup.networks.compute import pick_device

    target = pick_device(device)
    terminal.say(f"training {plan.name} on {target}, {plan.optimiser.steps} steps, into {folder}")

    def log(entry: TrainingLog) -> None:
        losses = "  ".join(f"{name} {value:.4g}" for name, value in entry.losses.items())
        speed = times(entry.audio_seconds_per_second)
        terminal.say(f"step {entry.step:>7}  {speed:>6}  {losses}")

    try:
        checkpoint = run_training(plan, data, folder, device=str(target), on_log=log)
    except KeyboardInterrupt:
        terminal.error("interrupted. The same command goes on from the last checkpoint")
        raise typer.Exit(130) from None
    terminal.result(str(checkpoint))
    return 0


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


def _recipe_path(name: str) -> Path:
    ours = resources.files("speakup.training") / "recipes" / f"{Path(name).stem}.toml"
    path = Path(name)
    return Path(str(ours)) if not path.exists() and ours.is_file() else path

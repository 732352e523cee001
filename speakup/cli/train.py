"""`speakup train`: from a recipe to a checkpoint."""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from speakup.cli.terminal import LOADING, Terminal, times
from speakup.errors import ConfigError

if TYPE_CHECKING:
    from speakup.training.trainer import TrainingLog


def train(
    recipe: Annotated[
        str | None,
        typer.Argument(metavar="[RECIPE]", help="A TOML file, or the name of a recipe of ours"),
    ] = None,
    list_recipes: Annotated[
        bool, typer.Option("--list", metavar="", help="List our recipes, and train nothing")
    ] = False,
    data: Annotated[
        Path, typer.Option(metavar="DIR", help="The folder that the recipe's patterns are below")
    ] = Path("data"),
    run: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Where checkpoints go; by default runs/<recipe's name>"),
    ] = None,
    phase: Annotated[
        str | None, typer.Option(metavar="NAME", help="Only this phase of the recipe")
    ] = None,
    start: Annotated[
        Path | None,
        typer.Option(metavar="PATH", help="Checkpoint or model folder for a run without one"),
    ] = None,
    device: Annotated[str, typer.Option(metavar="NAME", help="auto, cpu or cuda[:N]")] = "auto",
) -> int:
    """Train a network by its recipe, phase after phase, going on from the last checkpoint."""
    if list_recipes:
        typer.echo("\n".join(sorted(path.stem for path in _recipes().glob("*.toml"))))
        return 0
    if recipe is None:
        raise ConfigError("no recipe is named", None, "See speakup train --list")
    from speakup.training.recipe import read_recipe

    terminal = Terminal()
    plan = read_recipe(_recipe_path(recipe))
    folder = run or Path("runs") / plan.name
    with terminal.busy(LOADING):
        from speakup.networks.compute import pick_device
        from speakup.training.trainer import train as run_training

    target = pick_device(device)
    chosen = [one for one in plan.phases if phase in (None, one.name)]
    phases = ", ".join(f"{one.name} {one.steps}" for one in chosen)
    terminal.say(f"training {plan.name} on {target} into {folder}; steps: {phases}")

    def log(entry: TrainingLog) -> None:
        losses = "  ".join(f"{name} {value:.4g}" for name, value in entry.losses.items())
        speed = times(entry.audio_seconds_per_second)
        place = f"{entry.phase} {entry.step:>7}  {entry.hours:8.2f} h"
        terminal.say(f"{place}  {speed:>6}  {losses}")

    try:
        checkpoint = run_training(
            plan, data, folder, only=phase, start=start, device=str(target), on_log=log
        )
    except KeyboardInterrupt:
        terminal.error("interrupted. The same command goes on from the last checkpoint")
        raise typer.Exit(130) from None
    terminal.result(str(checkpoint))
    return 0


def _recipe_path(name: str) -> Path:
    ours, path = _recipes() / f"{Path(name).stem}.toml", Path(name)
    return ours if not path.exists() and ours.is_file() else path


def _recipes() -> Path:
    return Path(str(resources.files("speakup.training"))) / "recipes"

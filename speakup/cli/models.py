"""`speakup models`: what models there are, where they lie, fetching, checking and removing them."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from speakup.cli.downloads import origin, show_downloads
from speakup.cli.help import Command, Group
from speakup.cli.terminal import Terminal, show
from speakup.config import PRESETS, Config
from speakup.errors import ConfigError, ModelError

if TYPE_CHECKING:
    from speakup.models.cards import ModelCard

app = typer.Typer(
    cls=Group,
    help="List the models, fetch them from the Hugging Face Hub, check and remove them.",
    no_args_is_help=True,
)

_NAMES = "A name, a folder, or hf://org/repo[@revision]".replace("[", r"\[")
Json = Annotated[bool, typer.Option("--json", metavar="", help="Give JSON")]
JsonLines = Annotated[bool, typer.Option("--json", metavar="", help="Give an object per model")]
Name = Annotated[str, typer.Argument(metavar="MODEL", help=_NAMES)]
Names = Annotated[list[str] | None, typer.Argument(metavar="[MODEL]...", help=_NAMES)]
Offline = Annotated[bool, typer.Option("--offline", metavar="", help="Make no network request")]
AcceptLicense = Annotated[
    bool,
    typer.Option(
        "--accept-license", metavar="", help="Also take what must not be used commercially"
    ),
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", metavar="", help="Say nothing but errors")]
NoProgress = Annotated[bool, typer.Option("--no-progress", metavar="", help="Show no progress")]
_HERE = {"bundled": "bundled", "folder": "folder", "hub": "cached", "package": "installed"}


@app.command("list", cls=Command)
def list_command(as_json: Json = False) -> int:
    """List the models that come with the program, and those it knows on the Hub."""
    from speakup.models.catalogue import list_models

    cards = list_models()
    if as_json:
        typer.echo(json.dumps([_plain(card) for card in cards], indent=2))
        return 0
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for heading in ("model", "task", "rate", "weights", "size", "licence", "revision", "here"):
        table.add_column(heading, justify="right" if heading in ("weights", "size") else "left")
    for card in cards:
        table.add_row(
            card.name,
            card.task,
            f"{card.sample_rate / 1000:g} kHz",
            f"{card.parameters / 1e6:.2f} M",
            f"{card.bytes / 1e6:.1f} MB",
            card.licence,
            card.revision if card.revision.startswith("sha256:") else card.revision[:12],
            _HERE[card.source] if card.cached else "no",
        )
    show(table)
    return 0


@app.command(cls=Command)
def info(
    name: Name,
    as_json: Json = False,
    offline: Offline = False,
    accept_license: AcceptLicense = False,
) -> int:
    """Say what is known of a model; of hf:// ones, what their files say."""
    from speakup.models.catalogue import fetch_model, find_card

    card = find_card(name)
    if card is None:
        with show_downloads(Terminal()) as tell:
            card = fetch_model(name, offline=offline, accept_license=accept_license, progress=tell)
    values = _plain(card)
    if as_json:
        typer.echo(json.dumps(values, indent=2))
        return 0
    for key, value in values.items():
        if value not in ("", {}):
            typer.echo(f"{key.replace('_', ' '):<16}{value}")
    return 0


@app.command(cls=Command)
def fetch(
    names: Names = None,
    preset: Annotated[
        str | None,
        typer.Option(metavar="|".join(PRESETS), help="The preset's models for the device"),
    ] = None,
    everything: Annotated[
        bool, typer.Option("--all", metavar="", help="All that are known by name")
    ] = False,
    device: Annotated[str, typer.Option(metavar="NAME", help="Of the preset")] = "auto",
    refresh: Annotated[
        bool,
        typer.Option("--refresh", metavar="", help="Look whether a branch of hf:// has moved on"),
    ] = False,
    accept_license: AcceptLicense = False,
    offline: Offline = False,
    as_json: JsonLines = False,
    quiet: Quiet = False,
    no_progress: NoProgress = False,
) -> int:
    """Fetch models and check them; what is there and whole is not requested again."""
    from speakup.models.catalogue import choose_models, fetch_model, list_models

    wanted = list(names or [])
    if preset is not None:
        config = Config(preset=_preset(preset), device=device)
        wanted += choose_models(config).names
    if everything:
        # What comes with a package that is missing is not to be had here.
        wanted += [card.name for card in list_models() if card.cached or card.source == "hub"]
    if not wanted:
        raise ConfigError("no model is named", None, "Give a name, --preset studio or --all")
    terminal = Terminal(quiet=quiet, progress=not no_progress)
    wanted = list(dict.fromkeys(wanted))

    def get(name: str) -> dict[str, Any]:
        with show_downloads(terminal) as tell:
            card = fetch_model(
                name,
                offline=offline,
                accept_license=accept_license,
                refresh=refresh,
                progress=tell,
            )
        kept = "" if card.source == "hub" else "; nothing needs fetching"
        terminal.say((name, "bold"), f"  {origin(card)}{kept}")
        return {"status": "ok", **_plain(card)}

    try:
        return _each(wanted, get, "folder", terminal, as_json)
    except KeyboardInterrupt:
        terminal.error("interrupted. The same command goes on where it stopped")
        raise typer.Exit(130) from None


@app.command(cls=Command)
def verify(names: Names = None, as_json: JsonLines = False, quiet: Quiet = False) -> int:
    """Hash models' files again; by default those that are here. No request is made."""
    from speakup.models.catalogue import list_models, verify_model

    terminal = Terminal(quiet=quiet)

    def check(name: str) -> dict[str, Any]:
        fault = verify_model(name)
        if fault is not None:
            raise ModelError(fault, name, f"Run speakup models fetch {name}")
        return {"status": "ok", "name": name, "said": f"{name}: as it must be"}

    here = [card.name for card in list_models() if card.cached]
    return _each(list(names or here), check, "said", terminal, as_json)


@app.command(cls=Command)
def path(
    name: Name,
    offline: Offline = False,
    accept_license: AcceptLicense = False,
    as_json: Json = False,
) -> int:
    """Say in which folder a model lies; one of the Hub's is fetched first."""
    from speakup.models.catalogue import fetch_model

    with show_downloads(Terminal()) as tell:
        card = fetch_model(name, offline=offline, accept_license=accept_license, progress=tell)
    if as_json:
        typer.echo(json.dumps({"name": name, "folder": str(card.folder), "file": card.file}))
        return 0
    typer.echo(str(card.folder))
    return 0


@app.command(cls=Command)
def remove(
    names: Annotated[list[str], typer.Argument(metavar="MODEL...", help=_NAMES)],
    as_json: JsonLines = False,
    quiet: Quiet = False,
) -> int:
    """Take models of the Hub out of its cache, where other programs may use them too."""
    from speakup.models.catalogue import remove_model

    def drop(name: str) -> dict[str, Any]:
        freed = remove_model(name)
        said = f"{name}: removed, {freed / 1e6:.1f} MB are free"
        return {"status": "ok", "name": name, "bytes": freed, "said": said}

    return _each(names, drop, "said", Terminal(quiet=quiet), as_json)


def _each(
    names: Sequence[str],
    do: Callable[[str], dict[str, Any]],
    result: str,
    terminal: Terminal,
    as_json: bool,
) -> int:
    """Do something with each model, say what came of it, and go on if it fails."""
    code = 0
    for name in names:
        try:
            found = {"name": name, **do(name), "error": None}
            said = str(found.pop("said", "") or found[result])
        except ModelError as error:
            code, said = error.exit_code, ""
            terminal.error(error)
            what = {"type": type(error).__name__, "message": str(error)}
            found = {"name": name, "status": "failed", "error": what}
        if as_json:
            terminal.result(json.dumps({"event": "model", **found}))
        elif said:
            terminal.result(said)
    return code


def _preset(name: str) -> Literal["fast", "studio"]:
    if name not in PRESETS:
        raise ConfigError(f"preset is {name!r}", None, f"Choose from {', '.join(PRESETS)}")
    return name  # type: ignore[return-value]


def _plain(card: ModelCard) -> dict[str, Any]:
    return {**dataclasses.asdict(card), "folder": str(card.folder)}

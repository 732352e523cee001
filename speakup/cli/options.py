"""Options made from the fields of `Config`, so that each default and help text stays there."""

from __future__ import annotations

import dataclasses
import inspect
import types
import typing
from collections.abc import Callable
from typing import Annotated, Any, Literal

import typer

from speakup.config import Config
from speakup.errors import ConfigError

Command = Callable[..., int]

STAGES, OUTPUT, COMPUTE = "What is done", "Output", "Where and how"
FILES, WORDS = "Files", "What is said"

MODEL_FIELDS = ("quality", "preset", "denoiser", "upsampler")
STAGE_FIELDS = ("denoise", "upsample", "strength", "max_attenuation")
COMPUTE_FIELDS = ("device", "precision", "threads", "batch_size", "offline", "accept_license")
ALL_FIELDS = tuple(field.name for field in dataclasses.fields(Config))


AsJson = Annotated[
    bool,
    typer.Option(
        "--json",
        metavar="",
        help="Give JSON: an object per file as it ends, then one for all of them",
        rich_help_panel=WORDS,
    ),
]
OneJson = Annotated[bool, typer.Option("--json", metavar="", help="Give one JSON object")]
Jobs = Annotated[
    int | None,
    typer.Option(
        "--jobs",
        "-j",
        metavar="N",
        min=1,
        help="Files at a time; by default by cores",
        rich_help_panel=COMPUTE,
    ),
]
Quiet = Annotated[
    bool,
    typer.Option("--quiet", "-q", metavar="", help="Say nothing but errors", rich_help_panel=WORDS),
]
Verbose = Annotated[
    bool,
    typer.Option(
        "--verbose",
        "-v",
        metavar="",
        help="Say which models ran, and for how long",
        rich_help_panel=WORDS,
    ),
]
NoProgress = Annotated[
    bool, typer.Option("--no-progress", metavar="", help="Show no progress", rich_help_panel=WORDS)
]

_MODEL = "MODEL"
_SHOWN = {
    "denoiser": (_MODEL, STAGES),
    "upsampler": (_MODEL, STAGES),
    "strength": ("0..1", STAGES),
    "max_attenuation": ("DB", STAGES),
    "level": ("0..1", STAGES),
    "loudness": ("NAME|LUFS", STAGES),
    "true_peak": ("DBTP", STAGES),
    "sample_rate": ("HZ|keep", OUTPUT),
    "channels": (None, OUTPUT),
    "format": ("NAME", OUTPUT),
    "bit_depth": (None, OUTPUT),
    "bitrate": ("KBIT/S", OUTPUT),
    "track": ("N", OUTPUT),
    "device": ("NAME", COMPUTE),
    "precision": (None, COMPUTE),
    "threads": ("N", COMPUTE),
    "batch_size": ("N", COMPUTE),
    "offline": (None, COMPUTE),
    "accept_license": (None, COMPUTE),
}
"""What stands for an option's value in the help, and the panel it is in."""

_SHORT = {"format": "-f"}
_CAN_BE_OFF = ("upsample", "loudness")
"""Settings with the value "off"; it has a flag of its own, `--no-<name>`."""


def takes_config(*names: str) -> Callable[[Command], Command]:
    """Give a command the options of these fields of `Config`, and what they make as `config`.

    Fields that are not named keep their defaults.
    """

    def decorate(command: Command) -> Command:
        signature = inspect.signature(command, eval_str=True)
        own = [item for item in signature.parameters.values() if item.name != "config"]
        made = [parameter for name in names for parameter in _parameters(name)]

        def run(**values: Any) -> int:
            settings = {item.name: values.pop(item.name) for item in made}
            return command(**values, config=make_config(settings))

        run.__name__, run.__doc__ = command.__name__, command.__doc__
        parameters = [*own[: _arguments(own)], *made, *own[_arguments(own) :]]
        keyword = inspect.Parameter.KEYWORD_ONLY
        parameters = [item.replace(kind=keyword) for item in parameters]
        run.__signature__ = inspect.Signature(parameters, return_annotation=int)  # type: ignore[attr-defined]
        run.__annotations__ = {item.name: item.annotation for item in parameters}
        return run

    return decorate


def make_config(settings: dict[str, Any]) -> Config:
    """Make a configuration from the values of the options.

    Raises:
        ConfigError: a value is outside its range.
    """
    for flag in [name for name in settings if name.startswith("no_")]:
        name = flag.removeprefix("no_")
        if settings.pop(flag):
            settings[name] = "off" if name in _CAN_BE_OFF else False
    rate = settings.get("sample_rate", "keep")
    if rate != "keep":
        try:
            settings["sample_rate"] = int(rate)
        except ValueError:
            raise ConfigError(
                f"`sample_rate` is {rate!r}", None, "Give 8000 to 192000 Hz, or keep"
            ) from None
    return Config(**settings)


def _arguments(parameters: list[inspect.Parameter]) -> int:
    """Count the arguments that stand first: what is worked on, and where it goes."""
    return sum(item.name in ("inputs", "output") for item in parameters)


def _parameters(name: str) -> list[inspect.Parameter]:
    """Make the parameter of one field, and of its `--no-` flag if it has one."""
    field = next(item for item in dataclasses.fields(Config) if item.name == name)
    metavar, panel = _SHOWN.get(name, (None, STAGES))
    flag = name.replace("_", "-")
    hint = typing.get_type_hints(Config)[name]
    kind = _plain_type(hint)
    default = field.default if kind is not str or field.default is None else str(field.default)
    text = field.metadata["help"]
    if kind is bool and default:  # what is done unless told otherwise has a flag against it
        return [_flag(f"no_{name}", f"Do not {text[0].lower()}{text[1:]}", panel)]
    if kind is bool:
        return [_flag(name, text, panel)]
    option = typer.Option(
        default,
        f"--{flag}",
        *([_SHORT[name]] if name in _SHORT else []),
        help=_escaped(text),
        metavar=metavar or _choices(hint),
        show_default=default is not None,
        rich_help_panel=panel,
    )
    made = [_parameter(name, option, kind if default is not None else kind | None)]
    if name in _CAN_BE_OFF:
        made.append(_flag(f"no_{name}", f"The same as --{flag} off", panel))
    return made


def _flag(name: str, text: str, panel: str) -> inspect.Parameter:
    words = f"--{name.replace('_', '-')}"
    option = typer.Option(False, words, help=text, metavar="", rich_help_panel=panel)
    return _parameter(name, option, bool)


def _parameter(name: str, option: Any, annotation: Any) -> inspect.Parameter:
    kind = inspect.Parameter.KEYWORD_ONLY
    return inspect.Parameter(name, kind, default=option, annotation=annotation)


def _plain_type(hint: Any) -> type:
    """Give what the option's text is read as; choices and unions are read as text."""
    if isinstance(hint, types.UnionType) or typing.get_origin(hint) is typing.Union:
        parts = [part for part in typing.get_args(hint) if part is not type(None)]
        return _plain_type(parts[0]) if len(parts) == 1 else str
    return str if typing.get_origin(hint) is Literal else hint


def _choices(hint: Any) -> str | None:
    found: list[str] = []
    for part in (hint, *typing.get_args(hint)):
        if typing.get_origin(part) is Literal:
            found = [str(value) for value in typing.get_args(part)]
    return "|".join(found) or None


def _escaped(text: str) -> str:
    """Keep rich from taking what is in square brackets for its markup."""
    return text.replace("[", r"\[")

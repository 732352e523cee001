"""Every default, and every setting's one-line description, lives here, once.

The command line derives its options and their help from the fields of `Config`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import re
import textwrap
from collections.abc import Callable
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any, Literal

from speakup.errors import ConfigError

WORKING_RATE = 44_100
"""Sample rate in Hz between the neural stages, and of the output by default."""


BEST_IS_WIDER_THAN_HZ = 5_000.0
"""Recordings of no more bandwidth get the fast denoiser: the best of the others hears no voice."""

PRESETS: dict[str, dict[str, dict[str, str]]] = {
    "fast": {"": {"denoise": "speakup-denoise-16k", "upsample": "speakup-upsample-44k"}},
    # MP-SENet takes about 2 s of a CPU's time for a second of sound, and AP-BWE 0.3 s.
    "studio": {
        "": {"denoise": "dpdfnet2", "upsample": "lavasr-v2"},
        "cuda": {"denoise": "mp-senet-dns", "upsample": "ap-bwe-16k-48k"},
    },
}
"""Preset -> kind of device, "" for any other -> task -> model."""


FORMATS = ("wav", "flac", "mp3", "ogg", "opus", "m4a", "mp4", "mov", "mkv", "webm")
DELIVERIES = ("podcast", "spotify", "youtube", "ebu", "aes", "acx")

_DEVICE = re.compile(r"auto|(?:cpu|cuda|mps)(?::\d+)?")


def _setting(default: Any, help_text: str, fits: Callable[[Any], bool], wanted: str) -> Any:
    """Describe a setting: its default, what it does, which values it takes, and these in words."""
    return dataclasses.field(
        default=default, metadata={"help": help_text, "fits": fits, "wanted": wanted}
    )


def _number(low: float, high: float) -> Callable[[Any], bool]:
    def fits(value: Any) -> bool:
        is_number = isinstance(value, Real) and not isinstance(value, bool)
        return is_number and bool(low <= value <= high)

    return fits


def _whole(low: int, high: float = math.inf) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, Integral) and _number(low, high)(value)


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and value != ""


def _is_bool(value: Any) -> bool:
    return isinstance(value, bool)


def _is_loudness(value: Any) -> bool:
    if not isinstance(value, str):
        return False
    text = value.strip().lower().replace("\N{MINUS SIGN}", "-")
    if text in (*DELIVERIES, "off"):
        return True
    with contextlib.suppress(ValueError):
        return -60.0 <= float(text) <= 0.0
    return False


def _choice(default: Any, help_text: str, *choices: str) -> Any:
    def fits(value: Any) -> bool:
        return isinstance(value, str) and value in choices

    return _setting(default, help_text, fits, f"Choose from {', '.join(choices)}")


def _flag(default: bool, help_text: str) -> Any:
    return _setting(default, help_text, _is_bool, "Give True or False")


_A_MODEL = "Give a name, a folder, or hf://org/repo[@revision]"
_ONE_OR_MORE = "Give a whole number, 1 or more"


@dataclass(frozen=True, kw_only=True)
class Config:
    """Describe what to do to a recording; the defaults make a podcast master.

    Raises:
        ConfigError: a value is none that its setting takes.
    """

    quality: Literal["best", "fast"] = _choice(
        "best",
        "Which denoiser: best = the best on this machine, by measured scores; fast = the bundled "
        "one. Neither needs a network",
        *("best", "fast"),
    )
    preset: Literal["fast", "studio"] | None = _choice(
        None,
        "Which models instead: fast = bundled, as `quality` fast; studio = the published ones for "
        "the device, fetched from the Hub once",
        *PRESETS,
    )
    denoiser: str | None = _setting(
        None,
        "Stage 1 model: a name, a folder, or hf://org/repo[@revision]; ONE+OTHER for two in a row; "
        "else as `quality` says",
        _is_text,
        _A_MODEL,
    )
    upsampler: str | None = _setting(
        None,
        "Stage 2 model: a name, a folder, or hf://org/repo[@revision]; else the bundled one",
        _is_text,
        _A_MODEL,
    )
    denoise: bool = _flag(True, "Rebuild clipped peaks, and remove noise and reverberation")
    hum: bool = _flag(True, "Take out mains hum of 50 or 60 Hz where there is any")
    upsample: Literal["auto", "always", "off"] = _choice(
        "auto",
        "auto: synthesise only the top the source lacks, keep what is real; "
        "always: the plain 16k to 44.1k chain; off: leave the stage out",
        *("auto", "always", "off"),
    )
    strength: float = _setting(
        1.0,
        "How much of the denoiser's work to keep, 0 to 1",
        _number(0.0, 1.0),
        "Give a number from 0 to 1",
    )
    max_attenuation: float | None = _setting(
        None,
        "Never attenuate by more than this many dB: leaves room tone and breaths",
        _number(0.0, 1000.0),
        "Give a number of dB from 0 to 1000",
    )
    level: float | None = _setting(
        None,
        "How much to bring speakers and passages to one level, 0 to 1; by default 1 for podcast, "
        "spotify, youtube and acx, else 0",
        _number(0.0, 1.0),
        "Give a number from 0 to 1",
    )
    loudness: str = _setting(
        "podcast",
        f"{', '.join(DELIVERIES)}, a number in LUFS, or off",
        _is_loudness,
        f"Choose from {', '.join(DELIVERIES)}, a number from -60 to 0 as text, or off",
    )
    true_peak: float | None = _setting(
        None,
        "True-peak ceiling in dBTP; by default the delivery target's own (-1, acx -3)",
        _number(-60.0, 0.0),
        "Give a ceiling from -60 to 0 dBTP",
    )
    sample_rate: int | Literal["keep"] = _setting(
        WORKING_RATE,
        "Output rate in Hz, or keep",
        lambda value: _whole(8_000, 192_000)(value) or (_is_text(value) and value == "keep"),
        "Give 8000 to 192000 Hz, or keep",
    )
    channels: Literal["keep", "mono"] = _choice(
        "keep", "Keep the channels, or mix them to mono", *("keep", "mono")
    )
    format: str | None = _choice(
        None,
        "wav, flac, mp3, ogg, opus or m4a, or mp4, mov, mkv or webm for videos; by default from "
        "the output's extension, else wav, and a video keeps its own",
        *FORMATS,
    )
    bit_depth: Literal["16", "24", "32f"] | None = _choice(
        None, "Sample format of wav and flac: 16, 24 or 32f; 24 by default", *("16", "24", "32f")
    )
    bitrate: int | None = _setting(
        None, "Bit rate in kbit/s for mp3, ogg, opus and m4a", _whole(1), _ONE_OR_MORE
    )
    track: int | None = _setting(
        None,
        "Which of a video's audio tracks, from 1; by default all, each as its own track",
        _whole(1),
        _ONE_OR_MORE,
    )
    device: str = _setting(
        "auto",
        "auto, cpu, cuda[:N] or mps",
        lambda value: isinstance(value, str) and _DEVICE.fullmatch(value) is not None,
        "Choose auto, cpu, cuda[:N] or mps",
    )
    precision: Literal["auto", "fp32", "bf16", "fp16"] = _choice(
        "auto", "Number format of the networks", *("auto", "fp32", "bf16", "fp16")
    )
    threads: int | None = _setting(
        None, "CPU threads for the networks; by default by cores", _whole(1), _ONE_OR_MORE
    )
    batch_size: int | None = _setting(
        None,
        "Chunks of 10 s a GPU works on at a time, of all files; by default by its memory",
        _whole(1),
        _ONE_OR_MORE,
    )
    offline: bool = _flag(False, "Make no network request")
    accept_license: bool = _flag(False, "Also use models whose licence forbids commercial use")

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if not (value is None and field.default is None or field.metadata["fits"](value)):
                problem = f"`{field.name}` is {value!r}"
                raise ConfigError(problem, None, field.metadata["wanted"])

    @property
    def takes_the_best(self) -> bool:
        """Tell whether the denoiser is the best that is at hand, and not one that is named."""
        return self.denoiser is None and self.preset is None and self.quality == "best"

    @property
    def depends_on_device(self) -> bool:
        """Tell whether there is a preset, and it has other models on other devices."""
        return self.preset is not None and len(PRESETS[self.preset]) > 1

    def preset_models(self, device: str) -> dict[str, str]:
        """Name the preset's model of each task on a kind of device, such as "cpu" or "cuda"."""
        models = PRESETS[self.preset or "fast"]
        return models.get(device, models[""])


def _described() -> str:
    """Write a docstring's section about every setting, from what is said of it above."""
    lines = ["", "    Args:"]
    for field in dataclasses.fields(Config):
        text = f"{field.name}: {field.metadata['help']}. {field.metadata['wanted']}"
        default = "" if field.default is None else f" (default {field.default!r})"
        lines += textwrap.wrap(
            f"{text}{default}.", 92, initial_indent=" " * 8, subsequent_indent=" " * 12
        )
    return "\n".join([*lines, "    "])


if Config.__doc__ is not None:  # None with python -OO
    Config.__doc__ += _described()

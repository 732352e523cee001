"""Every default, and every setting's one-line description, lives here, once.

The command line derives its options and their help from the fields of `Config`.
"""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass
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


_DEVICE = re.compile(r"auto|(?:cpu|cuda|mps)(?::\d+)?")


def _setting(default: Any, help_text: str) -> Any:
    return dataclasses.field(default=default, metadata={"help": help_text})


@dataclass(frozen=True, kw_only=True)
class Config:
    """Describe what to do to a recording; the defaults make a podcast master.

    Raises:
        ConfigError: a value is outside its range, or two values contradict each other.
    """

    quality: Literal["best", "fast"] = _setting(
        "best",
        "Which denoiser: best = the best on this machine, by measured scores; fast = the bundled "
        "one. Neither needs a network",
    )
    preset: Literal["fast", "studio"] | None = _setting(
        None,
        "Which models instead: fast = bundled, as --quality fast; studio = the published ones for "
        "the device, fetched from the Hub once",
    )
    denoiser: str | None = _setting(
        None,
        "Stage 1 model: a name, a folder, or hf://org/repo[@revision]; ONE+OTHER for two in a row; "
        "else as --quality says",
    )
    upsampler: str | None = _setting(
        None, "Stage 2 model: a name, a folder, or hf://org/repo[@revision]; else the bundled one"
    )
    denoise: bool = _setting(True, "Rebuild clipped peaks, and remove noise and reverberation")
    upsample: Literal["auto", "always", "off"] = _setting(
        "auto",
        "auto: synthesise only the top the source lacks, keep what is real; "
        "always: the plain 16k to 44.1k chain; off: leave the stage out",
    )
    strength: float = _setting(1.0, "How much of the denoiser's work to keep, 0 to 1")
    max_attenuation: float | None = _setting(
        None, "Never attenuate by more than this many dB: leaves room tone and breaths"
    )
    loudness: str = _setting(
        "podcast", "podcast, spotify, youtube, ebu, aes, acx, a number in LUFS, or off"
    )
    true_peak: float | None = _setting(
        None, "True-peak ceiling in dBTP; by default the delivery target's own (-1, acx -3)"
    )
    sample_rate: int | Literal["keep"] = _setting(WORKING_RATE, "Output rate in Hz, or keep")
    channels: Literal["keep", "mono"] = _setting("keep", "Keep the channels, or mix them to mono")
    format: str | None = _setting(
        None,
        "wav, flac, mp3, ogg, opus or m4a, or mp4, mov, mkv or webm for videos; by default from "
        "the output's extension, else wav, and a video keeps its own",
    )
    bit_depth: Literal["16", "24", "32f"] | None = _setting(
        None, "Sample format of wav and flac: 16, 24 or 32f; 24 by default"
    )
    bitrate: int | None = _setting(None, "Bit rate in kbit/s for mp3, ogg, opus and m4a")
    track: int | None = _setting(
        None, "Which of a video's audio tracks, from 1; by default all, each as its own track"
    )
    device: str = _setting("auto", "auto, cpu, cuda[:N] or mps")
    precision: Literal["auto", "fp32", "bf16", "fp16"] = _setting(
        "auto", "Number format of the networks"
    )
    threads: int | None = _setting(None, "CPU threads for the networks; by default by cores")
    batch_size: int | None = _setting(
        None, "Chunks of 10 s a GPU works on at a time, of all files; by default by its memory"
    )
    offline: bool = _setting(False, "Make no network request")
    accept_license: bool = _setting(False, "Also use models whose licence forbids commercial use")

    def __post_init__(self) -> None:
        for name in ("quality", "preset", "upsample", "channels", "bit_depth", "precision"):
            _check_choice(self, name)
        if not 0.0 <= self.strength <= 1.0:
            raise ConfigError(f"strength is {self.strength}", None, "Give a number from 0 to 1")
        if self.max_attenuation is not None and not self.max_attenuation >= 0.0:
            raise ConfigError(
                f"max-attenuation is {self.max_attenuation}", None, "Give a number of dB, 0 or more"
            )
        if self.true_peak is not None and not -60.0 <= self.true_peak <= 0.0:
            raise ConfigError(
                f"true-peak is {self.true_peak}", None, "Give a ceiling from -60 to 0 dBTP"
            )
        if self.sample_rate != "keep" and not 8_000 <= int(self.sample_rate) <= 192_000:
            raise ConfigError(
                f"sample-rate is {self.sample_rate}", None, "Give 8000 to 192000 Hz, or keep"
            )
        if not _DEVICE.fullmatch(self.device):
            raise ConfigError(
                f"device {self.device!r} is unknown", None, "Choose auto, cpu, cuda[:N] or mps"
            )
        for name in ("threads", "batch_size", "bitrate", "track"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(f"{name.replace('_', '-')} is {value}", None, "Give 1 or more")

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


_CHOICES: dict[str, tuple[str | None, ...]] = {
    "quality": ("best", "fast"),
    "preset": (None, *PRESETS),
    "upsample": ("auto", "always", "off"),
    "channels": ("keep", "mono"),
    "bit_depth": (None, "16", "24", "32f"),
    "precision": ("auto", "fp32", "bf16", "fp16"),
}


def _check_choice(config: Config, name: str) -> None:
    value = getattr(config, name)
    if value not in _CHOICES[name]:
        known = ", ".join(choice for choice in _CHOICES[name] if choice is not None)
        raise ConfigError(f"{name.replace('_', '-')} is {value!r}", None, f"Choose from {known}")

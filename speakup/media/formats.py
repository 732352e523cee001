"""Decide how an output is coded: format, rate, bit depth and bit rate."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from speakup.errors import ConfigError


@dataclass(frozen=True)
class OutputFormat:
    """Say how a file is coded.

    Attributes:
        name: wav, flac, mp3, ogg, opus, m4a, mp4, mov, mkv or webm.
        extension: The usual one, with its dot.
        codec: The encoder.
        sample_rate: The rate in Hz to write at: the one asked for, or the nearest above it
            that the format can carry.
        bit_depth: 16, 24 or 32f; None for lossy formats.
        bitrate: kbit/s of all channels together; None for lossless formats.
        layout: What FFmpeg calls the arrangement of the speakers; None for the usual one of so
            many channels.
    """

    name: str
    extension: str
    codec: str
    sample_rate: int
    bit_depth: str | None
    bitrate: int | None
    layout: str | None = None


@dataclass(frozen=True)
class _Family:
    extensions: tuple[str, ...]
    codecs: Mapping[str | None, str]
    channels: tuple[int, ...]
    rates: tuple[int, ...] | None = None
    bitrate: int | None = None
    per_channel: tuple[float, float] = (0, 0)


_UP_TO_8 = tuple(range(1, 9))
_AAC_RATES = (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000, 64000, 88200, 96000)
_FAMILIES = {
    "wav": _Family(
        (".wav", ".wave"),
        {"16": "pcm_s16le", "24": "pcm_s24le", "32f": "pcm_f32le"},
        tuple(range(1, 65)),
    ),
    "flac": _Family((".flac",), {"16": "flac", "24": "flac"}, _UP_TO_8),
    "mp3": _Family((".mp3",), {None: "libmp3lame"}, (1, 2), _AAC_RATES[:9], 192),
    "ogg": _Family((".ogg", ".oga"), {None: "vorbis"}, _UP_TO_8, None, 160, (16, 250)),
    "opus": _Family(
        (".opus",),
        {None: "libopus"},
        (1, 2, 3, 4, 6, 8),  # FFmpeg's libopus encoder mixes up the speakers of 5 and of 7
        (8000, 12000, 16000, 24000, 48000),
        128,
        (6, 256),
    ),
    "m4a": _Family((".m4a", ".m4b"), {None: "aac"}, _UP_TO_8, _AAC_RATES, 192, (8, 288)),
}
_FAMILIES |= {
    "mp4": replace(_FAMILIES["m4a"], extensions=(".mp4", ".m4v")),
    "mov": replace(_FAMILIES["m4a"], extensions=(".mov",)),
    "mkv": replace(_FAMILIES["flac"], extensions=(".mkv", ".mka")),
    "webm": replace(_FAMILIES["opus"], extensions=(".webm",)),
}

PICTURES = ("mp4", "mov", "mkv", "webm")
"""Formats that hold moving pictures, and several audio tracks."""

CHAPTERED = ("mp3", "flac", "m4a", "ogg", "opus", *PICTURES)
"""Formats that hold chapters."""

COVERED = ("mp3", "flac", "m4a", "ogg", "opus")
"""Sound formats that hold a cover picture."""

_MAYBE_PICTURES = re.compile(
    r"\.(3g[2p]|asf|avi|f4v|flv|m2ts?|m4v|mkv|mov|mp4|mpe?g|mpe|mts|mxf|ogv|ts|vob|webm|wmv)",
    re.IGNORECASE,
)
_SOUND_ALONE = re.compile(
    r"\.(aac|ac3|adts|aif[cf]?|aiff|amr|ape|au|awb|bwf|caf|dff|dsf|dts|eac3|flac|m4[abr]|mka|mp[123]"
    r"|mpa|mpc|mpga|og[ag]|oma|opus|qta|ra|rf64|snd|spx|tta|voc|w64|wave?|weba|wma|wv)",
    re.IGNORECASE,
)
"""What a folder's recordings are called; with the pictures, the one list of what is read."""


def is_recordings_name(name: str) -> bool:
    """Tell whether a name's extension is one of sound or of moving pictures."""
    suffix = Path(name).suffix
    return bool(_MAYBE_PICTURES.fullmatch(suffix) or _SOUND_ALONE.fullmatch(suffix))


def video_extension(name: str) -> str | None:
    """Give the extension of what a video is made into, by its name; None for other files.

    A container that speakup writes is kept; what comes in another one goes into Matroska, which
    takes nearly every kind of picture.
    """
    suffix = Path(name).suffix
    if not _MAYBE_PICTURES.fullmatch(suffix):
        return None
    kept = any(suffix.lower() in _FAMILIES[format].extensions for format in PICTURES)
    return suffix if kept else ".mkv"


def resolve_format(
    path: Path,
    *,
    format: str | None,
    bit_depth: str | None,
    bitrate: int | None,
    sample_rate: int,
    channels: int,
) -> OutputFormat:
    """Decide how to code an output from its name and the options given.

    Args:
        path: The output; its extension decides where `format` is None, WAV where it has none.
        format: As `OutputFormat.name`; a video container's is for its audio tracks.
        bit_depth: 16, 24 or 32f for wav and flac; None takes 24.
        bitrate: kbit/s in all for the lossy formats; None takes one fit for a voice master.
            Matroska's tracks are FLAC, or with a bit rate Opus.
        sample_rate: The rate wanted, in Hz.
        channels: How many channels there are to write.

    Raises:
        ConfigError: the extension is unknown, or the settings contradict each other.
    """
    name = _format_name(path, format)
    family = _FAMILIES[name]
    if name == "mkv" and bitrate is not None:
        family = replace(_FAMILIES["opus"], extensions=family.extensions)
    if channels not in family.channels:
        raise ConfigError(
            f"{name} cannot carry {channels} channels", path, "Choose wav or flac, or mix to mono"
        )
    rate = sample_rate
    if family.rates is not None:
        rate = next((known for known in family.rates if known >= rate), family.rates[-1])
    depth = _depth(name, family, bit_depth, path)
    kbits = _bitrate(name, family, bitrate, rate, channels, path)
    extension = path.suffix if path.suffix.lower() in family.extensions else family.extensions[0]
    return OutputFormat(name, extension, family.codecs[depth], rate, depth, kbits)


def _format_name(path: Path, format: str | None) -> str:
    known = ", ".join(_FAMILIES)
    suffix = path.suffix.lower()
    by_suffix = next((n for n, family in _FAMILIES.items() if suffix in family.extensions), None)
    if format is None:
        if suffix and by_suffix is None:
            raise ConfigError(f"{suffix} is not a format speakup writes", path, f"Choose {known}")
        return by_suffix or "wav"
    if format not in _FAMILIES:
        raise ConfigError(f"format is {format!r}", None, f"Choose from {known}")
    if by_suffix not in (None, format):
        raise ConfigError(
            f"format is {format}, but the output's name says {by_suffix}", path, "Change one"
        )
    return format


def _depth(name: str, family: _Family, asked: str | None, path: Path) -> str | None:
    known = [depth for depth in family.codecs if depth is not None]
    if not known:
        if asked is not None:
            raise ConfigError(f"{name} has no bit depth", path, "Leave `bit_depth` out")
        return None
    if asked is not None and asked not in known:
        raise ConfigError(f"{name} cannot hold {asked} bits", path, f"Choose {' or '.join(known)}")
    return asked or "24"


def _bitrate(
    name: str, family: _Family, asked: int | None, rate: int, channels: int, path: Path
) -> int | None:
    if family.bitrate is None:
        if asked is not None:
            raise ConfigError(f"{name} is lossless and has no bit rate", path, "Leave it out")
        return None
    low, high = (round(limit * channels) for limit in family.per_channel)
    if name == "mp3":  # ISO/IEC 11172-3 and 13818-3, layer III; MPEG-2.5 below 16 kHz
        low, high = (32, 320) if rate >= 32000 else (8, 160) if rate >= 16000 else (8, 64)
    elif (
        family.codecs.get(None) == "aac"
    ):  # ISO/IEC 14496-3: at most 6144 bits per channel in 1024 samples
        high = int(6.144 * rate / 1024) * channels
    if asked is None:
        wanted = max(family.bitrate, family.bitrate * channels // 2)
        # Vorbis's bit rate is nominal: 160 for two channels is quality 5, and so is 80 for one.
        wanted = family.bitrate * channels // 2 if name == "ogg" else wanted
        return min(max(wanted, low), high)
    if not low <= asked <= high:
        raise ConfigError(
            f"{name} with {channels} channels at {rate} Hz cannot have {asked} kbit/s",
            path,
            f"Give {low} to {high}",
        )
    return asked

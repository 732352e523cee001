"""Lettered pictures of recordings, as PNG files."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from speakup.blocks import Float32
from speakup.config import WORKING_RATE
from speakup.errors import import_optional
from speakup.files import check_free, write_whole
from speakup.judge.analysis import analyze
from speakup.judge.excerpts import matching_gains, read_excerpts
from speakup.judge.spectrogram import TOP_HZ, Pixels, coloured, png, spectrogram_db
from speakup.measure.loudness import LoudnessMeter
from speakup.result import duration

TICKS_KHZ = (0, 5, 10, 15, 20)

_WIDTH, _HEIGHT = 1200, 300
_LEFT, _TOP, _RIGHT, _BOTTOM = 84, 44, 24, 34
_LUFS = (-50, 0)
_MOMENTARY, _SHORT_TERM = (200, 200, 200), (184, 68, 12)


def write_plot(
    source: str | os.PathLike[str],
    picture: str | os.PathLike[str],
    *,
    title: str | None = None,
    overwrite: bool = False,
) -> None:
    """Draw a recording's waveform, spectrogram and loudness, of its first two minutes at most.

    Args:
        source: The recording.
        picture: The PNG file to write.
        title: What to write above it; None takes the file's name.
        overwrite: Replace a picture that exists.

    Raises:
        InputError: the recording cannot be read.
        OutputError: the picture cannot be written, or exists.
        ConfigError: the package Pillow, which letters it, is not installed.
    """
    path, place = Path(source), Path(picture)
    check_free(place, overwrite=overwrite)
    (excerpt,) = read_excerpts([path])
    seconds = excerpt.shape[1] / WORKING_RATE
    (level,), top_db = levels_alike([excerpt], [1.0])
    khz = [(f"{one} kHz" if one else "0", one * 1000 / TOP_HZ) for one in TICKS_KHZ]
    lufs = range(_LUFS[0] + 10, _LUFS[1], 10)
    panels = [
        (title or path.name, _waveform(excerpt), [("+1", 1.0), ("0", 0.5), ("-1", 0.0)]),
        ("Spectrogram", coloured(level, top_db), khz),
        (
            "Loudness: short-term, and momentary in grey",
            _loudness(excerpt),
            [(f"{one} LUFS", (one - _LUFS[0]) / (_LUFS[1] - _LUFS[0])) for one in lufs],
        ),
    ]
    write_whole(place, png(_lettered(panels, seconds)), overwrite=overwrite)


def write_spectrograms(
    before: str | os.PathLike[str],
    after: str | os.PathLike[str],
    picture: str | os.PathLike[str],
    *,
    overwrite: bool = False,
) -> None:
    """Write a PNG picture of both spectrograms, at the same loudness, one above the other.

    Raises:
        InputError: one of the recordings cannot be read.
        OutputError: the picture cannot be written, or is there and not to be replaced.
        ConfigError: the package Pillow, which letters it, is not installed.
    """
    check_free(Path(picture), overwrite=overwrite)
    paths = (Path(before), Path(after))
    excerpts = read_excerpts(paths)
    levels, top_db = levels_alike(excerpts, matching_gains([analyze(path) for path in paths]))
    khz = [(f"{one} kHz" if one else "0", one * 1000 / TOP_HZ) for one in TICKS_KHZ]
    panels = [
        (name, coloured(level, top_db), khz)
        for name, level in zip(("Before", "After"), levels, strict=True)
    ]
    data = png(_lettered(panels, excerpts[0].shape[1] / WORKING_RATE))
    write_whole(Path(picture), data, overwrite=overwrite)


def levels_alike(
    excerpts: Sequence[Float32], gains: Sequence[float]
) -> tuple[list[NDArray[np.float64]], float]:
    """Give spectrograms in dB after gains, and the level of the brightest colour of all."""
    levels = [
        spectrogram_db(one * np.float32(gain), WORKING_RATE, width=_WIDTH, height=_HEIGHT)
        for one, gain in zip(excerpts, gains, strict=True)
    ]
    return levels, max(-100.0, *(float(level.max()) for level in levels))


def _waveform(excerpt: Float32) -> Pixels:
    """Draw the range of the samples in every column, -1 to 1, all channels together."""
    picture = np.full((_HEIGHT, _WIDTH, 3), 246, np.uint8)
    edges = np.linspace(0, excerpt.shape[1], _WIDTH + 1).astype(int)
    for column, (first, last) in enumerate(zip(edges[:-1], edges[1:], strict=True)):
        part = excerpt[:, first : max(last, first + 1)].clip(-1.0, 1.0)
        high, low = (float(part.max(initial=0.0)), float(part.min(initial=0.0)))
        top, foot = (round((1.0 - value) / 2.0 * (_HEIGHT - 1)) for value in (high, low))
        picture[top : foot + 1, column] = (60, 58, 66)
    return picture


def _loudness(excerpt: Float32) -> Pixels:
    picture = np.full((_HEIGHT, _WIDTH, 3), 246, np.uint8)
    meter = LoudnessMeter(WORKING_RATE, len(excerpt), keep_hops=True)
    meter.push(excerpt)
    whole = excerpt.shape[1] / WORKING_RATE
    for colour, values in zip((_MOMENTARY, _SHORT_TERM), meter.over_time(), strict=True):
        places = _WIDTH * np.arange(1, len(values) + 1) / 10.0 / whole
        known = ~np.isnan(values)
        if not known.any():
            continue
        columns = np.arange(math.ceil(places[known][0]), _WIDTH)
        heights = np.interp(columns, places[known], values[known].clip(*_LUFS))
        share = (heights - _LUFS[0]) / (_LUFS[1] - _LUFS[0])
        rows = ((1.0 - share) * (_HEIGHT - 1)).round().astype(int)
        before = np.concatenate([rows[:1], rows[:-1]])
        for column, row, last in zip(columns, rows, before, strict=True):
            picture[max(0, min(row, last) - 1) : max(row, last) + 2, column] = colour
    return picture


def _lettered(
    panels: Sequence[tuple[str, Pixels, Sequence[tuple[str, float]]]], seconds: float
) -> Pixels:
    """Set pictures one above the other on white, with names and axes.

    Args:
        panels: Name, picture, and the marks of its axis with their heights, 0 to 1.
        seconds: What the width stands for.
    """
    image_module, draw_module, font_module = (
        import_optional(f"PIL.{n}", "the lettered picture", "eval")
        for n in ("Image", "ImageDraw", "ImageFont")
    )
    band = _TOP + _HEIGHT
    size = (_LEFT + _WIDTH + _RIGHT, band * len(panels) + _BOTTOM)
    image = image_module.new("RGB", size, "white")
    draw = draw_module.Draw(image)
    heading, small = font_module.load_default(24), font_module.load_default(16)
    for row, (name, picture, marks) in enumerate(panels):
        foot = band * (row + 1)
        image.paste(image_module.fromarray(picture), (_LEFT, foot - _HEIGHT))
        draw.text((_LEFT, foot - _HEIGHT - 10), name, "black", heading, anchor="ls")
        for text, height in marks:
            place = foot - round(height * _HEIGHT)
            draw.line((_LEFT - 5, place, _LEFT - 1, place), "gray")
            draw.text((_LEFT - 9, place), text, "black", small, anchor="rm")
    for part in range(5):
        place = _LEFT + round(part / 4 * (_WIDTH - 1))
        anchor = "lt" if part == 0 else "rt" if part == 4 else "mt"
        text = duration(seconds * part / 4)
        draw.text((place, band * len(panels) + 10), text, "black", small, anchor=anchor)
    return np.asarray(image)

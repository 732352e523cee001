"""Show before and after: one HTML page that needs nothing else, and a picture."""

from __future__ import annotations

import base64
import html
import math
import os
import re
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from string import Template

import numpy as np
import soxr
from numpy.typing import NDArray

from speakup import __version__
from speakup.blocks import db_to_gain, finite
from speakup.config import WORKING_RATE
from speakup.errors import import_optional
from speakup.files import TemporaryFolder, check_free, write_whole
from speakup.judge.analysis import (
    Analysis,
    analyze,
    delivery_checks,
)
from speakup.judge.spectrogram import TOP_HZ, Pixels, coloured, png, spectrogram_db
from speakup.media import recording
from speakup.media.formats import resolve_format
from speakup.media.writer import AudioWriter
from speakup.result import duration

__all__ = ["write_report", "write_spectrograms"]

EXCERPT_SECONDS = 120.0
"""The most of a recording that a page lets hear and a picture shows, from its beginning."""

_WIDTH, _HEIGHT = 1200, 300
_TICKS_KHZ = (0, 5, 10, 15, 20)
_AUDIO_KBITS_PER_CHANNEL = 96

Excerpt = NDArray[np.float32]


def write_report(
    before: str | os.PathLike[str],
    after: str | os.PathLike[str],
    page: str | os.PathLike[str],
    *,
    overwrite: bool = False,
) -> None:
    """Write one HTML page that needs nothing else: players, spectrograms, measurements, checks.

    At most the first two minutes can be heard and seen; everything is measured.

    Raises:
        InputError: one of the recordings cannot be read.
        OutputError: the page cannot be written, or is there and not to be replaced.
    """
    check_free(Path(page), overwrite=overwrite)
    paths = (Path(before), Path(after))
    measured = [analyze(path) for path in paths]
    excerpts = _excerpts(paths)
    volumes = _volumes(measured)
    pictures = _pictures(excerpts, volumes)
    figures = [
        _figure(name, picture, one, excerpts[0].shape[1] / WORKING_RATE)
        for name, picture, one in zip(("before", "after"), pictures, measured, strict=True)
    ]
    template = resources.files("speakup.judge").joinpath("page.html").read_text(encoding="utf-8")
    text = Template(template).substitute(
        version=__version__,
        title=html.escape(f"{paths[0].stem}: before and after"),
        lead=html.escape(f"{paths[0].name} → {paths[1].name}"),
        figures="\n".join(figures),
        volume_before=f"{volumes[0]:.4f}",
        volume_after=f"{volumes[1]:.4f}",
        audio_before=_audio_uri(excerpts[0]),
        audio_after=_audio_uri(excerpts[1]),
        measurements=_measurement_rows(*measured),
        checks=_check_rows(*measured),
        notes=html.escape(_notes(measured)),
    )
    write_whole(Path(page), text.encode(), overwrite=overwrite)


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
    excerpts = _excerpts(paths)
    pictures = _pictures(excerpts, _volumes([analyze(path) for path in paths]))
    seconds = excerpts[0].shape[1] / WORKING_RATE
    data = png(_lettered(pictures, ("Before", "After"), seconds))
    write_whole(Path(picture), data, overwrite=overwrite)


def _excerpts(paths: Sequence[Path]) -> list[Excerpt]:
    """Give the beginnings, mono or stereo `(C, T)` at 44.1 kHz, of one length."""
    found = [_excerpt(path) for path in paths]
    length = max(1, *(one.shape[1] for one in found))
    return [np.pad(one, ((0, 0), (0, length - one.shape[1]))) for one in found]


def _excerpt(path: Path) -> Excerpt:
    rate = recording.probe(path).sample_rate
    wanted = round(EXCERPT_SECONDS * rate)
    blocks: list[Excerpt] = []
    for block in recording.read_blocks(path):
        blocks.append(block if len(block) <= 2 else block.mean(axis=0, keepdims=True))
        wanted -= block.shape[1]
        if wanted <= 0:
            break
    joined = finite(np.concatenate(blocks, axis=1))
    joined = joined[:, : round(EXCERPT_SECONDS * rate)]
    resampled = soxr.resample(joined.T, rate, WORKING_RATE)
    return np.ascontiguousarray(resampled.T, dtype=np.float32)


def _volumes(measured: Sequence[Analysis]) -> tuple[float, float]:
    """Give the factors, at most 1, that make both sound equally loud."""
    louder_db = measured[1].integrated_lufs - measured[0].integrated_lufs
    if not math.isfinite(louder_db):
        return 1.0, 1.0
    return db_to_gain(min(0.0, louder_db)), db_to_gain(min(0.0, -louder_db))


def _pictures(excerpts: Sequence[Excerpt], volumes: Sequence[float]) -> list[Pixels]:
    levels = [
        spectrogram_db(one * np.float32(volume), WORKING_RATE, width=_WIDTH, height=_HEIGHT)
        for one, volume in zip(excerpts, volumes, strict=True)
    ]
    top_db = max(-100.0, *(float(level.max()) for level in levels))
    return [coloured(level, top_db) for level in levels]


def _figure(name: str, picture: Pixels, measured: Analysis, seconds: float) -> str:
    facts = f"{measured.sample_rate / 1000:g} kHz, bandwidth {measured.bandwidth_hz / 1000:.1f} kHz"
    hertz = "".join(
        f'<span style="bottom:{100 * khz * 1000 / TOP_HZ:.2f}%">{khz}{" kHz" * (khz == 20)}</span>'
        for khz in _TICKS_KHZ
    )
    times = "".join(f"<span>{duration(seconds * part / 4)}</span>" for part in range(5))
    return f"""<figure>
<figcaption>{name.capitalize()} <span>{html.escape(facts)}</span></figcaption>
<div class="plot"><div class="hertz" aria-hidden="true">{hertz}</div>
<div class="picture" data-sound="{name}"><img alt="Spectrogram {name}, 0 to {TOP_HZ / 1000:g} kHz"
 src="{_uri("image/png", png(picture))}"><div class="cursor"></div></div>
<div class="seconds" aria-hidden="true">{times}</div></div>
</figure>"""


def _measurement_rows(before: Analysis, after: Analysis) -> str:
    lines = []
    for (label, old), (_, new) in zip(before.rows(), after.rows(), strict=True):
        cells = f"<td>{_typeset(old)}</td><td>{_typeset(new)}</td>"
        lines.append(f'<tr><th scope="row">{html.escape(label)}</th>{cells}</tr>')
    return "\n".join(lines)


def _typeset(text: str) -> str:
    """Escape for HTML, with true minus signs before numbers."""
    return re.sub(r"(?<!\w)-(?=[\d∞])", "\N{MINUS SIGN}", html.escape(text))


def _check_rows(before: Analysis, after: Analysis) -> str:
    lines = []
    for pair in zip(delivery_checks(before), delivery_checks(after), strict=True):
        cells = "".join(
            f'<td><span class="{"pass" if one.passed else "fail"}">'
            f"{'✓ yes' if one.passed else '✗ no'}</span><small>{_typeset(one.why)}</small></td>"
            for one in pair
        )
        lines.append(f'<tr><th scope="row">{html.escape(pair[0].spec)}</th>{cells}</tr>')
    return "\n".join(lines)


def _notes(measured: Sequence[Analysis]) -> str:
    notes = [
        f"{name}: {warning}."
        for name, one in zip(("Before", "After"), measured, strict=True)
        for warning in one.warnings
    ]
    if max(one.seconds for one in measured) > EXCERPT_SECONDS:
        notes.append(f"To hear and see here: the first {duration(EXCERPT_SECONDS)}.")
    notes.append(
        "Everything is measured from the files; the sound in this page is AAC. "
        f"Made by speakup {__version__}."
    )
    return " ".join(notes)


def _audio_uri(excerpt: Excerpt) -> str:
    """Code an excerpt as AAC, which every browser plays, up to the top of its band."""
    channels = len(excerpt)
    with TemporaryFolder() as folder:
        path = folder / "excerpt.m4a"
        coding = resolve_format(
            path,
            format="m4a",
            bit_depth=None,
            bitrate=_AUDIO_KBITS_PER_CHANNEL * channels,
            sample_rate=WORKING_RATE,
            channels=channels,
        )
        with AudioWriter(path, WORKING_RATE, channels, coding) as writer:
            writer.write(excerpt)
        return _uri("audio/mp4", path.read_bytes())


def _uri(kind: str, data: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode('ascii')}"


def _lettered(pictures: Sequence[Pixels], names: Sequence[str], seconds: float) -> Pixels:
    """Set pictures one above the other on white, with names and axes."""
    image_module, draw_module, font_module = (
        import_optional(f"PIL.{n}", "the lettered picture", "eval")
        for n in ("Image", "ImageDraw", "ImageFont")
    )
    left, top, right, bottom = 72, 44, 24, 34
    band = top + _HEIGHT
    size = (left + _WIDTH + right, band * len(pictures) + bottom)
    image = image_module.new("RGB", size, "white")
    draw = draw_module.Draw(image)
    heading, small = font_module.load_default(24), font_module.load_default(16)
    for row, (picture, name) in enumerate(zip(pictures, names, strict=True)):
        foot = band * (row + 1)
        image.paste(image_module.fromarray(picture), (left, foot - _HEIGHT))
        draw.text((left, foot - _HEIGHT - 10), name, "black", heading, anchor="ls")
        for khz in _TICKS_KHZ:
            place = foot - round(khz * 1000 / TOP_HZ * _HEIGHT)
            draw.line((left - 5, place, left - 1, place), "gray")
            draw.text((left - 9, place), f"{khz} kHz" if khz else "0", "black", small, anchor="rm")
    for part in range(5):
        place = left + round(part / 4 * (_WIDTH - 1))
        anchor = "lt" if part == 0 else "rt" if part == 4 else "mt"
        text = duration(seconds * part / 4)
        draw.text((place, band * len(pictures) + 10), text, "black", small, anchor=anchor)
    return np.asarray(image)

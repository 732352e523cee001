"""Show before and after: one HTML page that needs nothing else."""

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
from numpy.typing import NDArray

from speakup import __version__
from speakup.blocks import Float32
from speakup.config import WORKING_RATE, Config
from speakup.files import TemporaryFolder, check_free, write_whole
from speakup.judge.analysis import Analysis, LoudnessCurve, analyze_over_time, text
from speakup.judge.delivery import SPECS, DeliveryCheck, check_delivery
from speakup.judge.excerpts import doubts, matching_gains, read_excerpts
from speakup.judge.plot import TICKS_KHZ, levels_alike
from speakup.judge.spectrogram import (
    COLOURS,
    RANGE_DB,
    TOP_HZ,
    Pixels,
    coloured,
    png,
)
from speakup.measure.delivery import resolve_target
from speakup.media.formats import resolve_format
from speakup.media.writer import AudioWriter
from speakup.models.catalogue import list_models
from speakup.result import Result, duration

_AUDIO_KBITS_PER_CHANNEL = 96
_NAMES = ("before", "after")

_CURVE_WIDTH, _CURVE_HEIGHT = 1000, 200
_CURVE_POINTS = 600
_CURVE_LUFS = (-50.0, 0.0)


def write_report(
    before: str | os.PathLike[str],
    after: str | os.PathLike[str],
    page: str | os.PathLike[str],
    *,
    target: str = "podcast",
    start: float = 0.0,
    length: float | None = None,
    result: Result | None = None,
    config: Config | None = None,
    overwrite: bool = False,
) -> None:
    """Write one HTML page that needs nothing else: players, pictures, measurements, a verdict.

    At most two minutes can be heard and seen; everything is measured.

    Args:
        before: The recording as it was.
        after: The enhanced one.
        page: The file to write.
        target: What it is to be delivered to, as `Config.loudness`; "off" gives no verdict.
        start: Where the excerpt to hear and see begins, in seconds.
        length: Its seconds, at most 120.
        result: What enhancing gave, to be told on the page.
        config: The settings it was enhanced with.
        overwrite: Replace a page that exists.

    Raises:
        InputError: one of the recordings cannot be read.
        OutputError: the page cannot be written, or exists.
        ConfigError: there is no such target, or the excerpt lies beyond the end.
    """
    paths, place = (Path(before), Path(after)), Path(page)
    check_free(place, overwrite=overwrite)
    wanted = resolve_target(target, None)
    excerpts = read_excerpts(paths, start, length)
    analyses, curves = zip(*(analyze_over_time(path) for path in paths), strict=True)
    seconds = excerpts[0].shape[1] / WORKING_RATE
    gains = matching_gains(analyses)
    levels, top_db = levels_alike(excerpts, gains)
    pictures = [coloured(level, top_db) for level in levels]
    checks = [check_delivery(analyses[1], name) for name in SPECS]
    verdict = None if wanted is None else check_delivery(analyses[1], target)
    template = resources.files("speakup.judge").joinpath("page.html").read_text(encoding="utf-8")
    filled = Template(template).substitute(
        version=__version__,
        title=html.escape(f"{paths[0].stem}: before and after"),
        lead=html.escape(f"{paths[0].name} → {paths[1].name}"),
        doubts=_paragraphs("warning", doubts(analyses, excerpts)),
        excerpt=html.escape(_excerpt_text(start, seconds, analyses)),
        verdict="" if verdict is None else _verdict(verdict),
        pictures="\n".join(map(_picture, _NAMES, pictures, analyses)),
        curves=_curves(curves, None if wanted is None else wanted.lufs, start, seconds),
        volume_before=f"{gains[0]:.4f}",
        volume_after=f"{gains[1]:.4f}",
        start=f"{start:g}",
        top_db=f"{top_db:.1f}",
        range_db=f"{RANGE_DB:g}",
        top_hz=f"{TOP_HZ:g}",
        colours=str(COLOURS.astype(int).tolist()),
        audio_before=_audio_uri(excerpts[0]),
        audio_after=_audio_uri(excerpts[1]),
        measurements=_rows(*analyses),
        levels=_level_rows(*analyses),
        checks="\n".join(_check_row(one) for one in checks if one != verdict),
        done=_done(result, config),
        notes=html.escape(_notes(analyses)),
    )
    write_whole(place, filled.encode(), overwrite=overwrite)


def _paragraphs(kind: str, lines: Sequence[str]) -> str:
    return "\n".join(
        f'<p class="{kind}">{html.escape(line[0].upper() + line[1:])}.</p>' for line in lines
    )


def _excerpt_text(start: float, seconds: float, analyses: Sequence[Analysis]) -> str:
    whole = max(one.seconds for one in analyses)
    if start == 0.0 and whole - seconds < 0.05:
        return "To hear and see here: all of it."
    stretch = f"{duration(start)} to {duration(start + seconds)} of {duration(whole)}"
    return f"To hear and see here: {stretch}. Everything is measured over the whole."


def _verdict(check: DeliveryCheck) -> str:
    mark = "✓ Ready" if check.passed else "✗ Not ready"
    kind = "pass" if check.passed else "fail"
    change = f" To do: {_typeset(check.change)}." if check.change else ""
    words = f"for {html.escape(check.spec)}: {_typeset(check.why)}.{change}"
    return f'<p class="verdict"><span class="{kind}">{mark}</span> {words}</p>'


def _picture(name: str, picture: Pixels, analysis: Analysis) -> str:
    facts = f"{analysis.sample_rate / 1000:g} kHz, bandwidth {analysis.bandwidth_hz / 1000:.1f} kHz"
    hertz = "".join(
        f'<span style="bottom:{100 * khz * 1000 / TOP_HZ:.2f}%">{khz}{" kHz" * (khz == 20)}</span>'
        for khz in TICKS_KHZ
    )
    reach = f"0 to {TOP_HZ / 1000:g} kHz"
    return f"""<figure>
<figcaption>{name.capitalize()} <span>{html.escape(facts)}</span></figcaption>
<div class="plot"><div></div><div class="view wave" data-sound="{name}"><canvas></canvas>
<div class="cursor"></div></div>
<div class="hertz" aria-hidden="true">{hertz}</div>
<div class="view picture" data-sound="{name}"><img alt="Spectrogram {name}, {reach}"
 src="{_uri("image/png", png(picture))}"><canvas hidden></canvas><div class="cursor"></div></div>
<div class="seconds" aria-hidden="true"></div></div>
</figure>"""


def _curves(
    curves: Sequence[LoudnessCurve], target: float | None, start: float, seconds: float
) -> str:
    """Draw loudness over the whole time: short-term as a line, momentary as a thin one."""
    whole = max(1, *(len(one.momentary_lufs) for one in curves)) / 10.0
    parts = []
    for lufs in range(int(_CURVE_LUFS[0]) + 10, int(_CURVE_LUFS[1]), 10):
        y = _curve_y(lufs)
        parts.append(f'<line class="grid" x1="0" x2="{_CURVE_WIDTH}" y1="{y:.1f}" y2="{y:.1f}"/>')
    if seconds < whole - 0.1:
        x, width = (_CURVE_WIDTH * place / whole for place in (start, seconds))
        parts.append(
            f'<rect class="heard" x="{x:.1f}" y="0" width="{width:.1f}" height="{_CURVE_HEIGHT}"/>'
        )
    for name, curve in zip(_NAMES, curves, strict=True):
        for kind, values in (("momentary", curve.momentary_lufs), ("short", curve.short_term_lufs)):
            parts.append(f'<path class="{name} {kind}" d="{_path(values, whole)}"/>')
    if target is not None:
        y = _curve_y(target)
        parts.append(f'<line class="target" x1="0" x2="{_CURVE_WIDTH}" y1="{y:.1f}" y2="{y:.1f}"/>')
    scale = "".join(
        f'<span style="top:{100 * _curve_y(lufs) / _CURVE_HEIGHT:.1f}%">'
        f"{_typeset(str(lufs))}</span>"
        for lufs in range(int(_CURVE_LUFS[0]) + 10, int(_CURVE_LUFS[1]), 10)
    )
    times = "".join(f"<span>{duration(whole * part / 4)}</span>" for part in range(5))
    label = "" if target is None else f'<i class="target">target {_typeset(f"{target:g}")} LUFS</i>'
    return f"""<div class="plot"><div class="hertz" aria-hidden="true">{scale}</div>
<svg viewBox="0 0 {_CURVE_WIDTH} {_CURVE_HEIGHT}" preserveAspectRatio="none" role="img"
 aria-label="Loudness over time, before and after">{"".join(parts)}</svg>
<div class="seconds whole" aria-hidden="true">{times}</div></div>
<p class="key"><i class="before">before</i> <i class="after">after</i> {label}
<span>thick: short-term (3 s); thin: momentary (400 ms)</span></p>"""


def _curve_y(lufs: float) -> float:
    low, high = _CURVE_LUFS
    return _CURVE_HEIGHT * (1.0 - (min(max(lufs, low), high) - low) / (high - low))


def _path(values: NDArray[np.float64], whole: float) -> str:
    """Draw a curve by no more points than can be seen, the loudest of each stretch."""
    stretch = max(1, math.ceil(len(values) / _CURVE_POINTS))
    words, pen = [], "M"
    for start in range(0, len(values), stretch):
        part = values[start : start + stretch]
        if np.isnan(part).all():
            continue
        x = _CURVE_WIDTH * (start + len(part)) / 10.0 / whole
        words.append(f"{pen}{x:.1f} {_curve_y(float(np.nanmax(part))):.1f}")
        pen = "L"
    return "".join(words)


def _rows(before: Analysis, after: Analysis) -> str:
    """Compare what a gain does not change, or tell it from the loudness."""

    def facts(one: Analysis) -> list[tuple[str, str]]:
        floor, peak = one.floor_below_speech_db, one.true_peak_dbtp - one.integrated_lufs
        found = {name: value for name, value in one.rows()}
        kept = ("Bandwidth", "Coded at a low rate", "Clipped samples", "Silence")
        return [
            ("Noise floor, below the speech", text(floor, "dB")),
            ("Signal to steady noise", found["Signal to steady noise"]),
            ("Loudness range", found["Loudness range"]),
            ("True peak, above the loudness", text(peak, "dB")),
            *((name, found[name]) for name in kept),
        ]

    return _table_rows(facts(before), facts(after))


def _level_rows(before: Analysis, after: Analysis) -> str:
    """List the figures as they are in the files."""
    names = ("Loudness", "True peak", "RMS", "Noise floor", "Sample rate", "Channels", "Length")
    facts = ([row for row in one.rows() if row[0] in names] for one in (before, after))
    return _table_rows(*facts)


def _table_rows(before: Sequence[tuple[str, str]], after: Sequence[tuple[str, str]]) -> str:
    return "\n".join(
        f'<tr><th scope="row">{html.escape(label)}</th>'
        f"<td>{_typeset(old)}</td><td>{_typeset(new)}</td></tr>"
        for (label, old), (_, new) in zip(before, after, strict=True)
    )


def _typeset(words: str) -> str:
    """Escape for HTML, with true minus signs before numbers."""
    return re.sub(r"(?<!\w)-(?=[\d∞])", "\N{MINUS SIGN}", html.escape(words))


def _check_row(check: DeliveryCheck) -> str:
    mark = "✓" if check.passed else "✗"
    todo = f"<small>{_typeset(check.change)}</small>" if check.change else ""
    cells = f"<td>{mark} {_typeset(check.why)}{todo}</td>"
    return f'<tr><th scope="row">{html.escape(check.spec)}</th>{cells}</tr>'


def _done(result: Result | None, config: Config | None) -> str:
    """Tell which stages ran, with which models, and what the user should know."""
    if result is None:
        return "<p>Not known: only a report made while enhancing tells it.</p>"
    licences = {one.name: one.licence for one in list_models()}
    lines = []
    for stage in result.stages:
        licence = licences.get(stage.model, "licence: see its card")
        model = f"{stage.model}, {stage.revision} ({licence})" if stage.model else "no model"
        figures = "; ".join(f"{key.replace('_', ' ')} {one:.3g}" for key, one in stage.did.items())
        cells = f"<td>{html.escape(model)}<small>{_typeset(figures)}</small></td>"
        cells += f"<td>{stage.seconds:.1f} s</td>"
        lines.append(f'<tr><th scope="row">{html.escape(stage.name)}</th>{cells}</tr>')
    facts = [f"Gain in all: {_typeset(text(result.gain_db, 'dB'))}."]
    if config is not None:
        changed = {
            name: value for name, value in vars(config).items() if value != getattr(Config(), name)
        }
        words = ", ".join(f"{name} {value}" for name, value in changed.items())
        facts.append(f"Settings: {html.escape(words or 'the defaults')}.")
    table = "".join(lines)
    if table:
        table = f'<div class="wide"><table><tbody>{table}</tbody></table></div>'
    return f"{table}<p>{' '.join(facts)}</p>{_paragraphs('warning', result.warnings)}"


def _notes(analyses: Sequence[Analysis]) -> str:
    notes = [
        f"{name.capitalize()}: {warning}."
        for name, one in zip(_NAMES, analyses, strict=True)
        for warning in one.warnings
    ]
    notes.append(
        "Everything is measured from the files; the sound in this page is AAC. "
        f"Made by speakup {__version__}."
    )
    return " ".join(notes)


def _audio_uri(excerpt: Float32) -> str:
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

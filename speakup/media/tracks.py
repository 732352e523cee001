"""Which tracks an output has, how each is coded, and what writes them."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from speakup.config import Config
from speakup.errors import InputError
from speakup.files import check_space, temporary_folder
from speakup.media import recording
from speakup.media.encoders import held_layout
from speakup.media.formats import CHAPTERED, COVERED, PICTURES, OutputFormat, resolve_format
from speakup.media.recording import AudioInfo
from speakup.media.video import Track, VideoWriter
from speakup.media.writer import AudioWriter, Writer
from speakup.spool import spooled_bytes

_LEAST_SHARE = 0.1
"""What is left of the nominal size where a coder has next to nothing to code."""

_LATE_SECONDS = 0.1


@dataclass(frozen=True)
class PlannedTrack:
    """One audio track to enhance.

    Attributes:
        info: What it is like in the source.
        number: Which of the source's, from 1.
        channels: How many the output has.
        output_format: How the output is coded.
    """

    info: AudioInfo
    number: int
    channels: int
    output_format: OutputFormat

    def coded_bytes(self, seconds: float) -> int:
        """Give the size of the output's sound; the most where the coding is lossless."""
        coded = self.output_format
        if coded.bitrate is not None:
            return round(seconds * coded.bitrate * 1000 / 8)
        bits = int((coded.bit_depth or "24").removesuffix("f"))
        return round(seconds * coded.sample_rate * self.channels * bits / 8)

    def least_bytes(self, seconds: float) -> int:
        """Give the size that the output's sound comes to at least, unless it is mostly silence."""
        exact = self.output_format.codec.startswith("pcm")
        return round(self.coded_bytes(seconds) * (1.0 if exact else _LEAST_SHARE))


def plan_tracks(
    source: Path, target: Path, config: Config, notes: list[str]
) -> tuple[PlannedTrack, ...]:
    """Choose the tracks of an output: all of a video's, or the one that the configuration names.

    A sound file has one, the main one where none is named. Further tracks of a video that
    cannot be decoded, as there are in telephones' recordings, are left out.

    Args:
        source: What is enhanced.
        target: What is written; its extension decides the format unless the configuration does.
        config: What to do.
        notes: Takes a line for each track, and for each thing beside it, that is left out.

    Raises:
        InputError: the source, or the track named, cannot be read.
        ConfigError: the settings do not fit the recording or the target's format.
    """
    opened = recording.opened(source)
    main = opened.track(config.track)
    planned = [_planned(main, main.number, target, config, notes)]
    if planned[0].output_format.name in COVERED:
        notes += main.notes
    if main.chapters and planned[0].output_format.name not in CHAPTERED:
        notes.append(f"left out: {len(main.chapters)} chapters, which wav cannot hold")
    if main.extras:
        notes.append(f"left out: the WAV file's {', '.join(main.extras)}, which are not taken over")
    if planned[0].output_format.name not in PICTURES:
        if main.late > _LATE_SECONDS:
            notes.append(f"left out: {main.late:.2f} s of the pictures before the sound begins")
        return tuple(planned)
    if config.track is not None or main.tracks < 2:
        return tuple(planned)
    found = []
    for number in range(1, main.tracks + 1):
        try:
            info = opened.track(number)
        except InputError:
            notes.append(f"left out: audio track {number}, which cannot be decoded")
            continue
        found.append(_planned(info, number, target, config, notes))
    return tuple(found)


def _planned(
    info: AudioInfo, number: int, target: Path, config: Config, notes: list[str]
) -> PlannedTrack:
    channels = 1 if config.channels == "mono" else info.channels
    wanted = config.sample_rate
    output_format = resolve_format(
        target,
        format=config.format,
        bit_depth=config.bit_depth,
        bitrate=config.bitrate,
        sample_rate=info.sample_rate if wanted == "keep" else int(wanted),
        channels=channels,
    )
    layout = info.layout if channels == info.channels else None
    held, usual = held_layout(output_format.codec, channels, layout)
    if usual is not None:
        note = f"speakers: {layout} becomes {usual}, as {output_format.name} cannot say {layout}"
        notes += [note] * (note not in notes)
    return PlannedTrack(info, number, channels, replace(output_format, layout=held))


def check_output_room(target: Path, track: PlannedTrack, seconds: float | None) -> None:
    """See to it, before the work, that there is room for an output; as `spool.check_room`.

    Where the temporary folder is on the same disk, there must be room for both.

    Raises:
        OutputError: there is not.
    """
    place = target.parent
    needed = track.least_bytes(seconds or 0.0)
    with contextlib.suppress(OSError):
        if place.stat().st_dev == os.stat(temporary_folder()).st_dev:
            rate = track.output_format.sample_rate
            needed += spooled_bytes(seconds or 0.0, rate, track.channels)
    check_space(place, needed, f"for {target.name}", "write elsewhere")


def open_writer(
    source: Path,
    target: Path,
    tracks: Sequence[PlannedTrack],
    when_whole: Callable[[os.stat_result], None] | None = None,
    *,
    overwrite: bool = True,
) -> Writer:
    """Give what writes the tracks: a sound file, or the source's pictures with new sound."""
    main = tracks[0]
    if main.output_format.name in PICTURES:
        made = [
            Track(track.number, track.channels, track.output_format, track.info.start)
            for track in tracks
        ]
        return VideoWriter(target, source, made, when_whole=when_whole, overwrite=overwrite)
    return AudioWriter(
        target,
        main.output_format.sample_rate,
        main.channels,
        main.output_format,
        tags=main.info.tags,
        cover=main.info.cover,
        chapters=main.info.chapters,
        when_whole=when_whole,
        overwrite=overwrite,
    )

"""Probe and decode audio files, in the process that calls; `sandbox` makes that another one.

libsndfile reads what it knows; FFmpeg reads the rest, and goes on where libsndfile gives up
half-way. Three things libsndfile knows go to FFmpeg all the same: MP3, because libsndfile's
decoder writes notes to the terminal; Ogg of more than two channels, because libsndfile leaves
them in Vorbis's order of speakers; and Ogg files joined end to end, of which libsndfile reads
the first.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import soundfile

from speakup.blocks import Block, reframed
from speakup.errors import InputError
from speakup.media import covers
from speakup.media.ffmpeg import (
    AvFile,
    Chapter,
    about_the_recording,
    check_supported,
    cut_short,
    speakers_of,
)
from speakup.media.repair import chunks_about, mended

_UNKNOWN_FRAMES = 2**63 - 1
"""What libsndfile gives for FLAC that was written to a pipe and states no length."""

_SAME_ORDER = ("WAV", "WAVEX", "RF64", "W64", "FLAC")
"""Formats whose channels libsndfile leaves in the order of WAV, which FFmpeg has too."""

_MPEG_EXTENSIONS = (".mp1", ".mp2", ".mp3", ".mpga")


@dataclass(frozen=True)
class AudioInfo:
    """Say what a file holds.

    Attributes:
        path: The file.
        container: The file format, by its short name.
        codec: How the samples are coded.
        sample_rate: In Hz, of the decoded samples.
        channels: How many.
        samples: Per channel; None where only decoding can tell.
        seconds: The length; an estimate where `samples` is None; None where nothing tells.
        has_video: Whether there are moving pictures; a cover picture is none.
        tracks: How many audio tracks; what else is said here is about one of them.
        number: Which one, from 1.
        layout: What FFmpeg calls the arrangement of its speakers; None where the file says none.
        speakers: Which speaker each channel feeds, by FFmpeg's names; empty where it says none.
        start: When the track begins on the clock of the pictures, in seconds; 0 without any.
        tags: Title, artist and the like under FFmpeg's names, in lower case. Tags about the
            file's encoding (encoder, replay gain, brands ...) are left out.
        cover: The cover picture as a whole JPEG or PNG file.
        late: By how many seconds the track begins after the pictures; 0 without any.
        chapters: Its parts that have names.
        extras: Chunks of WAV about the recording that nothing else holds, by name.
        notes: What was found beside the sound and cannot go on, a line for each.
    """

    path: Path
    container: str
    codec: str
    sample_rate: int
    channels: int
    samples: int | None
    seconds: float | None
    has_video: bool
    tags: dict[str, str]
    cover: bytes | None = field(default=None, repr=False)
    tracks: int = 1
    number: int = 1
    layout: str | None = None
    speakers: tuple[str, ...] = ()
    start: float = 0.0
    late: float = 0.0
    chapters: tuple[Chapter, ...] = ()
    extras: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def sure_seconds(self) -> float | None:
        """The length, where the file is large enough to vouch for it; None elsewhere.

        A length is often a mere claim: a field in a header that anything may have written, or the
        file's size by a bit rate, where the file may end in other things than sound. It is taken
        for sure only where there is a byte or more for every sample. So it is of PCM, of most
        lossless files, and never of MP3 and the like, which have a tenth of that. Whatever a file
        claims, what is sure of it is in proportion to its size.
        """
        samples = (self.seconds or 0.0) * self.sample_rate * self.channels
        with contextlib.suppress(OSError):
            return self.seconds if samples <= self.path.stat().st_size else None
        return None


def probe(path: Path, track: int | None = None) -> AudioInfo:
    """Do as `recording.probe`, for a file that can be opened."""
    sound = _open_soundfile(path, track, [])
    if sound is None or next(_soundfile_blocks(sound, 1), None) is None:
        with _opened(path, track) as file:
            return _av_info(path, file)
    tags, cover, has_video = _soundfile_tags(sound), None, False
    layout: str | None = None
    speakers: tuple[str, ...] = ()
    chapters: tuple[Chapter, ...] = ()
    with sound, contextlib.suppress(InputError), AvFile(path) as file:
        tags, cover, has_video = file.tags(), file.cover(), file.has_video
        chapters = file.chapters()
        if sound.format in _SAME_ORDER:
            layout, speakers = speakers_of(file.stream.layout, sound.channels)
    cover, notes = _checked_cover(cover)
    check_supported(path, sound.samplerate, sound.channels)
    samples = sound.frames if sound.frames < _UNKNOWN_FRAMES else None
    return AudioInfo(
        path,
        container=sound.format.lower().replace("wavex", "wav"),
        codec=sound.subtype.lower(),
        sample_rate=sound.samplerate,
        channels=sound.channels,
        samples=samples,
        seconds=None if samples is None else samples / sound.samplerate,
        has_video=has_video,
        tags=tags,
        cover=cover,
        notes=notes,
        layout=layout,
        speakers=speakers,
        chapters=chapters,
        extras=chunks_about(path),
    )


def has_pictures(path: Path) -> bool:
    """Tell whether a file with sound has moving pictures.

    Raises:
        InputError: it cannot be read, or holds no sound.
    """
    with AvFile(path) as file:
        return file.has_video


def _opened(path: Path, track: int | None) -> AvFile:
    """Open a track in FFmpeg; of a file whose main one cannot be decoded, the first that can.

    Raises:
        InputError: nothing can be decoded, or not that track.
    """
    file = AvFile(path, track)
    if track is not None or file.tracks < 2:
        return file
    with file:
        numbers = [file.number, *range(1, file.tracks + 1)]
    for number in numbers:
        with contextlib.suppress(InputError):
            with AvFile(path, number) as tried:
                tried.first_frame()
            return AvFile(path, number)
    return AvFile(path, numbers[0])


def _av_info(path: Path, file: AvFile) -> AudioInfo:
    cover, notes = _checked_cover(file.cover())
    frame = file.first_frame()
    layout, speakers = speakers_of(frame.layout, frame.layout.nb_channels)
    return AudioInfo(
        path,
        container=file.container_name,
        codec=file.stream.codec_context.codec.canonical_name,
        sample_rate=frame.sample_rate,
        channels=frame.layout.nb_channels,
        samples=None,
        seconds=file.seconds,
        has_video=file.has_video,
        tags=file.tags(),
        cover=cover,
        tracks=file.tracks,
        number=file.number,
        layout=layout,
        speakers=speakers,
        start=frame.time or 0.0 if file.has_video else 0.0,
        late=file.late(frame),
        chapters=file.chapters(),
        extras=chunks_about(path),
        notes=notes,
    )


def _checked_cover(cover: bytes | None) -> tuple[bytes | None, tuple[str, ...]]:
    fault = None if cover is None else covers.fault(cover)
    return (cover, ()) if fault is None else (None, (f"left out: the cover picture, {fault}",))


def blocks(path: Path, block_samples: int, track: int | None, notes: list[str]) -> Iterator[Block]:
    """Do as `recording.read_blocks`, for a file that can be opened."""
    done = 0
    stopped: list[str] = []
    sound = _open_soundfile(path, track, notes)
    if sound is not None:
        with sound:
            check_supported(path, sound.samplerate, sound.channels)
            for block in _soundfile_blocks(sound, block_samples):
                done += block.shape[1]
                yield block
            notes += _missing_from_wav(sound)
            if done >= sound.frames:
                return
            if sound.frames < _UNKNOWN_FRAMES:
                stopped = [cut_short(done / sound.samplerate, sound.frames / sound.samplerate)]
            shape = (sound.samplerate, sound.channels)
    try:
        with _opened(path, track) as file:
            if done and (file.stream.rate, file.stream.channels) != shape:
                notes += stopped
                return
            yield from reframed(_without_start(file.arrays(notes), done), block_samples)
    except InputError:
        if not done:
            raise
        notes += stopped


def _without_start(arrays: Iterable[Block], samples: int) -> Iterator[Block]:
    """Drop the first samples of arrays (C, T)."""
    for array in arrays:
        if samples < array.shape[1]:
            yield array[:, samples:]
        samples = max(samples - array.shape[1], 0)


def _open_soundfile(path: Path, track: int | None, notes: list[str]) -> soundfile.SoundFile | None:
    """Open with libsndfile; None where FFmpeg is to read the file."""
    file = mended(path, notes)
    if _is_mpeg(path, file) or track not in (None, 1):
        return None
    try:
        sound = soundfile.SoundFile(file or path)
    except (soundfile.SoundFileError, TypeError, ValueError, OSError):
        return None
    is_hard_ogg = sound.format == "OGG" and (sound.channels > 2 or _is_joined_ogg(path))
    if sound.frames <= 0 or is_hard_ogg:
        sound.close()
        return None
    return sound


def _is_mpeg(path: Path, file: io.BufferedReader | None) -> bool:
    """Tell whether a file, or what it was mended to, is MPEG audio by its name or its beginning."""
    with contextlib.nullcontext(file) if file is not None else path.open("rb") as opened:
        head = opened.read(4)
        opened.seek(0)
    frame_sync = len(head) > 1 and head[0] == 0xFF and head[1] & 0xE0 == 0xE0
    return (path.suffix.lower() in _MPEG_EXTENSIONS) or head[:3] == b"ID3" or frame_sync


def _is_joined_ogg(path: Path) -> bool:
    """Tell whether the last page belongs to another stream than the first (RFC 3533, section 4)."""
    with path.open("rb") as file:
        first = file.read(18)
        file.seek(-min(2**16 + 2**10, path.stat().st_size), os.SEEK_END)
        last = file.read()
    at = last.rfind(b"OggS")
    return at >= 0 and last[at + 14 : at + 18] != first[14:18]


def _soundfile_blocks(sound: soundfile.SoundFile, block_samples: int) -> Iterator[Block]:
    """Read to the end, or to the first block that cannot be decoded whole."""
    with contextlib.suppress(soundfile.SoundFileError):
        while len(samples := sound.read(block_samples, dtype="float32", always_2d=True)):
            yield np.ascontiguousarray(samples.T)


def _soundfile_tags(sound: soundfile.SoundFile) -> dict[str, str]:
    metadata = sound.copy_metadata()
    return about_the_recording(
        {name.replace("tracknumber", "track"): text for name, text in metadata.items()}
    )


def _missing_from_wav(sound: soundfile.SoundFile) -> list[str]:
    """Compare the size in a WAV's header with what is there; libsndfile only logs it.

    Sizes next to 2 or 4 GiB are placeholders of programs that wrote to a pipe.
    """
    found = re.search(r"^data : (\d+) \(should be (\d+)\)", sound.extra_info, re.MULTILINE)
    if found is None:
        return []
    promised, there = int(found[1]), int(found[2])
    placeholder = (promised + 2**16) % 2**31 <= 2**16
    # Some count the header among the samples, which is no loss.
    few = max(0.02 * sound.samplerate * there / max(sound.frames, 1), 1024)
    if promised - there <= few or placeholder:
        return []
    seconds = sound.frames / sound.samplerate
    return [cut_short(seconds, seconds * promised / there)]

"""The encoders behind AudioWriter: FFmpeg's through PyAV, and libsndfile's for Vorbis."""

from __future__ import annotations

import base64
import contextlib
import io
import re
import struct
import tempfile
from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Any, Protocol, cast

import av
import numpy as np
import soundfile
from av.audio.stream import AudioStream
from av.container import Flags
from av.packet import Packet
from av.stream import Disposition
from av.video.stream import VideoStream
from numpy.typing import NDArray

from speakup import __version__
from speakup.media import covers, ogg
from speakup.media.ffmpeg import NOTHING_ELSE, Chapter
from speakup.media.formats import OutputFormat
from speakup.media.output_file import Sink

_LAYOUTS = {
    1: "mono", 2: "stereo", 3: "3.0", 4: "quad", 5: "5.0", 6: "5.1", 7: "6.1", 8: "7.1",
}  # fmt: skip
"""Which speakers the channels feed, in the order of WAV and FFmpeg: L R C LFE Ls Rs ..."""

_VORBIS_ORDER = {
    3: (0, 2, 1), 5: (0, 2, 1, 3, 4), 6: (0, 2, 1, 4, 5, 3),
    7: (0, 2, 1, 5, 6, 4, 3), 8: (0, 2, 1, 6, 7, 4, 5, 3),
}  # fmt: skip
"""Vorbis wants L C R Ls Rs ... LFE (Vorbis I specification, section 4.3.9)."""

_VORBIS_KBITS = (22.5, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 250)
"""Nominal kbit/s per channel at 44.1 kHz of libvorbis's qualities -0.1, 0, 0.1 ... 1."""

_VORBIS_SAMPLES = 8192
"""libvorbis cuts its blocks by what it is given at once: always the same, for the same bytes."""

_SAME_SPEAKERS = {"5.0(side)": "5.0", "5.1(side)": "5.1", "quad(side)": "quad"}
"""Other names for where the surrounds stand, which most formats do not tell apart."""

_ANY_LAYOUT = ("pcm_s16le", "pcm_s24le", "pcm_f32le", "flac")


def held_layout(codec: str, channels: int, layout: str | None) -> tuple[str | None, str | None]:
    """Choose the arrangement of speakers that an encoder is given.

    Returns:
        The arrangement, None for the usual one; and the name of the usual one where another was
        wanted and cannot be held.
    """
    usual = _LAYOUTS.get(channels)
    if layout is None or layout == usual:
        return None, None
    if codec in _ANY_LAYOUT:
        return layout, None
    if _SAME_SPEAKERS.get(layout) == usual:
        return None, None
    return None, usual or f"{channels} channels"


PROGRAM = f"speakup {__version__}"
_MUXERS = {"m4a": "mp4"}
_MUXER_OPTIONS = {
    "wav": {"rf64": "auto"},  # RF64 (EBU Tech 3306) from 4 GiB on
    "mp3": {"id3v2_version": "3"},  # what old players and Windows read
    "m4a": {"brand": "M4A "},
}


class Encoder(Protocol):
    """Turns numbers into a file: start, write any number of times, then finish or abandon."""

    def __init__(self, sink: Sink, output_format: OutputFormat, channels: int) -> None: ...

    def start(
        self, tags: Mapping[str, str], cover: bytes | None, chapters: Sequence[Chapter]
    ) -> None:
        """Write the head of the file."""

    def write(self, numbers: NDArray[Any]) -> None:
        """Append numbers of shape (C, T): int16, int32 (for 24 bits) or float32."""

    def finish(self) -> None:
        """Write what is held back, and the end of the file."""

    def abandon(self) -> None:
        """Free everything without caring for the file."""


class AudioTrack:
    """One audio stream of a container that FFmpeg writes, with its encoder.

    Args:
        container: Opened to be written, not yet started.
        output_format: How the track is coded.
        channels: How many.
        start: Where the first sample is to stand, in samples.
    """

    def __init__(
        self, container: Any, output_format: OutputFormat, channels: int, start: int = 0
    ) -> None:
        self._container = container
        self._rate = output_format.sample_rate
        usual = _LAYOUTS.get(channels, f"{channels} channels")
        self._layout = output_format.layout or usual
        self._numbers = {"16": "s16", "24": "s32"}.get(output_format.bit_depth or "", "flt")
        self._start = self._position = start
        self.stream = cast(AudioStream, container.add_stream(output_format.codec, rate=self._rate))
        self.stream.layout = self._layout
        if output_format.codec == "flac":
            self.stream.format = self._numbers
        if output_format.bitrate is not None:
            self.stream.bit_rate = 1000 * output_format.bitrate

    @property
    def seconds(self) -> float:
        """Tell where the next sample is to stand."""
        return self._position / self._rate

    def write(self, numbers: NDArray[Any]) -> None:
        """Append numbers of shape (C, T)."""
        # Interleaved, because PyAV reads past the plane list of 8 planes.
        interleaved = np.ascontiguousarray(numbers.T).reshape(1, -1)
        frame = av.AudioFrame.from_ndarray(interleaved, format=self._numbers, layout=self._layout)
        frame.sample_rate = self._rate
        frame.time_base = Fraction(1, self._rate)
        frame.pts = self._position
        self._position += numbers.shape[1]
        self._container.mux(self.stream.encode(frame))

    def finish(self) -> None:
        """Write what the encoder holds back."""
        if self._position > self._start:
            self._container.mux(self.stream.encode(None))


class FfmpegEncoder:
    """WAV, FLAC, MP3, Opus and M4A."""

    def __init__(self, sink: Sink, output_format: OutputFormat, channels: int) -> None:
        self._format = output_format
        options = dict(_MUXER_OPTIONS.get(output_format.name, {}))
        if output_format.name == "m4a":
            # The edit list counts in this clock: at the sample rate it states the exact length.
            options["movie_timescale"] = str(output_format.sample_rate)
        muxer = _MUXERS.get(output_format.name, output_format.name)
        self._container = open_container(sink, muxer, options)
        self._track = AudioTrack(self._container, output_format, channels)

    def start(
        self, tags: Mapping[str, str], cover: bytes | None, chapters: Sequence[Chapter]
    ) -> None:
        """Write the head of the file, with tags and cover picture."""
        cover = _usable(cover)
        metadata = {name: value for name, value in tags.items() if value}
        # M4A's own field for the program; the other formats know encoded_by.
        name = "encoding_tool" if self._format.name == "m4a" else "encoded_by"
        metadata[name] = PROGRAM
        if cover is not None and self._format.name == "opus":
            metadata["METADATA_BLOCK_PICTURE"] = _picture_block(cover)
        self._container.metadata.update(metadata)
        if self._format.name in ("flac", "opus"):  # FFmpeg rounds their seconds up
            self._container.metadata.update(_chapter_comments(chapters))
        elif chapters and self._format.name != "wav":
            self._container.set_chapters(_numbered(chapters))
        picture = None
        if cover is not None and self._format.name in ("mp3", "flac", "m4a"):
            picture = _add_cover(self._container, cover)
        self._container.start_encoding()
        if picture is not None:
            self._container.mux(picture)

    def write(self, numbers: NDArray[Any]) -> None:
        """Append numbers of shape (C, T)."""
        self._track.write(numbers)

    def finish(self) -> None:
        """Write what is held back, and the end of the file."""
        self._track.finish()
        self._container.close()

    def abandon(self) -> None:
        """Free the encoder."""
        self._container.close()


def open_container(sink: Sink, muxer: str, options: dict[str, str]) -> Any:
    """Open a container to be written, always the same way for the same samples."""
    container = av.open(sink, "w", format=muxer, options=options)
    # No dates, random numbers or library versions: the same samples give the same bytes.
    flags: Any = Flags.bitexact.value  # an integer, whatever the annotations say
    container.flags |= flags
    return container


def _chapter_comments(chapters: Sequence[Chapter]) -> dict[str, str]:
    """Give chapters as Vorbis comments, in the way that players and FFmpeg read.

    Reference: wiki.xiph.org, Chapter Extension.
    """
    comments = {}
    for number, chapter in enumerate(chapters):
        whole, milliseconds = divmod(round(1000 * chapter.start), 1000)
        hours, rest = divmod(whole, 3600)
        name = f"CHAPTER{number:03d}"
        comments[name] = f"{hours:02d}:{rest // 60:02d}:{rest % 60:02d}.{milliseconds:03d}"
        comments[f"{name}NAME"] = chapter.title
    return comments


def _numbered(chapters: Sequence[Chapter]) -> list[Any]:
    """Give chapters as PyAV takes them."""
    return [
        {
            "id": number,
            "start": round(1000 * chapter.start),
            "end": round(1000 * chapter.end),
            "time_base": Fraction(1, 1000),
            "metadata": {"title": chapter.title} if chapter.title else {},
        }
        for number, chapter in enumerate(chapters)
    ]


def _add_cover(container: Any, cover: bytes) -> Packet[VideoStream] | None:
    demuxer = f"{covers.kind(cover)}_pipe"  # named, so that nothing is guessed from the bytes
    with (
        contextlib.suppress(av.FFmpegError),
        av.open(io.BytesIO(cover), "r", format=demuxer, options=NOTHING_ELSE) as image,
    ):
        source = image.streams.video[0]
        packet = next(image.demux(source))
        packet.stream = container.add_stream_from_template(source)
        attached: Any = Disposition.attached_pic.value  # an integer, as with the flags
        packet.stream.disposition = attached
        packet.pts = packet.dts = 0
        return packet
    return None


class VorbisEncoder:
    """Ogg Vorbis: libsndfile into a nameless file, then with our own headers into the sink."""

    def __init__(self, sink: Sink, output_format: OutputFormat, channels: int) -> None:
        self._sink = sink
        self._order = list(_VORBIS_ORDER.get(channels, range(channels)))
        self._pending = np.empty((0, channels), dtype=np.float32)
        raw = tempfile.TemporaryFile(dir=sink.folder, buffering=0)  # noqa: SIM115
        self._spool = Sink(raw, sink.folder)
        per_channel = (output_format.bitrate or 0) / channels
        quality = np.interp(per_channel, _VORBIS_KBITS, np.arange(-1, 11) / 10)
        self._sound = soundfile.SoundFile(
            self._spool,
            "w",
            output_format.sample_rate,
            channels,
            "VORBIS",
            format="OGG",
            compression_level=min(max(1.0 - quality, 0.0), 1.0),
        )

    def start(
        self, tags: Mapping[str, str], cover: bytes | None, chapters: Sequence[Chapter]
    ) -> None:
        """Note the tags and the cover picture for the head of the file."""
        known = {"track": "TRACKNUMBER", "disc": "DISCNUMBER", "album_artist": "ALBUMARTIST"}
        self._comments = {
            known.get(name, name.upper()): text
            for name, text in tags.items()
            if re.fullmatch("[ -<>-}]+", name)  # Vorbis I specification, section 5.2.2
        }
        self._comments["ENCODED_BY"] = PROGRAM
        self._comments |= _chapter_comments(chapters)
        cover = _usable(cover)
        if cover is not None:
            self._comments["METADATA_BLOCK_PICTURE"] = _picture_block(cover)

    def write(self, numbers: NDArray[Any]) -> None:
        """Append numbers of shape (C, T)."""
        self._pending = np.concatenate([self._pending, numbers[self._order].T])
        whole = len(self._pending) - len(self._pending) % _VORBIS_SAMPLES
        for start in range(0, whole, _VORBIS_SAMPLES):
            self._sound.write(self._pending[start : start + _VORBIS_SAMPLES])
        self._pending = self._pending[whole:]
        self._sink.error = self._sink.error or self._spool.error

    def finish(self) -> None:
        """Complete the stream, then copy it with the comments into the file."""
        self._sound.write(self._pending)
        self._sound.close()
        self._spool.seek(0)
        self._sink.error = self._sink.error or self._spool.error
        if self._sink.error is None:
            ogg.rewrite_comments(self._spool.read, self._sink.write, self._comments)
        self._spool.release(sync=False)

    def abandon(self) -> None:
        """Free the encoder and its spool."""
        self._spool.discard()
        self._sound.close()
        self._spool.release(sync=False)


def _usable(cover: bytes | None) -> bytes | None:
    return None if cover is None or covers.fault(cover) else cover


def _picture_block(cover: bytes) -> str:
    """Wrap a front cover as Vorbis comments carry it (RFC 9639, section 8.8, in base 64)."""
    kind = f"image/{covers.kind(cover)}".encode()
    sizes = struct.pack(">5I", 0, 0, 0, 0, 0)  # description, width, height, depth, colours: unsaid
    head = struct.pack(">II", 3, len(kind)) + kind + sizes + struct.pack(">I", len(cover))
    return base64.b64encode(head + cover).decode()

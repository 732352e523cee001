"""Write a video whose sound is replaced; everything else of it is copied, packet for packet.

Pictures, subtitles, chapters, attachments and tags come from the source as they are, with their
times. Each audio track is encoded anew and begins where the old one began.
"""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import av
import numpy as np
from av.packet import Packet
from av.stream import Disposition
from numpy.typing import NDArray

from speakup.blocks import Block
from speakup.errors import ConfigError
from speakup.media import covers
from speakup.media.encoders import PROGRAM, AudioTrack, open_container
from speakup.media.ffmpeg import AvFile, about_the_recording
from speakup.media.formats import OutputFormat
from speakup.media.output_file import Sink
from speakup.media.writer import Writer
from speakup.spool import Spool

_MUXERS = {"mkv": "matroska", "webm": "webm", "mp4": "mp4", "mov": "mov"}
_QUICKTIME = ("mp4", "mov")
_CLOCK_OF_ITS_OWN = ("mpegts", "mpeg")
"""Broadcast formats, whose clock begins anywhere; files begin at zero."""

_UNNAMED = "SoundHandler"
"""What MP4 calls a track of sound that nobody named."""

_LARGEST_TIMESCALE = 2**31 - 1
_KEPT_DATES = ("creation_time", "timecode")
_REBUILT_DATA = ("tmcd", "text")
"""QuickTime's tracks of time code and of chapter titles, which the muxer makes from the tags."""


@dataclass(frozen=True)
class Track:
    """An audio track of the output.

    Attributes:
        number: Which of the source's audio tracks it replaces, from 1.
        channels: How many.
        output_format: How it is coded.
        start: Where it begins on the clock of the pictures, in seconds.
    """

    number: int
    channels: int
    output_format: OutputFormat
    start: float = 0.0


class VideoWriter(Writer):
    """Write a video with its audio tracks replaced.

    The tracks are written one after the other. All but the last are kept in a private temporary
    file until the last one comes, because a player needs them side by side.

    Args:
        path: Where the video is to appear.
        source: The video whose pictures, subtitles and so on are copied.
        tracks: The audio tracks, in the order in which they will be written; the source's other
            ones are left out.
        when_whole: As `Writer` takes it.
        overwrite: Whether the video may replace what is there by then.

    Raises:
        ConfigError: the output's container cannot hold the source's pictures.
        InputError: the source cannot be read.
        OutputError: the file cannot be written; says why.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        source: str | os.PathLike[str],
        tracks: Sequence[Track],
        *,
        when_whole: Callable[[os.stat_result], None] | None = None,
        overwrite: bool = True,
    ) -> None:
        depths = [track.output_format.bit_depth for track in tracks]
        what = f"writing {tracks[0].output_format.name}"
        super().__init__(path, depths, what, when_whole, overwrite)
        self._source, self._tracks = Path(source), tuple(tracks)
        self._waiting: list[Iterator[Block]] = []
        self._held = contextlib.ExitStack()
        self._container: _Container | None = None

    def write(self, block: NDArray[np.floating[Any]]) -> None:
        assert self._container is not None, "write() outside the with statement"
        if self._current < len(self._spools):
            self._spools[self._current].write(np.asarray(block, np.float32))
            return
        self._encode(self._current, block)
        self._catch_up(self._container.seconds(self._current))

    def next_track(self) -> None:
        super().next_track()
        if self._current == len(self._spools):
            self._waiting = [spool.read() for spool in self._spools]

    def _start(self, sink: Sink) -> None:
        kept = self._held.enter_context(_Source(self._source))
        self._spools = [
            self._held.enter_context(Spool(track.channels)) for track in self._tracks[:-1]
        ]
        self._container = _Container(sink, kept, self._tracks)
        self._container.add_streams(self._file.path)
        self._container.start(self._file.path)

    def _encode(self, index: int, block: NDArray[np.floating[Any]]) -> None:
        assert self._container is not None
        container, numbers = self._container, self._quantisers[index](block)
        if numbers.shape[1]:
            self._guarded(lambda: container.write(index, numbers))

    def _catch_up(self, seconds: float) -> None:
        """Bring the tracks that wait, and all that is copied, to where the last track is."""
        assert self._container is not None
        container = self._container
        for index, blocks in enumerate(self._waiting):
            while container.seconds(index) < seconds and (block := next(blocks, None)) is not None:
                self._encode(index, block)
        self._guarded(lambda: container.copy(seconds))

    def _finish(self) -> None:
        assert self._container is not None
        self._catch_up(math.inf)
        self._guarded(self._container.finish)
        self.warnings += self._container.warnings
        self._container = None

    def _let_go(self) -> None:
        container, self._container = self._container, None
        with self._held:
            if container is not None:
                container.abandon()


class _Source:
    """The source, and the packets that are copied from it; a context manager."""

    def __init__(self, path: Path) -> None:
        # AVI does not say when a picture is shown, only when it is decoded.
        self._file = AvFile(path, options={"fflags": "+genpts"})
        self.container: Any = self._file.container
        self.reading_error = ""
        first = self.container.start_time or 0
        if self.container.format.name not in _CLOCK_OF_ITS_OWN:
            first = 0
        self.shift = first / av.time_base
        """What is taken from all times, in seconds."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.__exit__()

    def packets(self, streams: Sequence[Any]) -> Iterator[Packet[Any]]:
        """Yield the packets of some streams in the order of the file."""
        if not streams:
            return
        packets = self.container.demux(*streams)
        while True:
            try:
                packet = next(packets)
            except StopIteration:
                return
            except (av.FFmpegError, OSError) as error:
                self.reading_error = f"reading stopped early: {error.strerror or error}"
                return
            if packet.size:
                yield packet


class _Container:
    """The output's container; add streams, start, then write and copy side by side.

    Attributes:
        warnings: What of the source the output cannot hold.
    """

    def __init__(self, sink: Sink, kept: _Source, tracks: Sequence[Track]) -> None:
        self.warnings: list[str] = []
        self._kept, self._tracks = kept, tracks
        self._name = tracks[0].output_format.name
        self._out = open_container(sink, _MUXERS[self._name], self._options())
        self._codecs: set[str] = set(self._out.supported_codecs)
        self._targets: dict[int, Any] = {}
        self._covers: list[Any] = []
        self._audio: dict[int, AudioTrack] = {}
        self._pending: Packet[Any] | None = None
        self._refused = 0

    def _options(self) -> dict[str, str]:
        if self._name not in _QUICKTIME:
            return {}
        options = {}
        source = self._kept.container
        rates = [track.output_format.sample_rate for track in self._tracks]
        clocks = [stream.time_base.denominator for stream in source.streams.video]
        # The edit lists count in this clock: all tracks' own, so that no start is rounded.
        common = math.lcm(*rates, *clocks)
        options["movie_timescale"] = str(common if common <= _LARGEST_TIMESCALE else max(rates))
        if len(clocks) == 1:  # else the muxer takes a multiple where it finds the clock coarse
            options["video_track_timescale"] = str(clocks[0])
        if any(name.startswith("com.") for name in source.metadata):
            options["movflags"] = "use_metadata_tags"  # Apple's own fields: place, camera ...
        return options

    def add_streams(self, path: Path) -> None:
        """Make the output's streams, in the order of the source's.

        Raises:
            ConfigError: the container cannot hold the pictures.
        """
        numbers = {track.number: index for index, track in enumerate(self._tracks)}
        heard = 0
        for stream in self._kept.container.streams:
            if stream.type == "audio":
                heard += 1
                if heard in numbers:
                    self._add_audio(numbers[heard], stream)
            elif stream.type == "video" and stream.disposition & Disposition.attached_pic:
                self._add_cover(stream)
            elif stream.type == "video":
                self._copy_pictures(stream, path)
            elif stream.type == "subtitle":
                self._copy_or_leave_out(stream, "subtitles", _codec(stream) in self._codecs)
            elif stream.type == "attachment":
                self._copy_or_leave_out(stream, "an attachment", self._name == "mkv")
            elif stream.type == "data" and _tag(stream) not in _REBUILT_DATA:
                self._copy_or_leave_out(stream, "a data track", False)

    def _add_audio(self, index: int, like: Any) -> None:
        track = self._tracks[index]
        start = math.ceil((track.start - self._kept.shift) * track.output_format.sample_rate)
        self._audio[index] = AudioTrack(self._out, track.output_format, track.channels, start)
        made = self._audio[index].stream
        made.metadata.update(about_the_recording(like.metadata))
        name = made.metadata.get("title") or like.metadata.get("handler_name", "")
        if name not in ("", _UNNAMED):
            made.metadata["handler_name" if self._name in _QUICKTIME else "title"] = name
        if "language" in like.metadata:
            made.metadata["language"] = like.metadata["language"]
        made.disposition = int(like.disposition)  # type: ignore[assignment]

    def _copy(self, stream: Any) -> Any:
        # Opaque, because nothing is encoded: not every codec that can be copied has an encoder.
        made = self._out.add_stream_from_template(stream, opaque=True)
        made.metadata.update(_without_statistics(stream.metadata))
        made.disposition = int(stream.disposition)
        if stream.type not in ("attachment",):
            self._targets[stream.index] = made
        return made

    def _copy_pictures(self, stream: Any, path: Path) -> None:
        codec = _codec(stream)
        try:
            made = self._copy(stream)
        except ValueError as error:
            problem = f"{self._name} cannot hold {codec or 'unknown'} video"
            raise ConfigError(problem, path, "Choose mkv, or a sound file") from error
        if self._name in _QUICKTIME and _is_quicktime(self._kept.container):
            with contextlib.suppress(ValueError, UnicodeDecodeError):
                made.codec_context.codec_tag = stream.codec_context.codec_tag  # hvc1, not hev1

    def _copy_or_leave_out(self, stream: Any, what: str, can: bool) -> None:
        if can:
            with contextlib.suppress(ValueError, AttributeError):  # the latter in older PyAV
                self._copy(stream)
                return
        codec = f" ({_codec(stream)})" if _codec(stream) else ""
        self.warnings.append(f"left out: {what}{codec}, which {self._name} cannot hold")

    def _add_cover(self, stream: Any) -> None:
        if _codec(stream) not in ("mjpeg", "png"):
            self.warnings.append("left out: a cover picture that is not JPEG or PNG")
            return
        if self._name in _QUICKTIME:
            with contextlib.suppress(ValueError):
                self._copy(stream)
                return
        if self._name == "mkv" and hasattr(self._out, "add_attachment"):
            self._covers.append(stream)
            return
        self.warnings.append(f"left out: a cover picture, which {self._name} cannot hold")

    def start(self, path: Path) -> None:
        """Write the head of the file.

        Raises:
            ConfigError: the container cannot hold what it was given.
        """
        source = self._kept.container
        known = about_the_recording(source.metadata)
        for name in source.metadata:  # Apple's own names tell capitals apart.
            if name.startswith("com.") and name.lower() in known and self._name in _QUICKTIME:
                known[name] = known.pop(name.lower())
        dates = {name: source.metadata[name] for name in _KEPT_DATES if name in source.metadata}
        program = {"encoding_tool" if self._name in _QUICKTIME else "encoded_by": PROGRAM}
        self._out.metadata.update(known | dates | program)
        if chapters := source.chapters():
            self._out.set_chapters(chapters)
        pictures = {id(stream) for stream in self._covers}
        self._packets = self._kept.packets(
            [stream for stream in source.streams if stream.index in self._targets] + self._covers
        )
        if pictures:
            self._attach_covers()
        try:
            self._out.start_encoding()
        except (ValueError, av.FFmpegError) as error:
            problem = f"{self._name} cannot hold what is in this video"
            raise ConfigError(problem, path, "Choose mkv, or a sound file") from error

    def _attach_covers(self) -> None:
        """Attach pictures to Matroska, whose way of holding a cover this is."""
        waiting = []
        wanted = {stream.index for stream in self._covers}
        for packet in self._packets:  # FFmpeg gives the covers before anything else
            if packet.stream.index not in wanted:
                waiting.append(packet)
                break
            data = bytes(packet)
            if (fault := covers.fault(data)) is not None:
                self.warnings.append(f"left out: a cover picture, {fault}")
                continue
            kind = covers.kind(data)
            name = "cover.png" if kind == "png" else "cover.jpg"
            self._out.add_attachment(name, f"image/{kind}", data)
        self._pending = waiting[0] if waiting else None

    def seconds(self, index: int) -> float:
        """Tell how far an audio track is written."""
        return self._audio[index].seconds

    def write(self, index: int, numbers: NDArray[Any]) -> None:
        """Append numbers (C, T) to an audio track."""
        self._audio[index].write(numbers)

    def copy(self, seconds: float) -> None:
        """Copy what comes before a time."""
        while True:
            packet, self._pending = self._pending or next(self._packets, None), None
            if packet is None:
                return
            when = packet.pts if packet.dts is None else packet.dts
            if when is not None and self._seconds(packet, when) > seconds:
                self._pending = packet
                return
            target = self._targets.get(packet.stream.index)
            if target is not None:
                self._shift(packet)
                packet.stream = target
                try:
                    self._out.mux(packet)
                except (av.FFmpegError, ValueError):  # of a damaged source, with impossible times
                    self._refused += 1

    def _seconds(self, packet: Packet[Any], when: int) -> float:
        return float(when * packet.time_base) - self._kept.shift

    def _shift(self, packet: Packet[Any]) -> None:
        if not self._kept.shift:
            return
        ticks = round(self._kept.shift / packet.time_base)
        packet.pts = None if packet.pts is None else packet.pts - ticks
        packet.dts = None if packet.dts is None else packet.dts - ticks

    def finish(self) -> None:
        """Write what is held back, and the end of the file."""
        for track in self._audio.values():
            track.finish()
        self._out.close()
        if self._refused:
            self.warnings.append(f"damaged: {self._refused} packets could not be copied")
        if self._kept.reading_error:
            self.warnings.append(self._kept.reading_error)

    def abandon(self) -> None:
        """Free everything."""
        self._out.close()


def _codec(stream: Any) -> str:
    context = stream.codec_context
    return "" if context is None else str(context.codec.canonical_name)


def _tag(stream: Any) -> str:
    """Give what QuickTime calls the kind of a data track."""
    handler = stream.metadata.get("handler_name", "")
    if stream.name == "bin_data" and "timecode" not in stream.metadata:
        return "text" if "ubtitle" in handler or "text" in handler.lower() else ""
    return "tmcd" if "timecode" in stream.metadata else ""


def _is_quicktime(container: Any) -> bool:
    return "mp4" in container.format.name.split(",")


def _without_statistics(metadata: dict[str, str]) -> dict[str, str]:
    """Leave out what Matroska's muxers count, and write anew."""
    return {
        name: text
        for name, text in metadata.items()
        if name.upper() != "DURATION" and not name.upper().startswith(("_STATISTICS", "NUMBER_OF"))
    }

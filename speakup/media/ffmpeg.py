"""Read through FFmpeg (PyAV): open, decode, tags, cover picture."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain, pairwise
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.audio.frame import AudioFrame
from av.audio.resampler import AudioResampler
from av.audio.stream import AudioStream
from av.stream import Disposition
from numpy.typing import NDArray

from speakup.blocks import HIGHEST_RATE, LOWEST_RATE, MOST_CHANNELS
from speakup.errors import InputError
from speakup.media.repair import mended

_MAX_PADDING = 8192
"""Most samples an encoder adds at the end; what is beyond is audio, whatever the header says."""

_MAX_SILENCE_SECONDS, _MOST_SECONDS = 3600.0, 86_400.0
_LATE_SECONDS = 0.1
_SILENT_SAMPLES = 4096
_SILENT_BYTE = {"u8": b"\x80", "u8p": b"\x80"}

_FROM_ZERO = {"matroska", "mp4"}
"""Files whose clock begins at zero, so that what begins later begins late."""

_CLOCKED = {"matroska", "mp4", "asf", "ogg", "mpegts", "mpeg", "flv", "avi", "amr"}
"""Files that say of sound when it is to be heard; elsewhere FFmpeg adds up the packets."""

_STATED_END = {"matroska", "flv", "asf"}
"""Videos that state their length and play without what has been cut off."""

_GUESSED_LENGTHS = ("mp3", "aac", "ac3", "eac3", "dts", "amr")
"""Where FFmpeg takes the length from the bit rate, but for MP3 that tells its encoder's delay."""

_ODD_TAGS: Any = (
    {} if int(av.__version__.partition(".")[0]) >= 19 else {"metadata_errors": "surrogateescape"}
)
"""Bytes of tags that are not UTF-8 are kept as surrogates; from version 19 on PyAV always does."""

NOTHING_ELSE = {"protocol_whitelist": "none"}
"""A playlist posing as audio must not make FFmpeg open other files, or the network."""

_NOT_ABOUT_THE_RECORDING = re.compile(
    r"major_brand|minor_version|compatible_brands|creation_time|handler_name|vendor_id|duration"
    r"|encoder|encoder_.*|encoded_by|encoding_tool|software|itun(smpb|norm|pgap)|id3v2_priv\..*"
    r"|replaygain_.*|r128_.*|mp3gain_.*|_statistics_.*|bps|number_of_(frames|bytes)"
    r"|waveformatextensible_channel_mask|metadata_block_picture|coding_history|umid"
    r"|time_reference|timecode"
)
"""Tags about one encoding of the recording, untrue of a file made from it."""


@dataclass(frozen=True)
class Chapter:
    """A part of a recording that has a name; times are in seconds."""

    start: float
    end: float
    title: str


class AvFile:
    """An audio file open in FFmpeg; a context manager.

    Args:
        path: The file.
        track: Which of its audio tracks, from 1; None takes the one FFmpeg finds best.
        options: Further ones for FFmpeg's demuxer.

    Attributes:
        container: PyAV's.
        stream: The audio stream.

    Raises:
        InputError: FFmpeg does not know the format, or finds no audio, or not that track, in it.
    """

    def __init__(
        self, path: Path, track: int | None = None, *, options: dict[str, str] | None = None
    ) -> None:
        self._path = path
        with contextlib.ExitStack() as stack:
            # An open file, because a path with a colon would be taken for a network address.
            file = stack.enter_context(mended(path) or path.open("rb"))
            try:
                self.container = stack.enter_context(
                    av.open(file, "r", options=NOTHING_ELSE | (options or {}), **_ODD_TAGS)
                )
            except (av.FFmpegError, ValueError, OSError) as error:
                problem = "is not audio, or too damaged or incomplete to decode"
                raise InputError(problem, path, "Check that it plays elsewhere") from error
            stream = self._chosen(track)
            if not isinstance(stream, AudioStream) or stream.codec_context is None:
                raise self._nothing()
            self.stream: AudioStream = stream
            self._stack = stack.pop_all()

    def __enter__(self) -> AvFile:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _chosen(self, track: int | None) -> Any:
        found = self.container.streams.audio
        if not found:
            raise InputError("holds no audio track", self._path, "Give a file with sound")
        if track is None:
            return self.container.streams.best("audio") or found[0]
        if not 1 <= track <= len(found):
            known = "1 audio track" if len(found) == 1 else f"{len(found)} audio tracks"
            raise InputError(f"has no audio track {track}", self._path, f"It has {known}")
        return found[track - 1]

    def _nothing(self) -> InputError:
        problem = "holds no audio that can be decoded"
        return InputError(problem, self._path, "Check that it plays elsewhere")

    @property
    def container_name(self) -> str:
        """Name the file format; of the names a family of formats goes by, the extension's."""
        names = self.container.format.name.split(",")
        extension = self._path.suffix.lower().lstrip(".")
        return extension if extension in names else names[0]

    @property
    def seconds(self) -> float | None:
        """Tell the length as the headers give it; None where they give only the video's."""
        if self.stream.duration is not None and self.stream.time_base is not None:
            return float(self.stream.duration * self.stream.time_base)
        duration = None if self.has_video else self.container.duration
        return None if duration is None else duration / av.time_base

    @property
    def has_video(self) -> bool:
        """Tell whether there are moving pictures, not only a cover picture."""
        pictures = Disposition.attached_pic
        return any(not stream.disposition & pictures for stream in self.container.streams.video)

    @property
    def tracks(self) -> int:
        """Count the audio tracks."""
        return len(self.container.streams.audio)

    @property
    def number(self) -> int:
        """Tell which audio track this is, from 1."""
        indices = [stream.index for stream in self.container.streams.audio]
        return indices.index(self.stream.index) + 1

    def late(self, first: AudioFrame) -> float:
        """Tell by how many seconds a video's sound begins after the file does."""
        if not self.has_video or first.time is None:
            return 0.0
        zero = 0.0 if set(self._format_names) & _FROM_ZERO else self.container.start_time or 0
        return max(first.time - zero / av.time_base, 0.0)

    def tags(self) -> dict[str, str]:
        """Read the tags about the recording."""
        return about_the_recording({**self.stream.metadata, **self.container.metadata})

    def chapters(self) -> tuple[Chapter, ...]:
        """Read the chapters."""
        found: list[Chapter] = []
        for one in self.container.chapters():
            start, end = (float(one[name] * one["time_base"]) for name in ("start", "end"))
            title = _mended(one["metadata"].get("title", ""))
            # Where an ID3 chapter has no title FFmpeg gives its identifier, which its own writer
            # makes of the number.
            found.append(Chapter(start, end, "" if title == f"ch{len(found)}" else title))
        return tuple(found)

    def cover(self) -> bytes | None:
        """Read the cover picture; to be done before decoding."""
        for stream in self.container.streams.video:
            if stream.disposition & Disposition.attached_pic:
                with contextlib.suppress(av.FFmpegError, StopIteration):
                    return bytes(next(self.container.demux(stream))) or None
        return None

    def first_frame(self) -> AudioFrame:
        """Decode the first frame.

        Raises:
            InputError: nothing can be decoded.
        """
        frame = next(self._frames([]), None)
        if frame is None:
            raise self._nothing()
        check_supported(self._path, frame.sample_rate, frame.layout.nb_channels)
        return frame

    def arrays(self, notes: list[str]) -> Iterator[NDArray[np.float32]]:
        """Decode, giving arrays (C, T) of any length at the first frame's rate and channels.

        Args:
            notes: Takes a line for each thing wrong with the file.

        Raises:
            InputError: nothing can be decoded.
        """
        heard = self._heard(notes)
        first = next(heard, (None, 0.0))
        if first[0] is None:
            raise self._nothing()
        frame = first[0]
        check_supported(self._path, frame.sample_rate, frame.layout.nb_channels)
        rate, done = frame.sample_rate, 0
        clock = self._clock(frame)
        placed = clock.in_place(chain([first], heard))
        promised = self._promised(clock, rate)
        has_edit_list = "mp4" in self._format_names
        arrays = _interleaved_floats(frame, placed)
        for array in _without_padding(arrays, promised if has_edit_list else None):
            done += array.shape[1]
            yield array
        notes += clock.notes()
        if promised is not None and done < promised - max(0.02 * promised, 0.1 * rate):
            notes.append(cut_short(done / rate, promised / rate))
        elif (end := self._end_of_file()) is not None:
            notes.append(cut_short(*end))

    @property
    def _format_names(self) -> list[str]:
        return self.container.format.name.split(",")

    def _clock(self, first: AudioFrame) -> Clock:
        """Tell how far the times of this file's frames are to be believed."""
        names = set(self._format_names)
        from_zero = not self.has_video and bool(names & _FROM_ZERO)
        seconds = self.seconds
        end = (
            None if seconds is None else seconds + (0.0 if "mp4" not in names else first.time or 0)
        )
        believed = self.has_video or bool(names & _CLOCKED)
        late = first.time or 0.0 if from_zero else 0.0
        return Clock(believed=believed, late=late, end=end)

    def _promised(self, clock: Clock, rate: int) -> int | None:
        """Give the samples that the headers promise, with the silence before the first frame."""
        seconds = self.seconds
        if seconds is None:
            return None
        if set(self._format_names) & set(_GUESSED_LENGTHS):
            if not self.stream.start_time or self._states_no_frames():
                return None
        elif "matroska" in self._format_names:
            seconds -= clock.late  # which the file's length counts
        return round((seconds + clock.lead) * rate)

    def _states_no_frames(self) -> bool:
        """Tell whether an MP3's length is guessed: its first frame, which holds no sound, says 0.

        Reference: the headers of Xing and LAME: four bytes of name, of flags, of frames if flag 1.
        """
        with self._path.open("rb") as file:
            head = file.read(10)
            if head[:3] == b"ID3":  # ID3v2.4, section 3.1: seven bits a byte
                file.seek(10 + sum(byte << 7 * (9 - at) for at, byte in enumerate(head) if at > 5))
            found = re.search(rb"(?:Xing|Info)...(.)(....)", file.read(4096), re.DOTALL)
        return found is not None and not (found[1][0] & 1 and any(found[2]))

    def _end_of_file(self) -> tuple[float, float] | None:
        """Give where a video's last packet ends, and where its file says so; None if they agree."""
        duration = self.container.duration
        if not self.has_video or duration is None or not set(self._format_names) & _STATED_END:
            return None
        stated = duration / av.time_base
        return (self._end, stated) if self._end < stated - max(0.02 * stated, 0.5) else None

    def _frames(self, notes: list[str]) -> Iterator[AudioFrame]:
        return (frame for frame, _ in self._heard(notes) if frame is not None)

    def _heard(self, notes: list[str]) -> Iterator[tuple[AudioFrame | None, float]]:
        """Yield frames, each with how many seconds of damaged packets came before; None ends.

        All of a video is looked at: it tells where the file ends.
        """
        damaged, lost, self._end = 0, 0.0, 0.0
        packets = self.container.demux(*([] if self.has_video else [self.stream]))
        while True:
            try:
                packet = next(packets)
            except StopIteration:
                break
            except (av.FFmpegError, OSError) as error:
                notes.append(f"reading stopped early: {error.strerror or error}")
                break
            length = float((packet.duration or 0) * (packet.time_base or 0))
            if packet.pts is not None:
                self._end = max(self._end, float(packet.pts * packet.time_base) + length)
            if packet.stream.index != self.stream.index:
                continue
            try:
                for frame in packet.decode():
                    if frame.samples:
                        yield frame, lost
                        lost = 0.0
            except av.FFmpegError:
                if not _is_no_sound(packet):
                    damaged += not _is_pause(packet)
                    lost += length
        yield None, lost
        if damaged:
            notes.append(f"damaged: {damaged} packets of audio cannot be decoded")


def _is_no_sound(packet: Any) -> bool:
    """Tell whether a packet is a tag between MP3s that were joined, or zeros behind one."""
    data = bytes(packet)
    is_mp3 = packet.stream.name.startswith("mp3")
    return is_mp3 and (data[:3] in (b"ID3", b"TAG") or not data.strip(b"\0"))


def _is_pause(packet: Any) -> bool:
    """Tell whether a packet is what a telephone sends instead of speech while there is none.

    Reference: RFC 4867, section 5.3; 3GPP TS 26.101 and 26.201, table 1a: kinds of frames.
    """
    speech = {"amrnb": 8, "amr_nb": 8, "amrwb": 9, "amr_wb": 9}.get(packet.stream.name, 16)
    return packet.size > 0 and bytes(packet)[0] >> 3 & 15 >= speech


def check_supported(path: Path, sample_rate: int, channels: int) -> None:
    """See to it that the sound is one that can be worked on.

    Raises:
        InputError: it is not.
    """
    if not LOWEST_RATE <= sample_rate <= HIGHEST_RATE:
        known = f"{LOWEST_RATE // 1000} to {HIGHEST_RATE // 1000} kHz are supported"
        raise InputError(f"has a sample rate of {sample_rate} Hz; {known}", path)
    if channels > MOST_CHANNELS:
        raise InputError(f"has {channels} channels; {MOST_CHANNELS} are supported", path)


def speakers_of(layout: Any, channels: int) -> tuple[str | None, tuple[str, ...]]:
    """Name an arrangement of speakers and each of them; nothing where a file says only how many."""
    if layout is None or layout.nb_channels != channels or layout.name.endswith("channels"):
        return None, ()
    return layout.name, tuple(channel.name for channel in layout.channels)


def cut_short(seconds: float, promised: float) -> str:
    """Say that a file is shorter than its headers."""
    return f"cut off or damaged: {seconds:.2f} s of {promised:.2f} s can be decoded"


def about_the_recording(metadata: dict[str, str]) -> dict[str, str]:
    """Choose the tags that are true of every copy of the recording, names in lower case."""
    named = {name.lower(): _mended(text) for name, text in metadata.items() if text}
    return {
        name: text
        for name, text in named.items()
        if text != "und" and not _NOT_ABOUT_THE_RECORDING.fullmatch(name)
    }


def _mended(text: str) -> str:
    """Read as Windows-1252 what is no UTF-8: old programs wrote their own code page."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-8", "surrogateescape").decode("cp1252", "replace")
    return text


class Clock:
    """Keeps sound at its place in time: what a file leaves out, by its frames' times, is silence.

    Times are rounded to milliseconds in some containers, so that only what is most of a frame
    long is a gap. A jump of over a second must be confirmed by the frame that follows, and what
    is longer than an hour, unless the file is said to be so long, is a broken clock.

    Args:
        believed: Whether frames have times of their own; else times only tell how long damaged
            packets were.
        late: Seconds from the beginning of the file to the first frame.
        end: Where the headers say that it ends; None where they do not.

    Attributes:
        late: As given.
        lead: Seconds of silence before the first frame.
    """

    def __init__(self, *, believed: bool, late: float, end: float | None) -> None:
        self.late = late
        self.lead = late if _LATE_SECONDS < late <= _MAX_SILENCE_SECONDS else 0.0
        self._believed, self._end = believed, end
        self._room = max(_MAX_SILENCE_SECONDS, min(end or 0.0, _MOST_SECONDS))
        self._filled = 0.0
        self._refused = late if late > _MAX_SILENCE_SECONDS else 0.0

    def in_place(self, heard: Iterable[tuple[AudioFrame | None, float]]) -> Iterator[AudioFrame]:
        """Yield frames and the silence between them.

        Args:
            heard: Frames, each with how many seconds of damaged packets came before; None, with
                how many came last.
        """
        expected: float | None = None
        surplus = 0.0  # of silence, by a time that was not true
        last: AudioFrame | None = None
        for (frame, lost), (following, _) in pairwise(chain(heard, [(None, 0.0)])):
            if frame is None:
                if last is not None and lost > 0.0:
                    yield from self._fill(last, lost)
                return
            length = frame.samples / frame.sample_rate
            if last is None:
                gap = self.lead or lost
            elif expected is None:
                gap = lost
            else:
                gap = self._gap(frame, following, expected, lost)
                if -gap > max(0.75 * length, 0.01):
                    surplus = min(surplus - gap, self._filled)
                owed = min(surplus, max(gap, 0.0))
                surplus, gap = surplus - owed, gap - owed
            if gap > max(0.75 * length, 0.01):
                yield from self._fill(frame, gap)
            expected = frame.time if frame.time is not None else expected
            expected = None if expected is None else expected + length
            yield frame
            last = frame

    def _gap(
        self, frame: AudioFrame, following: AudioFrame | None, expected: float, lost: float
    ) -> float:
        """Tell how much is missing before a frame."""
        if frame.time is None:
            return lost
        gap = frame.time - expected
        if not self._believed:
            return min(gap, lost)
        believed = gap <= 1.0 or self._confirms(frame.time, following)
        return gap if believed else 0.0

    def _confirms(self, time: float, following: AudioFrame | None) -> bool:
        if following is None or following.time is None:
            return self._end is not None and time <= self._end + 1.0
        return time < following.time

    def _fill(self, frame: AudioFrame, seconds: float) -> Iterator[AudioFrame]:
        if seconds > self._room:
            self._refused += seconds
            return
        self._room -= seconds
        self._filled += seconds
        yield from _silence(frame, round(seconds * frame.sample_rate))

    def notes(self) -> list[str]:
        """Say what was filled in, a line for each kind."""
        notes = []
        if self.lead:
            notes.append(
                f"the sound begins {self.lead:.2f} s after the file: until then is silence"
            )
        if round(self._filled - self.lead, 2) > 0.0:
            seconds = self._filled - self.lead
            notes.append(f"gaps: {seconds:.2f} s that are not in the file are silence")
        if self._refused:
            hours = self._refused / 3600.0
            notes.append(f"gaps: {hours:.1f} h that the times skip were not filled")
        return notes


def _silence(like: AudioFrame, samples: int) -> Iterator[AudioFrame]:
    for start in range(0, samples, _SILENT_SAMPLES):
        size = min(_SILENT_SAMPLES, samples - start)
        frame = AudioFrame(like.format.name, like.layout.name, size)
        frame.sample_rate = like.sample_rate
        for plane in frame.planes:
            plane.update(_SILENT_BYTE.get(like.format.name, b"\0") * plane.buffer_size)
        yield frame


def _interleaved_floats(
    first: AudioFrame, frames: Iterable[AudioFrame]
) -> Iterator[NDArray[np.float32]]:
    """Turn frames of any format into arrays (C, T) at the first one's rate and layout.

    Through interleaved samples, because PyAV reads past the plane list of 8 planes.
    """
    resampler: AudioResampler | None = None
    shape = None
    for frame in chain(frames, [None]):
        if frame is None or (frame.format.name, frame.layout.name, frame.sample_rate) != shape:
            for rest in resampler.resample(None) if resampler is not None else ():
                yield _array(rest)
            if frame is None:
                return
            resampler = AudioResampler("flt", first.layout, first.sample_rate)
            shape = (frame.format.name, frame.layout.name, frame.sample_rate)
        assert resampler is not None
        for converted in resampler.resample(frame):
            yield _array(converted)


def _array(frame: AudioFrame) -> NDArray[np.float32]:
    interleaved = frame.to_ndarray().reshape(-1, frame.layout.nb_channels)
    return np.ascontiguousarray(interleaved.T, dtype=np.float32)


def _without_padding(
    arrays: Iterable[NDArray[np.float32]], promised: int | None
) -> Iterator[NDArray[np.float32]]:
    """Leave out what the encoder added after the `promised` samples, for FFmpeg does not.

    More than an encoder adds means that the header is wrong, and everything is passed on.
    """
    done = 0
    held: list[NDArray[np.float32]] = []
    for array in arrays:
        room = array.shape[1] if promised is None else max(promised - done, 0)
        if room:
            yield array[:, :room]
        done += array.shape[1]
        if array.shape[1] > room:
            held.append(array[:, room:])
        if promised is not None and done - promised > _MAX_PADDING:
            yield from held
            held, promised = [], None

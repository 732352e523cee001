"""Read through FFmpeg (PyAV): open, decode, tags, cover picture."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable, Iterator
from itertools import chain
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

_MAX_SILENCE_SECONDS = 3600.0
_SILENT_SAMPLES = 4096
_SILENT_BYTE = {"u8": b"\x80", "u8p": b"\x80"}

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

    def tags(self) -> dict[str, str]:
        """Read the tags about the recording."""
        return about_the_recording({**self.stream.metadata, **self.container.metadata})

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
        frames = self._frames(notes)
        first = next(frames, None)
        if first is None:
            raise self._nothing()
        check_supported(self._path, first.sample_rate, first.layout.nb_channels)
        rate, done = first.sample_rate, 0
        promised = None if self.seconds is None else round(self.seconds * rate)
        if self.container.format.name in _GUESSED_LENGTHS and not self.stream.start_time:
            promised = None
        has_edit_list = "mp4" in self.container.format.name.split(",")
        whole: Iterable[AudioFrame] = chain([first], frames)
        if self.has_video:  # where what is missing would let the sound run ahead of the pictures
            whole = _without_gaps(whole)
        arrays = _interleaved_floats(first, whole)
        for array in _without_padding(arrays, promised if has_edit_list else None):
            done += array.shape[1]
            yield array
        if promised is not None and done < promised - max(0.02 * promised, 0.1 * rate):
            notes.append(cut_short(done / rate, promised / rate))

    def _frames(self, notes: list[str]) -> Iterator[AudioFrame]:
        damaged = 0
        packets = self.container.demux(self.stream)
        while True:
            try:
                packet = next(packets)
            except StopIteration:
                break
            except (av.FFmpegError, OSError) as error:
                notes.append(f"reading stopped early: {error.strerror or error}")
                break
            try:
                yield from (frame for frame in packet.decode() if frame.samples)
            except av.FFmpegError:
                damaged += 1
        if damaged:
            notes.append(f"damaged: {damaged} packets of audio were left out")


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


def _without_gaps(frames: Iterable[AudioFrame]) -> Iterator[AudioFrame]:
    """Fill with silence where the frames' times say that some are missing.

    Times are rounded to milliseconds in some containers, so that only what is most of a frame
    long is a gap. What is longer than an hour is a broken clock.
    """
    expected: float | None = None
    room = _MAX_SILENCE_SECONDS
    for frame in frames:
        length = frame.samples / frame.sample_rate
        if frame.time is not None:
            gap = 0.0 if expected is None else frame.time - expected
            if max(0.75 * length, 0.01) < gap <= room:
                room -= gap
                yield from _silence(frame, round(gap * frame.sample_rate))
            expected = frame.time
        expected = None if expected is None else expected + length
        yield frame


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

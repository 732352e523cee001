"""Write the audio tracks of a file, which appears under its name only when it is whole.

`Writer` is what all kinds of output have in common, and all that its users know; `AudioWriter`
writes sound files.
"""

from __future__ import annotations

import contextlib
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from speakup.blocks import finite
from speakup.errors import ConfigError
from speakup.media.encoders import Encoder, FfmpegEncoder, VorbisEncoder
from speakup.media.ffmpeg import Chapter
from speakup.media.formats import OutputFormat
from speakup.media.output_file import OutputFile, Sink

_DITHER_SEED = 0


class Quantiser:
    """Turn samples into the numbers of a format.

    Samples are float32 in [-1, 1]. Going to 16 bits, dither of triangular density (two steps
    wide) is added; it is seeded, so the same samples give the same bytes, however they are
    cut into blocks. A sample that 16 bits hold exactly needs no dither and gets none: digital
    silence stays silence, and a 16-bit recording passes unchanged. Samples that are not
    numbers become zero.

    Attributes:
        clipped_samples: How many samples beyond full scale had to be cut down so far. Float
            WAV and the lossy formats cut nothing.

    Reference: S. P. Lipshitz, R. A. Wannamaker, J. Vanderkooy, Quantization and dither, JAES
    40(5), 1992: triangular dither makes the error's mean and variance independent of the signal.
    """

    def __init__(self, bit_depth: str | None) -> None:
        self.clipped_samples = 0
        self._bit_depth = bit_depth
        self._dither = np.random.default_rng(_DITHER_SEED)

    def __call__(self, block: NDArray[np.floating[Any]]) -> NDArray[Any]:
        """Turn (C, T) in [-1, 1] into what encoders take: float32, int16 or int32."""
        samples = finite(np.asarray(block, np.float32))
        if self._bit_depth not in ("16", "24"):
            return samples
        bits = int(self._bit_depth)
        full_scale = 2.0 ** (bits - 1)
        self.clipped_samples += int(np.count_nonzero(np.abs(samples) > 1.0))
        scaled = samples * np.float32(full_scale)
        if bits == 16:
            # Drawn sample by sample in order of time, so that the block size does not matter.
            draws = self._dither.random((*scaled.T.shape, 2), dtype=np.float32)
            dither = (draws[..., 0] - draws[..., 1]).T
            scaled = np.where(scaled == np.rint(scaled), scaled, scaled + dither)
        rounded = np.clip(np.rint(scaled), -full_scale, full_scale - 1)
        if bits == 16:
            return np.asarray(rounded, dtype=np.int16)
        # FFmpeg takes 24 bits as the upper bits of 32.
        return np.asarray(rounded, dtype=np.int32) * np.int32(256)


class Writer(ABC):
    """Write one file, track after track; it appears under its name only when it is whole.

    A context manager. Everything goes to a hidden file in the same folder; a clean exit writes
    that through to the disk and puts it into place, an exception removes it. `Quantiser` says what
    becomes of the samples.

    Args:
        path: Where the file is to appear.
        bit_depths: As `OutputFormat` has them, one for each track in the order of writing.
        what: What does the writing, to be said of its failures.
        when_whole: Called with the file's size and times when it is whole and about to appear;
            what this raises keeps it from appearing.
        overwrite: Whether the file may replace what is there by then.

    Attributes:
        warnings: What the output could not hold, known at the end.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        bit_depths: Sequence[str | None],
        what: str,
        when_whole: Callable[[os.stat_result], None] | None,
        overwrite: bool,
    ) -> None:
        self.warnings: list[str] = []
        self._file = OutputFile(Path(path), when_whole, overwrite=overwrite)
        self._what = what
        self._quantisers = [Quantiser(depth) for depth in bit_depths]
        self._current = 0

    @property
    def clipped_samples(self) -> int:
        """Samples beyond full scale that had to be cut down; float and lossy tracks cut none."""
        return sum(quantiser.clipped_samples for quantiser in self._quantisers)

    def __enter__(self) -> Self:
        try:
            sink = self._file.open()
            self._guarded(lambda: self._start(sink))
        except BaseException:
            self._abandon()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            if error is None:
                self._finish()
                self._file.finish()
        finally:
            self._abandon()

    @abstractmethod
    def write(self, block: NDArray[np.floating[Any]]) -> None:
        """Append a block (C, T), full scale at 1, to the current track; it is not changed.

        Raises:
            OutputError: the disk is full, or the like.
        """

    def next_track(self) -> None:
        """End the current track; what is written from now on belongs to the next one."""
        self._current += 1

    @abstractmethod
    def _start(self, sink: Sink) -> None:
        """Write the head of the file."""

    @abstractmethod
    def _finish(self) -> None:
        """Write what is held back, and the end of the file."""

    @abstractmethod
    def _let_go(self) -> None:
        """Free everything without caring for the file; nothing of it is written any more."""

    def _guarded(self, action: Callable[[], object]) -> None:
        self._file.guarded(action, self._what)

    def _abandon(self) -> None:
        self._file.discard()
        with contextlib.suppress(Exception):
            self._let_go()
        self._file.remove()


class AudioWriter(Writer):
    """Write one audio file.

    Args:
        path: Where the file is to appear.
        sample_rate: In Hz; must be the format's.
        channels: How many.
        output_format: From `resolve_format`.
        tags: Metadata under the names `probe` gives; what the format cannot carry is left out.
        chapters: Parts with names; left out where the format has no place.
        cover: The cover picture, a JPEG or PNG file; left out where the format has no place.
        when_whole: As `Writer` takes it.
        overwrite: Whether the file may replace what is there by then.

    Raises:
        ConfigError: the rate is not the format's.
        OutputError: the file cannot be written; says why.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        sample_rate: int,
        channels: int,
        output_format: OutputFormat,
        *,
        tags: Mapping[str, str] | None = None,
        cover: bytes | None = None,
        chapters: Sequence[Chapter] = (),
        when_whole: Callable[[os.stat_result], None] | None = None,
        overwrite: bool = True,
    ) -> None:
        if sample_rate != output_format.sample_rate:
            raise ConfigError(
                f"{output_format.name} is to be written at {output_format.sample_rate} Hz, "
                f"not {sample_rate}",
                path,
            )
        what = f"the {output_format.name} encoder"
        super().__init__(path, [output_format.bit_depth], what, when_whole, overwrite)
        self._channels = channels
        self._format = output_format
        self._tags = dict(tags or {})
        self._cover, self._chapters = cover, chapters
        self._encoder: Encoder | None = None

    def write(self, block: NDArray[np.floating[Any]]) -> None:
        assert self._encoder is not None, "write() outside the with statement"
        if block.ndim != 2 or block.shape[0] != self._channels:
            raise ValueError(f"a block of shape {block.shape} for {self._channels} channels")
        if block.shape[1] == 0:
            return
        encoder, numbers = self._encoder, self._quantisers[0](block)
        self._guarded(lambda: encoder.write(numbers))

    def _start(self, sink: Sink) -> None:
        kind_of_encoder = VorbisEncoder if self._format.name == "ogg" else FfmpegEncoder
        self._encoder = kind_of_encoder(sink, self._format, self._channels)
        self._encoder.start(self._tags, self._cover, self._chapters)

    def _finish(self) -> None:
        assert self._encoder is not None
        self._guarded(self._encoder.finish)
        self._encoder = None

    def _let_go(self) -> None:
        encoder, self._encoder = self._encoder, None
        if encoder is not None:
            encoder.abandon()

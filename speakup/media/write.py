"""Write audio files, which appear under their name only when they are whole."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from speakup.errors import ConfigError
from speakup.media.encoders import Encoder, FfmpegEncoder, VorbisEncoder
from speakup.media.formats import OutputFormat
from speakup.media.sink import OutputFile, Sink

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
        samples = np.nan_to_num(block.astype(np.float32), nan=0.0, posinf=0.0, neginf=0.0)
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


class AudioWriter:
    """Write one audio file, which appears under its name only when it is whole.

    A context manager. Everything goes to a hidden file in the same folder; a clean exit writes
    that through to the disk and renames it into place, an exception removes it.

    `Quantiser` says what becomes of the samples.

    Args:
        path: Where the file is to appear; what is there is replaced.
        sample_rate: In Hz; must be the format's.
        channels: How many.
        output_format: From `resolve_format`.
        tags: Metadata under the names `probe` gives; what the format cannot carry is left out.
        cover: The cover picture, a JPEG or PNG file; left out where the format has no place.
        when_whole: Called with the file's size and times when it is whole and about to appear;
            what this raises keeps it from appearing.

    Attributes:
        clipped_samples: How many samples beyond full scale had to be cut down so far. Float
            WAV and the lossy formats cut nothing.

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
        when_whole: Callable[[os.stat_result], None] | None = None,
    ) -> None:
        if sample_rate != output_format.sample_rate:
            raise ConfigError(
                f"{output_format.name} is to be written at {output_format.sample_rate} Hz, "
                f"not {sample_rate}",
                path,
            )
        self._channels = channels
        self._format = output_format
        self._tags = dict(tags or {})
        self._cover = cover
        self._quantised = Quantiser(output_format.bit_depth)
        self._file = OutputFile(Path(path), when_whole)
        self._encoder: Encoder | None = None

    @property
    def clipped_samples(self) -> int:
        return self._quantised.clipped_samples

    def __enter__(self) -> Self:
        try:
            self._open()
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
        finally:
            self._abandon()

    def write(self, block: NDArray[np.floating[Any]]) -> None:
        """Append a block.

        Args:
            block: Shape (C, T), float, full scale at 1; not changed.

        Raises:
            OutputError: the disk is full, or the like.
        """
        assert self._encoder is not None, "write() outside the with statement"
        if block.ndim != 2 or block.shape[0] != self._channels:
            raise ValueError(f"a block of shape {block.shape} for {self._channels} channels")
        if block.shape[1] == 0:
            return
        encoder, numbers = self._encoder, self._quantised(block)
        self._guarded(lambda: encoder.write(numbers))

    def _open(self) -> None:
        sink = self._file.open()
        self._guarded(lambda: self._start(sink))

    def _start(self, sink: Sink) -> None:
        kind_of_encoder = VorbisEncoder if self._format.name == "ogg" else FfmpegEncoder
        self._encoder = kind_of_encoder(sink, self._format, self._channels)
        self._encoder.start(self._tags, self._cover)

    def _guarded(self, action: Callable[[], None]) -> None:
        self._file.guarded(action, f"the {self._format.name} encoder")

    def _finish(self) -> None:
        assert self._encoder is not None
        self._guarded(self._encoder.finish)
        self._encoder = None
        self._file.finish()

    def _abandon(self) -> None:
        """Let go of everything, and remove the hidden file unless it is in place."""
        self._file.discard()
        if self._encoder is not None:
            with contextlib.suppress(Exception):
                self._encoder.abandon()
        self._encoder = None
        self._file.remove()

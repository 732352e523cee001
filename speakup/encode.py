"""Write audio files, which appear under their name only when they are whole."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import stat
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import av
import numpy as np
import soundfile
from numpy.typing import NDArray

from speakup.encoders import Encoder, FfmpegEncoder, Sink, VorbisEncoder
from speakup.errors import ConfigError, OutputError
from speakup.formats import OutputFormat
from speakup.hold import Temporary

_DITHER_SEED = 0


class AudioWriter:
    """Write one audio file, which appears under its name only when it is whole.

    A context manager. Everything goes to a hidden file in the same folder; a clean exit writes
    that through to the disk and renames it into place, an exception removes it.

    Samples are float32 in [-1, 1]. Going to 16 bits, dither of triangular density (two steps
    wide) is added; it is seeded, so the same samples give the same bytes, however they are
    cut into blocks. A sample that 16 bits hold exactly needs no dither and gets none: digital
    silence stays silence, and a 16-bit recording passes unchanged. Samples that are not
    numbers are written as zero.

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

    Reference: S. P. Lipshitz, R. A. Wannamaker, J. Vanderkooy, Quantization and dither, JAES
    40(5), 1992: triangular dither makes the error's mean and variance independent of the signal.
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
        self._path = self._place = Path(path)
        if sample_rate != output_format.sample_rate:
            raise ConfigError(
                f"{output_format.name} is to be written at {output_format.sample_rate} Hz, "
                f"not {sample_rate}",
                self._path,
            )
        self.clipped_samples = 0
        self._channels = channels
        self._format = output_format
        self._tags = dict(tags or {})
        self._cover = cover
        self._dither = np.random.default_rng(_DITHER_SEED)
        self._temporary: Temporary | None = None
        self._when_whole = when_whole
        self._sink: Sink | None = None
        self._encoder: Encoder | None = None

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
        samples = np.nan_to_num(block.astype(np.float32), nan=0.0, posinf=0.0, neginf=0.0)
        encoder, numbers = self._encoder, self._quantised(samples)
        self._guarded(lambda: encoder.write(numbers))

    def _quantised(self, samples: NDArray[np.float32]) -> NDArray[Any]:
        """Turn (C, T) in [-1, 1] into what the encoder takes: float32, int16 or int32."""
        if self._format.bit_depth not in ("16", "24"):
            return samples
        bits = int(self._format.bit_depth)
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

    def _open(self) -> None:
        # Through a link to what it points at, as any program that writes to the name would.
        self._place = Path(os.path.realpath(self._path))
        try:
            with contextlib.suppress(FileNotFoundError):
                self._check_replaceable(self._place.stat().st_mode)
            self._temporary = Temporary(self._place)
        except OSError as error:
            raise _output_error(error, self._path) from error
        raw = io.FileIO(self._temporary.open(), "r+b")
        sink = self._sink = Sink(raw, self._place.parent)
        kind_of_encoder = VorbisEncoder if self._format.name == "ogg" else FfmpegEncoder
        self._guarded(lambda: self._start(kind_of_encoder(sink, self._format, self._channels)))

    def _check_replaceable(self, mode: int) -> None:
        if not stat.S_ISREG(mode):
            kind = "is a folder" if stat.S_ISDIR(mode) else "is not an ordinary file"
            raise OutputError(kind, self._path, "Name a file to write to")

    def _start(self, encoder: Encoder) -> None:
        self._encoder = encoder
        encoder.start(self._tags, self._cover)

    def _guarded(self, action: Callable[[], None]) -> None:
        """Run an action of the encoder; whatever goes wrong leaves as OutputError."""
        assert self._sink is not None
        failure: Exception | None = None
        try:
            action()
        except (av.FFmpegError, soundfile.SoundFileError, OSError, ValueError) as error:
            failure = error
        # The cause, where the encoder failed because the disk did.
        trouble = self._sink.error or failure
        if trouble is None:
            return
        if isinstance(trouble, OSError):
            raise _output_error(trouble, self._path) from trouble
        if trouble is failure:
            problem = f"the {self._format.name} encoder failed ({trouble})"
            raise OutputError(problem, self._path) from trouble
        raise trouble

    def _finish(self) -> None:
        assert self._encoder is not None and self._sink is not None and self._temporary is not None
        self._guarded(self._encoder.finish)
        try:
            self._sink.release(sync=True)
            if self._when_whole is not None:
                self._when_whole(self._temporary.path.stat())
            self._temporary.move(self._place)
        except OSError as error:
            raise _output_error(error, self._path) from error
        self._encoder = self._sink = self._temporary = None

    def _abandon(self) -> None:
        """Let go of everything, and remove the temporary file unless it is in place."""
        if self._sink is not None:
            self._sink.discard()
            if self._encoder is not None:
                with contextlib.suppress(Exception):
                    self._encoder.abandon()
            with contextlib.suppress(OSError):
                self._sink.release(sync=False)
        if self._temporary is not None:
            self._temporary.remove()
        self._encoder = self._sink = self._temporary = None


_REASONS = {
    errno.ENOENT: ("the folder does not exist", "Create it, or write elsewhere"),
    errno.ENOTDIR: ("what should be its folder is a file", "Write elsewhere"),
    errno.ENOSPC: ("the disk is full", "Free some space, or write elsewhere"),
    errno.EDQUOT: ("the disk quota is used up", "Free some space, or write elsewhere"),
    errno.EACCES: ("no permission to write there", "Write elsewhere"),
    errno.EPERM: ("no permission to write there", "Write elsewhere"),
    errno.EROFS: ("the disk is read-only", "Write elsewhere"),
    errno.EFBIG: ("the file is too big for this disk", "Choose flac, or write elsewhere"),
}


def _output_error(error: OSError, path: Path) -> OutputError:
    unnamed = (f"cannot be written: {error.strerror or error}", None)
    problem, remedy = _REASONS.get(error.errno or 0, unnamed)
    return OutputError(problem, path, remedy)

"""A private temporary file of float32 blocks: what must be kept is kept on disk, not in memory."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray

from speakup.errors import OutputError
from speakup.files import ANOTHER_TEMPORARY_FOLDER, check_space, output_error, temporary_folder

_BLOCK = 1 << 16
_LEVELS_PER_SECOND = 24_000  # bytes of what settling a gain keeps beside the recording


class Spool:
    """Write blocks once, read them as often as need be; the file has no name and is never left.

    Args:
        channels: C, of every block.

    Raises:
        OutputError: the temporary folder is full or cannot be written.
    """

    def __init__(self, channels: int) -> None:
        self._channels = channels
        try:
            self._file = tempfile.TemporaryFile(prefix="speakup-")  # noqa: SIM115
        except OSError as error:
            raise _spool_error(error) from error

    def write(self, block: NDArray[np.float32]) -> None:
        """Append a block (C, T)."""
        try:
            self._file.write(np.ascontiguousarray(block.T, dtype=np.float32).data)
        except OSError as error:
            raise _spool_error(error) from error

    def read(self) -> Iterator[NDArray[np.float32]]:
        """Yield everything written, from the start, as blocks (C, T) that the reader may change."""
        position, size = 0, 4 * self._channels * _BLOCK
        try:
            self._file.flush()
            while True:
                self._file.seek(position)
                data = self._file.read(size)
                if not data:
                    return
                position += len(data)
                frames = np.frombuffer(data, np.float32).reshape(-1, self._channels)
                yield np.array(frames.T, order="C")
        except OSError as error:
            raise _spool_error(error) from error

    def close(self) -> None:
        """Remove the file."""
        with contextlib.suppress(OSError):  # What could not be written is not wanted any more.
            self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


def spooled_bytes(seconds: float, sample_rate: int, channels: int, *, spools: int = 1) -> int:
    """Give the disk space that a recording takes between its passes: 4 bytes a sample, mostly."""
    return round(seconds * (4 * sample_rate * channels * spools + _LEVELS_PER_SECOND))


def check_room(seconds: float | None, sample_rate: int, channels: int, *, spools: int = 1) -> None:
    """See to it, before the work, that the temporary folder has room for a recording.

    To be asked twice: first of a length that is sure, so that what cannot fit is refused at once;
    and when the survey has counted the samples, before any network runs. A length that is only
    stated refuses nothing.

    Args:
        seconds: Its length; None where that is not yet known passes.
        sample_rate: In Hz, of the output.
        channels: C.
        spools: How often it is kept at a time.

    Raises:
        OutputError: it has not.
    """
    needed = spooled_bytes(seconds or 0.0, sample_rate, channels, spools=spools)
    what = "to keep the recording between two passes"
    check_space(temporary_folder(), needed, what, ANOTHER_TEMPORARY_FOLDER)


def _spool_error(error: OSError) -> OutputError:
    return output_error(error, temporary_folder(), ANOTHER_TEMPORARY_FOLDER)

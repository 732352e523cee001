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

_BLOCK = 1 << 16


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


def _spool_error(error: OSError) -> OutputError:
    return OutputError(
        f"cannot keep the recording between two passes ({error.strerror})",
        tempfile.gettempdir(),
        "Make room there, or name another folder in TMPDIR",
    )

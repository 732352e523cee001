"""Where encoders write: a file that appears under its name only when it is whole."""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Callable
from pathlib import Path

import av
import soundfile

from speakup.errors import OutputError
from speakup.files import Temporary, output_error, output_place


class Sink:
    """An open file that keeps its first error instead of raising it.

    Encoders write from inside C callbacks, out of which an exception (a full disk, Ctrl-C)
    would be lost.

    Attributes:
        error: What went wrong first; None while all is well.
        folder: Where the file lies.
    """

    def __init__(self, raw: io.FileIO, folder: Path) -> None:
        self.error: BaseException | None = None
        self.folder = folder
        self._raw = raw
        self._discarded = False

    def write(self, data: bytes) -> int:
        """Write all of the data, or note the error and pretend to."""
        try:
            rest = memoryview(data)
            while len(rest) and self.error is None and not self._discarded:
                rest = rest[self._raw.write(rest) :]
        except BaseException as error:
            self.error = self.error or error
        return len(data)

    def read(self, size: int = -1) -> bytes:
        """Read up to `size` bytes."""
        return self._raw.read(size) or b""

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Move to a position; return it."""
        return self._raw.seek(offset, whence)

    def tell(self) -> int:
        """Give the position."""
        return self._raw.tell()

    def discard(self) -> None:
        """Write nothing more."""
        self._discarded = True

    def release(self, *, sync: bool) -> None:
        """Close the file, written through to the disk if so wished."""
        try:
            if sync:
                os.fsync(self._raw.fileno())
        finally:
            self._raw.close()


class OutputFile:
    """A hidden file in the output's folder, renamed into place by `finish`.

    Args:
        path: Where the file is to appear.
        when_whole: Called with the file's size and times when it is whole and about to appear;
            what this raises keeps it from appearing.
        overwrite: Whether it may replace what is there by then.
    """

    def __init__(
        self,
        path: Path,
        when_whole: Callable[[os.stat_result], None] | None = None,
        *,
        overwrite: bool = True,
    ) -> None:
        self.path = path
        self._when_whole, self._overwrite = when_whole, overwrite
        self._temporary: Temporary | None = None
        self._sink: Sink | None = None

    def open(self) -> Sink:
        """Make the hidden file, open for reading and writing.

        Raises:
            OutputError: it cannot be made, or what has the name is no ordinary file.
        """
        try:
            self._temporary = Temporary(output_place(self.path), overwrite=self._overwrite)
            raw = io.FileIO(self._temporary.open(), "r+b")
        except OSError as error:
            raise output_error(error, self.path) from error
        self._sink = Sink(raw, self._temporary.path.parent)
        return self._sink

    def guarded(self, action: Callable[[], object], what: str) -> None:
        """Run an action that writes; whatever goes wrong in it leaves as OutputError.

        Args:
            action: Called without arguments.
            what: What does the writing, such as "the flac encoder".
        """
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
            raise output_error(trouble, self.path) from trouble
        if trouble is failure:
            raise OutputError(f"{what} failed ({trouble})", self.path) from trouble
        raise trouble

    def finish(self) -> None:
        """Write the file through to the disk and give it its name.

        Raises:
            OutputError: the disk is full, or the like.
        """
        assert self._sink is not None and self._temporary is not None
        try:
            self._sink.release(sync=True)
            if self._when_whole is not None:
                self._when_whole(self._temporary.path.stat())
            self._temporary.move()
        except OSError as error:
            raise output_error(error, self.path) from error
        self._sink = self._temporary = None

    def discard(self) -> None:
        """Write nothing more; done before the encoders are let go of."""
        if self._sink is not None:
            self._sink.discard()

    def remove(self) -> None:
        """Remove the hidden file, unless it is in place."""
        if self._sink is not None:
            with contextlib.suppress(OSError):
                self._sink.release(sync=False)
        if self._temporary is not None:
            self._temporary.remove()
        self._sink = self._temporary = None

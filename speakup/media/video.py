"""Write a video whose sound is replaced; everything else of it is copied, packet for packet.

Pictures, subtitles, chapters, attachments and tags come from the source as they are, with their
times. Each audio track is encoded anew and begins where the old one began.
"""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from speakup.media.muxer import Kept, Muxer, Track
from speakup.media.sink import OutputFile, Sink
from speakup.media.write import Quantiser
from speakup.spool import Spool


class VideoWriter:
    """Write a video with its audio tracks replaced; it appears only when it is whole.

    A context manager. The tracks are written one after the other. All but the last are kept in
    a private temporary file until the last one comes, because a player needs them side by side.

    Args:
        path: Where the video is to appear; what is there is replaced.
        source: The video whose pictures, subtitles and so on are copied.
        tracks: The audio tracks, in the order in which they will be written; the source's other
            ones are left out.
        when_whole: As `AudioWriter` takes it.

    Attributes:
        warnings: What of the source the output could not hold, known at the end.

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
    ) -> None:
        self._source, self._tracks = Path(source), tuple(tracks)
        self._name = tracks[0].output_format.name
        self._file = OutputFile(Path(path), when_whole)
        self.warnings: list[str] = []
        self._quantisers = [Quantiser(track.output_format.bit_depth) for track in tracks]
        self._current = 0
        self._held = contextlib.ExitStack()
        self._muxer: Muxer | None = None

    @property
    def clipped_samples(self) -> int:
        """Count the samples beyond full scale that had to be cut down so far."""
        return sum(quantiser.clipped_samples for quantiser in self._quantisers)

    def __enter__(self) -> Self:
        try:
            kept = self._held.enter_context(Kept(self._source))
            self._spools = [
                self._held.enter_context(Spool(track.channels)) for track in self._tracks[:-1]
            ]
            sink = self._file.open()
            self._guarded(lambda: self._start(sink, kept))
        except BaseException:
            self._abandon()
            raise
        return self

    def _start(self, sink: Sink, kept: Kept) -> None:
        muxer = Muxer(sink, kept, self._tracks)
        self._muxer = muxer
        muxer.add_streams(self._file.path)
        muxer.start(self._file.path)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            if error is None:
                assert self._muxer is not None
                self._catch_up(math.inf)
                self._guarded(self._muxer.finish)
                self.warnings += self._muxer.warnings
                self._muxer = None
                self._file.finish()
        finally:
            self._abandon()

    def write(self, block: NDArray[np.floating[Any]]) -> None:
        """Append a block (C, T), full scale at 1, to the current track.

        Raises:
            OutputError: the disk is full, or the like.
        """
        assert self._muxer is not None, "write() outside the with statement"
        if self._current < len(self._spools):
            self._spools[self._current].write(np.asarray(block, np.float32))
            return
        self._encode(self._current, block)
        self._catch_up(self._muxer.seconds(self._current))

    def next_track(self) -> None:
        """End the current track; what is written from now on belongs to the next one."""
        self._current += 1
        if self._current == len(self._spools):
            self._waiting = [spool.read() for spool in self._spools]

    def _encode(self, index: int, block: NDArray[np.floating[Any]]) -> None:
        assert self._muxer is not None
        muxer, numbers = self._muxer, self._quantisers[index](block)
        if numbers.shape[1]:
            self._guarded(lambda: muxer.write(index, numbers))

    def _catch_up(self, seconds: float) -> None:
        """Bring the tracks that wait, and all that is copied, to where the last track is."""
        assert self._muxer is not None
        muxer = self._muxer
        for index, blocks in enumerate(self._waiting if self._spools else []):
            while muxer.seconds(index) < seconds and (block := next(blocks, None)) is not None:
                self._encode(index, block)
        self._guarded(lambda: muxer.copy(seconds))

    def _guarded(self, action: Callable[[], object]) -> None:
        self._file.guarded(action, f"writing {self._name}")

    def _abandon(self) -> None:
        self._file.discard()
        if self._muxer is not None:
            with contextlib.suppress(Exception):
                self._muxer.abandon()
        self._muxer = None
        self._held.close()
        self._file.remove()

"""How blocks flow from link to link: stages in threads of their own, timed and kept to numbers."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from speakup.result import StageReport
from speakup.stages import Stage
from speakup.streaming import ahead
from speakup.survey import finite

Block = NDArray[np.float32]

Progress = Callable[[str, float, float | None], None]
"""Called as (what is done, seconds done, seconds in all or None)."""


class Link(Protocol):
    """What blocks (C, T) go through: a resampler, a stage, or the like."""

    def push(self, block: Block, /) -> Block:
        """Take (C, T) and give what is ready."""

    def flush(self) -> Block | Iterable[Block]:
        """Give the rest."""


class TimedStage:
    """A stage, the seconds spent in it, and how many samples it gave that were no numbers.

    Those go on as silence.
    """

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self._seconds = 0.0
        self._not_finite = 0

    def push(self, block: Block) -> Block:
        started = time.perf_counter()
        result = self.stage.push(block)
        self._seconds += time.perf_counter() - started
        return self._kept_to_numbers(result)

    def flush(self) -> Iterator[Block]:
        rest = iter(self.stage.flush())
        while True:
            started = time.perf_counter()
            block = next(rest, None)
            self._seconds += time.perf_counter() - started
            if block is None:
                return
            yield self._kept_to_numbers(block)

    def close(self) -> None:
        """Close the stage, if it can be."""
        if hasattr(self.stage, "close"):
            self.stage.close()

    def report(self) -> StageReport:
        stage = self.stage
        return StageReport(stage.name, stage.model, stage.revision, round(self._seconds, 3))

    @property
    def warnings(self) -> list[str]:
        """List the stage's own warnings, and one about what was no number."""
        if not self._not_finite:
            return self.stage.warnings
        said = f"{self.stage.name}: {self._not_finite} samples came out as no numbers"
        return [*self.stage.warnings, f"{said} and count as silence"]

    def _kept_to_numbers(self, block: Block) -> Block:
        sane = finite(block)
        if sane is not block:
            self._not_finite += int((sane != block).sum())
        return sane


class KeepOne:
    """Keep the first of channels that are all equal: the others need no computing."""

    def push(self, block: Block) -> Block:
        return block[:1]

    def flush(self) -> list[Block]:
        return []


class Repeat:
    """Repeat the one channel that was computed for all those equal to it."""

    def __init__(self, channels: int) -> None:
        self._channels = channels

    def push(self, block: Block) -> Block:
        return np.repeat(block, self._channels, axis=0)

    def flush(self) -> list[Block]:
        return []


def flow(blocks: Iterable[Block], links: Sequence[Link]) -> Generator[Block]:
    """Send blocks through every link in turn, each stage in a thread of its own.

    Samples that are no numbers count as silence. However it ends, the threads have ended and the
    stages have been closed.
    """
    stream = (finite(block) for block in blocks)
    for link in links:
        stream = _through(link, stream)
        if isinstance(link, TimedStage):
            stream = ahead(stream)
    with contextlib.ExitStack() as stack:
        for link in links:
            if isinstance(link, TimedStage):
                stack.callback(link.close)
        stack.enter_context(contextlib.closing(stream))
        yield from stream


def _through(link: Link, blocks: Generator[Block]) -> Generator[Block]:
    with contextlib.closing(blocks):  # An error's traceback would keep it, and its thread, alive.
        for block in blocks:
            ready = link.push(block)
            if ready.shape[1]:
                yield ready
    rest = link.flush()
    for block in [rest] if isinstance(rest, np.ndarray) else rest:
        if block.shape[1]:
            yield block


def told(
    blocks: Iterable[Block], rate: int, total: float | None, doing: str, tell: Progress
) -> Iterator[Block]:
    """Yield blocks (C, T), and tell after each how many seconds are done."""
    done = 0
    for block in blocks:
        yield block
        done += block.shape[1]
        tell(doing, done / rate, total)

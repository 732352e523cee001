"""How blocks flow from link to link: stages in threads of their own, timed and kept to numbers."""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from typing import Protocol

import numpy as np
import soxr

from speakup.blocks import Block, finite
from speakup.result import StageReport
from speakup.stages.base import Stage

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
        """Close the stage."""
        self.stage.close()

    def report(self) -> StageReport:
        stage = self.stage
        seconds = round(self._seconds, 3)
        return StageReport(stage.name, stage.model, stage.revision, seconds, stage.did)

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


class Resampler:
    """Resample a stream with the SoX resampler, at its very high quality, without delay.

    Args:
        from_rate: Hz of the input.
        to_rate: Hz of the output.
        channels: C, of every block.
        samples: How many shall come out in all, where rates between have rounded the length to
            whole samples of theirs. Followed within a millisecond of the length that the input
            gives: what differs by more has been made longer or shorter on purpose.

    The joined output has round(T * to_rate / from_rate) samples, or `samples`.

    Reference: libsoxr; 28-bit precision, linear phase, pass band to 0.913 of the lower Nyquist
        frequency.
    """

    def __init__(
        self, from_rate: int, to_rate: int, channels: int, *, samples: int | None = None
    ) -> None:
        self.from_rate, self.to_rate = from_rate, to_rate
        self._samples = samples
        self._stream = (
            None
            if from_rate == to_rate
            else soxr.ResampleStream(from_rate, to_rate, channels, dtype="float32", quality="VHQ")
        )
        self._channels = channels
        self._taken = 0
        self._given = 0

    def push(self, block: Block) -> Block:
        """Take (C, T) and give the (C, T') that is ready."""
        return self._pass(block, last=False)

    def flush(self) -> Block:
        """Give the rest, to the sample."""
        rest = self._pass(np.zeros((self._channels, 0), np.float32), last=True)
        missing = max(0, self._wanted() - self._given)
        self._given += missing
        return np.pad(rest, ((0, 0), (0, missing)))

    def _pass(self, block: Block, *, last: bool) -> Block:
        self._taken += block.shape[1]
        if self._stream is not None:
            frames = np.ascontiguousarray(block.T)
            block = self._stream.resample_chunk(frames, last=last).T
        block = block[:, : max(0, self._wanted() - self._given)] if last else block
        self._given += block.shape[1]
        return block

    def _wanted(self) -> int:
        exact = resampled_length(self._taken, self.from_rate, self.to_rate)
        if self._samples is None or 1_000 * abs(self._samples - exact) > self.to_rate:
            return exact
        return self._samples


def ahead(blocks: Iterable[Block], depth: int = 2) -> Generator[Block]:
    """Yield a stream's blocks, computed in a thread of their own up to `depth` blocks ahead.

    Decoding, networks, filters and encoders all release Python's lock, so a chain with a thread
    per stage keeps as many cores busy. Order, values and errors are those of the stream itself;
    when the reader stops early, the stream is closed and its thread ended.
    """
    ready: queue.Queue[Block | BaseException | None] = queue.Queue(depth)
    stopped = threading.Event()

    def hand_over(item: Block | BaseException | None) -> bool:
        while not stopped.is_set():
            with contextlib.suppress(queue.Full):
                ready.put(item, timeout=0.1)
                return True
        return False

    def work() -> None:
        source = iter(blocks)
        try:
            while (block := next(source, None)) is not None and hand_over(block):
                pass
            hand_over(None)
        except BaseException as error:
            hand_over(error)
        finally:
            if isinstance(source, Iterator) and hasattr(source, "close"):
                source.close()

    thread = threading.Thread(target=work, name="speakup-ahead", daemon=True)
    thread.start()
    try:
        while (item := ready.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            yield item
    finally:
        stopped.set()
        thread.join()


def resampled_length(samples: int, from_rate: int, to_rate: int) -> int:
    """Give round(samples * to_rate / from_rate), halves up, in whole numbers."""
    return (2 * samples * to_rate + from_rate) // (2 * from_rate)

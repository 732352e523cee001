"""How blocks flow through links: in order, whole, as numbers, and timed."""

from __future__ import annotations

import contextlib
import math
import threading
import time
from collections.abc import Iterable, Iterator

import numpy as np
import pytest
from numpy.typing import NDArray

from speakup.result import StageReport
from speakup.stages.base import Stage
from speakup.stages.flow import KeepOne, Link, Repeat, Resampler, TimedStage, flow

Waveform = NDArray[np.float32]


class HoldBack(Stage):
    """A stage of a user: gives everything at the end, in blocks of 100, times a factor."""

    name = "hold-back"
    model = "none"
    revision = "7"
    latency = None

    def __init__(self, factor: float = 1.0, seconds: float = 0.0) -> None:
        self.warnings: list[str] = []
        self.threads: set[str] = set()
        self._factor, self._seconds = factor, seconds
        self._held: list[Waveform] = []

    def push(self, block: Waveform) -> Waveform:
        self.threads.add(threading.current_thread().name)
        time.sleep(self._seconds)
        self._held.append(block)
        return block[:, :0]

    def flush(self) -> Iterable[Waveform]:
        whole = np.concatenate(self._held, axis=1) * np.float32(self._factor)
        for start in range(0, whole.shape[1], 100):
            yield whole[:, start : start + 100]


def blocks(waveform: Waveform) -> Iterator[Waveform]:
    yield from np.split(waveform, [10, 10, 700], axis=1)


def flown(waveform: Waveform, links: list[Link]) -> Waveform:
    return np.concatenate(list(flow(blocks(waveform), links)), axis=1)


@pytest.fixture
def waveform() -> Waveform:
    return np.random.default_rng(1).standard_normal((2, 1_000)).astype(np.float32)


def test_no_link_changes_nothing(waveform: Waveform) -> None:
    assert np.array_equal(flown(waveform, []), waveform)


def test_what_a_stage_held_back_goes_through_the_links_behind_it(waveform: Waveform) -> None:
    links = [TimedStage(HoldBack(2.0)), TimedStage(HoldBack(3.0)), Resampler(48_000, 24_000, 2)]
    assert flown(waveform, links).shape == (2, 500)
    assert np.allclose(flown(waveform, [TimedStage(HoldBack(2.0))]), 2.0 * waveform)


def test_no_empty_blocks_come_out(waveform: Waveform) -> None:
    assert all(block.shape[1] for block in flow(blocks(waveform), [TimedStage(HoldBack())]))


def test_a_channel_is_kept_and_repeated(waveform: Waveform) -> None:
    result = flown(waveform, [KeepOne(), TimedStage(HoldBack()), Repeat(3)])
    assert np.array_equal(result, np.repeat(waveform[:1], 3, axis=0))


def test_stages_are_timed_and_have_a_thread_each(waveform: Waveform) -> None:
    slow, quick = HoldBack(seconds=0.01), HoldBack()
    timed = [TimedStage(slow), TimedStage(quick)]
    flown(waveform, list(timed))
    assert timed[0].report().seconds >= 0.03 > timed[1].report().seconds
    assert timed[1].report() == StageReport("hold-back", "none", "7", timed[1].report().seconds)


def test_what_is_no_number_counts_as_silence_before_a_stage(waveform: Waveform) -> None:
    expected = waveform.copy()
    waveform[1, 5], expected[1, 5] = math.nan, 0.0
    waveform[0, 800], expected[0, 800] = -math.inf, 0.0
    timed = TimedStage(HoldBack())
    assert np.array_equal(flown(waveform, [timed]), expected)
    assert timed.warnings == []  # it is not the stage's fault
    assert math.isnan(waveform[1, 5])


@pytest.mark.parametrize("factor", [math.nan, math.inf])
def test_a_stage_that_gives_no_numbers_is_named(waveform: Waveform, factor: float) -> None:
    stage = HoldBack(factor)
    stage.warnings.append("its own")
    timed = TimedStage(stage)
    assert not flown(waveform, [timed]).any()
    own, added = timed.warnings
    assert own == "its own"
    assert added == "hold-back: 2000 samples came out as no numbers and count as silence"


def test_an_error_in_a_stage_is_raised_and_its_threads_end(waveform: Waveform) -> None:
    class Broken(HoldBack):
        def flush(self) -> Iterable[Waveform]:
            raise ZeroDivisionError("in the stage")

    before = threading.active_count()
    with pytest.raises(ZeroDivisionError, match="in the stage") as caught:
        flown(waveform, [TimedStage(HoldBack()), TimedStage(Broken()), TimedStage(HoldBack())])
    assert threading.active_count() == before
    assert caught.tb is not None  # whoever keeps the error keeps no thread


@pytest.mark.parametrize("how", ["to the end", "left", "broken"])
def test_stages_that_can_be_closed_are_closed_however_it_ends(waveform: Waveform, how: str) -> None:
    class Closable(HoldBack):
        closed = 0

        def flush(self) -> Iterable[Waveform]:
            if how == "broken":
                raise ZeroDivisionError
            return super().flush()

        def close(self) -> None:
            self.closed += 1

    stages = [Closable(), Closable()]
    result = flow(blocks(waveform), [TimedStage(stage) for stage in stages])
    with contextlib.suppress(ZeroDivisionError):
        next(result)
        if how == "to the end":
            list(result)
    result.close()
    assert [stage.closed for stage in stages] == [1, 1]


def test_a_reader_that_stops_ends_the_threads(waveform: Waveform) -> None:
    before = threading.active_count()
    result = flow(blocks(waveform), [TimedStage(HoldBack()), TimedStage(HoldBack())])
    next(result)
    result.close()
    assert threading.active_count() == before

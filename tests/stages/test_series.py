"""Stages in a row that count as one."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from sounds import lag, noise

from speakup.blocks import Block
from speakup.stages.base import Stage
from speakup.stages.series import Series


class Scaled(Stage):
    """Multiply, and hold back so many samples until the end."""

    def __init__(self, factor: float, rate: int = 48_000, held: int = 0) -> None:
        self.name, self.model, self.revision = "denoise", f"times-{factor:g}", "1"
        self.input_rate = self.output_rate = rate
        self.warnings = [f"by {factor:g}"]
        self.latency, self.closed = held, False
        self._factor, self._held = np.float32(factor), np.zeros((0, 0), np.float32)

    def push(self, block: Block) -> Block:
        held = self._held if len(self._held) else block[:, :0]
        both = np.concatenate([held, block * self._factor], axis=1)
        ready = max(0, both.shape[1] - (self.latency or 0))
        self._held = both[:, ready:]
        return both[:, :ready]

    def flush(self) -> Iterator[Block]:
        yield self._held

    def close(self) -> None:
        self.closed = True


def through(stage: Stage, waveform: Block, step: int = 5_000) -> Block:
    parts = [stage.push(waveform[:, at : at + step]) for at in range(0, waveform.shape[1], step)]
    return np.concatenate([*parts, *stage.flush()], axis=1)


@pytest.mark.parametrize("held", [0, 700, 100_000])
def test_one_after_the_other(held: int) -> None:
    waveform = noise(2, 40_000, 48_000)
    series = Series([Scaled(0.5, held=held), Scaled(0.5, held=held)], channels=2, wet=1.0)
    assert np.array_equal(through(series, waveform), 0.25 * waveform)


@pytest.mark.parametrize("held", [0, 700, 100_000])
@pytest.mark.parametrize("wet", [0.0, 0.5, 0.9])
def test_the_strength_is_that_of_all_together(held: int, wet: float) -> None:
    """Of 0.25, not of each 0.5: so an attenuation limit holds."""
    waveform = noise(2, 40_000, 48_000)
    series = Series([Scaled(0.5, held=held), Scaled(0.5)], channels=2, wet=wet)
    expected = waveform * np.float32(1.0 - 0.75 * wet)
    assert np.allclose(through(series, waveform), expected, atol=1e-6)


@pytest.mark.parametrize("wet", [0.5, 1.0])
def test_each_works_at_its_own_rate(wet: float) -> None:
    waveform = noise(2, 48_000, 48_000)
    series = Series([Scaled(0.5, held=999), Scaled(0.5, 44_100, 99)], channels=2, wet=wet)
    assert (series.input_rate, series.output_rate) == (48_000, 44_100)
    result = through(series, waveform)
    assert result.shape == (2, 44_100)
    level = np.std(result) / np.std(waveform)
    assert level == pytest.approx(1.0 - 0.75 * wet, rel=0.01)
    alone = through(Series([Scaled(1.0), Scaled(1.0, 44_100)], channels=2, wet=1.0), waveform)
    assert lag(result, alone) == 0


def test_it_holds_back_no_more_than_it_says() -> None:
    series = Series([Scaled(1.0, held=999), Scaled(1.0, 44_100, 99)], channels=1, wet=0.5)
    waveform, given = noise(1, 100_000, 48_000), 0
    for at in range(0, 100_000, 500):
        given += series.push(waveform[:, at : at + 500]).shape[1]
        assert series.latency is not None
        assert at + 500 - given * 48_000 / 44_100 <= series.latency


def test_it_says_what_its_stages_say_and_closes_them() -> None:
    stages = [Scaled(0.5), Scaled(0.25)]
    series = Series(stages, channels=1, wet=1.0)
    through(series, noise(1, 1_000))
    series.close()
    assert (series.name, series.model, series.revision) == (
        "denoise",
        "times-0.5+times-0.25",
        "1+1",
    )
    assert series.warnings == ["by 0.5", "by 0.25"]
    assert all(stage.closed for stage in stages)

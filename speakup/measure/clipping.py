"""Whether peaks were cut off, and at which levels: the one definition of clipping.

A peak is cut off where equal samples stand in a row on the highest level around, the wave meets
them at a corner, and that happens again and again at the same level.
"""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
from numpy.typing import NDArray

from speakup.blocks import Block, Float64

Ceilings = tuple[tuple[tuple[float, ...], tuple[float, ...]], ...]
"""For each channel: the levels, as positive numbers, at which it is cut off above, and below."""

_FRAME_SECONDS = 0.046
_EQUAL = 1e-4
"""Share of the level within which samples are equal: about two steps of 16 bits at full scale."""
_ON_CEILING = 2e-4
"""Share of a ceiling within which samples stand on it, and the step in which levels are counted."""
_FLAT = 3
"""Equal samples in a row that make a plateau."""
_CORNER = 0.01
"""Share of the level that the wave falls, at both ends together, right beside a plateau."""
_QUIETEST = 0.01
"""Full scale's share under which plateaus are rounding, not overload."""
_COARSE = 1e-3
"""Share of the peak that the finest step of a recording of few levels exceeds."""
_PLATEAUS = 5
_PLATEAU_SHARE = 0.1
"""How many of the plateaus, and what share of them, stand on a ceiling."""
_NEAR = (-1, 0, 1)
"""Steps of level that count as one."""
_MOST_MISSING = 0.8
_LONGEST_SHARE = 1 / 3
"""Share of a stretch that may be missing, in all and in one piece."""


class ClippingMeter:
    """Find the levels at which a recording is cut off.

    That is where three or more equal samples stand on the highest level for 23 ms on either side,
    the wave meets them at a corner, and it happens again and again at the same level. Recordings of
    few levels, as of 8 bits, are none of them: there, equal neighbours mean nothing.

    Args:
        sample_rate: Hz.
        channels: C.
    """

    def __init__(self, sample_rate: int, channels: int) -> None:
        self._reach = half_frame(sample_rate)
        self._held = np.zeros((channels, self._reach), np.float32)
        self._found: list[Counter[int]] = [Counter() for _ in range(2 * channels)]
        self._flat: list[Counter[int]] = [Counter() for _ in range(2 * channels)]

    def push(self, block: Block) -> None:
        """Look at (C, T) more."""
        held = np.concatenate([self._held, block], axis=1)
        self._held = held[:, -2 * self._reach :].copy()
        for channel, row in enumerate(held):
            levels, lengths = _plateaus(row, self._reach)
            if len(levels) and not _coarse(row):
                steps = np.round(np.log(np.abs(levels)) / _ON_CEILING).astype(int)
                for level, step, length in zip(levels, steps.tolist(), lengths, strict=True):
                    side = 2 * channel + int(level < 0.0)
                    self._found[side][step] += 1
                    self._flat[side][step] += int(length)

    def ceilings(self) -> Ceilings:
        """Give the levels found so far, for each channel."""
        levels = [_common(found) for found in self._found]
        return tuple(zip(levels[::2], levels[1::2], strict=True))

    def clipped_samples(self) -> int:
        """Count the samples, of all channels, on plateaus that stand on a ceiling."""
        return sum(
            sum(flat[near] for near in {step + by for step in _common_steps(found) for by in _NEAR})
            for found, flat in zip(self._found, self._flat, strict=True)
        )


def _plateaus(row: NDArray[np.float32], reach: int) -> tuple[NDArray[np.float64], NDArray[np.intp]]:
    """Give levels and lengths of the plateaus with corners in (T,), but for `reach` at its ends."""
    equal = np.abs(np.diff(row)) <= _EQUAL * np.abs(row[1:])
    starts, ends = _runs(equal)  # of differences: sample `ends` is the last that is equal
    inside = (ends - starts >= _FLAT - 1) & (ends >= reach) & (ends < len(row) - reach)
    inside &= starts > 0
    starts, ends = starts[inside], ends[inside]
    level = row[starts].astype(np.float64)
    drops = (level - row[starts - 1], level - row[ends + 1])
    sharp = np.sign(level) * (drops[0] + drops[1]) >= _CORNER * np.abs(level)
    chosen = np.flatnonzero(sharp & (np.abs(level) >= _QUIETEST))
    highest = [
        place
        for place in chosen
        if (row[max(0, (at := starts[place]) - reach) : at + reach] * np.sign(row[at])).max()
        <= (1.0 + _ON_CEILING) * abs(row[at])
    ]
    return level[highest], (ends - starts + 1)[highest]


def _common(found: Counter[int]) -> tuple[float, ...]:
    """Give the levels that plateaus have in common."""
    return tuple(math.exp(step * _ON_CEILING) for step in _common_steps(found))


def _common_steps(found: Counter[int]) -> list[int]:
    """Give the steps of level near which enough plateaus stand."""
    enough = max(_PLATEAUS, _PLATEAU_SHARE * found.total())
    near = {step: sum(found[step + by] for by in _NEAR) for step in list(found)}
    return sorted(step for step in near if near[step] >= enough)


def half_frame(sample_rate: int) -> int:
    """Give the samples on either side, 23 ms, on whose highest level a ceiling must stand."""
    return max(32, round(_FRAME_SECONDS / 2 * sample_rate))


def _coarse(row: NDArray[np.float32]) -> bool:
    """Tell whether (T,) knows few levels."""
    levels = np.unique(np.abs(row))
    levels = levels[levels > levels[-1] / 16]
    steps = np.diff(levels)
    return bool(len(steps) == 0 or steps.min() > _COARSE * levels[-1])


def _runs(mask: NDArray[np.bool_]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Give where runs of true begin, and where they have ended."""
    edges = np.diff(np.concatenate([[0], mask.astype(np.int8), [0]]))
    return np.flatnonzero(edges == 1), np.flatnonzero(edges == -1)


def cut_off(
    frame: Float64, ceilings: tuple[tuple[float, ...], tuple[float, ...]]
) -> NDArray[np.bool_]:
    """Tell which samples of a frame (T,) are cut off."""
    missing = np.zeros(len(frame), bool)
    for wave, levels in zip((frame, -frame), ceilings, strict=True):
        top = float(wave.max())
        if any(abs(top - level) <= 2.0 * _ON_CEILING * level for level in levels):
            missing |= wave >= top * (1.0 - _ON_CEILING)
    starts, ends = _runs(missing)
    longest = int((ends - starts).max(initial=0))
    if longest > _LONGEST_SHARE * len(frame) or missing.mean() > _MOST_MISSING:
        missing[:] = False
    return missing

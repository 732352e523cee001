"""The stage that brings every speaker and every passage to one level, and lifts nothing else.

Speech of a recording is a sequence of levels, one every 100 ms, that stay about the same while one
person speaks and jump when another one does. So a piecewise constant level is fitted: as few
passages as explain the levels well. A jump pays where it is large or lasts, so two voices 16 dB
apart are told apart within two seconds, 6 dB within eight, and the ups and downs within a sentence
never. Every passage is then brought towards the middle of all, but for what nobody minds; pauses,
breath and beds between are never lifted.

Reference:
    Killick, Fearnhead and Eckley 2012, Optimal detection of changepoints with a linear
    computational cost, JASA 107(500), arXiv 1101.1438: the exact fit, by dynamic programming with
    pruning. Levels are K-weighted (ITU-R BS.1770-5 Annex 1).
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from speakup.blocks import Block, Float64, Reframer
from speakup.measure.loudness import HOPS_PER_SECOND, channel_weights, k_weighting
from speakup.spool import Spool
from speakup.stages.base import Stage

MAX_GAIN_DB = 12.0
"""No passage is raised or lowered by more than this."""

_FREE_DB = 1.25
"""Deviations from the middle that are left alone, and left over of larger ones."""
_JUMP_COST, _JUMP_COST_AFTER_PAUSE = 1_500.0, 700.0
"""What a new passage must gain in squared dB, summed over hops. Hops of one voice lie some 5 dB
about its level and depend on their neighbours: by chance alone, less than this is gained. Speakers
change in pauses, mostly."""
_PAUSE_HOPS = 2
_LEAST_HOPS = 8
_REACH_HOPS, _NEAR_HOPS = 20, 5
_BELOW_LOCAL_DB, _BELOW_ALL_DB = 15.0, 32.0
_SWING_DB = 9.0
_LOWEST_DB = -70.0
_BEFORE_HOPS, _AFTER_HOPS = 1, 2

Mask = NDArray[np.bool_]


class Level(Stage):
    """Bring every passage of speech to the programme's own middle level; one gain for all channels.

    The gains are known only when the last sample has come, so everything is spooled to disk.

    Args:
        sample_rate: Hz of the blocks.
        channels: C.
        strength: 0 leaves the recording as it is, 1 levels fully, linear in dB between.

    Attributes:
        raised_db: The largest gain given to a passage, after `flush`.
        lowered_db: The smallest.
        passages: How many passages were found.
    """

    name = "level"
    latency = None

    def __init__(self, sample_rate: int, channels: int, *, strength: float = 1.0) -> None:
        self.warnings: list[str] = []
        self.raised_db = self.lowered_db = 0.0
        self.passages = 0
        self._strength = strength
        self._rate = sample_rate
        self._hops = _HopLevels(sample_rate, channels)
        self._spool = Spool(channels)

    def push(self, block: Block) -> Block:
        self._hops.push(block)
        self._spool.write(block)
        return block[:, :0]

    def flush(self) -> Iterator[Block]:
        gains_db = self._strength * self._gains_db(self._hops.levels())
        position = 0
        with self._spool:
            for block in self._spool.read():
                if gains_db.any():
                    place = (position + np.arange(block.shape[1])) * HOPS_PER_SECOND / self._rate
                    # A hop's gain stands at its middle.
                    curve_db = np.interp(place - 0.5, np.arange(len(gains_db)), gains_db)
                    block *= np.power(10.0, curve_db / 20.0, dtype=np.float32)
                position += block.shape[1]
                yield block

    def close(self) -> None:
        """Drop the spool; `flush` does so itself."""
        self._spool.close()

    @property
    def did(self) -> dict[str, float]:
        """The passages found, and the most that any of them was raised and lowered."""
        raised, lowered = round(self.raised_db, 2), round(self.lowered_db, 2)
        return {"passages": self.passages, "raised_db": raised, "lowered_db": lowered}

    def _gains_db(self, levels: Float64) -> Float64:
        gains, starts = levelling(levels)
        self.passages = len(starts)
        if len(gains):
            self.raised_db = max(0.0, float(gains.max())) * self._strength
            self.lowered_db = min(0.0, float(gains.min())) * self._strength
        return gains


def levelling(levels: Float64) -> tuple[Float64, NDArray[np.intp]]:
    """Give the gain of every hop in dB, and the hops at which passages begin.

    Args:
        levels: (N,) level of every hop in LUFS.

    Returns:
        (N,) gains from -12 to 12 dB, and (P,) first hops of the passages.
    """
    speech = speaking(levels)
    places = np.flatnonzero(speech)
    gains = np.zeros(len(levels))
    if len(places) < _LEAST_HOPS:
        return gains, places[:0]
    paused = np.diff(places, prepend=places[0]) > _PAUSE_HOPS
    borders = changes(levels[places], np.where(paused, _JUMP_COST_AFTER_PAUSE, _JUMP_COST))
    counts = np.diff(np.append(borders, len(places)))
    powers = np.add.reduceat(10.0 ** (levels[places] / 10.0), borders) / counts
    passage_db = 10.0 * np.log10(powers)
    middle_db = float(np.average(passage_db, weights=counts))
    away_db = middle_db - passage_db
    wanted = np.sign(away_db) * np.maximum(np.abs(away_db) - _FREE_DB, 0.0)
    wanted = np.clip(wanted, -MAX_GAIN_DB, MAX_GAIN_DB)
    gains[places] = np.repeat(wanted, counts)
    return _between(gains, speech), places[borders]


def speaking(levels: Float64) -> Mask:
    """Tell which hops (N,) hold speech, by level alone.

    Speech rises and falls within seconds, and is what is loud where it is: a hop counts that lies
    near the loudest within half a second on either side, if the levels within 2 s swing by 9 dB or
    more. What stays at one level (noise, hum, a bed) does not, nor what is far fainter than the
    loudest voice (breath, a room).
    """
    from scipy.ndimage import maximum_filter1d, percentile_filter  # they take a while to load

    if not len(levels):
        return np.zeros(0, bool)
    size = 2 * _REACH_HOPS + 1
    loudest = maximum_filter1d(levels, size, mode="nearest")
    faint = percentile_filter(levels, 10, size, mode="nearest")
    around = maximum_filter1d(levels, 2 * _NEAR_HOPS + 1, mode="nearest")
    lowest = max(_LOWEST_DB, float(np.percentile(levels, 99)) - _BELOW_ALL_DB)
    near = (levels > around - _BELOW_LOCAL_DB) & (levels > lowest)
    return np.asarray(near & (loudest - faint >= _SWING_DB))


def changes(values: Float64, costs: Float64) -> NDArray[np.intp]:
    """Give where a piecewise constant fit begins anew, the first place included.

    The fit has the least sum of squared distances plus the costs of the places where it begins.

    Args:
        values: (N,), N from 1 on.
        costs: (N,) of beginning anew at each of them, in units of the values squared.

    Returns:
        (P,) rising, the first 0.

    Reference: Killick et al. 2012, section 3: PELT.
    """
    sums = np.concatenate([[0.0], np.cumsum(values)])
    squares = np.concatenate([[0.0], np.cumsum(values * values)])
    # What the best fit of the first n values costs, and beginning anew behind it.
    best = np.zeros(len(values) + 1)
    best[0] = costs[0]
    before = np.zeros(len(values) + 1, np.intp)
    candidates = np.array([0])
    for end in range(1, len(values) + 1):
        length = end - candidates
        mean_part = (sums[end] - sums[candidates]) ** 2 / length
        total = best[candidates] + (squares[end] - squares[candidates]) - mean_part
        chosen = int(total.argmin())
        before[end] = candidates[chosen]
        best[end] = total[chosen] + (costs[end] if end < len(values) else 0.0)
        # A start that costs more now, even when beginning anew is paid, is never the best later.
        candidates = np.append(candidates[total <= best[end]], end)
    starts = [int(before[-1])]
    while starts[-1] > 0:
        starts.append(int(before[starts[-1]]))
    return np.array(starts[::-1])


def _between(gains: Float64, speech: Mask) -> Float64:
    """Fill in the gains between speech: never a lift, and rises and falls in the pauses.

    A passage's gain begins a hop before its speech and lasts two beyond; what lies further off
    keeps the lower gain of its two neighbours, or 0 dB where that is a lift.
    """
    filled = gains.copy()
    places = np.flatnonzero(speech)
    for start, end in zip(places[:-1], places[1:], strict=True):
        gap = end - start - 1
        if gap == 0:
            continue
        after = min(_AFTER_HOPS, gap // 2)
        before = min(_BEFORE_HOPS, gap - after)
        filled[start + 1 : start + 1 + after] = gains[start]
        filled[end - before : end] = gains[end]
        filled[start + 1 + after : end - before] = min(gains[start], gains[end], 0.0)
    first, last = int(places[0]), int(places[-1])
    filled[:first] = min(gains[first], 0.0)
    filled[max(0, first - _BEFORE_HOPS) : first] = gains[first]
    filled[last + 1 :] = min(gains[last], 0.0)
    filled[last + 1 : last + 1 + _AFTER_HOPS] = gains[last]
    return filled


class _HopLevels:
    """Measure the K-weighted level of every hop of 100 ms, over all channels."""

    def __init__(self, sample_rate: int, channels: int) -> None:
        self._hop = sample_rate // HOPS_PER_SECOND
        self._edges = sample_rate
        self._sections = k_weighting(sample_rate)
        self._weights = channel_weights(channels)
        self._state = np.zeros((len(self._sections), channels, 2))
        self._second = Reframer(channels, sample_rate)
        self._energies: list[Float64] = []

    def push(self, block: Block) -> None:
        """Take in a block (C, T)."""
        for second in self._second.push(block):
            self._energies.append(self._measured(second))

    def levels(self) -> Float64:
        """Give the levels so far (N,) in LUFS, at most 100 ms beyond the end."""
        rest = self._second.rest
        last = [self._measured(rest)] if rest.shape[1] else []
        energies = np.concatenate([np.zeros(0), *self._energies, *last])
        return np.asarray(-0.691 + 10.0 * np.log10(np.maximum(energies, 1e-12)))

    def _measured(self, second: Block) -> Float64:
        from scipy.signal import sosfilt  # it takes half a second to load

        wide = second.astype(np.float64)
        weighted, self._state = sosfilt(self._sections, wide, axis=-1, zi=self._state)
        hops = math.ceil(second.shape[1] * HOPS_PER_SECOND / self._edges)
        edges = np.arange(hops) * self._edges // HOPS_PER_SECOND
        lengths = np.diff(np.append(edges, second.shape[1]))
        sums = np.add.reduceat(weighted * weighted, edges, axis=-1)
        return np.asarray(self._weights @ sums / lengths)

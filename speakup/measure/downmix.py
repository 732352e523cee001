"""Whether channels cancel each other when they are mixed to one, and what to mix instead."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from speakup.blocks import Block, Float32, Float64, Reframer, finite

_CANCELLED = 0.25
"""Share of unrelated channels' power at which a mix counts as cancelled: two channels' correlation
is then -0.75. A voice 5 dB above the noise that stays is lost by then."""

_LOUD = 0.01
"""Seconds down to 20 dB below the mean power count."""

_SHARE = 0.05
"""Of the loud seconds, so many have to cancel before anything but the plain mean is taken."""


@dataclass(frozen=True)
class Mix:
    """How to mix channels of which the mean loses sound.

    Attributes:
        weights: (C,) factors, to be summed up.
        warning: What is done, and why.
    """

    weights: Float32
    warning: str


class DownmixMeter:
    """Measure, second by second, what is left of the channels in their mean.

    With the covariance K of C channels, the power of their mean is 1'K1 / C^2, and were they
    unrelated it would be trace(K) / C^2. So the ratio 1'K1 / trace(K) is 1 for unrelated channels,
    C for equal ones and 0 for those that cancel.
    """

    def __init__(self, sample_rate: int) -> None:
        self._second = sample_rate
        self._reframer: Reframer | None = None
        self._covariance: Float64 = np.zeros((0, 0))
        self._sums: list[float] = []
        self._traces: list[float] = []

    def watched(self, blocks: Iterable[Block]) -> Iterator[Block]:
        """Yield blocks (C, T) as they are, and measure them."""
        for block in blocks:
            self._reframer = self._reframer or Reframer(len(block), self._second)
            for piece in self._reframer.push(finite(np.asarray(block, np.float32))):
                self._measure(piece)
            yield block

    def _measure(self, piece: Block) -> None:
        samples = piece.astype(np.float64)
        covariance = samples @ samples.T
        self._sums.append(float(covariance.sum()))
        self._traces.append(float(np.trace(covariance)))
        if not self._covariance.size:
            self._covariance = np.zeros_like(covariance)
        self._covariance += covariance

    def mix(self) -> Mix | None:
        """Say what to mix; None where the mean will do, as nearly always."""
        if self._reframer is not None and self._reframer.rest.shape[1]:
            self._measure(self._reframer.rest)
            self._reframer = None
        sums, traces = np.array(self._sums), np.array(self._traces)
        loud = traces > _LOUD * traces.mean() if len(traces) else traces > 0.0
        if not loud.any():
            return None
        share = float(np.mean(sums[loud] < _CANCELLED * traces[loud]))
        if share < _SHARE:
            return None
        channels = len(self._covariance)
        best = int(np.argmax(np.diag(self._covariance)))
        signs = np.where(self._covariance[best] < 0.0, -1.0, 1.0)
        if share > 0.9 and signs @ self._covariance @ signs > np.trace(self._covariance):
            turned = ", ".join(str(number + 1) for number in np.flatnonzero(signs < 0.0))
            return Mix(
                (signs / channels).astype(np.float32),
                f"the channels cancel each other: channel {turned} is turned over before mixing",
            )
        return Mix(
            np.eye(channels, dtype=np.float32)[best],
            f"the channels cancel each other in places: channel {best + 1} alone is taken",
        )

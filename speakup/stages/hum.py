"""Take out mains hum: its lines are fitted and subtracted, and nothing beside them is touched.

A notch would take the voice's partials that cross it; here only what stands still goes. Windows of
6 s overlap by half, and from one's hum to the next one's it fades.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from speakup.blocks import Block, Float64, power_to_db
from speakup.measure.hum import WINDOW_SECONDS, Hum, fit
from speakup.stages.base import Stage


class Dehum(Stage):
    """The stage that subtracts hum; a channel without comes out bit for bit as it was.

    Args:
        sample_rate: Hz.
        hums: What hums in each of the C channels, as `HumMeter` finds it.
    """

    name = "hum"

    def __init__(self, sample_rate: int, hums: Sequence[Hum]) -> None:
        self.warnings: list[str] = []
        self._rate = sample_rate
        self._hums = hums
        self._hop = round(WINDOW_SECONDS * sample_rate / 2.0)
        self._fade = np.sin(np.pi / 2.0 * (np.arange(self._hop) + 0.5) / self._hop) ** 2
        self._held = np.zeros((len(hums), 0), np.float32)
        self._coming: list[Float64 | None] = [None] * len(hums)
        self._powers: list[float] = []
        self._found_hz: list[float] = []
        self.latency = 3 * self._hop - 1

    def push(self, block: Block) -> Block:
        """Take (C, T) and give what is complete: all but the last 9 s or less."""
        self._held = np.concatenate([self._held, block], axis=1)
        ready = [block[:, :0]]
        # What is left makes a window of at least half the length.
        while self._held.shape[1] >= 3 * self._hop:
            ready.append(self._cleaned(2 * self._hop, self._hop))
        return np.concatenate(ready, axis=1)

    def flush(self) -> Iterator[Block]:
        """Give the rest."""
        if self._held.shape[1] > 2 * self._hop:
            yield self._cleaned(2 * self._hop, self._hop)
        yield self._cleaned(self._held.shape[1], self._held.shape[1])

    @property
    def did(self) -> dict[str, float]:
        """The mains' frequency, how many lines were taken out of a channel, and their level."""
        if not self._found_hz:
            return {}
        lines = max(len(hum.lines) for hum in self._hums)
        taken = power_to_db(float(np.mean(self._powers)))
        mains_hz = round(float(np.median(self._found_hz)), 3)
        return {"mains_hz": mains_hz, "lines": lines, "taken_dbfs": round(taken, 2)}

    def _cleaned(self, length: int, ready: int) -> Block:
        """Fit the window that comes first, of so many samples, and give those ready with it."""
        window = self._held[:, :length]
        result = window[:, :ready].copy()
        for channel, hum in enumerate(self._hums):
            found = fit(window[channel].astype(np.float64), self._rate, hum) if hum.lines else None
            before = self._coming[channel]
            if found is None and before is None:
                continue
            sound = np.zeros(length) if found is None else found.sound(length, self._rate)
            self._coming[channel] = sound[ready:].copy()
            if found is not None:
                self._found_hz.append(float(found.turns[0]))
                self._powers.append(float(np.mean(np.square(sound))))
            if before is not None:
                faded = min(len(before), len(sound))
                fade = self._fade[:faded]
                sound[:faded] = fade * sound[:faded] + (1.0 - fade) * before[:faded]
            result[channel] = (result[channel] - sound[:ready]).astype(np.float32)
        self._held = self._held[:, ready:].copy()
        return result

"""Several stages as one, whose strength is that of all together."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from speakup.blocks import Block
from speakup.stages.base import Stage
from speakup.stages.flow import Link, Resampler


class Series(Stage):
    """Run stages one after the other, each at its rate, and mix what went in with what came out.

    Args:
        stages: At least one; each at one rate, and without a delay.
        channels: C.
        wet: How much of the result to keep, 0 to 1; the rest is the input.
    """

    def __init__(self, stages: Sequence[Stage], *, channels: int, wet: float) -> None:
        self.name = stages[0].name
        self.model = "+".join(stage.model for stage in stages)
        self.revision = "+".join(stage.revision for stage in stages)
        self.warnings: list[str] = []
        self._stages, self._links = stages, list[Link]()
        first = rate = _rate(stages[0])
        latency = 0.0
        for stage in stages:
            if _rate(stage) != rate:
                self._links.append(Resampler(rate, _rate(stage), channels))
                latency += _RESAMPLING_SECONDS * first
            rate = _rate(stage)
            latency += (stage.latency or 0) * first / rate
            self._links.append(stage)
        self.input_rate, self.output_rate, self.latency = first, rate, int(latency) + 1
        self._wet = np.float32(wet)
        self._dry = Resampler(first, rate, channels)
        self._waiting = np.zeros((channels, 0), np.float32)

    def push(self, block: Block) -> Block:
        self._keep(self._dry.push(block.copy()))
        return self._mixed(self._sent(block, self._links))

    def flush(self) -> Iterator[Block]:
        self._keep(self._dry.flush())
        for place, link in enumerate(self._links, 1):
            rest = link.flush()
            for block in [rest] if isinstance(rest, np.ndarray) else rest:
                yield self._mixed(self._sent(block, self._links[place:]))
        for stage in self._stages:
            self.warnings += stage.warnings

    def close(self) -> None:
        """Close the stages."""
        for stage in self._stages:
            stage.close()

    def _sent(self, block: Block, links: Sequence[Link]) -> Block:
        for link in links:
            block = link.push(block)
        return block

    def _keep(self, dry: Block) -> None:
        if self._wet < 1.0:
            self._waiting = np.concatenate([self._waiting, dry], axis=1)

    def _mixed(self, wet: Block) -> Block:
        if self._wet == 1.0:
            return wet
        dry = self._waiting[:, : wet.shape[1]]
        self._waiting = self._waiting[:, wet.shape[1] :]
        return dry + self._wet * (wet - dry)


_RESAMPLING_SECONDS = 0.1


def _rate(stage: Stage) -> int:
    if stage.input_rate is None or stage.input_rate != stage.output_rate:
        raise ValueError(f"{stage.name} has no rate of its own")
    return stage.input_rate

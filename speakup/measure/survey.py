"""The first pass over a recording: everything the stages must know before the first sample."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from speakup.blocks import Block, finite
from speakup.measure.bandwidth import BandwidthMeter
from speakup.measure.clipping import Ceilings, ClippingMeter
from speakup.measure.hum import Hum, HumMeter
from speakup.measure.lossy import CODED_TOP_HZ, CodingMeter
from speakup.measure.loudness import LoudnessMeter


@dataclass(frozen=True)
class Survey:
    """What the first pass over a recording found.

    Attributes:
        sample_rate: Hz.
        channels: C.
        samples: T, per channel.
        lufs: Integrated loudness, -inf for silence.
        bandwidth_hz: Where the recording's content ends; None for silence.
        coded: Whether it was coded at a low rate, so that its own top had ended before.
        channels_equal: Whether all channels hold the same samples.
        ceilings: The levels at which each channel is cut off, above and below.
        warnings: What the user should know.
        hidden: Whether the content ends there because noise hides what may lie above.
        speakers: Which speaker each channel feeds, where that is known.
        hums: The mains hum in each channel.
    """

    sample_rate: int
    channels: int
    samples: int
    lufs: float
    bandwidth_hz: float | None
    coded: bool
    channels_equal: bool
    ceilings: Ceilings
    warnings: tuple[str, ...]
    hidden: bool = False
    speakers: tuple[str, ...] = ()
    hums: tuple[Hum, ...] = ()

    @property
    def clipped(self) -> bool:
        """Whether peaks are cut off."""
        return any(above or below for above, below in self.ceilings)

    @property
    def hums_anywhere(self) -> bool:
        """Whether mains hum stands in any channel."""
        return any(hum.lines for hum in self.hums)

    @property
    def ceiling_hz(self) -> float:
        """Above which its own top held nothing, as far as is known, so nothing is to be made up."""
        return CODED_TOP_HZ if self.coded else math.inf

    @property
    def distinct_channels(self) -> int:
        """Channels that must be computed: one if all are equal."""
        return 1 if self.channels_equal else self.channels


def survey(
    blocks: Iterable[Block], sample_rate: int, channels: int, speakers: Sequence[str] = ()
) -> Survey:
    """Measure a recording in one pass over its blocks (C, T), in constant memory.

    What lies where in the spectrum is measured beside loudness and peaks: nothing else can begin
    before all are known.
    """
    loudness, coding = LoudnessMeter(sample_rate, channels, speakers), CodingMeter(sample_rate)
    bandwidth, clipping = BandwidthMeter(sample_rate), ClippingMeter(sample_rate, channels)
    hum = HumMeter(sample_rate, channels)
    samples, equal, not_finite = 0, True, 0
    with ThreadPoolExecutor(1) as beside:
        for block in blocks:
            samples += block.shape[1]
            sane = finite(block)
            not_finite += 0 if sane is block else int((sane != block).sum())
            equal = equal and bool((sane[1:] == sane[:1]).all())
            pushed = [beside.submit(meter.push, sane) for meter in (bandwidth, coding, hum)]
            loudness.push(sane)
            clipping.push(sane)
            for one in pushed:
                one.result()  # before the next block, which may come in the same memory
    warnings = []
    silent = loudness.sample_peak_dbfs() == -math.inf
    if not_finite:
        warnings.append(f"{not_finite} samples were no numbers and count as silence")
    bandwidth_hz = None if silent else bandwidth.bandwidth_hz()
    return Survey(
        sample_rate,
        channels,
        samples,
        loudness.integrated_lufs(),
        bandwidth_hz,
        coding.coded(bandwidth_hz),
        equal,
        clipping.ceilings(),
        tuple(warnings),
        not silent and bandwidth.hidden_by_noise(),
        tuple(speakers),
        hum.hum(),
    )

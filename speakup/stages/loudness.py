"""The stage that brings a recording to a delivery target, and the gain that takes.

Mono convention: BS.1770 sums the channels that exist, so a mono file is measured as one channel
and nothing is added for its being played by two loudspeakers. The same voice on both channels of
a stereo file reads 3 LU more than the mono file, so at one target its channels end up 3 dB lower.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from speakup.blocks import Block, Float32, db_to_gain
from speakup.measure.delivery import DeliveryTarget
from speakup.measure.loudness import MOMENTARY_SECONDS, LoudnessMeter
from speakup.spool import Spool
from speakup.stages.base import Stage
from speakup.stages.limiter import LimitedLoudness, Limiter

MAX_GAIN_DB = 30.0
"""No plan amplifies by more than this: what is quieter than that is mostly noise."""

_MAX_CORRECTION_DB = 3.0
_CLOSE_DB = 0.05


class Loudness(Stage):
    """Bring the whole programme to a delivery target: one gain, then a true-peak limiter.

    Loudness is known only when the last sample has come, so everything is spooled to disk first.
    Without a target the level stays, and only samples beyond full scale are limited; or, where
    cut-off peaks have been rebuilt, which need the room, everything is turned down to hold them.

    Args:
        sample_rate: Hz of the blocks.
        channels: C.
        target: What to deliver, or None.
        make_room: Turn down what rises beyond full scale where there is no target, instead of
            limiting it: peaks that were cut off have been rebuilt.
        speakers: As the meter takes them.
    """

    name = "loudness"
    latency = None

    def __init__(
        self,
        sample_rate: int,
        channels: int,
        target: DeliveryTarget | None,
        *,
        make_room: bool = False,
        speakers: Sequence[str] = (),
    ) -> None:
        self.warnings: list[str] = []
        self.gain_db = 0.0
        self._target, self._make_room = target, make_room
        self._meter = LoudnessMeter(sample_rate, channels, speakers)
        self._spool = Spool(channels)

    def push(self, block: Block) -> Block:
        self._meter.push(block)
        self._spool.write(block)
        return block[:, :0]

    def flush(self) -> Iterator[Block]:
        with self._spool:
            if self._target is None:
                over_db = max(0.0, self._meter.sample_peak_dbfs()) if self._make_room else 0.0
                plan, ceiling = GainPlan(-over_db, []), 0.0
            else:
                plan = plan_gain(self._meter, self._target)
                plan = settle_gain(plan, self._target, self._meter, self._spool.read)
                ceiling = self._target.true_peak_dbtp
            self.gain_db = plan.gain_db
            self.warnings += plan.warnings
            factor = np.float32(db_to_gain(plan.gain_db))
            if self._target is None and self._meter.sample_peak_dbfs() <= 0.0:
                yield from self._spool.read()
                return
            limiter = Limiter(self._meter.sample_rate, self._meter.channels, ceiling)
            for block in self._spool.read():
                yield limiter.push(block * factor)
            yield limiter.flush()

    def close(self) -> None:
        """Drop the spool; `flush` does so itself."""
        self._spool.close()


@dataclass(frozen=True)
class GainPlan:
    """The gain to apply in dB, and what the user should know about it."""

    gain_db: float
    warnings: list[str]


def plan_gain(
    meter: LoudnessMeter, target: DeliveryTarget, *, max_gain_db: float = MAX_GAIN_DB
) -> GainPlan:
    """Decide the gain that brings a measured recording to a target.

    LUFS targets use the gated measure. A target that prescribes RMS is aimed at the middle of
    its range, ungated, as its own checkers measure. Silence, a recording that never rises above
    -70 LUFS, and one shorter than a gating block of 400 ms get 0 dB and a warning: there is
    nothing to measure. Amplification stops at `max_gain_db`; attenuation has no limit.
    """
    loudness = meter.integrated_lufs()
    if math.isinf(loudness):
        return GainPlan(0.0, [_unmeasurable(meter)])
    wanted, unit = _wanted(target)
    gain = wanted - (meter.rms_dbfs() if target.lufs is None else loudness)
    warnings = []
    if gain > max_gain_db:
        warnings.append(
            f"very quiet: amplified by {max_gain_db:g} dB and no more, "
            f"which leaves it {gain - max_gain_db:.1f} dB under {wanted:g} {unit}"
        )
        gain = max_gain_db
    floor = meter.noise_floor_dbfs() + gain
    if target.floor_dbfs is not None and floor > target.floor_dbfs:
        warnings.append(
            f"the noise floor comes out at {floor:.1f} dBFS, "
            f"{target.name} allows {target.floor_dbfs:g} dBFS"
        )
    return GainPlan(gain, warnings)


def settle_gain(
    plan: GainPlan,
    target: DeliveryTarget,
    meter: LoudnessMeter,
    read: Callable[[], Iterable[Float32]],
) -> GainPlan:
    """Correct a plan for the loudness that the limiter takes away, mostly 0.3 to 1 LU.

    Where the limiter will act, the recording is read once for what its loudness will be after any
    gain, and the gain is sought that reaches the target within 0.05 dB. Added are at most 3 dB,
    past which the limiting would be heard, with a warning if more than 0.5 dB stay missing.

    Args:
        plan: What `plan_gain` gave.
        target: What it was planned for.
        meter: What it was planned from.
        read: Opens the recording anew, as blocks `(C, T)`.

    Raises:
        OutputError: the temporary folder is full or cannot be written.
    """
    overshoot = meter.true_peak_dbtp() + plan.gain_db - target.true_peak_dbtp
    if overshoot <= 0.0 or math.isinf(meter.integrated_lufs()) or plan.gain_db >= MAX_GAIN_DB:
        return plan
    most_db = plan.gain_db + _MAX_CORRECTION_DB
    with contextlib.closing(
        LimitedLoudness(meter.sample_rate, meter.channels, target.true_peak_dbtp, most_db, read())
    ) as limited:

        def missing_db(added_db: float) -> float:
            wanted, _ = _wanted(target)
            lufs, rms_dbfs = limited.after(plan.gain_db + added_db)
            return wanted - (rms_dbfs if target.lufs is None else lufs)

        if missing_db(0.0) <= _CLOSE_DB:
            return plan
        missing = missing_db(_MAX_CORRECTION_DB)
        if missing < 0.0:
            from scipy.optimize import brentq  # it takes half a second to load

            added = brentq(missing_db, 0.0, _MAX_CORRECTION_DB, xtol=_CLOSE_DB)
            return GainPlan(plan.gain_db + added, plan.warnings)
    warnings = list(plan.warnings)
    if missing > 0.5:
        warnings.append(f"peaks are limited so much that it stays {missing:.1f} dB too quiet")
    return GainPlan(plan.gain_db + _MAX_CORRECTION_DB, warnings)


def _wanted(target: DeliveryTarget) -> tuple[float, str]:
    """Give the level to reach and its unit; of a range of RMS, the middle."""
    if target.lufs is not None:
        return target.lufs, "LUFS"
    assert target.rms_dbfs is not None
    return sum(target.rms_dbfs) / 2, "dB RMS"


def _unmeasurable(meter: LoudnessMeter) -> str:
    if math.isinf(meter.sample_peak_dbfs()):
        reason = "digital silence"
    elif meter.seconds < MOMENTARY_SECONDS:
        reason = "shorter than 400 ms, too short to measure loudness"
    else:
        reason = "quieter than -70 LUFS throughout, which counts as silence"
    return f"{reason}: the level is left as it is"

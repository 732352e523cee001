"""Which gain a delivery target asks for; the meter and the limiter are had from here too.

Mono convention: BS.1770 sums the channels that exist, so a mono file is measured as one channel
and nothing is added for its being played by two loudspeakers. The same voice on both channels of
a stereo file reads 3 LU more than the mono file, so at one target its channels end up 3 dB lower.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

from speakup.errors import ConfigError
from speakup.limited import LimitedLoudness
from speakup.meter import MOMENTARY_SECONDS, LoudnessMeter
from speakup.truepeak import Float32, Limiter

__all__ = [
    "MAX_GAIN_DB",
    "DeliveryTarget",
    "GainPlan",
    "Limiter",
    "LoudnessMeter",
    "plan_gain",
    "resolve_target",
    "settle_gain",
]

MAX_GAIN_DB = 30.0
"""No plan amplifies by more than this: what is quieter than that is mostly noise."""

_MAX_CORRECTION_DB = 3.0
_CLOSE_DB = 0.05


@dataclass(frozen=True)
class DeliveryTarget:
    """What a platform asks of a finished recording.

    Attributes:
        name: As given by the user.
        lufs: Integrated loudness to reach; None when the RMS is prescribed instead.
        rms_dbfs: Lowest and highest RMS allowed, or None.
        true_peak_dbtp: Ceiling.
        floor_dbfs: Highest noise floor allowed, or None.
    """

    name: str
    lufs: float | None
    rms_dbfs: tuple[float, float] | None
    true_peak_dbtp: float
    floor_dbfs: float | None


@dataclass(frozen=True)
class GainPlan:
    """The gain to apply in dB, and what the user should know about it."""

    gain_db: float
    warnings: list[str]


_TARGETS = {
    "podcast": DeliveryTarget("podcast", -16.0, None, -1.0, None),
    "spotify": DeliveryTarget("spotify", -14.0, None, -1.0, None),
    "youtube": DeliveryTarget("youtube", -14.0, None, -1.0, None),
    "ebu": DeliveryTarget("ebu", -23.0, None, -1.0, None),
    "aes": DeliveryTarget("aes", -18.0, None, -1.0, None),
    "acx": DeliveryTarget("acx", None, (-23.0, -18.0), -3.0, -60.0),
}


def resolve_target(text: str, true_peak: float | None) -> DeliveryTarget | None:
    """Give the delivery target a user names, or None for `off`.

    Args:
        text: A name of `_TARGETS`, a loudness in LUFS, or "off".
        true_peak: Ceiling in dBTP that replaces the target's own, or None.

    Raises:
        ConfigError: the text is neither, or the number is not from -60 to 0.
    """
    wanted = text.strip().lower()
    if wanted == "off":
        return None
    target = _TARGETS.get(wanted) or _numeric_target(text)
    return target if true_peak is None else replace(target, true_peak_dbtp=true_peak)


def _numeric_target(text: str) -> DeliveryTarget:
    try:
        lufs = float(text.strip().replace("\N{MINUS SIGN}", "-"))
    except ValueError:
        lufs = math.nan
    if not -60.0 <= lufs <= 0.0:
        known = ", ".join(_TARGETS)
        raise ConfigError(
            f"loudness is {text!r}", None, f"Choose from {known}, a number from -60 to 0, or off"
        )
    return DeliveryTarget(f"{lufs:g} LUFS", lufs, None, -1.0, None)


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
    with LimitedLoudness(
        meter.sample_rate, meter.channels, target.true_peak_dbtp, most_db, read()
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

"""Whether a platform would take a recording, and what would have to change."""

from __future__ import annotations

import math
from dataclasses import dataclass

from speakup.errors import ConfigError
from speakup.judge.analysis import Analysis, text
from speakup.measure.delivery import DeliveryTarget, resolve_target

SPECS = {
    "podcast": ("Apple Podcasts", 1.0),
    "spotify": ("Spotify", 1.0),
    "youtube": ("YouTube", 1.0),
    "ebu": ("EBU R 128", 0.5),
    "aes": ("AES TD1008", 1.0),
    "acx": ("ACX audiobook", 0.0),
}
"""Whose specification a target's name stands for, and the LU by which the loudness may differ."""

_ANY_TOLERANCE_LU = 1.0


@dataclass(frozen=True)
class DeliveryCheck:
    """Whether a recording meets a specification.

    Attributes:
        target: The target's name, or a loudness.
        spec: Whose specification it is.
        passed: Whether it does.
        why: The figures; of a failure those that are wrong.
        change: What would have to change; "" for nothing.
    """

    target: str
    spec: str
    passed: bool
    why: str
    change: str


def check_delivery(analysis: Analysis, target: str) -> DeliveryCheck:
    """Check loudness, peaks and noise floor against a target.

    Only what the sound itself shows is checked, not the coding of the file. Spotify and YouTube
    turn what differs down or up, so that their targets are advice.

    Args:
        analysis: Of the recording.
        target: A name of `SPECS`, or a loudness in LUFS.

    Raises:
        ConfigError: it is neither, or "off".

    Reference:
        Apple Podcasts: -16 LKFS within 1 dB. Spotify and YouTube: -14 LUFS, here within 1 LU. EBU
        R 128: -23 LUFS, here within 0.5 LU. AES TD1008: -18 LUFS, here within 1 LU. ACX: RMS -23
        to -18 dB, sample peaks at most -3 dB, noise floor at most -60 dB RMS.
    """
    wanted = resolve_target(target, None)
    if wanted is None:
        raise ConfigError("there is nothing to check against", None, f"Name one of {known()}")
    spec, tolerance = SPECS.get(wanted.name, (wanted.name, _ANY_TOLERANCE_LU))
    facts, faults, changes = [], [], []
    for fact, demand, change in _demands(analysis, wanted, tolerance):
        facts.append(fact)
        if change:
            faults.append(f"{fact}, wanted {demand}")
            changes.append(change)
    why = "; ".join(faults or facts)
    return DeliveryCheck(wanted.name, spec, not faults, why, "; ".join(changes))


def delivery_checks(analysis: Analysis) -> list[DeliveryCheck]:
    """Check a recording against every target of `SPECS`."""
    return [check_delivery(analysis, name) for name in SPECS]


def known() -> str:
    """List what can be checked against."""
    return f"{', '.join(SPECS)}, or a loudness in LUFS"


def _demands(
    analysis: Analysis, target: DeliveryTarget, tolerance: float
) -> list[tuple[str, str, str]]:
    """Give each demand: the fact, what is wanted, and what would have to change, "" for nothing."""
    if target.lufs is not None:
        level, unit, limits = analysis.integrated_lufs, "LUFS", (target.lufs, target.lufs)
        peak, peak_unit = analysis.true_peak_dbtp, "dBTP"
    else:
        assert target.rms_dbfs is not None
        level, unit, limits = analysis.rms_dbfs, "dB RMS", target.rms_dbfs
        peak, peak_unit = analysis.sample_peak_dbfs, "dB peak"
    low, high = round(limits[0] - tolerance, 1), round(limits[1] + tolerance, 1)
    found = [(text(level, unit), f"{low:g} to {high:g}", _louder(level, low, high, limits))]
    most = target.true_peak_dbtp
    over = round(peak, 1) - most
    limit = f"limit peaks to {most:g} {peak_unit.split()[0]}" if over > 0.0 else ""
    found.append((text(peak, peak_unit), f"at most {most:g}", limit))
    if target.floor_dbfs is not None:
        over = round(analysis.noise_floor_dbfs, 1) - target.floor_dbfs
        lower = f"lower the noise floor by {over:.1f} dB" if over > 0.0 else ""
        fact = text(analysis.noise_floor_dbfs, "dB floor")
        found.append((fact, f"at most {target.floor_dbfs:g}", lower))
    return found


def _louder(level: float, low: float, high: float, limits: tuple[float, float]) -> str:
    """Say by how much to turn a level up or down, to the middle of what is wanted."""
    if not math.isfinite(level):
        return "there is no speech to set the level of"
    if low <= round(level, 1) <= high:
        return ""
    by = sum(limits) / 2.0 - level
    return f"turn it {'up' if by > 0.0 else 'down'} by {abs(by):.1f} dB"

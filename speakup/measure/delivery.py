"""What platforms ask of a finished recording: loudness, true peak, noise floor."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from speakup.config import Config
from speakup.errors import ConfigError


@dataclass(frozen=True)
class DeliveryTarget:
    """What a platform asks of a finished recording.

    Attributes:
        name: As given by the user.
        lufs: Integrated loudness to reach; None when the RMS is prescribed instead.
        rms_dbfs: Lowest and highest RMS allowed, or None.
        true_peak_dbtp: Ceiling.
        floor_dbfs: Highest noise floor allowed, or None.
        level: Whether listeners expect all speakers at one level, as in podcasts and audiobooks;
            where a broadcaster takes delivery, dynamics are the programme's own.
    """

    name: str
    lufs: float | None
    rms_dbfs: tuple[float, float] | None
    true_peak_dbtp: float
    floor_dbfs: float | None
    level: bool = False


_TARGETS = {
    "podcast": DeliveryTarget("podcast", -16.0, None, -1.0, None, level=True),
    "spotify": DeliveryTarget("spotify", -14.0, None, -1.0, None, level=True),
    "youtube": DeliveryTarget("youtube", -14.0, None, -1.0, None, level=True),
    "ebu": DeliveryTarget("ebu", -23.0, None, -1.0, None),
    "aes": DeliveryTarget("aes", -18.0, None, -1.0, None),
    "acx": DeliveryTarget("acx", None, (-23.0, -18.0), -3.0, -60.0, level=True),
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


def level_strength(config: Config, target: DeliveryTarget | None) -> float:
    """Give how much passages are to be brought to one level, 0 to 1; the target's, if not said."""
    if config.level is not None:
        return config.level
    return 1.0 if target is not None and target.level else 0.0


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

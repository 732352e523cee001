"""What became of a recording, for callers, scripts and reports."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass, field
from typing import Any, Literal


@dataclass(frozen=True)
class StageReport:
    """What one stage did: the model it ran, the seconds it took, and figures of its own."""

    name: str
    model: str
    revision: str
    seconds: float
    did: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Result:
    """What became of one recording; `to_json` is the form scripts read.

    `error` is what went wrong, as it was raised: a `SpeakupError`, or what nobody foresaw.
    """

    input: str
    output: str | None
    status: Literal["ok", "skipped", "failed"]
    seconds: float = 0.0
    elapsed: float = 0.0
    speed: float = 0.0
    channels: int = 0
    sample_rate_in: int = 0
    sample_rate_out: int = 0
    bandwidth_hz: float | None = None
    lufs_in: float | None = None
    lufs_out: float | None = None
    true_peak_dbtp: float | None = None
    gain_db: float = 0.0
    stages: tuple[StageReport, ...] = ()
    warnings: tuple[str, ...] = ()
    error: Exception | None = None

    def to_json(self) -> dict[str, Any]:
        """Give a JSON-ready dict; figures that do not exist or are not known are null."""
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        # Where nothing was enhanced no gain was given, and a length of 0 is one that nobody took.
        unknown = (*_POSITIVE, "gain_db") if self.status != "ok" else _POSITIVE
        values |= {name: None for name in unknown if not values[name]}
        for name, value in values.items():
            if isinstance(value, float):
                values[name] = round(value, 3) if math.isfinite(value) else None
        values["stages"] = tuple(map(dataclasses.asdict, self.stages))
        values["error"] = None if self.error is None else error_json(self.error)
        return {"event": "file", **values}


_POSITIVE = ("seconds", "elapsed", "speed", "channels", "sample_rate_in", "sample_rate_out")


def error_json(error: Exception) -> dict[str, str]:
    """Give an error as scripts read it: its kind, and what is wrong, for a person."""
    return {"type": type(error).__name__, "message": str(error)}


def duration(seconds: float) -> str:
    """Write a length as 5.9 s, 12:34 or 1:23:45."""
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def size(count: float) -> str:
    """Write a number of bytes in the unit that shows it: 512 bytes, 3.21 kB, 1.5 MB or 4.07 GB."""
    for unit, factor in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= 0.9995 * factor:
            return f"{count / factor:.3g} {unit}"
    return f"{count:.0f} bytes"

"""Which denoiser is best, by the one table of measured scores.

The table, `scores.csv`, has a row for each denoiser and kind of damage: means over the recordings
of that kind, of the whole chain with that denoiser in it.
"""

from __future__ import annotations

import csv
import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

_TABLE = Path(__file__).with_name("scores.csv")
_DAMAGE = ("noise", "reverb", "noise_reverb", "device", "clipping", "codec")
"""The kinds that a denoiser is for; on the others it is to do little."""


@dataclass(frozen=True)
class Row:
    """Mean scores of a denoiser's outputs for the recordings of one kind; None: not measured."""

    denoiser: str
    kind: str
    recordings: int
    pesq: float
    estoi: float
    si_sdr: float
    ovrl: float | None
    sig: float | None
    bak: float | None


@functools.cache
def rows() -> tuple[Row, ...]:
    """Read the table."""
    with _TABLE.open(newline="", encoding="utf-8") as lines:
        return tuple(_row(values) for values in csv.DictReader(lines))


def best_denoiser(at_hand: Callable[[str], bool]) -> str | None:
    """Give the best of the denoisers at hand: the highest PESQ, each kind of damage alike.

    Args:
        at_hand: Tells whether a denoiser can be used without a question or a network.

    Returns:
        Its name, or None where none of the table is at hand.
    """
    return next(filter(at_hand, ranked()), None)


def ranked() -> list[str]:
    """List the measured denoisers, the best first."""
    by_name: dict[str, list[float]] = {}
    for row in rows():
        if row.kind in _DAMAGE:
            by_name.setdefault(row.denoiser, []).append(row.pesq)
    return sorted(by_name, key=lambda name: -sum(by_name[name]) / len(by_name[name]))


def _row(values: dict[str, str]) -> Row:
    named = {
        key: None if value == "" else float(value)
        for key, value in values.items()
        if key in ("pesq", "estoi", "si_sdr", "ovrl", "sig", "bak")
    }
    return Row(values["denoiser"], values["kind"], int(values["recordings"]), **named)  # type: ignore[arg-type]

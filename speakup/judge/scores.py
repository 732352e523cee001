"""The scores of many pairs: means by kind and by group, confidence intervals, rows to show.

Data alone: nothing here reads a recording or prints.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

Scores = dict[str, float]

METRICS: dict[str, tuple[str, bool, str]] = {
    "pesq": ("PESQ", True, "wide-band PESQ, ITU-T P.862.2"),
    "estoi": ("ESTOI", True, "extended short-time objective intelligibility"),
    "si_sdr": ("SI-SDR", True, "scale-invariant signal-to-distortion ratio, dB, at 16 kHz"),
    "f0_error": ("F0 err", False, "F0 frame error: pitch lost, invented or changed, 0 to 1"),
    "speaker": ("Speaker", True, "cosine similarity of voices, 1 the same"),
    "ovrl": ("OVRL", True, "DNSMOS P.835 overall"),
    "sig": ("SIG", True, "DNSMOS P.835 speech"),
    "bak": ("BAK", True, "DNSMOS P.835 background"),
    "p808": ("P808", True, "DNSMOS P.808 overall, another network"),
    "lsd": ("LSD", False, "log-spectral distance at 44.1 kHz, log10 power"),
    "lsd_above_8k": ("LSD>8k", False, "the same from 8 kHz up"),
    "words": ("Words", True, "words recognised as in the reference, 1 = all"),
}
"""Key of each score: its heading, whether more is better, and what it is."""

GROUPS = ("kind", "language", "gender")
"""The tags that cases are grouped by unless told otherwise."""

_DECIMALS = {"estoi": 3, "f0_error": 3, "speaker": 3, "si_sdr": 1}
_OVERALL = "all"
_NOT_BANDLIMITED = "all_but_bandlimit"


@dataclass(frozen=True)
class CaseScores:
    """The scores of one pair; `before` is the unprocessed input, `after` the enhanced one."""

    name: str
    tags: dict[str, str] = field(default_factory=dict)
    before: Scores = field(default_factory=dict)
    after: Scores = field(default_factory=dict)
    error: str | None = None


@dataclass(frozen=True)
class Estimate:
    """A mean over the `count` cases that have the score, with its 95 % confidence interval.

    `low` and `high` are NaN for fewer than two cases.
    """

    mean: float
    low: float
    high: float
    count: int


@dataclass(frozen=True)
class Summary:
    """The mean scores of the cases whose tag `group` is `value`.

    `change` is after less before within each case, so its interval is that of paired differences.
    """

    group: str
    value: str
    cases: int
    before: dict[str, Estimate]
    after: dict[str, Estimate]
    change: dict[str, Estimate]


@dataclass(frozen=True)
class EvaluationTable:
    """Every case's scores, and their means by kind and by group."""

    cases: tuple[CaseScores, ...]

    def summaries(self, groups: Sequence[str] = GROUPS, *, seed: int = 0) -> list[Summary]:
        """Average over all cases, and over those that share a tag.

        Besides `all`, where some kinds are band limits, `all_but_bandlimit`. Every mean is over
        cases, so that large kinds weigh more.

        Args:
            groups: The tags to group by; those no case has are left out.
            seed: Of the bootstrap.
        """
        good = [case for case in self.cases if case.error is None]
        found = [_summary(_OVERALL, _OVERALL, good, seed)]
        rest = [case for case in good if not _kind(case).startswith("bandlimit")]
        if rest and len(rest) < len(good):
            found.append(_summary(_OVERALL, _NOT_BANDLIMITED, rest, seed))
        for group in groups:
            values = sorted({case.tags.get(group, "") for case in good} - {""})
            for value in values:
                part = [case for case in good if case.tags.get(group) == value]
                found.append(_summary(group, value, part, seed))
        return found

    def text_rows(
        self, groups: Sequence[str] = GROUPS, *, seed: int = 0
    ) -> tuple[list[str], list[list[str]]]:
        """Give headings and rows of text for a terminal's table.

        Every group has the lines `before`, `after` and `change` (those that were scored), and
        under the last of them half the width of its confidence interval.
        """
        summaries = self.summaries(groups, seed=seed)
        keys = [key for key in METRICS if any(key in {**s.before, **s.after} for s in summaries)]
        rows = []
        for item in summaries:
            label = f"{item.group} {item.value}" if item.group in groups[1:] else item.value
            heads = [[label, str(item.cases)]] + [["", ""]] * 3
            rows += [head + line for head, line in zip(heads, _lines(item, keys), strict=False)]
        return ["", "cases", "", *(METRICS[key][0] for key in keys)], rows

    def to_json(self, groups: Sequence[str] = GROUPS, *, seed: int = 0) -> dict[str, Any]:
        """Give plain lists, dicts, numbers and None (for NaN and infinity), as `--json` shows."""
        return {
            "event": "evaluation",
            "pairs": len(self.cases),
            "failed": sum(case.error is not None for case in self.cases),
            "metrics": {
                key: {"name": name, "more_is_better": more, "description": text}
                for key, (name, more, text) in METRICS.items()
            },
            "summary": [_summary_json(item) for item in self.summaries(groups, seed=seed)],
            "cases": [_case_json(case) for case in self.cases],
        }


def _kind(case: CaseScores) -> str:
    return case.tags.get("kind", "")


def _summary(group: str, value: str, cases: list[CaseScores], seed: int) -> Summary:
    before = [case.before for case in cases]
    after = [case.after for case in cases]
    change = [
        {key: b[key] - a[key] for key in a.keys() & b.keys()}
        for a, b in zip(before, after, strict=True)
    ]
    return Summary(
        group,
        value,
        len(cases),
        _means(before, seed),
        _means(after, seed),
        _means(change, seed),
    )


def _means(scores: list[Scores], seed: int) -> dict[str, Estimate]:
    present = [key for key in METRICS if any(key in one for one in scores)]
    return {key: _mean(scores, key, seed) for key in present}


def _mean(scores: list[Scores], key: str, seed: int, resamples: int = 2000) -> Estimate:
    """Average over the cases that have the score; percentile bootstrap of that mean."""
    values = np.array([case[key] for case in scores if math.isfinite(case.get(key, math.nan))])
    if len(values) == 0:
        return Estimate(math.nan, math.nan, math.nan, 0)
    if len(values) == 1:
        return Estimate(float(values[0]), math.nan, math.nan, 1)
    random = np.random.default_rng(seed)
    drawn = values[random.integers(0, len(values), (resamples, len(values)))].mean(axis=1)
    low, high = np.quantile(drawn, (0.025, 0.975))
    return Estimate(float(values.mean()), float(low), float(high), len(values))


def plain_table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Lay text out in columns: the first flush left, the others flush right."""
    widths = [max(map(len, column)) for column in zip(headings, *rows, strict=True)]
    lines = []
    for row in (headings, *rows):
        cells = [
            cell.rjust(width) if place else cell.ljust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def _lines(item: Summary, keys: list[str]) -> list[list[str]]:
    parts = {"before": item.before, "after": item.after, "change": item.change}
    parts = {name: estimates for name, estimates in parts.items() if estimates}
    if not parts:
        return [["", *("" for _ in keys)]]
    lines = []
    for name, estimates in parts.items():
        sign = "+" if name == "change" else ""
        means = [_cell(estimates, key, sign) for key in keys]
        lines.append([name, *means])
    return [*lines, ["95 %", *(_half_width(estimates, key) for key in keys)]]


def _cell(estimates: dict[str, Estimate], key: str, sign: str) -> str:
    if key not in estimates or estimates[key].count == 0:
        return "-"
    mean = round(estimates[key].mean, _decimals(key)) + 0.0  # -0.0 becomes 0.0
    return f"{mean:{sign}.{_decimals(key)}f}"


def _half_width(estimates: dict[str, Estimate], key: str) -> str:
    if key not in estimates or estimates[key].count < 2:
        return ""
    return f"±{(estimates[key].high - estimates[key].low) / 2:.{_decimals(key)}f}"


def _decimals(key: str) -> int:
    return _DECIMALS.get(key, 2)


def _summary_json(item: Summary) -> dict[str, Any]:
    parts = {"before": item.before, "after": item.after, "change": item.change}
    return {
        "group": item.group,
        "value": item.value,
        "cases": item.cases,
        **{
            part: {
                key: {
                    "mean": _number(one.mean),
                    "low": _number(one.low),
                    "high": _number(one.high),
                    "count": one.count,
                }
                for key, one in estimates.items()
            }
            for part, estimates in parts.items()
        },
    }


def _case_json(case: CaseScores) -> dict[str, Any]:
    return {
        "case": case.name,
        "tags": case.tags,
        "before": {key: _number(value) for key, value in case.before.items()},
        "after": {key: _number(value) for key, value in case.after.items()},
        "error": case.error,
    }


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None

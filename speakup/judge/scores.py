"""The scores of many pairs: means by kind and by group, intervals, comparisons, tables to show.

Data alone: nothing here reads a recording or prints.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Scores = dict[str, float]

INPUT = "input"
"""What the unprocessed recordings are called among the systems."""


class Metric(NamedTuple):
    """What a score is called, whether more of it is better, and what it is."""

    name: str
    more_is_better: bool
    description: str
    decimals: int = 2


METRICS: dict[str, Metric] = {
    "pesq": Metric("PESQ", True, "wide-band PESQ, ITU-T P.862.2"),
    "estoi": Metric("ESTOI", True, "extended short-time objective intelligibility", 3),
    "si_sdr": Metric("SI-SDR", True, "scale-invariant signal-to-distortion ratio, dB, 16 kHz", 1),
    "f0_error": Metric("F0 err", False, "F0 frame error: pitch lost, invented or moved, 0 to 1", 3),
    "speaker": Metric("Speaker", True, "cosine similarity of voices, 1 the same", 3),
    "ovrl": Metric("OVRL", True, "DNSMOS P.835 overall"),
    "sig": Metric("SIG", True, "DNSMOS P.835 speech"),
    "bak": Metric("BAK", True, "DNSMOS P.835 background"),
    "p808": Metric("P808", True, "DNSMOS P.808 overall, another network"),
    "distillmos": Metric("DistillMOS", True, "Distill-MOS overall, arXiv 2502.05356"),
    "lsd": Metric("LSD", False, "log-spectral distance at 44.1 kHz, log10 power"),
    "lsd_above_8k": Metric("LSD>8k", False, "the same from 8 kHz up"),
    "wer": Metric("WER", False, "word error rate: edits per word said"),
}
"""Every score by its key, in the order in which tables show them."""

GROUPS = ("kind", "language", "gender")
"""The tags that cases are grouped by unless told otherwise."""

_OVERALL = "all"
_NOT_BANDLIMITED = "all_but_bandlimit"
_RESAMPLES = 2000
_SYSTEMS_PER_TABLE = 5  # as many columns fit into 80


@dataclass(frozen=True)
class CaseScores:
    """The scores of one pair by system; `warnings` say what makes them doubtful."""

    name: str
    tags: dict[str, str] = field(default_factory=dict)
    scores: dict[str, Scores] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    error: str | None = None


@dataclass(frozen=True)
class Mean:
    """A mean over the `count` cases that have the score, with its 95 % confidence interval.

    `low` and `high` are NaN for fewer than two cases.
    """

    mean: float
    low: float
    high: float
    count: int


@dataclass(frozen=True)
class Difference(Mean):
    """A mean of paired differences; `p` is how probable one as large would be without any."""

    p: float

    @property
    def significant(self) -> bool:
        """Whether the interval leaves out 0."""
        return self.low > 0.0 or self.high < 0.0


@dataclass(frozen=True)
class Summary:
    """The mean scores of the cases whose tag `group` is `value`.

    Attributes:
        group: A tag, or `all`.
        value: Of the tag.
        cases: How many have it.
        systems: The means of each system by metric.
        differences: The mean paired differences by (system, the one it is compared with).
    """

    group: str
    value: str
    cases: int
    systems: dict[str, dict[str, Mean]]
    differences: dict[tuple[str, str], dict[str, Difference]]


class TextTable(NamedTuple):
    """A table of text: a title, headings, and rows of as many cells."""

    title: str
    headings: list[str]
    rows: list[list[str]]


@dataclass(frozen=True)
class Evaluation:
    """Every case's scores, and their means by kind and by group."""

    cases: tuple[CaseScores, ...]

    @property
    def systems(self) -> list[str]:
        """The systems that were scored, the unprocessed input first."""
        return list(dict.fromkeys(name for case in self.cases for name in case.scores))

    def summaries(self, groups: Sequence[str] = GROUPS, *, seed: int = 0) -> list[Summary]:
        """Average over all cases, and over those that share a tag.

        Besides `all`, where some kinds are band limits, `all_but_bandlimit`. Every mean is over
        cases, so that large kinds weigh more. Every system is compared with the input, and with
        the first system.

        Args:
            groups: The tags to group by; those no case has are left out.
            seed: Of the bootstrap.
        """
        good = [case for case in self.cases if case.error is None]
        found = [self._summary(_OVERALL, _OVERALL, good, seed)]
        rest = [case for case in good if not case.tags.get("kind", "").startswith("bandlimit")]
        if rest and len(rest) < len(good):
            found.append(self._summary(_OVERALL, _NOT_BANDLIMITED, rest, seed))
        for group in groups:
            values = sorted({case.tags.get(group, "") for case in good} - {""})
            for value in values:
                part = [case for case in good if case.tags.get(group) == value]
                found.append(self._summary(group, value, part, seed))
        return found

    def tables(self, groups: Sequence[str] = GROUPS, *, seed: int = 0) -> list[TextTable]:
        """Give a table for each group, with a row for each metric, that fits into 80 columns.

        One system is shown beside the input with the mean change and its interval. Of several,
        each mean is marked by how it compares with the first one's: `+` significantly better,
        `-` worse, at 95 %.
        """
        systems = self.systems
        ours = [name for name in systems if name != INPUT]
        tables = []
        for item in self.summaries(groups, seed=seed):
            label = f"{item.group} {item.value}" if item.group in groups[1:] else item.value
            title = f"{label}, {item.cases} case{'s' * (item.cases != 1)}"
            if len(ours) == 1 and INPUT in systems:
                tables.append(_change_table(title, item, ours[0]))
            else:
                tables += [
                    _comparison_table(title, item, systems[start : start + _SYSTEMS_PER_TABLE])
                    for start in range(0, max(1, len(systems)), _SYSTEMS_PER_TABLE)
                ]
        return tables

    def to_json(self, groups: Sequence[str] = GROUPS, *, seed: int = 0) -> dict[str, Any]:
        """Give plain lists, dicts, numbers and None (for NaN and infinity), as `--json` shows."""
        return {
            "event": "evaluation",
            "pairs": len(self.cases),
            "failed": sum(case.error is not None for case in self.cases),
            "systems": self.systems,
            "metrics": {
                key: {"name": one.name, "more_is_better": one.more_is_better}
                | {"description": one.description}
                for key, one in METRICS.items()
            },
            "summary": [_summary_json(item) for item in self.summaries(groups, seed=seed)],
            "cases": [_case_json(case) for case in self.cases],
        }

    def _summary(self, group: str, value: str, cases: list[CaseScores], seed: int) -> Summary:
        systems = self.systems
        ours = [name for name in systems if name != INPUT]
        compared = [(name, INPUT) for name in ours if INPUT in systems]
        compared += [(name, ours[0]) for name in ours[1:]]
        means = {name: _means(_values(cases, name), seed) for name in systems}
        differences = {pair: _differences(cases, *pair, seed) for pair in compared}
        return Summary(group, value, len(cases), means, differences)


def _values(cases: Sequence[CaseScores], system: str) -> dict[str, NDArray[np.float64]]:
    """Give a system's scores by metric, NaN for cases without; metrics no case has are left out."""
    scores = [case.scores.get(system, {}) for case in cases]
    present = [key for key in METRICS if any(key in one for one in scores)]
    return {key: np.array([one.get(key, math.nan) for one in scores]) for key in present}


def _means(values: dict[str, NDArray[np.float64]], seed: int) -> dict[str, Mean]:
    return {key: _mean(one[np.isfinite(one)], seed) for key, one in values.items()}


def _mean(values: NDArray[np.float64], seed: int) -> Mean:
    if len(values) < 2:
        only = float(values[0]) if len(values) else math.nan
        return Mean(only, math.nan, math.nan, len(values))
    low, high = np.quantile(_resampled_means(values, seed), (0.025, 0.975))
    return Mean(float(values.mean()), float(low), float(high), len(values))


def _differences(
    cases: Sequence[CaseScores], system: str, other: str, seed: int
) -> dict[str, Difference]:
    """Compare two systems case by case.

    Reference:
        Efron and Tibshirani 1993, An Introduction to the Bootstrap, chapters 13 and 16: the
        percentile interval of the mean difference, and twice the smaller tail beyond 0.
    """
    mine, theirs = _values(cases, system), _values(cases, other)
    found = {}
    for key in [key for key in mine if key in theirs]:
        values = mine[key] - theirs[key]
        values = values[np.isfinite(values)]
        mean, p = _mean(values, seed), math.nan
        if len(values) > 1:
            drawn = _resampled_means(values, seed)
            tail = min(int((drawn <= 0.0).sum()), int((drawn >= 0.0).sum()))
            p = min(1.0, 2.0 * (tail + 1) / (len(drawn) + 1))
        found[key] = Difference(**asdict(mean), p=p)
    return found


def _resampled_means(values: NDArray[np.float64], seed: int) -> NDArray[np.float64]:
    random = np.random.default_rng(seed)
    drawn = random.integers(0, len(values), (_RESAMPLES, len(values)))
    return np.asarray(values[drawn].mean(axis=1))


def _change_table(title: str, item: Summary, system: str) -> TextTable:
    before, after = item.systems[INPUT], item.systems[system]
    changes = item.differences[system, INPUT]
    rows = []
    for key in [key for key in METRICS if key in before or key in after]:
        change = changes.get(key)
        cells = [_number(before.get(key), key), _number(after.get(key), key)]
        cells += [_number(change, key, "+"), _interval(change, key)]
        rows.append([METRICS[key].name, *cells])
    return TextTable(title, ["", INPUT, system, "change", "95 %"], rows)


def _comparison_table(title: str, item: Summary, systems: Sequence[str]) -> TextTable:
    rows = []
    for key in [key for key in METRICS if any(key in one for one in item.systems.values())]:
        cells = [
            f"{_number(item.systems[name].get(key), key)} {_mark(item, name, key)}"
            for name in systems
        ]
        rows.append([METRICS[key].name, *cells])
    return TextTable(title, ["", *(f"{name}  " for name in systems)], rows)


def _mark(item: Summary, system: str, key: str) -> str:
    """Tell whether a system is significantly better or worse than the first."""
    for (name, other), found in item.differences.items():
        if name == system and other != INPUT and key in found and found[key].significant:
            better = (found[key].mean > 0.0) == METRICS[key].more_is_better
            return "+" if better else "-"
    return " "


def _number(found: Mean | None, key: str, sign: str = "") -> str:
    if found is None or found.count == 0:
        return "-"
    decimals = METRICS[key].decimals
    return f"{round(found.mean, decimals) + 0.0:{sign}.{decimals}f}"  # -0.0 becomes 0.0


def _interval(found: Mean | None, key: str) -> str:
    if found is None or found.count < 2:
        return ""
    decimals = METRICS[key].decimals
    low, high = (round(edge, decimals) + 0.0 for edge in (found.low, found.high))
    return f"{low:+.{decimals}f} to {high:+.{decimals}f}"


def _summary_json(item: Summary) -> dict[str, Any]:
    return {
        "group": item.group,
        "value": item.value,
        "cases": item.cases,
        "systems": {
            name: {key: _plain(asdict(mean)) for key, mean in means.items()}
            for name, means in item.systems.items()
        },
        "differences": [
            {"system": name, "to": other}
            | {"metrics": {key: _plain(asdict(one)) for key, one in found.items()}}
            for (name, other), found in item.differences.items()
        ],
    }


def _case_json(case: CaseScores) -> dict[str, Any]:
    return {
        "case": case.name,
        "tags": case.tags,
        "systems": {name: _plain(one) for name, one in case.scores.items()},
        "warnings": list(case.warnings),
        "error": case.error,
    }


def _plain(values: dict[str, Any]) -> dict[str, Any]:
    """Give None for numbers that JSON cannot hold."""
    return {
        key: None if isinstance(value, float) and not math.isfinite(value) else value
        for key, value in values.items()
    }

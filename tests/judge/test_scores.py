from __future__ import annotations

import json
import math

import numpy as np
import pytest

from speakup.judge.scores import INPUT, METRICS, CaseScores, Evaluation


def case(name: str, kind: str, before: float, after: float, **tags: str) -> CaseScores:
    scores = {INPUT: {"pesq": before}, "ours": {"pesq": after}}
    return CaseScores(name, {"kind": kind, **tags}, scores)


def four_cases() -> Evaluation:
    return Evaluation(
        (
            case("1", "noise", 1.0, 2.0, language="en"),
            case("2", "noise", 2.0, 3.5, language="fi"),
            case("3", "reverb", 3.0, 4.0, language="en"),
            case("4", "bandlimit4k", 4.0, 4.0),
        )
    )


def test_means_are_over_cases_by_kind_and_by_group() -> None:
    found = {(item.group, item.value): item for item in four_cases().summaries()}
    assert [value for _, value in found] == [
        *("all", "all_but_bandlimit", "bandlimit4k", "noise", "reverb", "en", "fi")
    ]
    assert found["all", "all"].systems[INPUT]["pesq"].mean == 2.5
    assert found["all", "all_but_bandlimit"].systems[INPUT]["pesq"].mean == 2.0
    assert found["kind", "noise"].differences["ours", INPUT]["pesq"].mean == 1.25
    assert found["language", "en"].systems["ours"]["pesq"].mean == 3.0
    single = found["kind", "reverb"].systems[INPUT]["pesq"]
    assert single.count == 1 and math.isnan(single.low), "one case has no interval"


def test_confidence_intervals_are_seeded_and_cover_the_mean() -> None:
    values = np.random.default_rng(1).normal(3.0, 1.0, 400)
    table = Evaluation(tuple(case(str(n), "noise", one, one) for n, one in enumerate(values)))
    pesq = table.summaries()[0].systems[INPUT]["pesq"]
    # The bootstrap of a mean of 400 must agree with the normal approximation.
    half = 1.96 * values.std(ddof=1) / math.sqrt(400)
    assert pesq.low == pytest.approx(values.mean() - half, abs=0.02)
    assert pesq.high == pytest.approx(values.mean() + half, abs=0.02)
    assert table.summaries()[0].systems[INPUT]["pesq"] == pesq
    assert table.summaries(seed=1)[0].systems[INPUT]["pesq"] != pesq
    change = table.summaries()[0].differences["ours", INPUT]["pesq"]
    assert change.low == change.high == 0.0, "paired: the same before and after"


def several(gain: float, spread: float, count: int = 30) -> Evaluation:
    """Give cases that differ much, and two systems that differ by about `gain` within each."""
    random = np.random.default_rng(3)
    cases = []
    for number, hard in enumerate(random.normal(2.0, 1.0, count)):
        better = hard + gain + spread * random.normal()
        scores = {INPUT: {"lsd": hard}, "one": {"lsd": hard}, "two": {"lsd": better}}
        cases.append(CaseScores(str(number), {}, scores))
    return Evaluation(tuple(cases))


def test_a_small_difference_in_every_pair_is_significant_and_chance_is_not() -> None:
    clear = several(-0.1, 0.05).summaries()[0].differences["two", "one"]["lsd"]
    assert clear.significant and clear.p < 0.01 and clear.mean == pytest.approx(-0.1, abs=0.03)
    chance = several(0.0, 0.5).summaries()[0].differences["two", "one"]["lsd"]
    assert not chance.significant and chance.p > 0.05


def test_chance_is_called_significant_about_as_often_as_stated() -> None:
    random = np.random.default_rng(0)
    false = 0
    for _ in range(60):
        cases = [
            CaseScores(str(n), {}, {"one": {"pesq": 0.0}, "two": {"pesq": float(by)}})
            for n, by in enumerate(random.normal(0.0, 1.0, 40))
        ]
        found = Evaluation(tuple(cases)).summaries()[0].differences["two", "one"]["pesq"]
        false += found.significant
    assert false <= 9, "5 % of 60 are 3; more than nine would be one chance in a thousand"


def test_several_systems_are_marked_against_the_first_and_less_may_be_better() -> None:
    (table,) = several(-0.1, 0.05).tables()
    assert table.title == "all, 30 cases"
    assert [heading.strip() for heading in table.headings] == ["", "input", "one", "two"]
    (row,) = table.rows
    assert row[0] == "LSD" and row[3].endswith(" +") and row[2].endswith("  ")
    (worse,) = several(0.1, 0.05).tables()
    assert worse.rows[0][3].endswith(" -")


def test_scores_that_could_not_be_computed_count_in_no_mean() -> None:
    table = Evaluation((case("1", "noise", 2.0, math.nan), case("2", "noise", math.inf, 3.0)))
    item = table.summaries()[0]
    before, after = item.systems[INPUT]["pesq"], item.systems["ours"]["pesq"]
    assert (before.mean, before.count) == (2.0, 1)
    assert (after.mean, after.count) == (3.0, 1)
    assert item.differences["ours", INPUT]["pesq"].count == 0
    text = json.dumps(table.to_json(), allow_nan=False)
    assert json.loads(text)["cases"][0]["systems"]["ours"]["pesq"] is None


def test_an_empty_evaluation_is_still_a_table() -> None:
    table = Evaluation((CaseScores("bad", error="it cannot be read"),))
    json.dumps(table.to_json(), allow_nan=False)
    assert [one.title for one in table.tables()] == ["all, 0 cases"]


def test_one_system_is_shown_with_its_change_and_interval() -> None:
    tables = {table.title: table for table in four_cases().tables()}
    noise = tables["noise, 2 cases"]
    assert noise.headings == ["", "input", "ours", "change", "95 %"]
    assert noise.rows == [["PESQ", "1.50", "2.75", "+1.25", "+1.00 to +1.50"]]
    assert "language en, 2 cases" in tables and "reverb, 1 case" in tables


def test_no_table_is_wider_than_a_terminal() -> None:
    every = dict.fromkeys(METRICS, -12.345)
    for count in (1, 2, 5, 12):
        systems = {f"system-{number}": every for number in range(count)}
        cases = tuple(CaseScores(str(n), {}, {INPUT: every, **systems}) for n in range(3))
        for table in Evaluation(cases).tables():
            columns = zip(table.headings, *table.rows, strict=True)
            assert sum(2 + max(map(len, column)) for column in columns) <= 80

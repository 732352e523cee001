from __future__ import annotations

import csv
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray

from speakup.errors import InputError
from speakup.judge import metrics, speaker
from speakup.judge import pairs as pairs_module
from speakup.judge.pairs import Pair, evaluate_pairs, read_pairs, score
from speakup.judge.scores import CaseScores, EvaluationTable, plain_table

Signal = NDArray[np.floating[Any]]


@pytest.fixture
def without_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stand in for the metrics of the extra, which need packages and time."""
    monkeypatch.setattr(metrics, "pesq_wb", lambda est, ref, rate: 4.0 - np.std(est - ref))
    monkeypatch.setattr(metrics, "estoi", lambda est, ref, rate: 0.5)
    opinion = {"ovrl": 3.0, "sig": 3.0, "bak": 3.0}
    monkeypatch.setattr(metrics, "dnsmos", lambda est, rate: dict(opinion))
    monkeypatch.setattr(speaker, "available", lambda: False)


def write(path: Path, samples: Signal, rate: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, samples.T if samples.ndim == 2 else samples, rate, subtype="PCM_24")


def noise(seconds: float, rate: int, seed: int = 0, rms: float = 0.05) -> Signal:
    return np.random.default_rng(seed).standard_normal(round(seconds * rate)) * rms


def paired_folder(folder: Path) -> Path:
    """Three cases: full-band noise, a wide-band reference, a band-limited input."""
    clean = noise(0.6, 44_100)
    write(folder / "a/input.wav", clean + noise(0.6, 44_100, 1, 0.02), 44_100)
    write(folder / "a/reference.flac", clean, 44_100)
    low = metrics.resample(clean, 44_100, 16_000)
    write(folder / "b/input.wav", clean, 44_100)
    write(folder / "b/reference.wav", low, 16_000)
    write(folder / "c/input.wav", low, 16_000)
    write(folder / "c/reference.wav", clean, 44_100)
    (folder / "notes").mkdir()
    with (folder / "manifest.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["case", "kind", "reference_rate", "language", "gender", "transcript"])
        writer.writerow(["a", "noise", "44100", "en", "F", "hello there"])
        writer.writerow(["b", "noise", "16000", "fi", "", ""])
        writer.writerow(["c", "bandlimit8k", "", "en", "M", ""])
    return folder


def test_a_folder_of_cases_is_read_with_its_manifest(tmp_path: Path) -> None:
    pairs = read_pairs(paired_folder(tmp_path))
    assert [pair.name for pair in pairs] == ["a", "b", "c"]
    assert pairs[0].tags == {"kind": "noise", "language": "en", "gender": "F"}
    assert pairs[0].transcript == "hello there"
    assert [pair.reference_rate for pair in pairs] == [44_100, 16_000, None]
    assert pairs[0].reference == tmp_path / "a/reference.flac"
    assert [pair.name for pair in read_pairs(tmp_path, limit=2)] == ["a", "b"]
    assert len(read_pairs(tmp_path, limit=10)) == 3


def test_a_csv_file_is_read_relative_to_itself(tmp_path: Path) -> None:
    table = tmp_path / "pairs.csv"
    table.write_text("\ufeffinput,reference,kind\nx/in.wav,x/ref.wav,room\n", encoding="utf-8")
    assert read_pairs(table) == [
        Pair("in", tmp_path / "x/in.wav", tmp_path / "x/ref.wav", None, {"kind": "room"})
    ]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("input,reference\nonly.wav,\n", "line 2 lacks"),
        ("input,reference\n", "no pairs"),
        ("input,reference,reference_rate\na,b,high\n", "reference_rate of a is 'high'"),
    ],
)
def test_a_bad_csv_file_is_refused_in_one_line(tmp_path: Path, text: str, problem: str) -> None:
    table = tmp_path / "pairs.csv"
    table.write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match=problem):
        read_pairs(table)


def test_missing_things_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such folder or CSV"):
        read_pairs(tmp_path / "nowhere")
    with pytest.raises(InputError, match="no pairs"):
        read_pairs(tmp_path)
    write(tmp_path / "a/input.wav", noise(0.1, 8000), 8000)
    with pytest.raises(InputError, match="holds no reference"):
        read_pairs(tmp_path)


@pytest.mark.usefixtures("without_packages")
def test_lsd_is_left_out_where_the_reference_holds_no_top() -> None:
    clean = noise(0.5, 44_100)
    assert "lsd_above_8k" in score(clean, 44_100, clean, 44_100)
    assert "lsd" not in score(clean, 44_100, clean, 44_100, content_rate=16_000)
    assert "lsd" not in score(clean, 44_100, noise(0.5, 16_000), 16_000)


@pytest.mark.usefixtures("without_packages")
def test_speakers_are_compared_where_their_package_is_there(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clean = noise(1.0, 44_100)
    assert "speaker" not in score(clean, 44_100, clean, 44_100)

    def similarity(estimate: Signal, reference: Signal, rate: int) -> float:
        assert rate == 16_000 and estimate.shape == reference.shape
        return float(np.corrcoef(estimate, reference)[0, 1])

    monkeypatch.setattr(speaker, "available", lambda: True)
    monkeypatch.setattr(speaker, "similarity", similarity)
    late = np.concatenate([np.zeros(441), clean])
    assert score(late, 44_100, clean, 44_100)["speaker"] > 0.999, "aligned before"


@pytest.mark.usefixtures("without_packages")
def test_scores_forgive_delay_level_and_channels() -> None:
    clean = noise(1.0, 44_100)
    late = np.stack([np.concatenate([np.zeros(441), clean])] * 2) * 0.3
    scores = score(late, 44_100, clean, 44_100)
    assert scores["si_sdr"] > 40
    assert scores["lsd"] < 0.05


@pytest.mark.usefixtures("without_packages")
def test_pairs_are_scored_before_and_after(tmp_path: Path) -> None:
    pairs = read_pairs(paired_folder(tmp_path))
    seen: list[str] = []

    def enhance(waveform: NDArray[np.float32], rate: int) -> tuple[NDArray[np.float32], int]:
        assert waveform.dtype == np.float32 and waveform.ndim == 2
        waveform *= 0.5  # the enhancer may do as it likes with its own copy
        return waveform, rate

    table = evaluate_pairs(pairs, enhance, progress=lambda case: seen.append(case.name))
    assert seen == ["a", "b", "c"]
    first = table.cases[0]
    assert first.before["lsd"] == pytest.approx(first.after["lsd"], rel=1e-6)
    assert first.before["si_sdr"] == pytest.approx(first.after["si_sdr"], rel=1e-6)
    assert first.before["lsd"] > 0.1
    alone = evaluate_pairs(pairs, enhance, score_inputs=False).cases[0]
    assert alone.before == {} and alone.after == first.after
    inputs = evaluate_pairs(pairs).cases[0]
    assert inputs.after == {} and inputs.before == first.before


@pytest.mark.usefixtures("without_packages")
def test_a_bad_pair_is_reported_and_does_not_stop_the_rest(tmp_path: Path) -> None:
    pairs = read_pairs(paired_folder(tmp_path))
    pairs[0].input.write_text("this is no sound")
    table = evaluate_pairs(pairs)
    assert [case.error is None for case in table.cases] == [False, True, True]
    assert "input.wav" in (table.cases[0].error or "")
    assert table.summaries()[0].cases == 2
    assert table.to_json()["failed"] == 1


@pytest.mark.usefixtures("without_packages")
def test_words_are_scored_on_request_for_english_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard = iter([["hello", "you"], ["from", "reference"], ["from", "reference"]])
    monkeypatch.setattr(metrics, "recognise", lambda speech, rate: next(heard))
    cases = evaluate_pairs(read_pairs(paired_folder(tmp_path)), words=True).cases
    assert cases[0].before["words"] == 0.5, "against the manifest's transcript"
    assert "words" not in cases[1].before, "Finnish"
    assert cases[2].before["words"] == 1.0, "against what is heard in the reference"


def test_processes_keep_the_order_and_take_no_more_than_they_need() -> None:
    taken = 0

    def tasks() -> Iterator[pairs_module._Task]:
        nonlocal taken
        for number in range(12):
            taken += 1
            pair = Pair(str(number), Path("in.wav"), Path("ref.wav"))
            yield pairs_module._Task(pair, {}, words=False, error="left as it is")

    results = pairs_module._run(tasks(), jobs=2)
    assert next(results).name == "0"
    assert taken <= 6, "signals of the rest are not read yet"
    assert [one.name for one in results] == [str(number) for number in range(1, 12)]


def case(name: str, kind: str, before: float, after: float, **tags: str) -> CaseScores:
    return CaseScores(name, {"kind": kind, **tags}, {"pesq": before}, {"pesq": after})


def table_of_four() -> EvaluationTable:
    return EvaluationTable(
        (
            case("1", "noise", 1.0, 2.0, language="en"),
            case("2", "noise", 2.0, 3.5, language="fi"),
            case("3", "reverb", 3.0, 4.0, language="en"),
            case("4", "bandlimit4k", 4.0, 4.0),
        )
    )


def test_means_are_over_cases_by_kind_and_by_group() -> None:
    found = {(item.group, item.value): item for item in table_of_four().summaries()}
    assert [value for _, value in found] == [
        *("all", "all_but_bandlimit", "bandlimit4k", "noise", "reverb", "en", "fi")
    ]
    assert found["all", "all"].before["pesq"].mean == 2.5
    assert found["all", "all_but_bandlimit"].before["pesq"].mean == 2.0
    assert found["kind", "noise"].change["pesq"].mean == 1.25
    assert found["language", "en"].after["pesq"].mean == 3.0
    single = found["kind", "reverb"].before["pesq"]
    assert single.count == 1 and math.isnan(single.low), "one case has no interval"


def test_confidence_intervals_are_seeded_and_cover_the_mean() -> None:
    values = np.random.default_rng(1).normal(3.0, 1.0, 400)
    cases = tuple(case(str(n), "noise", value, value) for n, value in enumerate(values))
    table = EvaluationTable(cases)
    pesq = table.summaries()[0].before["pesq"]
    # The bootstrap of a mean of 400 must agree with the normal approximation.
    half = 1.96 * values.std(ddof=1) / math.sqrt(400)
    assert pesq.low == pytest.approx(values.mean() - half, abs=0.02)
    assert pesq.high == pytest.approx(values.mean() + half, abs=0.02)
    assert table.summaries()[0].before["pesq"] == pesq
    assert table.summaries(seed=1)[0].before["pesq"] != pesq
    change = table.summaries()[0].change["pesq"]
    assert change.low == change.high == 0.0, "paired: the same before and after"


def test_scores_that_could_not_be_computed_count_in_no_mean() -> None:
    table = EvaluationTable((case("1", "noise", 2.0, math.nan), case("2", "noise", math.inf, 3.0)))
    item = table.summaries()[0]
    assert (item.before["pesq"].mean, item.before["pesq"].count) == (2.0, 1)
    assert (item.after["pesq"].mean, item.after["pesq"].count) == (3.0, 1)
    assert item.change["pesq"].count == 0
    text = json.dumps(table.to_json(), allow_nan=False)
    assert json.loads(text)["cases"][0]["after"]["pesq"] is None


def test_an_empty_evaluation_is_still_a_table() -> None:
    table = EvaluationTable((CaseScores("bad", error="it cannot be read"),))
    json.dumps(table.to_json(), allow_nan=False)
    headings, rows = table.text_rows()
    assert plain_table(headings, rows)


def test_text_rows_show_before_after_change_and_interval() -> None:
    headings, rows = table_of_four().text_rows()
    assert headings == ["", "cases", "", "PESQ"]
    noise_rows = rows[[row[0] for row in rows].index("noise") :][:4]
    assert [row[2:] for row in noise_rows[:3]] == [
        *(["before", "1.50"], ["after", "2.75"], ["change", "+1.25"])
    ]
    assert noise_rows[3][2] == "95 %" and noise_rows[3][3].startswith("±0.")
    assert any(row[0] == "language en" for row in rows)
    lines = plain_table(headings, rows).splitlines()
    assert len(lines) == len(rows) + 1
    assert max(map(len, lines)) < 60


@pytest.mark.slow
def test_the_unprocessed_recordings_score_as_published(shared_recordings: Path) -> None:
    """Hold the metrics to the baselines that come with the recordings, on a few of them."""
    for package in ("pesq", "pystoi", "speechmos"):
        pytest.importorskip(package)
    folder = shared_recordings / "dev"
    kind = "bandlimit4k"
    pairs = [pair for pair in read_pairs(folder) if pair.tags["kind"] == kind]
    with (folder / "baselines.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["system"] == "input"]
    expected = next(row for row in rows if row["kind"] == kind)
    found = evaluate_pairs(pairs).summaries(("kind",))[-1].before
    for key, column, within in (
        *(("pesq", "pesq", 0.005), ("estoi", "estoi", 0.001), ("ovrl", "ovrl_mos", 0.005)),
        *(("bak", "bak_mos", 0.005), ("lsd", "lsd", 0.01), ("lsd_above_8k", "lsd_hf", 0.01)),
    ):
        assert found[key].mean == pytest.approx(float(expected[column]), abs=within), key

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray

from speakup.errors import InputError
from speakup.judge import distillmos, metrics, speaker
from speakup.judge import pairs as pairs_module
from speakup.judge.pairs import CHAIN, Pair, evaluate_pairs, read_pairs, score
from speakup.judge.scores import INPUT

Signal = NDArray[np.floating[Any]]


@pytest.fixture
def without_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stand in for the metrics of the extra, which need packages and time."""
    monkeypatch.setattr(metrics, "pesq_wb", lambda est, ref, rate: 4.0 - np.std(est - ref))
    monkeypatch.setattr(metrics, "estoi", lambda est, ref, rate: 0.5)
    opinion = {"ovrl": 3.0, "sig": 3.0, "bak": 3.0}
    monkeypatch.setattr(metrics, "dnsmos", lambda est, rate: dict(opinion))
    monkeypatch.setattr(speaker, "available", lambda: False)
    monkeypatch.setattr(distillmos, "available", lambda: False)


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
    first = table.cases[0].scores
    assert first[INPUT]["lsd"] == pytest.approx(first[CHAIN]["lsd"], rel=1e-6)
    assert first[INPUT]["si_sdr"] == pytest.approx(first[CHAIN]["si_sdr"], rel=1e-6)
    assert first[INPUT]["lsd"] > 0.1
    alone = evaluate_pairs(pairs, enhance, score_inputs=False).cases[0].scores
    assert alone == {CHAIN: first[CHAIN]}
    assert evaluate_pairs(pairs).cases[0].scores == {INPUT: first[INPUT]}


@pytest.mark.usefixtures("without_packages")
def test_other_systems_are_scored_by_the_folders_of_their_outputs(tmp_path: Path) -> None:
    pairs = read_pairs(paired_folder(tmp_path / "pairs"))
    for pair in pairs:
        clean, rate = soundfile.read(pair.reference)
        write(tmp_path / f"perfect/{pair.name}.wav", clean, rate)
        write(tmp_path / f"inside/{pair.name}/enhanced.flac", 0.5 * clean, rate)
    (tmp_path / f"inside/{pairs[2].name}/enhanced.flac").unlink()
    systems = {"perfect": tmp_path / "perfect", "inside": tmp_path / "inside"}
    table = evaluate_pairs(pairs, systems=systems)
    assert table.systems == [INPUT, "perfect", "inside"]
    assert table.cases[0].scores["perfect"]["si_sdr"] > 60.0
    assert table.cases[0].scores["inside"]["si_sdr"] > 60.0
    assert "holds no output for c" in (table.cases[2].error or "")
    assert table.summaries()[0].cases == 2, "what one system lacks counts for none"


def faster(samples: Signal, by: float) -> Signal:
    places = np.arange(len(samples))
    return np.interp(places * by, places, samples)


@pytest.mark.usefixtures("without_packages")
@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda clean: clean, ""),
        (lambda clean: np.concatenate([np.zeros(400), clean])[: len(clean)], ""),
        (lambda clean: np.concatenate([np.zeros(4_800), clean])[: len(clean)], "is 300 ms late"),
        (lambda clean: clean[1_200:], "is 75 ms early"),
        (lambda clean: clean[: len(clean) // 2], "is 2.5 s shorter"),
        (
            lambda clean: np.interp(np.arange(len(clean)) * 1.001, np.arange(len(clean)), clean),
            "drifts",
        ),
        (lambda clean: clean + noise(5.0, 16_000, 9, 0.2), ""),
    ],
)
def test_what_is_not_in_step_with_its_reference_is_said(
    tmp_path: Path, spoil: Callable[[Signal], Signal], says: str
) -> None:
    clean = noise(5.0, 16_000)
    if says == "drifts":  # white noise slips out of step within a window; a voice does not
        clean = np.convolve(noise(25.0, 16_000), np.ones(64) / 8, "same")
    write(tmp_path / "a/reference.wav", clean, 16_000)
    write(tmp_path / "a/input.wav", spoil(clean), 16_000)
    (case,) = evaluate_pairs(read_pairs(tmp_path)).cases
    assert bool(case.warnings) == bool(says), case.warnings
    assert all(says in warning for warning in case.warnings), case.warnings


@pytest.mark.usefixtures("without_packages")
def test_a_bad_pair_is_reported_and_does_not_stop_the_rest(tmp_path: Path) -> None:
    pairs = read_pairs(paired_folder(tmp_path))
    pairs[0].input.write_text("this is no sound")
    table = evaluate_pairs(pairs)
    assert [case.error is None for case in table.cases] == [False, True, True]
    assert "input.wav" in (table.cases[0].error or "")
    assert table.summaries()[0].cases == 2
    assert table.to_json()["failed"] == 1


class _Heard:
    """A recogniser that has made up its mind."""

    name = "made up"
    english_only = True

    def __init__(self, *heard: str) -> None:
        self._heard = iter(heard)

    def __call__(self, speech: Signal, sample_rate: int, language: str) -> list[str]:
        return next(self._heard).split()


@pytest.mark.usefixtures("without_packages")
def test_words_are_scored_on_request_for_the_languages_that_are_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard = _Heard("hello you", "from reference", "from reference")
    monkeypatch.setattr("speakup.judge.words.recogniser", lambda name: heard)
    cases = evaluate_pairs(read_pairs(paired_folder(tmp_path)), recogniser="").cases
    assert cases[0].scores[INPUT]["wer"] == 0.5, "against the manifest's transcript"
    assert "wer" not in cases[1].scores[INPUT], "Finnish"
    assert cases[2].scores[INPUT]["wer"] == 0.0, "against what is heard in the reference"


def test_processes_keep_the_order_and_take_no_more_than_they_need() -> None:
    taken = 0

    def tasks() -> Iterator[pairs_module._Task]:
        nonlocal taken
        for number in range(12):
            taken += 1
            pair = Pair(str(number), Path("in.wav"), Path("ref.wav"))
            yield pairs_module._Task(pair, error="left as it is")

    results = pairs_module._run(tasks(), jobs=2)
    assert next(results).name == "0"
    assert taken <= 6, "signals of the rest are not read yet"
    assert [one.name for one in results] == [str(number) for number in range(1, 12)]


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
    found = evaluate_pairs(pairs).summaries(("kind",))[-1].systems[INPUT]
    for key, column, within in (
        *(("pesq", "pesq", 0.005), ("estoi", "estoi", 0.001), ("ovrl", "ovrl_mos", 0.005)),
        *(("bak", "bak_mos", 0.005), ("lsd", "lsd", 0.01), ("lsd_above_8k", "lsd_hf", 0.01)),
    ):
        assert found[key].mean == pytest.approx(float(expected[column]), abs=within), key

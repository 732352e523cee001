"""Score pairs of input and reference, as they are and as systems make them.

Scoring knows nothing of what enhances: any function from a waveform and its rate to another
waveform and its rate will do, a whole pipeline or a bare network.
"""

from __future__ import annotations

import csv
import glob
import importlib
import itertools
import multiprocessing
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, cast

import numpy as np
from numpy.typing import NDArray

from speakup.errors import InputError, SpeakupError
from speakup.judge.scores import INPUT, CaseScores, Evaluation, Scores
from speakup.media import recording

if TYPE_CHECKING:
    from speakup.judge.words import Recogniser

Enhancer = Callable[[NDArray[np.float32], int], tuple[NDArray[np.float32], int]]
"""Takes a waveform `(C, T)` and its rate in Hz, gives `(C, T')` and the rate of that."""

CHAIN = "speakup"
"""What the enhancer that is run here is called among the systems."""

OPTIONAL_JUDGES = ("speaker", "distillmos")
"""Modules of this room that meet `Judge`; asked where what they need is installed."""

_FULL_BAND_RATE = 44_100
_COLUMNS = ("case", "name", "input", "reference", "reference_rate", "transcript")
_AUDIO = (".flac", ".wav", ".ogg", ".opus", ".mp3", ".m4a", ".aiff", ".w64", ".caf")


@dataclass(frozen=True)
class Pair:
    """A degraded recording and what it should sound like.

    Args:
        name: What to call it.
        input: The degraded recording.
        reference: The clean one.
        reference_rate: Rate in Hz of what the reference really holds, when that is less than its
            file's: 16000 means that nothing above 8 kHz is compared. None takes the file's rate.
        tags: What it can be grouped by, such as kind, language and gender.
        transcript: The words said, when known.
    """

    name: str
    input: Path
    reference: Path
    reference_rate: int | None = None
    tags: dict[str, str] = field(default_factory=dict)
    transcript: str | None = None


def read_pairs(source: Path | str, limit: int | None = None) -> list[Pair]:
    """List the pairs of a folder or of a CSV file.

    A folder holds `<case>/input.*` and `<case>/reference.*`, and perhaps a `manifest.csv` whose
    column `case` names them. A CSV file has the columns `input` and `reference`, relative to
    itself. Further columns: `reference_rate`, `transcript`, and any others as tags.

    Args:
        source: The folder or the CSV file.
        limit: Take only so many pairs, evenly spread over the list.

    Raises:
        InputError: there is no such folder or file, it holds no pair, or one is incomplete.
    """
    path = Path(source)
    if path.is_dir():
        pairs = _folder_pairs(path)
    elif path.is_file():
        pairs = [_csv_pair(path, row, number) for number, row in enumerate(_rows(path), 2)]
    else:
        raise InputError("no such folder or CSV file", path)
    if not pairs:
        raise InputError(
            "no pairs found", path, "Give a folder of <case>/input.* and <case>/reference.*"
        )
    if limit is not None and 0 < limit < len(pairs):
        pairs = [pairs[index * len(pairs) // limit] for index in range(limit)]
    return pairs


def score(
    estimate: NDArray[Any],
    estimate_rate: int,
    reference: NDArray[Any],
    reference_rate: int,
    *,
    content_rate: int | None = None,
    heard: Recogniser | None = None,
    words: Sequence[str] = (),
    language: str = "",
) -> Scores:
    """Score one estimate against its reference, under the keys of `METRICS`.

    The conventions: both are mixed to mono; PESQ, ESTOI, SI-SDR, F0 and speakers are compared at
    16 kHz after aligning within 25 ms; DNSMOS sees the whole estimate at 16 kHz; LSD is taken at
    44.1 kHz after aligning and matching the estimate's RMS to the reference's, and only where
    the reference is full-band. What `OPTIONAL_JUDGES` give is left out where their packages are
    missing.

    Args:
        estimate: `(T,)` or `(C, T)`.
        estimate_rate: Its rate in Hz.
        reference: `(T,)` or `(C, T)`.
        reference_rate: Its rate in Hz.
        content_rate: Rate in Hz of what the reference really holds; below 44.1 kHz gives no LSD.
        heard: What is to recognise the words (slow); None: do not.
        words: What is said.
        language: Of what is said.

    Raises:
        ConfigError: another package of the extra `eval` is not installed.
        ModelError: Resemblyzer's weights are damaged.
    """
    from speakup.judge import metrics  # heavy: not before there is something to score

    est, ref = metrics.mono(estimate), metrics.mono(reference)
    speech_rate = metrics.SPEECH_RATE
    est_16k = metrics.resample(est, estimate_rate, speech_rate)
    ref_16k = metrics.resample(ref, reference_rate, speech_rate)
    pair_16k = metrics.align(est_16k, ref_16k, speech_rate)
    scores = {
        "pesq": metrics.pesq_wb(*pair_16k, speech_rate),
        "estoi": metrics.estoi(*pair_16k, speech_rate),
        "si_sdr": metrics.si_sdr(*pair_16k, speech_rate),
        "f0_error": metrics.f0_error(*pair_16k, speech_rate),
        **metrics.dnsmos(est_16k, speech_rate),
    }
    for judge in _optional_judges():
        scores |= judge.score(*pair_16k, speech_rate)
    if min(reference_rate, content_rate or reference_rate) >= _FULL_BAND_RATE:
        rate = metrics.LSD_RATE
        full, target = metrics.align(
            metrics.resample(est, estimate_rate, rate),
            metrics.resample(ref, reference_rate, rate),
            rate,
        )
        full = metrics.match_level(full, target)
        scores["lsd"] = metrics.lsd(full, target, rate)
        scores["lsd_above_8k"] = metrics.lsd(full, target, rate, above_hz=8_000)
    if heard is not None:
        from speakup.judge.words import word_error_rate

        found = heard(est_16k, speech_rate, language)
        scores["wer"] = word_error_rate(found, words)
    return scores


def evaluate_pairs(
    pairs: Iterable[Pair],
    enhance: Enhancer | None = None,
    *,
    systems: Mapping[str, Path] | None = None,
    score_inputs: bool = True,
    recogniser: str | None = None,
    jobs: int = 1,
    progress: Callable[[CaseScores], None] | None = None,
) -> Evaluation:
    """Score every pair as it is, as an enhancer makes it, and as other systems have made it.

    A pair that cannot be read or enhanced, or that a system has not done, is kept with its
    `error` and counts in no mean, so that all systems are judged by the same pairs. Recordings
    that are not in step with their reference get a warning.

    Args:
        pairs: What `read_pairs` gives.
        enhance: What makes an estimate of an input, always called in this process; called
            `CHAIN` in the result.
        systems: The folders of other systems' outputs by their names: `<case>.*`, or one
            recording in a folder `<case>`.
        score_inputs: Whether to score the unprocessed inputs too, called `INPUT`.
        recogniser: Also recognise words (slow), by `words.recogniser` of this name; an English
            one hears pairs whose tag `language` begins with `en` only.
        jobs: Processes that score. More than one needs a main module that can be imported
            without side effects, as multiprocessing's start method `spawn` asks.
        progress: Called with every case, in order, as it is done.

    Raises:
        ConfigError: a package of the extra `eval`, or the recogniser, is not installed.
    """
    folders = dict(systems or {})
    tasks = (_prepare(pair, enhance, folders, score_inputs, recogniser) for pair in pairs)
    cases = []
    for case in _run(tasks, jobs):
        if progress is not None:
            progress(case)
        cases.append(case)
    return Evaluation(tuple(cases))


class Judge(Protocol):
    """A judge that may be missing: a module of this room.

    Another one is a module with these two functions, its name in `OPTIONAL_JUDGES`, and a line
    for each of its scores in `METRICS`.
    """

    def available(self) -> bool:
        """Tell whether what it needs is installed."""
        ...

    def score(
        self, estimate: NDArray[np.float64], reference: NDArray[np.float64], sample_rate: int
    ) -> Scores:
        """Score an estimate against its reference, both (T,) and aligned."""
        ...


@dataclass(frozen=True)
class _Task:
    """One pair, ready to be scored in any process."""

    pair: Pair
    reference: tuple[NDArray[np.float32], int] | None = None
    signals: dict[str, tuple[NDArray[np.float32], int]] = field(default_factory=dict)
    recogniser: str | None = None
    error: str | None = None


def _optional_judges() -> list[Judge]:
    modules = (importlib.import_module(f"speakup.judge.{name}") for name in OPTIONAL_JUDGES)
    judges = [cast(Judge, module) for module in modules]
    return [judge for judge in judges if judge.available()]


def _prepare(
    pair: Pair,
    enhance: Enhancer | None,
    systems: Mapping[str, Path],
    score_inputs: bool,
    recogniser: str | None,
) -> _Task:
    signals = {}
    try:
        waveform, rate = _read(pair.input)
        reference = _read(pair.reference)
        if score_inputs:
            signals[INPUT] = waveform, rate
        if enhance is not None:
            signals[CHAIN] = enhance(waveform.copy(), rate)
        for name, folder in systems.items():
            signals[name] = _read(_output(folder, pair))
    except SpeakupError as error:
        return _Task(pair, error=str(error))
    return _Task(pair, reference, signals, recogniser)


def _output(folder: Path, pair: Pair) -> Path:
    """Find what a system has made of a pair."""
    inside = folder / pair.name
    found = _audio_named(folder, pair.name)
    if found is None and inside.is_dir():
        found = next((path for path in sorted(inside.iterdir()) if _is_audio(path)), None)
    if found is None:
        raise InputError(f"it holds no output for {pair.name}", folder)
    return found


def _score_task(task: _Task) -> CaseScores:
    from speakup.judge import metrics, words

    pair = task.pair
    if task.error is not None or task.reference is None:
        return CaseScores(pair.name, pair.tags, error=task.error)
    reference, rate = task.reference
    language = pair.tags.get("language", "").lower()
    heard = None if task.recogniser is None else words.recogniser(task.recogniser)
    if heard is not None and heard.english_only and not language.startswith("en"):
        heard = None
    said = []
    if heard is not None:
        known = pair.transcript
        said = heard(reference, rate, language) if known is None else words.split_words(known)
    scores, warnings = {}, []
    clean = metrics.resample(metrics.mono(reference), rate, metrics.SPEECH_RATE)
    for name, (samples, own_rate) in task.signals.items():
        given = metrics.resample(metrics.mono(samples), own_rate, metrics.SPEECH_RATE)
        if fault := metrics.misalignment(given, clean, metrics.SPEECH_RATE):
            warnings.append(f"{name} {fault} against the reference")
        scores[name] = score(
            samples,
            own_rate,
            reference,
            rate,
            content_rate=pair.reference_rate,
            heard=heard,
            words=said,
            language=language,
        )
    return CaseScores(pair.name, pair.tags, scores, tuple(warnings))


def _run(tasks: Iterable[_Task], jobs: int) -> Iterator[CaseScores]:
    if jobs <= 1:
        yield from map(_score_task, tasks)
        return
    # Never fork: this process may hold a network, a GPU and their threads.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(jobs, mp_context=context) as pool:
        waiting: deque[Future[CaseScores]] = deque()
        remaining = iter(tasks)
        for task in itertools.islice(remaining, 2 * jobs):
            waiting.append(pool.submit(_score_task, task))
        while waiting:  # a bounded queue, so that memory does not grow with the list
            yield waiting.popleft().result()
            waiting.extend(
                pool.submit(_score_task, task) for task in itertools.islice(remaining, 1)
            )


def _read(path: Path) -> tuple[NDArray[np.float32], int]:
    return np.concatenate(list(recording.read_blocks(path)), axis=1), recording.probe(
        path
    ).sample_rate


def _folder_pairs(folder: Path) -> list[Pair]:
    manifest = folder / "manifest.csv"
    rows = {row.get("case", ""): row for row in _rows(manifest)} if manifest.is_file() else {}
    pairs = []
    for case in sorted(path for path in folder.iterdir() if path.is_dir()):
        source, reference = _audio_named(case, "input"), _audio_named(case, "reference")
        if source is None and reference is None:
            continue
        if source is None or reference is None:
            missing = "input" if source is None else "reference"
            raise InputError(f"it holds no {missing} recording", case)
        pairs.append(_pair(case.name, source, reference, rows.get(case.name, {})))
    return pairs


def _audio_named(folder: Path, stem: str) -> Path | None:
    found = (path for path in sorted(folder.glob(f"{glob.escape(stem)}.*")) if _is_audio(path))
    return next(found, None)


def _is_audio(path: Path) -> bool:
    return path.suffix.lower() in _AUDIO


def _csv_pair(table: Path, row: dict[str, str], line: int) -> Pair:
    if not (row.get("input") and row.get("reference")):
        raise InputError(
            f"line {line} lacks an input or a reference", table, "Give both columns a path"
        )
    source, reference = table.parent / row["input"], table.parent / row["reference"]
    name = row.get("case") or row.get("name") or source.stem
    return _pair(name, source, reference, row)


def _pair(name: str, source: Path, reference: Path, row: dict[str, str]) -> Pair:
    rate = row.get("reference_rate") or None
    if rate is not None and not rate.isdigit():
        raise InputError(f"reference_rate of {name} is {rate!r}", source, "Give a number of Hz")
    tags = {key: value for key, value in row.items() if key not in _COLUMNS and value}
    transcript = row.get("transcript") or None
    return Pair(name, source, reference, None if rate is None else int(rate), tags, transcript)


def _rows(path: Path) -> list[dict[str, str]]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as lines:
            return [
                {key: (value or "").strip() for key, value in row.items() if key is not None}
                for row in csv.DictReader(lines)
            ]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"it cannot be read as CSV ({error})", path) from error

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
import soundfile
from sounds import noise

from speakup.batch import Summary, run_batch, run_jobs
from speakup.config import Config
from speakup.errors import ConfigError, ModelError
from speakup.jobs import Job, plan_jobs
from speakup.pipeline import Pipeline
from speakup.result import Result

PLAIN = Config(denoise=False, upsample="off", sample_rate="keep")
RATE = 16_000


@pytest.fixture
def recordings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in ("a.wav", "b.flac", "folder/c.wav", "folder/sub/d.wav"):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(name, noise(1, RATE, RATE).T, RATE)
    Path("junk.wav").write_text("no sound")
    return tmp_path


def statuses(summary: Summary) -> list[str]:
    return [result.status for result in summary.results]


@pytest.mark.parametrize("jobs", [1, 3])
def test_one_bad_file_never_stops_the_rest(recordings: Path, jobs: int) -> None:
    seen: list[Result] = []
    inputs = ["a.wav", "junk.wav", "missing.wav", "b.flac"]
    summary = run_batch(inputs, config=PLAIN, jobs=jobs, on_result=seen.append)
    assert statuses(summary) == ["ok", "failed", "failed", "ok"]  # in the inputs' order
    assert (summary.ok, summary.skipped, summary.failed) == (2, 0, 2)
    assert {id(result) for result in seen} == {id(result) for result in summary.results}
    assert summary.results[1].error is not None
    assert summary.results[1].error["type"] == "InputError"
    assert summary.results[1].output is None
    assert soundfile.info("a_enhanced.wav").frames == soundfile.info("b_enhanced.wav").frames
    assert summary.seconds == pytest.approx(2.0)
    assert summary.speed == pytest.approx(summary.seconds / summary.elapsed)


def test_faults_of_ours_are_failures_too(recordings: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = Pipeline.run

    def stumble(self: Pipeline, source: Any, target: Any, **options: Any) -> Result:
        if Path(source).name == "a.wav":
            raise ZeroDivisionError("a fault")
        return run(self, source, target, **options)

    monkeypatch.setattr(Pipeline, "run", stumble)
    caught: list[Exception] = []
    jobs = plan_jobs(["a.wav", "b.flac"]).jobs
    summary = run_jobs(jobs, PLAIN, on_error=caught.append)
    assert statuses(summary) == ["failed", "ok"]
    assert summary.results[0].error == {"type": "ZeroDivisionError", "message": "a fault"}
    assert [type(error) for error in caught] == [ZeroDivisionError]


def test_what_is_there_is_kept_unless_overwritten(recordings: Path) -> None:
    Path("a_enhanced.wav").write_text("mine")
    assert statuses(run_batch(["a.wav"], config=PLAIN)) == ["skipped"]
    assert Path("a_enhanced.wav").read_text() == "mine"
    assert statuses(run_batch(["a.wav"], config=PLAIN, overwrite=True)) == ["ok"]
    assert soundfile.info("a_enhanced.wav").frames == RATE


def test_folders_are_mirrored_and_not_enhanced_again(recordings: Path) -> None:
    assert run_batch(["folder"], config=PLAIN).ok == 2
    assert Path("folder_enhanced/sub/d.wav").is_file()
    assert statuses(run_batch(["folder"], config=PLAIN)) == ["skipped", "skipped"]
    assert run_batch(["folder", "a.wav"], "out.v1", config=PLAIN).ok == 3  # a folder all the same
    found = {path.relative_to("out.v1").as_posix() for path in Path("out.v1").rglob("*.wav")}
    assert found == {"c.wav", "sub/d.wav", "a.wav"}


def test_no_folder_is_made_for_what_cannot_be_read(recordings: Path) -> None:
    assert run_batch(["junk.wav"], "out", config=PLAIN).failed == 1
    assert not Path("out").exists()


def test_a_folder_that_cannot_be_made_is_an_output_error(recordings: Path) -> None:
    Path("file").write_text("in the way")
    (result,) = run_batch(["a.wav"], "file/out", config=PLAIN).results
    assert result.error is not None
    assert result.error["type"] == "OutputError"


def test_settings_and_models_are_checked_before_the_first_file(recordings: Path) -> None:
    with pytest.raises(ModelError, match="no-such-model"):
        run_batch(["a.wav"], config=Config(denoiser="no-such-model"))
    with pytest.raises(ConfigError, match="loudness"):
        run_batch(["a.wav"], config=Config(loudness="loud"))
    with pytest.raises(ConfigError, match="device"):
        run_batch(["a.wav"], config=Config(device="abacus"))
    assert not list(recordings.glob("*_enhanced*"))


def test_progress_tells_of_every_recording(recordings: Path) -> None:
    told: dict[str, set[str]] = {}
    lock = threading.Lock()

    def tell(job: Job, doing: str, done: float, total: float | None) -> None:
        with lock:
            told.setdefault(str(job.source), set()).add(doing)

    run_batch(["a.wav", "b.flac"], config=PLAIN, jobs=2, progress=tell)
    steps = {"open", "survey", "enhance", "write"}
    assert told == {"a.wav": steps, "b.flac": steps}


@pytest.mark.parametrize("workers", [1, 2])
def test_an_interruption_leaves_nothing_half_done(recordings: Path, workers: int) -> None:
    def interrupt(job: Job, doing: str, done: float, total: float | None) -> None:
        if doing == "write":
            assert list(recordings.glob(".*.part"))
            raise KeyboardInterrupt

    jobs = plan_jobs(["a.wav", "b.flac", "folder"]).jobs
    with pytest.raises(KeyboardInterrupt):
        run_jobs(jobs, PLAIN, workers=workers, progress=interrupt)
    assert not [path for path in recordings.rglob("*enhanced*") if path.is_file()]
    assert not list(recordings.rglob(".*"))


def test_workers_stop_when_the_caller_has_had_enough(recordings: Path) -> None:
    def enough(result: Result) -> None:
        raise KeyboardInterrupt

    inputs = []
    for number in range(20):
        inputs.append(f"t{number}.wav")
        Path(inputs[-1]).write_bytes(Path("a.wav").read_bytes())
    with pytest.raises(KeyboardInterrupt):
        run_jobs(plan_jobs(inputs).jobs, PLAIN, workers=2, on_result=enough)
    assert len(list(recordings.glob("*_enhanced*"))) < len(inputs)
    assert not list(recordings.glob(".*"))


def test_the_summary_is_what_scripts_read(recordings: Path) -> None:
    summary = run_batch(["a.wav"], config=PLAIN).to_json()
    assert list(summary) == ["event", "ok", "skipped", "failed", "seconds", "elapsed", "speed"]
    assert (summary["event"], summary["ok"], summary["seconds"]) == ("summary", 1, 1.0)

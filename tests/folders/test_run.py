from __future__ import annotations

import dataclasses
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
import traceback
from pathlib import Path
from typing import Any

import pytest
import soundfile
from nets import save_model, small_mixer
from sounds import noise

from speakup.config import Config
from speakup.errors import ConfigError, InputError, ModelError, OutputError, SpeakupError
from speakup.folders.journal import JOURNAL_FILE, Journal
from speakup.folders.plan import Job, plan_jobs
from speakup.folders.run import Summary, run_batch, run_jobs
from speakup.pipeline import Pipeline
from speakup.result import Result

PLAIN = Config(denoise=False, upsample="off", sample_rate="keep")
RATE = 16_000
ROOT = Path(__file__).resolve().parents[2]


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
    assert isinstance(summary.results[1].error, InputError)
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
    jobs = plan_jobs(["a.wav", "b.flac"]).jobs
    summary = run_jobs(jobs, PLAIN)
    assert statuses(summary) == ["failed", "ok"]
    error = summary.results[0].error
    assert isinstance(error, ZeroDivisionError)
    assert "stumble" in "".join(traceback.format_exception(error))
    fault = {"type": "ZeroDivisionError", "message": "a fault"}
    assert summary.results[0].to_json()["error"] == fault


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
    assert isinstance(result.error, OutputError)


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


# Folders again: resumed, at once, and with faults


def changed(summary: Summary) -> dict[str, str]:
    """Give what became of each recording, by name."""
    return {Path(result.input).name: result.status for result in summary.results}


def test_what_changed_is_done_again_and_nothing_else(recordings: Path) -> None:
    first = run_batch(["folder"], config=PLAIN)
    assert changed(first) == {"c.wav": "ok", "d.wav": "ok"}
    made = Path("folder_enhanced/c.wav").stat()
    again = run_batch(["folder"], config=PLAIN)
    assert changed(again) == {"c.wav": "skipped", "d.wav": "skipped"}
    assert again.results[0].warnings == ("it is finished",)

    soundfile.write("folder/c.wav", noise(1, 2 * RATE, RATE).T, RATE)
    assert changed(run_batch(["folder"], config=PLAIN)) == {"c.wav": "ok", "d.wav": "skipped"}
    assert soundfile.info("folder_enhanced/c.wav").frames == 2 * RATE
    Path("folder_enhanced/sub/d.wav").unlink()
    assert changed(run_batch(["folder"], config=PLAIN)) == {"c.wav": "skipped", "d.wav": "ok"}

    quieter = dataclasses.replace(PLAIN, loudness="-20")
    assert run_batch(["folder"], config=quieter).ok == 2
    assert run_batch(["folder"], config=quieter).skipped == 2
    assert Path("folder_enhanced/c.wav").stat().st_ino != made.st_ino


def test_another_model_is_another_output(recordings: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = recordings / "models" / "tiny"
    config = dataclasses.replace(PLAIN, denoise=True, denoiser=str(folder))
    for seed, status in ((0, "ok"), (0, "skipped"), (1, "ok")):
        save_model(folder, small_mixer(seed))
        assert changed(run_batch(["folder/sub"], config=config)) == {"d.wav": status}


def test_what_is_not_ours_is_kept(recordings: Path) -> None:
    run_batch(["folder"], config=PLAIN)
    Path("folder_enhanced/c.wav").write_text("edited")
    quieter = dataclasses.replace(PLAIN, loudness="-20")
    summary = run_batch(["folder"], config=quieter)
    assert changed(summary) == {"c.wav": "skipped", "d.wav": "ok"}
    assert summary.results[0].warnings == ("it has been changed since it was made",)
    assert run_batch(["a.wav"], "folder_enhanced/sub", config=PLAIN).ok == 1
    soundfile.write("folder/sub/a.wav", noise(1, RATE, RATE).T, RATE)
    (other,) = run_batch(["folder/sub/a.wav"], "folder_enhanced/sub", config=PLAIN).results
    assert other.warnings == ("it exists, and was not made from this recording",)
    assert Path("folder_enhanced/c.wav").read_text() == "edited"
    assert run_batch(["folder"], config=quieter, overwrite=True, resume=False).ok == 3


def test_without_resume_the_journal_is_not_heeded(recordings: Path) -> None:
    run_batch(["folder"], config=PLAIN)
    quieter = dataclasses.replace(PLAIN, loudness="-20")
    assert run_batch(["folder"], config=quieter, resume=False).skipped == 2
    assert run_batch(["folder"], config=PLAIN, resume=False, overwrite=True).ok == 2
    assert run_batch(["folder"], config=PLAIN).skipped == 2


def test_overwriting_goes_on_where_it_was_broken_off(recordings: Path) -> None:
    run_batch(["folder"], config=PLAIN)

    def enough(result: Result) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_batch(["folder"], config=PLAIN, overwrite=True, on_result=enough)
    summary = run_batch(["folder"], config=PLAIN, overwrite=True)
    assert changed(summary) == {"c.wav": "skipped", "d.wav": "ok"}
    assert run_batch(["folder"], config=PLAIN, overwrite=True).ok == 2


def test_single_files_beside_their_sources_leave_no_journal(recordings: Path) -> None:
    run_batch(["a.wav", "b.flac"], config=PLAIN)
    assert not list(recordings.glob(".*"))
    run_batch(["a.wav", "b.flac"], "out", config=PLAIN)
    assert [path.name for path in recordings.rglob(".*")] == [JOURNAL_FILE]


def test_two_runs_at_once_share_the_work(recordings: Path) -> None:
    for number in range(4):
        soundfile.write(f"folder/{number}.wav", noise(1, RATE, RATE).T, RATE)
    at_work, others_done = threading.Event(), threading.Event()
    summaries: dict[str, Summary] = {}

    def first() -> None:
        def hold_up(job: Job, doing: str, done: float, total: float | None) -> None:
            if doing == "write" and job.source.name == "0.wav":
                at_work.set()
                assert others_done.wait(60.0)

        summaries["first"] = run_batch(["folder"], config=PLAIN, progress=hold_up)

    def second() -> None:
        done: list[Result] = []

        def count(result: Result) -> None:
            done.append(result)
            if len(done) == 5:  # all but the one that the first has claimed
                others_done.set()

        summaries["second"] = run_batch(["folder"], config=PLAIN, on_result=count)

    runs = [threading.Thread(target=run) for run in (first, second)]
    runs[0].start()
    assert at_work.wait(60.0)
    runs[1].start()
    for run in runs:
        run.join()
    assert {name: (run.ok, run.skipped) for name, run in summaries.items()} == {
        "first": (1, 5),
        "second": (5, 1),
    }
    assert not [path for path in recordings.rglob(".*") if path.name != JOURNAL_FILE]


def test_a_recording_that_grows_meanwhile_is_not_done(recordings: Path) -> None:
    Path("folder_enhanced").mkdir()

    def record_on(job: Job, doing: str, done: float, total: float | None) -> None:
        if doing == "enhance" and job.source.name == "c.wav":
            with job.source.open("ab") as file:
                file.write(b"\0" * 100)

    summary = run_batch(["folder"], config=PLAIN, progress=record_on)
    assert changed(summary) == {"c.wav": "failed", "d.wav": "ok"}
    assert "changed while it was read" in str(summary.results[0].error)
    assert not Path("folder_enhanced/c.wav").exists()
    assert changed(run_batch(["folder"], config=PLAIN)) == {"c.wav": "ok", "d.wav": "skipped"}


@pytest.mark.parametrize("name", ["x" * 300 + ".wav", "d/" * 3000 + "a.wav", "a\0b.wav"])
def test_names_that_no_system_takes_are_said_to_be(recordings: Path, name: str) -> None:
    def said(inputs: list[str], into: str | None = None) -> str:
        try:
            error = run_batch(inputs, into, config=PLAIN).results[0].error
        except ConfigError as raised:
            error = raised
        assert isinstance(error, SpeakupError), error
        return str(error)

    because = "null character|[Ff]ile name too long|name is too long"
    assert re.search(because, said([name]))
    assert re.search(because, said(["a.wav"], name))
    for source, target in ((name, "b.wav"), ("a.wav", name)):
        with pytest.raises(SpeakupError, match=because):
            Pipeline(PLAIN).run(source, target)


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such limit")
def test_too_many_open_files_are_said_to_be(recordings: Path) -> None:
    """Whichever of the files of a run is the one too many."""
    code = """
import os, resource
from speakup.config import Config
from speakup.errors import SpeakupError
from speakup.pipeline import Pipeline
plain = Config(denoise=False, upsample="off", sample_rate="keep", device="cpu")
Pipeline(plain).run("a.wav", "out.ogg")
limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
used = len(os.listdir("/dev/fd"))
for more in range(20):
    resource.setrlimit(resource.RLIMIT_NOFILE, (used - 1 + more, limit))
    try:
        print(Pipeline(plain).run("a.wav", "out.ogg", overwrite=True).status)
    except SpeakupError as error:
        print(error)
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    said = done.stdout.splitlines()
    assert said[-1] == "ok"
    assert all(line == "ok" or "oo many" in line for line in said), said
    assert sum(line != "ok" for line in said) >= 3


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux notes it beside the output")
def test_a_single_output_made_with_other_settings_is_said_to_be(recordings: Path) -> None:
    def reason(config: Config) -> str:
        (result,) = run_batch(["a.wav"], config=config).results
        assert result.status == "skipped"
        return result.warnings[0]

    louder = dataclasses.replace(PLAIN, loudness="ebu")
    run_batch(["a.wav"], config=PLAIN)
    assert reason(PLAIN) == "it exists; `overwrite` replaces it"
    assert reason(louder) == "it exists, made with other settings; `overwrite` replaces it"
    run_batch(["a.wav"], config=louder, overwrite=True)
    assert reason(louder) == "it exists; `overwrite` replaces it"
    os.utime("a.wav", ns=(1, 1))
    told = "it exists, made from what the recording was before; `overwrite` replaces it"
    assert reason(louder) == told
    shutil.copyfile("b.flac", "a_enhanced.wav.new")
    os.replace("a_enhanced.wav.new", "a_enhanced.wav")  # of which nothing is known
    assert reason(PLAIN) == "it exists; `overwrite` replaces it"


def test_who_waits_for_another_run_in_the_end_gives_up(
    recordings: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("speakup.folders.run._WAIT_AT_MOST", 0.5)
    waited: list[str] = []

    def tell(job: Job, doing: str, done: float, total: float | None) -> None:
        waited.extend([job.source.name] if doing == "wait" else [])

    run_batch(["folder"], config=PLAIN)
    book = Journal(Path("folder_enhanced"), "", [])
    Path("folder_enhanced/c.wav").unlink()
    with book.claim(Path("folder_enhanced/c.wav")) as held:  # type: ignore[union-attr]
        assert held is not None
        summary = run_batch(["folder"], config=PLAIN, progress=tell)
    assert changed(summary) == {"c.wav": "failed", "d.wav": "skipped"}
    assert "another run has been at work on it for 0.5 s" in str(summary.results[0].error)
    assert set(waited) == {"c.wav"}
    assert changed(run_batch(["folder"], config=PLAIN)) == {"c.wav": "ok", "d.wav": "skipped"}


@pytest.mark.parametrize("folder", [True, False])
def test_what_appears_during_the_work_is_not_replaced_unasked(
    recordings: Path, folder: bool
) -> None:
    target = Path("folder_enhanced/c.wav" if folder else "a_enhanced.wav")
    inputs = ["folder" if folder else "a.wav"]

    def put_there(job: Job, doing: str, done: float, total: float | None) -> None:
        if doing == "write" and job.target == target:
            target.write_bytes(b"mine")

    result = run_batch(inputs, config=PLAIN, progress=put_there).results[0]
    assert isinstance(result.error, OutputError)
    assert "Set `overwrite` to replace it" in str(result.error)
    assert target.read_bytes() == b"mine"
    target.unlink()
    assert run_batch(inputs, config=PLAIN).failed == 0
    # What is made anew, because the settings have changed, is ours to replace, and nothing else.
    louder = dataclasses.replace(PLAIN, loudness="ebu")
    if folder:
        assert run_batch(inputs, config=louder, progress=put_there).failed == 1
        assert target.read_bytes() == b"mine"
    done = run_batch(inputs, config=louder, overwrite=True, progress=put_there)
    assert done.failed == 0
    assert target.read_bytes() != b"mine"
    assert not [path for path in target.parent.iterdir() if path.suffix == ".part"]


def test_what_is_gone_is_an_input_error_also_in_a_folder(recordings: Path) -> None:
    Path("out").mkdir()
    shutil.copy("a.wav", "out/gone.wav")
    summary = run_batch(["gone.wav", "never.wav", "b.flac"], "out", config=PLAIN)
    assert changed(summary) == {"gone.wav": "failed", "never.wav": "failed", "b.flac": "ok"}
    assert {type(result.error) for result in summary.results if result.error} == {InputError}
    assert Path("out/gone.wav").read_bytes() == Path("a.wav").read_bytes()


def test_a_folder_that_vanishes_fails_its_files_alone(recordings: Path) -> None:
    soundfile.write("folder/sub/e.wav", noise(1, RATE, RATE).T, RATE)

    def vanish(result: Result) -> None:
        if Path(result.input).name == "d.wav":
            shutil.rmtree("folder/sub")
            shutil.rmtree("out")

    summary = run_batch(["folder", "b.flac"], "out", config=PLAIN, on_result=vanish)
    assert changed(summary) == {"c.wav": "ok", "d.wav": "ok", "e.wav": "failed", "b.flac": "ok"}
    assert sorted(outputs("out")) == ["b.wav"]
    again = run_batch(["folder", "b.flac"], "out", config=PLAIN)
    assert changed(again) == {"c.wav": "ok", "b.flac": "skipped"}


def test_a_full_disk_fails_what_does_not_fit(recordings: Path, small_disk: Path) -> None:
    soundfile.write("folder/b.wav", noise(1, 20 * RATE, RATE).T, RATE)
    summary = run_batch(["folder"], small_disk, config=PLAIN)
    assert changed(summary) == {"b.wav": "failed", "c.wav": "ok", "d.wav": "ok"}
    assert "too small for b.wav" in str(summary.results[0].error)
    hidden = [path.name for path in small_disk.rglob(".*")]
    assert hidden == [JOURNAL_FILE]


@pytest.mark.skipif(os.name == "nt", reason="Windows has no FIFOs")
def test_a_journal_that_is_none_ends_the_run_before_it_begins(recordings: Path) -> None:
    run_batch(["folder"], config=PLAIN)
    before = outputs("folder_enhanced")
    Path("folder_enhanced", JOURNAL_FILE).unlink()
    os.mkfifo(Path("folder_enhanced", JOURNAL_FILE))
    # In a process of its own: what waits for somebody to write into it waits for ever.
    done = subprocess.run(
        [sys.executable, "-m", "speakup", "enhance", "folder", "--no-denoise", "--no-upsample"],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=300.0,
        check=False,
    )
    assert done.returncode == 2
    assert f"{JOURNAL_FILE}: is a FIFO, and a journal is an ordinary file" in done.stderr
    assert "Move it away" in done.stderr
    for options in ({"overwrite": True}, {"resume": False}):
        with pytest.raises(ConfigError, match="is a FIFO"):
            run_batch(["folder"], config=PLAIN, **options)
    assert outputs("folder_enhanced") == before


def test_a_journal_that_cannot_be_written_keeps_the_output_back(recordings: Path) -> None:
    def spoil(job: Job, doing: str, done: float, total: float | None) -> None:
        if doing == "enhance":
            Path("folder_enhanced", JOURNAL_FILE).mkdir(exist_ok=True)

    summary = run_batch(["folder"], config=PLAIN, progress=spoil)
    assert (summary.failed, summary.ok) == (2, 0)
    assert not list(Path("folder_enhanced").rglob("*.wav"))
    assert "is a folder, and a journal is an ordinary file" in str(summary.results[0].error)


def test_odd_names_go_through(recordings: Path) -> None:
    long = "\U0001f399" * 62 + ".wav"  # 252 bytes
    names = ["two words\n.wav", long, "-o.wav", os.fsdecode(b"caf\xe9.wav")]
    for name in names:
        shutil.copy("a.wav", os.path.join("folder", "sub", name))
    shutil.copy("b.flac", os.path.join("folder", "sub", "\U0001f399" * 62 + ".flac"))
    summary = run_batch(["folder"], config=PLAIN)
    assert summary.failed == 0
    assert len(list(Path("folder_enhanced/sub").glob("*.wav"))) == len(names) + 2
    assert run_batch(["folder"], config=PLAIN).skipped == summary.ok


_RUNS_IN_CHILDREN = """
import os, sys
from speakup.folders.run import run_batch
from speakup.config import Config
config = Config(denoise=False, upsample="off", sample_rate="keep")
for _ in sys.stdin:
    child = os.fork()
    if not child:
        print(os.getpid(), flush=True)
        summary = run_batch(["many"], "broken", config=config, jobs=2)
        print(summary.ok, summary.skipped, summary.failed, flush=True)
        os._exit(0)
    os.waitpid(child, 0)
    print("ended", flush=True)
"""
"""Starts a run in a process of its own for each line; torch is imported but once."""


def test_whatever_is_killed_when_the_result_is_that_of_an_unbroken_run(recordings: Path) -> None:
    source = noise(1, RATE, RATE).T
    for number in range(24):
        Path(f"many/{number % 3}").mkdir(parents=True, exist_ok=True)
        soundfile.write(f"many/{number % 3}/{number}.wav", source * (1 + number) / 40, RATE)
    run_batch(["many"], "whole", config=PLAIN)
    draw = random.Random(0)
    with subprocess.Popen(
        [sys.executable, "-c", _RUNS_IN_CHILDREN],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as program:
        assert program.stdin is not None
        assert program.stdout is not None

        def start() -> str:
            assert program.stdin is not None
            assert program.stdout is not None
            program.stdin.write("\n")
            program.stdin.flush()
            return program.stdout.readline()

        for kill in range(4):
            run = int(start())
            deadline = time.monotonic() + 60.0
            wanted = 5 * kill + draw.randrange(1, 5)
            while len(made("broken")) < wanted and time.monotonic() < deadline:
                time.sleep(0.001)
            time.sleep(0.02 * draw.random())
            os.kill(run, signal.SIGKILL)
            assert program.stdout.readline() == "ended\n"
        before = len(made("broken"))
        assert 0 < before < 24
        start()
        ok, skipped, failed = map(int, program.stdout.readline().split())
        program.stdin.close()
    assert (ok, skipped, failed) == (24 - before, before, 0)  # what was in flight, and the rest
    assert outputs("broken") == outputs("whole")
    assert [path.name for path in Path("broken").rglob(".*")] == [JOURNAL_FILE]


def made(folder: str) -> list[Path]:
    """List what has appeared in a folder."""
    return [path for path in Path(folder).rglob("*.wav") if not path.name.startswith(".")]


def outputs(folder: str) -> dict[str, bytes]:
    """Give what has appeared in a folder, by relative path."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in made(folder)}

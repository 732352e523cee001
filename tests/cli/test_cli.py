from __future__ import annotations

import dataclasses
import io
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import soundfile
from nets import SMALL_EXTENDER, save_model, small_extender, small_mixer
from sounds import noise

from speakup import __version__
from speakup.cli import main
from speakup.config import Config
from speakup.pipeline import Pipeline

RATE = 16_000
PLAIN = ("--no-denoise", "--no-upsample")


class Done(NamedTuple):
    """What a command gave."""

    code: int
    out: str
    err: str

    @property
    def events(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.out.splitlines()]


@pytest.fixture(autouse=True)
def _threads() -> Iterator[None]:
    """Undo what commands do to the process they think is theirs."""
    import torch

    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)
    torch.set_flush_denormal(False)


@pytest.fixture
def speakup(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Any:
    """Give a function that runs a command in a folder with talk.wav and junk.wav."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "300")
    monkeypatch.delenv("SPEAKUP_DEBUG", raising=False)
    soundfile.write("talk.wav", noise(1, RATE, RATE).T, RATE)
    Path("junk.wav").write_text("no sound")

    def run(*words: object) -> Done:
        monkeypatch.setattr(sys, "argv", ["speakup", *map(str, words)])
        code = main()
        return Done(code, *capfd.readouterr())

    return run


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, ...]:
    """Give the options that choose two small networks."""
    folder = tmp_path_factory.mktemp("models")
    denoiser = save_model(folder / "tiny-denoiser", small_mixer())
    upsampler = save_model(folder / "tiny-upsampler", small_extender())
    return "--denoiser", str(denoiser), "--upsampler", str(upsampler)


def one_line(text: str) -> bool:
    return text.count("\n") == 1 and text.endswith("\n")


# Words


def test_help_and_version(speakup: Any) -> None:
    done = speakup("--help")
    assert done.code == 0
    shown = set(re.findall(r"^│ ([a-z]+) ", done.out, re.MULTILINE))
    machine = {"doctor", "bench"}
    assert (
        shown == {"enhance", "models", "analyze", "report", "evaluate", "train", "export"} | machine
    )
    assert speakup("-V") == (0, f"speakup {__version__}\n", "")
    assert speakup("--version").out == f"speakup {__version__}\n"
    assert speakup().code in (0, 2)  # as the version of typer has it


def test_every_setting_has_an_option_with_its_default_and_help(speakup: Any) -> None:
    text = speakup("enhance", "-h").out
    for field in dataclasses.fields(Config):
        flag = f"--{field.name.replace('_', '-')}"
        flag = flag.replace("--", "--no-") if field.default is True else flag
        (line,) = (line for line in text.splitlines() if re.search(rf"^│ {flag} ", line))
        assert field.metadata["help"][1:40] in line
        if field.default not in (None, True, False):
            assert f"[default: {field.default}]" in line


def test_nothing_said_means_the_defaults(speakup: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Config] = []

    def keep(jobs: Any, config: Config, **_: Any) -> None:
        seen.append(config)
        raise KeyboardInterrupt

    monkeypatch.setattr("speakup.folders.run.run_jobs", keep)
    monkeypatch.setattr("speakup.cli.enhance.prepare_models", lambda *_: None)
    speakup("enhance", "talk.wav")
    assert seen == [Config()]
    options = {
        "--denoiser": ("x", {"denoiser": "x"}),
        "--upsampler": ("hf://a/b@c", {"upsampler": "hf://a/b@c"}),
        "--no-denoise": (None, {"denoise": False}),
        "--upsample": ("always", {"upsample": "always"}),
        "--no-upsample": (None, {"upsample": "off"}),
        "--strength": ("0.5", {"strength": 0.5}),
        "--max-attenuation": ("20", {"max_attenuation": 20.0}),
        "--loudness": ("-18", {"loudness": "-18"}),
        "--no-loudness": (None, {"loudness": "off"}),
        "--true-peak": ("-2", {"true_peak": -2.0}),
        "--sample-rate": ("keep", {"sample_rate": "keep"}),
        "--channels": ("mono", {"channels": "mono"}),
        "--format": ("flac", {"format": "flac"}),
        "-f": ("mp3", {"format": "mp3"}),
        "--bit-depth": ("32f", {"bit_depth": "32f"}),
        "--bitrate": ("192", {"bitrate": 192}),
        "--device": ("cpu", {"device": "cpu"}),
        "--precision": ("fp32", {"precision": "fp32"}),
        "--threads": ("1", {"threads": 1}),
        "--offline": (None, {"offline": True}),
        "--preset": ("studio", {"preset": "studio"}),
        "--accept-license": (None, {"accept_license": True}),
    }
    for flag, (value, changes) in options.items():
        words = [flag] if value is None else [flag, value]
        assert speakup("enhance", "talk.wav", *words).code == 130
        assert seen[-1] == dataclasses.replace(Config(), **changes)
    speakup("enhance", "talk.wav", "--sample-rate", "48000")
    assert seen[-1].sample_rate == 48_000


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["enhance"], "Missing argument 'INPUT'. See speakup enhance --help"),
        (["enhance", "talk.wav", "--loudnes", "ebu"], "No such option"),
        (["enhanse", "talk.wav"], "No such command 'enhanse'"),
        (["enhance", "talk.wav", "--strength", "much"], "Invalid value for '--strength'"),
        (["enhance", "talk.wav", "--strength", "3"], "strength is 3.0. Give a number from 0 to 1"),
        (["enhance", "talk.wav", "--sample-rate", "44.1q"], "sample-rate is '44.1q'. Give"),
        (["enhance", "talk.wav", "--upsample", "some"], "upsample is 'some'. Choose from auto"),
        (["enhance", "talk.wav", "--loudness", "loud", *PLAIN], "loudness is 'loud'. Choose"),
        (["enhance", "talk.wav", "--device", "abacus", *PLAIN], "device is 'abacus'"),
        (["enhance", "talk.wav", "-o", "talk.xyz", *PLAIN], ".xyz is not a format"),
        (["enhance", "talk.wav", "junk.wav", "-o", "out.wav"], "out.wav: is one file's name for 2"),
        (["enhance", "talk.wav", "junk.wav", "--report", "p.html"], "p.html: a report shows one"),
        (["enhance", "-", "talk.wav"], "- goes with one recording, not 2"),
        (["enhance", "talk.wav", "-o", "-", "--json"], "--json and the sound would both go to"),
        (["enhance", "talk.wav", "--raw", "16000:1:s16le"], "--raw is for standard input"),
        (["enhance", "-", "--raw", "16000:1:s17le", "-o", "a.wav"], "raw is '16000:1:s17le'"),
    ],
)
def test_wrong_usage_is_one_line_and_two(speakup: Any, words: list[str], says: str) -> None:
    done = speakup(*words)
    assert done.code == 2
    assert done.out == ""
    assert done.err.startswith("speakup: error: ")
    assert says in done.err
    assert one_line(done.err)


# Enhance


def test_a_path_on_stdout_and_a_line_on_stderr(speakup: Any, models: tuple[str, ...]) -> None:
    done = speakup("enhance", "talk.wav", *models)
    assert done.code == 0, done.err
    assert done.out == "talk_enhanced.wav\n"
    assert one_line(done.err)
    assert re.match(r"talk\.wav  1\.0 s at .+× · .+ kHz · .+ → −1\d\.\d LUFS", done.err)
    assert soundfile.info("talk_enhanced.wav").samplerate == 44_100

    again = speakup("enhance", "talk.wav", *models)
    assert (again.code, again.out) == (0, "talk_enhanced.wav\n")
    assert "skipped" in again.err
    assert "skipped" not in speakup("enhance", "talk.wav", *models, "--overwrite").err


def test_quiet_and_verbose(speakup: Any, models: tuple[str, ...]) -> None:
    assert speakup("enhance", "talk.wav", *models, "-q") == (0, "talk_enhanced.wav\n", "")
    done = speakup("enhance", "talk.wav", *models, "-v", "--overwrite")
    assert re.search(r"denoise .* tiny-denoiser sha256:", done.err)
    assert re.search(r"loudness .* s ", done.err)
    assert speakup("enhance", "junk.wav", *models, "-q").err.startswith("speakup: error: junk.wav")


def test_json_is_one_object_per_file_and_a_summary(speakup: Any, models: tuple[str, ...]) -> None:
    done = speakup("enhance", "talk.wav", "junk.wav", *models, "--json")
    assert done.code == 1
    events = {event.get("input", "summary"): event for event in done.events}
    assert done.events[-1]["event"] == "summary"
    talk, junk, summary = events["talk.wav"], events["junk.wav"], events["summary"]
    keys = (
        "event schema input output status seconds elapsed speed channels sample_rate_in "
        "sample_rate_out bandwidth_hz lufs_in lufs_out true_peak_dbtp gain_db stages warnings error"
    )
    assert list(talk) == list(junk) == keys.split()
    assert (talk["status"], talk["error"], talk["sample_rate_in"]) == ("ok", None, RATE)
    assert [stage["name"] for stage in talk["stages"]][-1] == "loudness"
    assert junk["status"] == "failed"
    assert junk["error"]["type"] == "InputError"
    assert junk["output"] is None
    assert (summary["ok"], summary["skipped"], summary["failed"]) == (1, 0, 1)
    assert "speakup: error: junk.wav: " in done.err


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["junk.wav"], 3, "junk.wav: is not audio"),
        (["missing.wav"], 3, "missing.wav: no such file"),
        (["empty"], 3, "empty: holds no recordings"),
        (["talk.wav", "-o", "nowhere/talk.wav"], 4, "nowhere/talk.wav: the folder does not exist"),
        (["talk.wav", "-o", "talk.wav", "--overwrite"], 4, "talk.wav: is the input itself"),
        (["talk.wav", "missing.wav"], 1, "missing.wav: no such file"),
    ],
)
def test_exit_codes_tell_what_failed(speakup: Any, words: list[str], code: int, says: str) -> None:
    Path("empty").mkdir()
    done = speakup("enhance", *words, *PLAIN)
    assert done.code == code
    assert f"speakup: error: {says}" in done.err
    assert "Traceback" not in done.err


def test_a_missing_model_is_five(speakup: Any) -> None:
    done = speakup("enhance", "talk.wav", "junk.wav", "--denoiser", "nobody", "--offline")
    assert done.code == 5
    assert done.err.startswith("speakup: error: nobody: no such model")
    assert one_line(done.err)


def test_debug_shows_the_traceback(speakup: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "Traceback" not in speakup("enhance", "junk.wav", *PLAIN).err
    monkeypatch.setenv("SPEAKUP_DEBUG", "1")
    done = speakup("enhance", "junk.wav", *PLAIN)
    assert "Traceback" in done.err
    assert done.err.splitlines()[-1].startswith("speakup: error: junk.wav: ")


def test_a_fault_of_ours_says_so(speakup: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def stumble(*_: Any, **__: Any) -> None:
        raise ZeroDivisionError("a fault")

    monkeypatch.setattr(Pipeline, "run", stumble)
    done = speakup("enhance", "talk.wav", *PLAIN)
    assert done.code == 1
    assert "talk.wav: unexpected ZeroDivisionError: a fault. This is a fault in" in done.err
    monkeypatch.setattr("speakup.folders.plan.plan_jobs", stumble)
    done = speakup("enhance", "talk.wav", *PLAIN)
    assert (done.code, one_line(done.err)) == (1, True)


def test_without_stages_the_samples_pass_unchanged(speakup: Any) -> None:
    words = [*PLAIN, "--no-loudness", "--sample-rate", "keep", "--bit-depth", "32f"]
    assert speakup("enhance", "talk.wav", "-o", "same.wav", *words).code == 0
    before, _ = soundfile.read("talk.wav", dtype="float32")
    after, rate = soundfile.read("same.wav", dtype="float32")
    assert rate == RATE
    assert np.array_equal(before, after)


def test_output_options_reach_the_file(speakup: Any) -> None:
    soundfile.write("stereo.wav", noise(2, RATE, RATE).T, RATE)
    words = ["--channels", "mono", "--sample-rate", "48000", "-f", "flac", "--bit-depth", "16"]
    assert speakup("enhance", "stereo.wav", *PLAIN, *words).out == "stereo_enhanced.flac\n"
    found = soundfile.info("stereo_enhanced.flac")
    assert (found.channels, found.samplerate, found.subtype) == (1, 48_000, "PCM_16")
    assert speakup("enhance", "stereo.wav", *PLAIN, "-o", "s.mp3", "--bitrate", "64").code == 0
    assert Path("s.mp3").stat().st_size < 16_000


def test_folders(speakup: Any) -> None:
    for name in ("rec/a.wav", "rec/b.flac", "rec/sub/c.wav"):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(name, noise(1, RATE, RATE).T, RATE)
    done = speakup("enhance", "rec", *PLAIN, "-j", "2")
    assert done.code == 0
    assert set(done.out.splitlines()) == {
        os.path.join("rec_enhanced", name)
        for name in ("a.wav", "b.wav", os.path.join("sub", "c.wav"))
    }
    assert "[3/3]" in done.err
    assert "3 done: 3.0 s in " in done.err
    words = ["-o", "x/", "--include", "*.wav", "--exclude", "a*", "--json"]
    assert speakup("enhance", "rec", *PLAIN, *words).events[0]["output"] == "x/sub/c.wav"
    assert speakup("enhance", "rec", *PLAIN, *words, "--no-recursive").code == 3

    shutil.copy("rec/a.wav", "rec/a_enhanced.wav")
    assert "a_enhanced.wav: left out" in speakup("enhance", "rec", *PLAIN).err


def test_a_folder_goes_on_where_it_was_left(speakup: Any) -> None:
    for name in ("rec/a.wav", "rec/a.flac", "rec/sub/b.wav"):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(name, noise(1, RATE, RATE).T, RATE)
    Path("rec/bad.wav").write_text("no sound")
    planned = speakup("enhance", "rec", *PLAIN, "--dry-run").out
    assert "rec/a.flac -> rec_enhanced/a.flac.wav (" in planned
    assert not Path("rec_enhanced").exists()

    done = speakup("enhance", "rec", *PLAIN)
    assert done.code == 1
    last = done.err.splitlines()[-2:]
    assert last[0].startswith("failed: rec/bad.wav: is not audio")
    assert last[1].startswith("3 done, 1 failed: 3.0 s in ")
    Path("rec/bad.wav").unlink()
    again = speakup("enhance", "rec", *PLAIN)
    assert again.code == 0
    assert again.err.count("it is finished") == 3
    assert sorted(again.out.splitlines()) == sorted(done.out.splitlines())
    assert "3 skipped" in again.err

    event = speakup("enhance", "rec", *PLAIN, "--loudness", "ebu", "--dry-run", "--json").events[0]
    assert (event["status"], event["reason"]) == ("overwrite", None)
    words = ("--loudness", "ebu", "--no-resume")
    event = speakup("enhance", "rec", *PLAIN, *words, "--dry-run", "--json").events[0]
    assert (event["status"], event["reason"]) == ("skip", "it exists; --overwrite replaces it")
    assert "3 skipped" in speakup("enhance", "rec", *PLAIN, *words).err
    assert "3 done" in speakup("enhance", "rec", *PLAIN, "--loudness", "ebu").err
    assert "3 done" in speakup("enhance", "rec", *PLAIN, "--loudness", "ebu", "--overwrite").err


def test_what_is_left_out_is_said_in_few_lines(speakup: Any) -> None:
    Path("rec").mkdir()
    for number in range(6):
        shutil.copy("talk.wav", f"rec/{number}.wav")
        shutil.copy("talk.wav", f"rec/{number}_enhanced.wav")
    words = ["enhance", "rec", *PLAIN, "--dry-run"]
    assert "6 files are left out, each because an earlier run made it" in speakup(*words).err
    assert "rec/0_enhanced.wav: left out" in speakup(*words, "-v").err


@pytest.mark.skipif(sys.platform != "linux", reason="names are text elsewhere")
def test_names_that_are_no_text_reach_stdout_byte_by_byte(speakup: Any) -> None:
    name = b"caf\xe9\n\xf0\x9f\x8e\x99.wav"
    Path("rec").mkdir()
    shutil.copy("talk.wav", os.path.join("rec", os.fsdecode(name)))
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run(
        [sys.executable, "-m", "speakup", "enhance", "rec", *PLAIN],
        env={**os.environ, "PYTHONPATH": str(root)},
        capture_output=True,
    )
    assert (done.returncode, done.stdout) == (0, b"rec_enhanced/" + name + b"\n")
    file, summary = speakup("enhance", "rec", *PLAIN, "--json").events
    assert os.fsencode(file["output"]) == b"rec_enhanced/" + name
    assert (file["status"], summary["skipped"]) == ("skipped", 1)


def test_dry_run_writes_nothing(speakup: Any, models: tuple[str, ...]) -> None:
    Path("talk_enhanced.wav").touch()
    done = speakup("enhance", "talk.wav", *models, "--dry-run")
    assert done.code == 0
    line = "talk.wav -> talk_enhanced.wav (1.0 s, wav 24 bit, 44.1 kHz, mono, skipped: it exists; "
    assert done.out == line + "--overwrite replaces it)\n"
    assert "denoise with tiny-denoiser; upsample with tiny-upsampler, where" in done.err
    assert "; level; loudness podcast, at most -1 dBTP" in done.err

    assert "disk:" not in done.err  # What is skipped needs no room.

    done = speakup("enhance", "talk.wav", *models, "--dry-run", "-o", "new.wav")
    # One second in mono at 44.1 kHz: 3 bytes a sample written, twice 4 kept and 24 kB of levels.
    assert "disk: up to 132 kB for the sound" in done.err
    assert "up to 377 kB in " in done.err

    words = ["--dry-run", "--json", "-o", "new/", "-f", "mp3"]
    done = speakup("enhance", "talk.wav", "junk.wav", *models, *words)
    assert done.events[0]["output_bytes"] == 192_000 / 8
    assert done.events[0]["temporary_bytes"] == 44_100 * 4 * 2 + 24_000
    assert done.code == 1
    talk, junk = done.events
    assert (talk["event"], talk["output"], talk["status"]) == ("plan", "new/talk.mp3", "write")
    assert [model["name"] for model in talk["models"]] == ["tiny-denoiser", "tiny-upsampler"]
    assert (junk["status"], junk["error"]["type"]) == ("fail", "InputError")
    assert speakup("enhance", "junk.wav", *models, "--dry-run").code == 3
    assert speakup("enhance", "talk.wav", *models, "--dry-run", "--loudness", "x").code == 2
    assert not Path("new").exists()
    assert Path("talk_enhanced.wav").stat().st_size == 0


def test_a_report_is_a_page(speakup: Any) -> None:
    done = speakup("enhance", "talk.wav", *PLAIN, "--report", "page.html")
    assert done.code == 0
    assert done.out == "talk_enhanced.wav\n"
    assert Path("page.html").read_text("utf-8").startswith("<!DOCTYPE html>")
    shutil.copy("talk.wav", "b.wav")
    done = speakup("enhance", "b.wav", *PLAIN, "--report", "page.html")
    assert done.code == 4 and "page.html: it is there already" in done.err
    assert "--overwrite" in done.err
    assert not Path("b_enhanced.wav").exists(), "known before the work"


def test_names_may_hold_anything(speakup: Any) -> None:
    name = "[red]  \N{SNOWMAN}\x1b[31m.wav"
    shutil.copy("talk.wav", name)
    done = speakup("enhance", name, *PLAIN)
    assert done.code == 0
    assert done.out == "[red]  \N{SNOWMAN}\x1b[31m_enhanced.wav\n"  # to a program, the very name
    assert "\x1b" not in done.err
    assert "[red]  \N{SNOWMAN}" in done.err


def test_progress_is_drawn_on_a_terminal_only(
    speakup: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copy("talk.wav", "b.wav")
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm-256color")
    done = speakup("enhance", "talk.wav", "b.wav", *PLAIN)
    assert "2 of 2 files" in done.err
    assert "\x1b[" in done.err
    assert done.out.count("\x1b") == 0
    for quiet in ("--no-progress", "-q"):
        assert " files" not in speakup("enhance", "talk.wav", "b.wav", *PLAIN, quiet).err


def test_progress_adds_up() -> None:
    from speakup.cli.progress import Overview, Tracker

    shares = []

    def show(overview: Overview) -> None:
        shares.append((overview.share, overview.seconds))

    tracker = Tracker({"a": 4.0, "b": 3.0, "c": 1.0}, show)
    for doing, done in (("open", 0.0), ("survey", 5.0), ("enhance", 5.0), ("write", 10.0)):
        tracker.tell("a", doing, done, None if doing == "open" else 10.0)
    tracker.end("a", 10.0)
    tracker.tell("b", "survey", 30.0, 30.0)
    tracker.end("c", 0.0, worked=False)  # failed before anything was told of it
    share = [round(share, 3) for share, _ in shares]
    assert share == sorted(share)
    assert share[0] == 0.0
    assert share[4] == 0.5  # by size, not by number
    assert shares[4][1] == 10.0
    tracker.end("b", 30.0)
    assert shares[-1] == (1.0, 40.0)


def test_long_work_is_told_where_there_is_no_terminal(
    speakup: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("speakup.cli.progress._LINE_EVERY_SECONDS", 0.0)
    done = speakup("enhance", "talk.wav", *PLAIN)
    assert re.search(r"talk\.wav: survey, 13 %", done.err)
    assert "%" not in speakup("enhance", "talk.wav", *PLAIN, "--no-progress", "--overwrite").err


@pytest.mark.parametrize(
    ("number", "jobs", "code"),
    [(signal.SIGINT, "1", 130), (signal.SIGTERM, "2", 143)],
)
def test_a_signal_leaves_no_temporary_file(
    tmp_path: Path, number: signal.Signals, jobs: str, code: int
) -> None:
    silence = np.zeros((30 * 60 * 8_000,), np.int16)
    silence[::1000] = 1000
    (tmp_path / "rec").mkdir()
    for name in ("one.wav", "two.wav"):
        soundfile.write(tmp_path / "rec" / name, silence, 8_000)
    root = Path(__file__).resolve().parents[2]
    with subprocess.Popen(
        [sys.executable, "-m", "speakup", "enhance", "rec", *PLAIN, "-j", jobs],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(root)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        deadline = time.monotonic() + 60
        while not list(tmp_path.glob("*/.*.part")) and time.monotonic() < deadline:
            time.sleep(0.02)
        process.send_signal(number)
        out, err = process.communicate(timeout=60)
    assert process.returncode == code, err
    assert out == ""
    assert "interrupted: 0 of 2 files are done. The same command goes on" in err
    assert "Traceback" not in err
    left = {path.name for path in tmp_path.rglob("*") if path.is_file()}
    # The journal is there if a file was whole, but had not yet appeared, when the signal came.
    assert left - {".speakup-journal.jsonl"} == {"one.wav", "two.wav"}


def test_what_does_not_unwind_is_ended_all_the_same(tmp_path: Path) -> None:
    code = """
import os, signal, sys, time
from pathlib import Path
from speakup.cli.interrupt import interruptible
from speakup.files import Temporary
with interruptible(lambda: print("told", file=sys.stderr)):
    Temporary(Path("a.wav"))
    try:
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(600)
    finally:
        time.sleep(600)  # as a network that cannot be stopped
"""
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (130, "told\n")
    assert list(tmp_path.iterdir()) == []


def test_what_a_shell_started_in_the_background_does_not_heed_ctrl_c(tmp_path: Path) -> None:
    code = """
import os, signal
from speakup.cli.interrupt import interruptible
with interruptible(lambda: print("told")):
    os.kill(os.getpid(), signal.SIGINT)
    print("went on", flush=True)
    os.kill(os.getpid(), signal.SIGTERM)
"""
    script = f"trap '' INT; exec {shlex.quote(sys.executable)} -c {shlex.quote(code)}"
    done = subprocess.run(
        ["sh", "-c", script],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stdout, done.stderr) == (143, "went on\ntold\n", "")


def test_a_reader_that_leaves_is_no_fault(tmp_path: Path) -> None:
    root = Path(__file__).resolve().parents[2]
    read_end, write_end = os.pipe()
    os.close(read_end)
    done = subprocess.run(
        [sys.executable, "-m", "speakup", "--version"],
        env={**os.environ, "PYTHONPATH": str(root)},
        stdout=write_end,
        stderr=subprocess.PIPE,
        text=True,
    )
    os.close(write_end)
    assert (done.returncode, done.stderr) == (4, "")


@pytest.mark.parametrize("full", [True, False])
@pytest.mark.parametrize("json_too", [True, False])
def test_a_batch_goes_on_when_stdout_takes_no_more_and_says_so(
    speakup: Any, tmp_path: Path, full: bool, json_too: bool
) -> None:
    if full and not Path("/dev/full").exists():
        pytest.skip("no full device")
    shutil.copy("talk.wav", "second.wav")
    if full:
        out = os.open("/dev/full", os.O_WRONLY)
    else:
        read_end, out = os.pipe()
        os.close(read_end)
    words = ["enhance", "talk.wav", "second.wav", *PLAIN, *(["--json"] if json_too else [])]
    done = subprocess.run(
        [sys.executable, "-m", "speakup", *words],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])},
        stdout=out,
        stderr=subprocess.PIPE,
        text=True,
    )
    os.close(out)
    assert done.returncode == 4
    assert Path("talk_enhanced.wav").is_file() and Path("second_enhanced.wav").is_file()
    why = "No space left on device" if full else "its reader has gone"
    assert done.stderr.count(f"standard output: {why}. The work goes on") == 1
    assert "Traceback" not in done.stderr and "Exception" not in done.stderr


@pytest.mark.skipif(os.name == "nt", reason="closes a descriptor as a shell does")
def test_a_closed_stdout_is_said_to_be(speakup: Any) -> None:
    command = shlex.join([sys.executable, "-m", "speakup", "enhance", "talk.wav", *PLAIN])
    done = subprocess.run(
        ["sh", "-c", f"exec {command} >&-"],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])},
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    assert done.returncode == 0
    assert done.stderr.count("standard output is closed") == 1
    assert Path("talk_enhanced.wav").read_bytes()[:4] == b"RIFF"


def test_one_recording_that_is_interrupted_is_not_said_to_go_on(tmp_path: Path) -> None:
    silence = np.zeros((30 * 60 * 8_000,), np.int16)
    silence[::1000] = 1000
    soundfile.write(tmp_path / "one.wav", silence, 8_000)
    done = signalled(tmp_path, ["enhance", "one.wav", *PLAIN], signal.SIGINT, ".*.part")
    assert done.returncode == 130
    assert "nothing is written. The same command starts anew" in done.stderr
    assert "goes on" not in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["one.wav"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("command", ["bench", "pipe"])
def test_a_signal_leaves_nothing_in_the_temporary_folder(
    tmp_path: Path, command: str, number: signal.Signals
) -> None:
    noisy = np.random.default_rng(1).integers(-3000, 3000, 120 * 8_000).astype(np.int16)
    soundfile.write(tmp_path / "one.wav", noisy, 8_000)
    (tmp_path / "tmp").mkdir()
    words = {
        "bench": ["bench", "--seconds", "100", "--device", "cpu"],
        "pipe": ["enhance", "-", "-o", "two.wav", *PLAIN],
    }[command]
    done = signalled(tmp_path, words, number, "tmp/.*.part")
    assert done.returncode == 128 + number
    assert "interrupted" in done.stderr and "Traceback" not in done.stderr
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["one.wav", "tmp"]


def signalled(
    folder: Path, words: list[str], number: signal.Signals, until: str
) -> subprocess.CompletedProcess[str]:
    """Run a command, send it a signal once a file is there, and give how that ended."""
    root = Path(__file__).resolve().parents[2]
    with (
        (folder / "one.wav").open("rb") as sound,
        subprocess.Popen(
            [sys.executable, "-m", "speakup", *words],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": str(root), "TMPDIR": str(folder / "tmp")},
            stdin=sound,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as process,
    ):
        deadline = time.monotonic() + 120
        while not list(folder.glob(until)) and time.monotonic() < deadline:
            time.sleep(0.01)
        process.send_signal(number)
        out, err = process.communicate(timeout=60)
    return subprocess.CompletedProcess(words, process.returncode, out, err)


# The other commands


def test_models(speakup: Any, models: tuple[str, ...]) -> None:
    listed = speakup("models", "list", "--json")
    assert listed.code == 0
    names = [card["name"] for card in json.loads(listed.out)["models"]]
    assert all(name in speakup("models", "list").out for name in names)

    folder = models[3]
    assert speakup("models", "path", folder).out == f"{folder}\n"
    assert "CC0-1.0" in speakup("models", "info", folder).out
    card = json.loads(speakup("models", "info", folder, "--json").out)
    assert (card["name"], card["task"], card["folder"]) == ("tiny-upsampler", "upsample", folder)
    assert card["hyperparameters"] == SMALL_EXTENDER
    for command in ("path", "info"):
        done = speakup("models", command, "nobody", "--offline")
        assert (done.code, one_line(done.err)) == (5, True)


def test_analyze(speakup: Any) -> None:
    done = speakup("analyze", "talk.wav")
    assert done.code == 0
    assert re.search(r"Bandwidth +\d", done.out)
    assert re.search(r"fail +ACX", done.out)
    assert re.search(r"→ turn it (up|down) by \d", done.out)
    done = speakup("analyze", "talk.wav", "junk.wav", "--json")
    assert done.code == 1
    (event,) = done.events
    assert (event["event"], event["input"], event["sample_rate"]) == ("analysis", "talk.wav", RATE)
    assert [check["target"] for check in event["delivery"] if check["passed"]] == ["aes"]
    assert "speakup: error: junk.wav" in done.err
    assert speakup("analyze", "junk.wav").code == 3


def test_analyze_gates_a_script(speakup: Any) -> None:
    lufs = speakup("analyze", "talk.wav", "--json").events[0]["integrated_lufs"]
    done = speakup("analyze", "talk.wav", "--check", f"{lufs:.1f}")
    assert done.code == 0 and done.out.count("pass") == 1 and "fail" not in done.out
    done = speakup("analyze", "talk.wav", "--check", "podcast", "--json")
    assert done.code == 1
    (check,) = done.events[0]["delivery"]
    assert (check["target"], check["passed"]) == ("podcast", False) and check["change"]
    assert speakup("analyze", "talk.wav", "junk.wav", "--check", f"{lufs:.1f}").code == 1
    for wrong in ("nobody", "off"):
        assert speakup("analyze", "talk.wav", "--check", wrong).code == 2


def test_analyze_takes_folders_globs_and_standard_input(
    speakup: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("many/deep").mkdir(parents=True)
    for name in ("many/a.wav", "many/deep/b_enhanced.wav", "many/.hidden.wav", "many/notes.txt"):
        shutil.copy("talk.wav", name)
    done = speakup("analyze", "many", "--json")
    assert [Path(event["input"]).name for event in done.events] == ["a.wav", "b_enhanced.wav"]
    assert len(speakup("analyze", "t*.wav", "--json").events) == 1
    with open("talk.wav", "rb") as file:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(file.read())))
    (event,) = speakup("analyze", "-", "--json").events
    assert (event["input"], event["seconds"]) == ("-", 1.0)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"no sound")))
    done = speakup("analyze", "-")
    assert done.code == 3 and "standard input" in done.err
    Path("empty").mkdir()
    assert speakup("analyze", "empty").code == 3


def test_analyze_draws_one_recording(speakup: Any) -> None:
    pytest.importorskip("PIL")
    assert speakup("analyze", "talk.wav", "--plot", "talk.png").code == 0
    assert Path("talk.png").read_bytes().startswith(b"\x89PNG")
    done = speakup("analyze", "talk.wav", "--plot", "talk.png")
    assert done.code == 4 and "there already" in done.err
    assert speakup("analyze", "talk.wav", "--plot", "talk.png", "--overwrite").code == 0
    assert speakup("analyze", "talk.wav", "junk.wav", "--plot", "two.png").code == 2


def test_report(speakup: Any) -> None:
    assert speakup("report", "talk.wav", "talk.wav", "-o", "page.html").out == "page.html\n"
    assert "<audio" in Path("page.html").read_text("utf-8")
    assert speakup("report", "talk.wav", "junk.wav", "-o", "page.html").code == 3
    assert speakup("report", "talk.wav", "talk.wav", "-o", "none/page.html").code == 4
    assert speakup("report", "talk.wav", "talk.wav").code == 2
    stretch = ("--start", "0.2", "--length", "0.5", "--loudness", "ebu")
    done = speakup("report", "talk.wav", "talk.wav", "-o", "page.html", *stretch)
    assert done.code == 4 and "there already" in done.err
    done = speakup("report", "talk.wav", "talk.wav", "-o", "page.html", *stretch, "--overwrite")
    assert done.code == 0
    text = Path("page.html").read_text("utf-8")
    assert "0.2 s to 0.7 s of 1.0 s" in text and "for EBU R 128" in text


def test_help_has_examples_that_can_be_typed(speakup: Any) -> None:
    import typer

    from speakup.cli import app
    from speakup.cli.help import EXAMPLES

    group = typer.main.get_command(app)
    for name, lines in EXAMPLES.items():
        text = speakup(name, "--help").out
        assert "<bool>" not in text, name
        assert len(lines) >= 2
        for line in lines:
            assert f"\n   {line}\n" in f"{text}\n" and len(line) <= 77
            words = shlex.split(line)
            assert words[:2] == ["speakup", name]
            command = group.commands[name]  # type: ignore[attr-defined]
            command.make_context(name, words[2:], parent=None)


def test_a_forgotten_enhance_is_guessed(speakup: Any) -> None:
    done = speakup("talk.wav", "-o", "a b.flac")
    assert done.code == 2
    assert "Did you mean: speakup enhance talk.wav -o 'a b.flac'?" in done.err


@pytest.mark.parametrize(
    ("given", "means"),
    [
        (("--bitrate", "192k"), {"bitrate": 192}),
        (("--bitrate", "192000"), {"bitrate": 192}),
        (("--bitrate", "64 kbit/s"), {"bitrate": 64}),
        (("--sample-rate", "48k"), {"sample_rate": 48_000}),
        (("--sample-rate", "44.1 kHz"), {"sample_rate": 44_100}),
        (("--format", "MP3"), {"format": "mp3"}),
        (("--loudness", "-16LUFS"), {"loudness": "-16"}),
        (("--loudness", "-16.5 lufs"), {"loudness": "-16.5"}),
        (("--loudness", "Podcast"), {"loudness": "Podcast"}),
    ],
)
def test_values_are_taken_as_people_write_them(
    speakup: Any, monkeypatch: pytest.MonkeyPatch, given: tuple[str, ...], means: dict[str, object]
) -> None:
    seen: list[Config] = []

    def keep(jobs: Any, config: Config, **_: Any) -> None:
        seen.append(config)
        raise KeyboardInterrupt

    monkeypatch.setattr("speakup.folders.run.run_jobs", keep)
    monkeypatch.setattr("speakup.cli.enhance.prepare_models", lambda *_: None)
    speakup("enhance", "talk.wav", *given)
    assert seen == [Config(**means)]  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "given", [("--bitrate", "loud"), ("--sample-rate", "48 kbit/s"), ("--sample-rate", "8.0001k")]
)
def test_values_that_mean_nothing_are_refused(speakup: Any, given: tuple[str, ...]) -> None:
    done = speakup("enhance", "talk.wav", *given)
    assert done.code == 2 and given[1] in done.err


@pytest.fixture
def pairs(speakup: Any) -> Path:
    for number in range(2):
        folder = Path("pairs") / f"case{number}"
        folder.mkdir(parents=True)
        shutil.copy("talk.wav", folder / "input.wav")
        shutil.copy("talk.wav", folder / "reference.wav")
    Path("pairs/manifest.csv").write_text("case,kind\ncase0,noise\ncase1,reverb\n")
    return Path("pairs")


def test_evaluate(speakup: Any, pairs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def score(*_: Any, **__: Any) -> dict[str, float]:
        return {"pesq": 2.0, "estoi": 0.5}

    monkeypatch.setattr("speakup.judge.pairs.score", score)
    Path("outputs").mkdir()
    done = speakup("evaluate", pairs, *PLAIN)
    assert done.code == 0, done.err
    assert re.search(r"noise, 1 case\n +input +speakup +change +95 %\n", done.out)
    assert re.search(r"PESQ +2\.00 +2\.00 +\+0\.00", done.out)
    done = speakup("evaluate", pairs, *PLAIN, "--json", "--limit", "1")
    found = json.loads(done.out)
    assert (found["event"], found["pairs"], found["failed"]) == ("evaluation", 1, 0)

    for number in range(2):
        shutil.copy("talk.wav", f"outputs/case{number}.wav")
    others = ("--system", "a=outputs", "--system", "b=outputs")
    done = speakup("evaluate", pairs, "--no-chain", *others)
    assert re.search(r"^ +input +a +b$", done.out, re.MULTILINE)
    assert "worse than a" in done.out
    for wrong in ("outputs", "=outputs", "input=outputs"):
        assert speakup("evaluate", pairs, "--system", wrong).code == 2
    assert speakup("evaluate", pairs, "--system", "a=nowhere").code == 3

    (pairs / "case1" / "input.wav").write_text("no sound")
    done = speakup("evaluate", pairs, *PLAIN)
    assert done.code == 1
    assert "case1" in done.err
    assert speakup("evaluate", "nowhere").code == 3
    assert speakup("evaluate", pairs, "--denoiser", "nobody").code == 5


def test_a_missing_extra_is_named(
    speakup: Any, pairs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for package in ("pesq", "pystoi", "speechmos", "onnxruntime", "librosa"):
        monkeypatch.setitem(sys.modules, package, None)
    done = speakup("evaluate", pairs, *PLAIN)
    assert done.code == 2
    assert "pip install" in done.err
    assert "speakup[eval]" in done.err
    assert one_line(done.err)


def test_train_and_export(speakup: Any, tmp_path: Path) -> None:
    (tmp_path / "data" / "voices").mkdir(parents=True)
    soundfile.write("data/voices/a.wav", noise(1, 66_150).T, 44_100)
    recipe = Path("tiny.toml")
    recipe.write_text(
        """
name = "tiny"
task = "upsample"
architecture = "source-filter-extender"
resolutions = [[512, 128]]
[hyperparameters]
features = 16
expansion = 2
blocks = 2
[data]
sample_rate = 44100
speech = { "voices" = 1.0 }
[optimiser]
steps = 1
batch = 1
micro_batch = 1
segment_seconds = 0.5
[losses]
magnitude = 1.0
"""
    )
    words = ["--data", "data", "--device", "cpu"]
    done = speakup("train", recipe, *words)
    assert done.code == 0, done.err
    assert Path(done.out.strip()) == Path("runs/tiny/checkpoint.pt")
    assert "training tiny on cpu into runs/tiny; steps: tiny 1" in done.err
    done = speakup("train", recipe, *words, "--run", "other")
    assert Path(done.out.strip()) == Path("other/checkpoint.pt")

    done = speakup("export", "other/checkpoint.pt", "model", "--licence", "MIT")
    assert done.out == "model\n"
    card = json.loads(speakup("models", "info", "./model", "--json").out)
    assert (card["name"], card["licence"]) == ("tiny", "MIT")

    assert speakup("export", "junk.wav", "model").code == 5
    assert speakup("train", "nowhere.toml").code == 2
    assert speakup("train", recipe, "--data", "nowhere", "--run", "third").code == 2


def test_recipes_of_ours_are_listed(speakup: Any) -> None:
    from speakup.cli.train import _recipe_path

    names = speakup("train", "--list").out.split()
    assert "denoise-16k" in names
    assert all(_recipe_path(name).is_file() for name in names)
    done = speakup("train")
    assert done.code == 2 and "speakup train --list" in done.err


def test_recipes_of_ours_go_by_name(speakup: Any) -> None:
    from speakup.cli.train import _recipe_path

    assert _recipe_path("denoise-16k").is_file()
    assert _recipe_path("nowhere") == Path("nowhere")


def test_doctor_speaks_and_counts(speakup: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from speakup.machine.doctor import Finding

    findings = [Finding("one", "good", "fine"), Finding("two", "note", "odd", "look")]
    monkeypatch.setattr("speakup.machine.doctor.examine", lambda *_, **__: findings)
    done = speakup("doctor")
    assert done.code == 0
    assert re.search(r"note +two +odd\s+→ look", done.out)
    findings.append(Finding("three", "wrong", "broken", "mend it"))
    assert speakup("doctor").code == 1
    done = speakup("doctor", "--json")
    assert done.code == 1
    assert json.loads(done.out)["healthy"] is False
    assert json.loads(done.out)["findings"][2]["remedy"] == "mend it"


def test_bench(speakup: Any, models: tuple[str, ...]) -> None:
    done = speakup("bench", *models, "--seconds", "2", "--threads", "1")
    assert done.code == 0, done.err
    assert "1 thread(s)" in done.out
    assert re.search(r"total +\d+\.\d+ +\d", done.out)
    found = json.loads(speakup("bench", "talk.wav", *models, "--json").out)
    assert (found["event"], found["recording"], found["seconds"]) == ("bench", "talk.wav", 1.0)
    assert speakup("bench", "junk.wav", *models).code == 3


def test_python_m_speakup_is_the_command(tmp_path: Path) -> None:
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run(
        [sys.executable, "-m", "speakup", "enhance", "nothing.wav", *PLAIN],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 3
    assert done.stderr.startswith("speakup: error: nothing.wav: no such file")

"""What can be answered without the networks' library is answered without it."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import soundfile
from nets import save_model, small_extender, small_mixer
from sounds import noise

ROOT = Path(__file__).resolve().parents[2]
RATE = 16_000

CASES = [
    ("enhance missing.wav", 3, "no such file"),
    ("enhance missing.wav lost.wav", 1, "2 failed"),
    ("enhance missing.wav -o masters/", 3, "no such file"),
    ("enhance missing.wav -o -", 3, "no such file"),
    ("enhance missing.wav --dry-run", 3, "no such file"),
    ("enhance junk.wav", 3, "is not audio"),
    ("enhance talk.wav", 0, "skipped"),
    ("enhance talk.wav -o talk.xyz", 2, "not a format"),
    ("enhance talk.wav -o new.mp3 --bit-depth 24", 2, "Leave --bit-depth out"),
    ("enhance talk.wav --no-such", 2, "No such option"),
    ("enhance talk.wav --strength 2", 2, "strength is 2"),
    ("enhance talk.wav --loudness loud", 2, "loudness is 'loud'"),
    ("enhance missing.wav --loudness loud", 2, "loudness is 'loud'"),
    ("enhance talk.wav --device toaster", 2, "device is 'toaster'"),
    ("enhance talk.wav --denoiser missing", 5, "no such model"),
    ("enhance talk.wav --dry-run", 0, "skipped"),
    ("enhance interviews --dry-run", 0, "second.wav"),
    ("analyze missing.wav", 3, "no such file"),
    ("report missing.wav talk.wav -o page.html", 3, "no such file"),
    ("bench missing.wav", 3, "no such file"),
    ("evaluate missing", 3, "no such folder"),
    ("train missing", 2, "cannot read the recipe"),
    ("export missing model", 5, "no such file"),
    ("models info missing", 5, "no such model"),
    ("models list", 0, "speakup-denoise-16k"),
]

CODE = """
import contextlib, io, json, sys
from speakup.cli import main

found = []
for words in json.loads(sys.argv[1]):
    sys.argv = ["speakup", *words]
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        code = main()
    slow = {"torch", "torchaudio", "scipy"} & set(sys.modules)
    found.append([code, said.getvalue(), sorted(slow)])
print(json.dumps(found))
"""


def answered(*commands: list[str]) -> list[tuple[int, str, list[str]]]:
    """Run commands in a fresh process; give their exit codes, their words and what is loaded."""
    done = subprocess.run(
        [sys.executable, "-c", CODE, json.dumps(commands)],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 0, done.stderr
    return [(code, said, slow) for code, said, slow in json.loads(done.stdout)]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give a working folder with recordings, one that is none, and one that is done already."""
    monkeypatch.chdir(tmp_path)
    soundfile.write("talk.wav", noise(1, RATE, RATE).T, RATE)
    shutil.copy("talk.wav", "talk_enhanced.wav")
    Path("junk.wav").write_text("no sound")
    Path("interviews").mkdir()
    for name in ("first.wav", "second.wav"):
        shutil.copy("talk.wav", Path("interviews", name))
    return tmp_path


def test_what_needs_no_network_loads_none(folder: Path) -> None:
    answers = answered(*(words.split() for words, _, _ in CASES))
    for (words, code, says), (found, said, slow) in zip(CASES, answers, strict=True):
        assert (found, says in said, slow) == (code, True, []), f"{words}: {said}"


def test_what_is_finished_is_skipped_without_loading_anything(folder: Path) -> None:
    plain = ("--no-denoise", "--no-upsample")
    command = [sys.executable, "-m", "speakup", "enhance", "interviews", *plain, "-q"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    subprocess.run(command, check=True, env=environment, capture_output=True)
    ((code, said, slow),) = answered(["enhance", "interviews", *plain])
    assert (code, said.count("it is finished"), slow) == (0, 2, [])


def test_a_setting_that_this_machine_lacks_ends_the_run_before_any_file(folder: Path) -> None:
    command = [sys.executable, "-m", "speakup", "enhance", "interviews", "--device", "cuda:99"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 2 and "cuda:99" in done.stderr
    assert done.stderr.count("speakup: error") == 1
    assert "Traceback" not in done.stderr and "talk" not in done.stderr


@pytest.mark.skipif(os.name == "nt", reason="a pseudo-terminal")
def test_what_loads_says_so_on_the_terminal(folder: Path) -> None:
    import pty

    models = (
        *("--denoiser", str(save_model(folder / "mixer", small_mixer()))),
        *("--upsampler", str(save_model(folder / "extender", small_extender()))),
    )
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "speakup", "enhance", "talk.wav", "-o", "new.wav", *models]
    variables = {**os.environ, "PYTHONPATH": str(ROOT), "TERM": "xterm", "COLUMNS": "99"}
    with subprocess.Popen(command, env=variables, stdout=theirs, stderr=theirs) as process:
        os.close(theirs)
        seen = b""
        with contextlib.suppress(OSError):  # which is how the end of a terminal is told
            while piece := os.read(ours, 4_096):
                seen += piece
    os.close(ours)
    assert process.returncode == 0, seen
    assert b"loading PyTorch" in seen

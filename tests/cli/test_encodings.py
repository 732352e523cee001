"""Every command speaks to terminals and files of few letters, and leaves no blanks at line ends."""

from __future__ import annotations

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
NAME = "Größe \N{CJK UNIFIED IDEOGRAPH-97F3}.wav"

CODE = """
import json, sys
from speakup.cli import main

codes = []
for words in json.loads(sys.argv[1]):
    sys.argv = ["speakup", *words]
    codes.append(main())
    print("=" * 9, flush=True)
print(json.dumps(codes))
"""


def said(encoding: str, folder: Path, commands: list[list[str]]) -> tuple[list[int], bytes, bytes]:
    """Run commands under an encoding; give their exit codes and the bytes they wrote."""
    done = subprocess.run(
        [sys.executable, "-c", CODE, json.dumps(commands)],
        capture_output=True,
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONIOENCODING": encoding},
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines(keepends=True)
    return json.loads(lines[-1]), b"".join(lines[:-1]), done.stderr


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a folder with a recording under a name of few encodings, a pair and small networks."""
    place = tmp_path_factory.mktemp("encodings")
    soundfile.write(place / "talk.wav", noise(1, 2 * RATE, RATE).T * 0.1, RATE)
    shutil.copy(place / "talk.wav", place / NAME)
    (place / "pairs" / "one").mkdir(parents=True)
    for name in ("input.wav", "reference.wav"):
        shutil.copy(place / "talk.wav", place / "pairs" / "one" / name)
    save_model(place / "mixer", small_mixer())
    save_model(place / "extender", small_extender())
    return place


COMMANDS = """
enhance NAME -v --overwrite MODELS
enhance NAME --dry-run MODELS
enhance NAME missing.wav --overwrite MODELS
analyze NAME
report talk.wav NAME -o page.html --overwrite
bench talk.wav MODELS
evaluate pairs MODELS
models list
models info speakup-denoise-16k
models verify mixer
doctor
doctor --versions
train missing
export missing model
--help
enhance --help
models --help
models fetch --help
doctor --help
"""


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "utf-8"])
def test_every_command_speaks_every_encoding(folder: Path, encoding: str) -> None:
    models = ["--denoiser", "mixer", "--upsampler", "extender"]
    lines = [line.split() for line in COMMANDS.strip().splitlines()]
    commands = [
        [part for word in words for part in (models if word == "MODELS" else [word])]
        for words in lines
    ]
    commands = [[NAME if word == "NAME" else word for word in words] for words in commands]
    codes, out, err = said(encoding, folder, commands)
    assert b"unexpected" not in err, err.decode(encoding, "replace")
    told = {" ".join(words): code for words, code in zip(lines, codes, strict=True)}
    wrong = {words for words, code in told.items() if code and "missing" not in words}
    # Without the extra, there is nothing to evaluate with; and a doctor may find something.
    assert wrong <= {"evaluate pairs MODELS", "doctor"}
    for line in [*out.splitlines(), *err.splitlines()]:
        assert line == line.rstrip(), line
    # The names are as the disk has them, for scripts; all else is of the encoding.
    written = "Größe \N{CJK UNIFIED IDEOGRAPH-97F3}_enhanced.wav".encode()
    assert written in out or encoding == "cp1252"
    err.decode(encoding)
    if encoding == "ascii":
        assert b" -> -16.0 LUFS" in err and b" | " in err
        assert b"\xe2\x86\x92" not in out

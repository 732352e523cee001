"""What `--json` writes is what docs/output.schema.json says, for every command."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import soundfile
from nets import save_model, small_extender, small_mixer
from sounds import noise

from speakup.cli import main
from speakup.cli.terminal import SCHEMA

jsonschema = pytest.importorskip("jsonschema")

FILE = Path(__file__).parents[2] / "docs" / "output.schema.json"
RATE = 16_000


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a folder with recordings, a pair and two small networks."""
    place = tmp_path_factory.mktemp("schema")
    soundfile.write(place / "talk.wav", noise(1, RATE, RATE).T, RATE)
    (place / "junk.wav").write_text("no sound")
    (place / "pairs" / "a").mkdir(parents=True)
    for name in ("input", "reference"):
        shutil.copy(place / "talk.wav", place / "pairs" / "a" / f"{name}.wav")
    save_model(place / "denoiser", small_mixer())
    save_model(place / "upsampler", small_extender())
    return place


PLAIN = ("--no-denoise", "--no-upsample")
SMALL = ("--denoiser", "denoiser", "--upsampler", "upsampler")


@pytest.mark.parametrize(
    ("words", "events"),
    [
        (("enhance", "talk.wav", "junk.wav", "-o", "out", *SMALL), ["file", "file", "summary"]),
        (("enhance", "talk.wav", "junk.wav", "-o", "out", *SMALL, "--dry-run"), ["plan"] * 2),
        (("analyze", "talk.wav"), ["analysis"]),
        (("evaluate", "pairs", *PLAIN), ["evaluation"]),
        (("bench", "talk.wav", *SMALL), ["bench"]),
        (("doctor", "--versions"), ["versions"]),
        (("models", "list"), ["models"]),
        (("models", "info", "denoiser"), ["model"]),
        (("models", "path", "denoiser"), ["model"]),
        (("models", "verify", "speakup-upsample-44k", "nobody"), ["model"] * 2),
    ],
)
def test_every_line_of_json_is_as_described(
    folder: Path,
    words: tuple[str, ...],
    events: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    def score(*_: Any, **__: Any) -> dict[str, float]:
        return {"pesq": 2.0, "lsd": float("nan")}

    monkeypatch.chdir(folder)
    monkeypatch.setattr("speakup.judge.pairs.score", score)
    monkeypatch.setattr(sys, "argv", ["speakup", *words, "--json"])
    main()
    lines = [json.loads(line) for line in capfd.readouterr().out.splitlines()]
    assert [line["event"] for line in lines] == events
    check = jsonschema.Draft202012Validator(described())
    for line in lines:
        assert line["schema"] == SCHEMA
        only = {"$ref": f"#/$defs/{line['event']}", "$defs": described()["$defs"]}
        jsonschema.validate(line, only, cls=jsonschema.Draft202012Validator)
        assert check.is_valid(line), "and nothing else"


def test_the_schema_is_one_and_knows_every_event() -> None:
    jsonschema.Draft202012Validator.check_schema(described())
    named = {one["$ref"].rpartition("/")[2] for one in described()["oneOf"]}
    assert named <= set(described()["$defs"])
    sources = Path(__file__).parents[2] / "speakup"
    used = {
        line.split('"event": "')[1].split('"')[0]
        for path in sources.rglob("*.py")
        if path.name != "journal.py"  # which is written for its own reader
        for line in path.read_text("utf-8").splitlines()
        if '"event": "' in line
    }
    assert used == named


def described() -> dict[str, Any]:
    return dict(json.loads(FILE.read_text("utf-8")))

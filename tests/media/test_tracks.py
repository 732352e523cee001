"""What is known of an output before the work: its tracks, and whether there is room for it."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile

from speakup.config import Config
from speakup.errors import OutputError
from speakup.media.tracks import plan_tracks
from speakup.pipeline import Pipeline

RATE = 16_000
PLAIN = Config(denoise=False, upsample="off", sample_rate="keep", device="cpu")


@pytest.fixture
def talk(tmp_path: Path) -> Path:
    hiss = np.random.default_rng(1).uniform(-0.5, 0.5, 10 * RATE)
    soundfile.write(tmp_path / "talk.wav", hiss, RATE)
    (tmp_path / "out").mkdir()
    return tmp_path / "talk.wav"


def leave(monkeypatch: pytest.MonkeyPatch, here: Path, size: int) -> None:
    """Leave so many bytes free in a folder, and plenty elsewhere."""

    class Usage:
        def __init__(self, folder: object) -> None:
            self.free = size if Path(str(folder)) == here else 10**12

    monkeypatch.setattr(shutil, "disk_usage", Usage)


@pytest.mark.parametrize("name", ["new.wav", "new.flac", "new.mp3", "new.mkv"])
def test_a_full_disk_of_the_output_is_known_before_the_work(
    talk: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    target = talk.parent / "out" / name
    leave(monkeypatch, target.parent, 5_000)
    done: list[str] = []
    with pytest.raises(
        OutputError, match=rf"too small for {name}: \d.* [kM]B are needed, 5 kB free"
    ):
        Pipeline(PLAIN).run(talk, target, progress=lambda doing, *_: done.append(doing))
    assert done == []
    assert list(target.parent.iterdir()) == []


@pytest.mark.parametrize("name", ["new.wav", "new.flac", "new.mp3", "new.ogg", "new.opus"])
def test_room_is_asked_for_in_proportion_to_what_comes_out(
    talk: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    target = talk.parent / "out" / name
    (track,) = plan_tracks(talk, target, PLAIN, [])
    result = Pipeline(PLAIN).run(talk, target)
    assert result.status == "ok"
    written = target.stat().st_size
    assert track.least_bytes(10.0) <= written <= 1.1 * track.coded_bytes(10.0) + 5_000

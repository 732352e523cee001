"""What is kept on disk between two passes comes back, and is never left behind."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile

from speakup.config import Config
from speakup.errors import OutputError
from speakup.pipeline import Pipeline
from speakup.spool import Spool, check_room


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    yield tmp_path
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("channels", [1, 2, 8])
def test_what_was_written_is_read_as_often_as_need_be(folder: Path, channels: int) -> None:
    written = np.random.default_rng(1).standard_normal((channels, 150_001)).astype(np.float32)
    with Spool(channels) as spool:
        for block in np.split(written, [0, 1, 70_000, 70_000], axis=1):
            spool.write(block)
        for _ in range(2):
            blocks = list(spool.read())
            assert all(block.dtype == np.float32 for block in blocks)
            assert max(block.shape[1] for block in blocks) <= 65_536
            assert np.array_equal(np.concatenate(blocks, axis=1), written)


def test_more_can_be_written_after_reading(folder: Path) -> None:
    with Spool(1) as spool:
        spool.write(np.ones((1, 3), np.float32))
        assert sum(block.shape[1] for block in spool.read()) == 3
        spool.write(np.zeros((1, 2), np.float32))
        assert np.concatenate(list(spool.read()), axis=1).tolist() == [[1.0, 1.0, 1.0, 0.0, 0.0]]


@pytest.mark.parametrize("channels", [1, 2])
def test_the_reader_may_change_what_it_reads(folder: Path, channels: int) -> None:
    with Spool(channels) as spool:
        spool.write(np.ones((channels, 3), np.float32))
        for block in spool.read():
            block *= 0.5
        assert np.concatenate(list(spool.read()), axis=1).max() == 1.0


def test_nothing_written_is_nothing_read(folder: Path) -> None:
    with Spool(2) as spool:
        spool.write(np.zeros((2, 0), np.float32))
        assert list(spool.read()) == []


def test_the_file_has_no_name_even_while_it_is_open(folder: Path) -> None:
    with Spool(1) as spool:
        spool.write(np.ones((1, 100_000), np.float32))
        assert list(folder.iterdir()) == []


def test_a_full_folder_is_said_so(small_disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(small_disk))
    with pytest.raises(OutputError, match="No space left") as caught, Spool(1) as spool:
        for _ in range(10):
            spool.write(np.ones((1, 65_536), np.float32))
    assert str(small_disk) in str(caught.value)
    assert "TMPDIR" in str(caught.value)
    assert list(small_disk.iterdir()) == []


@pytest.mark.parametrize("samples", [100, 1_000])
def test_a_folder_full_at_the_last_sample_is_said_so(
    small_disk: Path, monkeypatch: pytest.MonkeyPatch, samples: int
) -> None:
    """What the buffer still holds is written by the reading."""
    monkeypatch.setattr(tempfile, "tempdir", str(small_disk))
    with pytest.raises(OutputError, match="No space left"), Spool(1) as spool:
        (small_disk / "other").write_bytes(bytes(50 * 4_096))
        spool.write(np.ones((1, samples), np.float32))
        list(spool.read())
    (small_disk / "other").unlink()


def test_a_missing_folder_is_said_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "nowhere"))
    with pytest.raises(OutputError, match="No such file or directory"):
        Spool(1)


def test_room_is_asked_for_before_the_work(monkeypatch: pytest.MonkeyPatch) -> None:
    class Usage:
        free = 3_000_000_000

    monkeypatch.setattr(shutil, "disk_usage", lambda folder: Usage)
    check_room(2 * 3600.0, 44_100, 2)
    check_room(None, 44_100, 2)
    with pytest.raises(OutputError, match=r"4\.07 GB are needed, 3\.00 GB free") as caught:
        check_room(3 * 3600.0, 44_100, 2)
    assert "TMPDIR" in str(caught.value)
    assert tempfile.gettempdir() in str(caught.value)


def test_no_work_is_done_where_the_room_is_too_small(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    class Usage:
        free = 1_000

    monkeypatch.setattr(shutil, "disk_usage", lambda folder: Usage)
    source = tmp_path / "talk.wav"
    soundfile.write(source, np.zeros(8_000), 8_000)
    with pytest.raises(OutputError, match="TMPDIR"):
        Pipeline(Config(device="cpu"), stages=[]).run(source, tmp_path / "out.wav")
    assert [path.name for path in tmp_path.iterdir()] == ["talk.wav"]


def test_no_temporary_folder_at_all_is_said_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def none() -> str:
        raise FileNotFoundError("No usable temporary directory found")

    monkeypatch.setattr(tempfile, "gettempdir", none)
    with pytest.raises(OutputError, match="no temporary folder that can be written"):
        check_room(1.0, 44_100, 1)
    with pytest.raises(OutputError, match="no temporary folder that can be written"):
        Spool(1)

"""What is kept on disk between two passes comes back, and is never left behind."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile
from av_files import write_with_ffmpeg
from sounds import RATE, noise

from speakup.config import Config
from speakup.errors import OutputError
from speakup.measure.survey import Survey
from speakup.media.recording import probe
from speakup.pipeline import Pipeline
from speakup.spool import Spool, check_room
from speakup.stages.base import Stage


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
    with pytest.raises(OutputError, match="the disk is full") as caught, Spool(1) as spool:
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
    with pytest.raises(OutputError, match="the disk is full"), Spool(1) as spool:
        (small_disk / "other").write_bytes(bytes(50 * 4_096))
        spool.write(np.ones((1, samples), np.float32))
        list(spool.read())
    (small_disk / "other").unlink()


def test_a_missing_folder_is_said_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "nowhere"))
    with pytest.raises(OutputError, match="the folder does not exist"):
        Spool(1)


def test_room_is_asked_for_before_the_work(monkeypatch: pytest.MonkeyPatch) -> None:
    class Usage:
        free = 3_000_000_000

    monkeypatch.setattr(shutil, "disk_usage", lambda folder: Usage)
    check_room(2 * 3600.0, 44_100, 2)
    check_room(None, 44_100, 2)
    with pytest.raises(OutputError, match=r"4\.07 GB are needed, 3 GB free") as caught:
        check_room(3 * 3600.0, 44_100, 2)
    assert "TMPDIR" in str(caught.value)
    assert tempfile.gettempdir() in str(caught.value)


def free(monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    """Leave so many bytes free in the temporary folder."""

    class Usage:
        free = size

    monkeypatch.setattr(shutil, "disk_usage", lambda folder: Usage)


def refused(source: Path) -> tuple[str, list[str]]:
    """Run a recording for which there is no room; give the message and what was done before."""
    done: list[str] = []

    def no_stage(found: Survey) -> Stage | None:
        raise AssertionError("a stage is made")

    with pytest.raises(OutputError, match="TMPDIR") as caught:
        Pipeline(Config(device="cpu"), stages=[no_stage]).run(
            source, source.with_name("out.wav"), progress=lambda doing, *_: done.append(doing)
        )
    assert [path.name for path in source.parent.iterdir()] == [source.name]
    return str(caught.value), done


@pytest.mark.parametrize("name", ["talk.wav", "talk.flac"])
def test_no_work_is_done_where_the_room_is_too_small(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str
) -> None:
    free(monkeypatch, 1_000)
    hiss = np.random.default_rng(1).uniform(-0.5, 0.5, 8_000)
    soundfile.write(tmp_path / name, hiss, 8_000)
    assert refused(tmp_path / name)[1] == []


def test_where_only_decoding_tells_the_length_no_network_runs_without_room(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    free(monkeypatch, 100_000)
    write_with_ffmpeg(tmp_path / "talk.mp3", "libmp3lame", noise(1, 2 * RATE))
    message, done = refused(tmp_path / "talk.mp3")
    assert set(done) == {"survey"}
    assert "754 kB are needed" in message


def with_garbage_behind(path: Path) -> None:
    write_with_ffmpeg(path, "libmp3lame", noise(1, RATE))
    with path.open("ab") as file:
        file.write(b"\x55" * (3 << 20))


def stating_the_most(path: Path) -> None:
    """Write FLAC whose header gives 2^36 - 1 samples (RFC 9639, section 8.2)."""
    soundfile.write(path, noise(1, RATE)[0], RATE)
    content = bytearray(path.read_bytes())
    content[21] |= 0x0F
    content[22:26] = b"\xff" * 4
    path.write_bytes(content)


def stating_nothing(path: Path) -> None:
    """Write FLAC as an encoder does that writes to a pipe."""
    stating_the_most(path)
    content = bytearray(path.read_bytes())
    content[21] &= 0xF0
    content[22:26] = bytes(4)
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("name", "write", "seconds"),
    [
        ("talk.mp3", with_garbage_behind, 100.0),
        ("most.flac", stating_the_most, 1e6),
        ("none.flac", stating_nothing, None),
    ],
)
def test_a_length_that_the_bytes_do_not_vouch_for_refuses_nothing(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    name: str,
    write: Callable[[Path], None],
    seconds: float | None,
) -> None:
    write(tmp_path / name)
    stated = probe(tmp_path / name).seconds
    assert stated is None if seconds is None else stated is not None and stated > seconds
    free(monkeypatch, 1_000_000)  # for five seconds
    result = Pipeline(Config(device="cpu"), stages=[]).run(tmp_path / name, tmp_path / "out.wav")
    assert result.status == "ok"
    assert soundfile.info(tmp_path / "out.wav").duration == pytest.approx(1.0, abs=0.1)


def test_no_temporary_folder_at_all_is_said_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def none() -> str:
        raise FileNotFoundError("No usable temporary directory found")

    monkeypatch.setattr(tempfile, "gettempdir", none)
    with pytest.raises(OutputError, match="no temporary folder that can be written"):
        check_room(1.0, 44_100, 1)
    with pytest.raises(OutputError, match="no temporary folder that can be written"):
        Spool(1)

from __future__ import annotations

import json
import os
import signal
import socket
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from speakup.config import Config
from speakup.errors import ConfigError, OutputError
from speakup.folders.journal import (
    JOURNAL_FILE,
    Journal,
    outputs_above,
    outputs_in,
    settings_digest,
)

MODELS = ["denoiser sha256:01", "upsampler sha256:02"]
SOURCE, TARGET = Path("in/a.mp3"), Path("out/a.wav")


@pytest.fixture(autouse=True)
def _folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("in").mkdir()
    Path("out").mkdir()
    SOURCE.write_bytes(b"recorded")


def journal(settings: str = "these", **options: Any) -> Journal:
    return Journal(Path("out"), settings, MODELS, **options)


def make(book: Journal, source: Path = SOURCE, target: Path = TARGET, data: bytes = b"it") -> None:
    """Record an output and let it appear, as a run does."""
    temporary = target.with_name(".part")
    temporary.write_bytes(data)
    book.record(source, source.stat(), target, temporary.stat())
    temporary.replace(target)


def test_an_output_is_finished_until_something_changes() -> None:
    assert journal().standing(SOURCE, TARGET) == "missing"
    make(journal())
    assert journal().standing(SOURCE, TARGET) == "finished"
    assert journal("others").standing(SOURCE, TARGET) == "outdated"
    os.utime(SOURCE, ns=(1, 1))
    assert journal().standing(SOURCE, TARGET) == "outdated"
    make(journal())
    assert journal().standing(SOURCE, TARGET) == "finished"
    SOURCE.write_bytes(b"recorded again")
    assert journal().standing(SOURCE, TARGET) == "outdated"
    TARGET.unlink()
    assert journal().standing(SOURCE, TARGET) == "missing"


def test_what_is_not_as_it_was_made_is_somebodys() -> None:
    TARGET.write_bytes(b"mine")
    assert journal().standing(SOURCE, TARGET) == "foreign"
    make(journal())
    TARGET.write_bytes(b"it, edited")
    assert journal("others").standing(SOURCE, TARGET) == "altered"
    make(journal())
    os.utime(TARGET, ns=(1, 1))
    assert journal().standing(SOURCE, TARGET) == "altered"


def test_an_output_of_another_recording_is_not_ours_to_replace() -> None:
    make(journal())
    other = Path("in/other.mp3")
    other.write_bytes(b"somebody else")
    assert journal().standing(other, TARGET) == "foreign"
    both = Path("moved")
    both.mkdir()
    Path("in").rename("moved/in")
    Path("out").rename("moved/out")
    moved = Journal(Path("moved/out"), "these", MODELS)
    assert moved.standing(Path("moved/in/a.mp3"), Path("moved/out/a.wav")) == "finished"


def test_times_on_coarse_disks_are_times_all_the_same() -> None:
    make(journal())
    exact = TARGET.stat().st_mtime_ns
    os.utime(TARGET, ns=(0, exact - exact % 2_000_000_000))
    assert journal().standing(SOURCE, TARGET) == "finished"
    os.utime(TARGET, ns=(0, exact - exact % 2_000_000_000 - 2_000_000_000))
    assert journal().standing(SOURCE, TARGET) == "altered"


def test_an_output_killed_before_it_appeared_changes_nothing() -> None:
    make(journal())
    killed = Path("never")
    killed.write_bytes(b"something longer")
    journal("others").record(SOURCE, SOURCE.stat(), TARGET, killed.stat())
    assert journal().standing(SOURCE, TARGET) == "finished"  # what is there, is the earlier one
    assert journal("others").standing(SOURCE, TARGET) == "outdated"
    TARGET.unlink()
    assert journal("others").standing(SOURCE, TARGET) == "missing"


@pytest.mark.parametrize("cut", [1, 20, 250])
def test_a_torn_line_spoils_no_other(cut: int) -> None:
    make(journal())
    whole = Path("out", JOURNAL_FILE).read_bytes()
    second = Path("out/b.wav")
    make(journal(), target=second)
    with Path("out", JOURNAL_FILE).open("r+b") as file:
        file.truncate(file.seek(0, os.SEEK_END) - cut)
    assert Path("out", JOURNAL_FILE).read_bytes().startswith(whole)
    assert journal().standing(SOURCE, TARGET) == "finished"
    assert journal().standing(SOURCE, second) == "foreign"
    third = Path("out/c.wav")
    make(journal(), target=third)
    assert journal().standing(SOURCE, third) == "finished"
    assert journal().standing(SOURCE, TARGET) == "finished"


def test_lines_of_something_else_are_passed_over() -> None:
    make(journal())
    with Path("out", JOURNAL_FILE).open("ab") as file:
        file.write(b'\xff\xfe\n[1]\n{"event":"file","output":7}\n' + b"[" * 100_000 + b"\n{}\n")
    assert journal().standing(SOURCE, TARGET) == "finished"
    assert outputs_in(Path("out")) == {os.path.realpath(TARGET)}


def test_a_run_reads_on_what_another_writes() -> None:
    first, second = journal(), journal()
    make(first)
    assert second.standing(SOURCE, TARGET) == "foreign"
    second.refresh()
    assert second.standing(SOURCE, TARGET) == "finished"
    Path("out", JOURNAL_FILE).unlink()
    make(first)
    second.refresh()
    assert second.standing(SOURCE, TARGET) == "finished"
    Path("out", JOURNAL_FILE).write_text("")
    second.refresh()
    assert second.standing(SOURCE, TARGET) == "foreign"


def test_a_journal_of_a_newer_version_is_left_alone() -> None:
    Path("out", JOURNAL_FILE).write_text('{"event": "journal", "version": 2}\n')
    with pytest.raises(ConfigError, match="version 2, and this speakup knows 1"):
        journal()


@pytest.mark.parametrize(
    ("version", "told"),
    [
        ('"1"', r'its version is "1", where there is a number'),
        ("true", "its version is true"),
        ("1.0", "its version is 1.0"),
        ("0", "its version is 0"),
        ("null", "its version is null"),
        ('[{"a": 2}]', "its version is .*a.*2"),
        ("9" * 4000, r"its version is 9{40}\.\.\.,"),
    ],
)
def test_a_version_that_is_none_is_said_so(version: str, told: str) -> None:
    header = f'{{"event": "journal", "version": {version}}}\n'
    Path("out", JOURNAL_FILE).write_text(header)
    with pytest.raises(ConfigError, match=told) as caught:
        journal()
    assert "no speakup has written it" in str(caught.value)
    assert str(Path("out", JOURNAL_FILE)) in str(caught.value)
    assert len(str(caught.value)) < 300
    assert Path("out", JOURNAL_FILE).read_text() == header


def put(kind: str, place: Path) -> None:
    """Put something in a journal's place that is no ordinary file."""
    if kind == "folder":
        place.mkdir()
    elif kind == "FIFO":
        os.mkfifo(place)
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as end:
            end.bind(os.fspath(place))
    elif kind == "link":
        Path("in/elsewhere").write_text('{"event": "journal", "version": 1}\n')
        place.symlink_to(os.path.abspath("in/elsewhere"))
    else:
        try:
            os.mknod(place, stat.S_IFCHR | 0o600, os.makedev(1, 5))  # /dev/zero, which never ends
        except PermissionError:
            pytest.skip("making a device is not permitted here")


@pytest.fixture
def _in_time() -> Iterator[None]:
    """End what waits for ever; no test here takes a fraction of this."""

    def say(*_: object) -> None:
        raise AssertionError("it waits for ever")

    before = signal.signal(signal.SIGALRM, say)
    signal.alarm(30)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such files")
@pytest.mark.usefixtures("_in_time")
@pytest.mark.parametrize("kind", ["folder", "FIFO", "socket", "link", "device"])
def test_only_an_ordinary_file_is_a_journal(kind: str) -> None:
    place = Path("out", JOURNAL_FILE)
    book = journal()
    make(book)
    place.rename("kept")
    put(kind, place)
    before = place.lstat()
    with pytest.raises(ConfigError, match=f"{place}: is a {kind}, and a journal is an ordinary"):
        journal()
    # Nor does it become one meanwhile, and what cannot be noted does not appear.
    with pytest.raises(ConfigError, match=f"is a {kind}"):
        book.refresh()
    with pytest.raises(ConfigError, match=f"is a {kind}"):
        make(book, target=Path("out/b.wav"))
    assert not Path("out/b.wav").exists()
    assert outputs_in(Path("out")) == set()  # Where nothing is written, it is nobody's fault.
    assert outputs_above(Path("out/deep")) == set()
    assert os.path.samestat(place.lstat(), before)
    place.rename("moved away")
    Path("kept").rename(place)
    assert journal().standing(SOURCE, TARGET) == "finished"


@pytest.mark.skipif(os.name == "nt" or os.getuid() != 0, reason="only root gives files away")
def test_a_journal_of_another_user_is_refused_but_where_all_files_have_one_owner(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    make(journal())
    os.chown(Path("out", JOURNAL_FILE), 1234, 1234)
    with pytest.raises(ConfigError, match=r"journal\.jsonl: belongs to another user"):
        journal()
    assert [path.name for path in Path("out").iterdir() if ".part" in path.name] == []
    # A disk that gives all files to one user: what this process makes is not its own, either.
    monkeypatch.setattr(os, "geteuid", lambda: 4321)
    os.chown(Path("out", JOURNAL_FILE), 0, 0)
    assert journal().standing(SOURCE, TARGET) == "finished"


def test_a_journal_of_any_size_is_refused() -> None:
    with Path("out", JOURNAL_FILE).open("wb") as file:
        file.truncate(10**12)
    with pytest.raises(ConfigError, match="is larger than 100 MB"):
        journal()
    assert outputs_in(Path("out"), own=True) == set()


@pytest.mark.skipif(os.name == "nt", reason="locks with flock")
def test_a_journal_that_another_program_keeps_locked_is_said_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import fcntl

    monkeypatch.setattr("speakup.files._LOCK_SECONDS", 0.1)
    book = journal()
    make(book)
    with Path("out", JOURNAL_FILE).open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(OutputError, match=r"journal\.jsonl: another program keeps it locked"):
            make(book, target=Path("out/b.wav"))
    make(book, target=Path("out/b.wav"))


def test_a_run_that_overwrites_goes_on_until_it_is_through() -> None:
    make(journal())
    assert not journal(overwrite=True).goes_on(TARGET)
    make(journal(overwrite=True))
    again = journal(overwrite=True)
    assert again.goes_on(TARGET)
    again.end()
    assert not journal(overwrite=True).goes_on(TARGET)
    assert journal().standing(SOURCE, TARGET) == "finished"


def test_odd_names_are_kept_byte_by_byte() -> None:
    source, target = Path("in/\udcff \n\N{SNOWMAN}.mp3"), Path("out/\udcff \n\N{SNOWMAN}.wav")
    source.write_bytes(b"recorded")
    make(journal(), source, target)
    assert journal().standing(source, target) == "finished"
    assert outputs_in(Path("out")) == {os.path.realpath(target)}
    lines = Path("out", JOURNAL_FILE).read_bytes().splitlines()
    assert [json.loads(line)["event"] for line in lines] == ["journal", "file"]


def test_outputs_are_known_from_any_folder_below() -> None:
    Path("out/deep/er").mkdir(parents=True)
    make(journal(), target=Path("out/deep/er/a.wav"))
    assert outputs_above(Path("out/deep/er")) == {os.path.realpath("out/deep/er/a.wav")}
    assert outputs_in(Path("in")) == set()


def test_the_digest_tells_what_is_heard_from_where_it_is_computed() -> None:
    digest = settings_digest(Config(), MODELS)
    for same in (Config(threads=2), Config(device="cpu"), Config(offline=True)):
        assert settings_digest(same, MODELS) == digest
    for other in (Config(loudness="ebu"), Config(strength=0.5), Config(precision="fp32")):
        assert settings_digest(other, MODELS) != digest
    assert settings_digest(Config(), MODELS[:1]) != digest

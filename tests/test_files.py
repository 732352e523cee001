from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from speakup.errors import InputError, OutputError
from speakup.files import (
    Temporary,
    TemporaryFolder,
    check_free,
    claim,
    clear,
    locked,
    remove_all,
    unchanged,
    write_whole,
)

ROOT = Path(__file__).resolve().parents[1]
KEY = "0123456789abcdef"


def hidden(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.name.startswith("."))


def killed(folder: Path, code: str) -> None:
    """Run a program that makes something in the folder and is then killed."""
    program = f"import os, signal\nfrom pathlib import Path\nfrom speakup.files import *\n{code}\n"
    done = subprocess.run(
        [sys.executable, "-c", program + "os.kill(os.getpid(), signal.SIGKILL)"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == -signal.SIGKILL


def test_what_is_held_stays_and_what_was_left_behind_goes(tmp_path: Path) -> None:
    killed(tmp_path, f"Temporary(Path('a.wav')); c = claim(Path(), {KEY!r})")
    assert len(hidden(tmp_path)) == 2
    ours = Temporary(tmp_path / "a.wav")
    with claim(tmp_path, KEY[::-1]) as held:  # type: ignore[union-attr]
        assert held is not None
        (tmp_path / ".a.01234567.part").touch()  # somebody else's
        clear(tmp_path)
        assert len(hidden(tmp_path)) == 3
        assert ours.path.is_file()
    ours.remove()
    assert hidden(tmp_path) == [".a.01234567.part"]


def test_a_temporary_file_gets_into_place_or_goes(tmp_path: Path) -> None:
    held = Temporary(tmp_path / "a.wav")
    descriptor = held.open()
    os.write(descriptor, b"whole")
    os.close(descriptor)
    assert [path.name for path in tmp_path.iterdir()] == [held.path.name]
    held.move()
    held.remove()
    assert (tmp_path / "a.wav").read_bytes() == b"whole"
    umask = os.umask(0)
    os.umask(umask)
    assert (tmp_path / "a.wav").stat().st_mode & 0o777 == 0o666 & ~umask
    assert hidden(tmp_path) == []


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


@pytest.mark.skipif(os.name == "nt", reason="Windows has no modes")
def test_nobody_else_reads_a_file_before_it_is_there_and_then_who_could_read_the_last_one(
    tmp_path: Path,
) -> None:
    place = tmp_path / "a.wav"
    place.write_bytes(b"old")
    for wanted in (0o640, 0o600, 0o604):
        place.chmod(wanted)
        held = Temporary(place)
        assert mode(held.path) == 0o600
        held.move()
        assert mode(place) == wanted
    (tmp_path / "link.wav").symlink_to("a.wav")
    write_whole(tmp_path / "link.wav", b"new", overwrite=True)
    assert (place.read_bytes(), mode(place)) == (b"new", 0o604)
    assert (tmp_path / "link.wav").is_symlink()
    held = Temporary(tmp_path / "link.wav")  # whose user wants the link itself replaced
    held.move()
    assert not (tmp_path / "link.wav").is_symlink()
    assert mode(tmp_path / "link.wav") & 0o111 == 0
    assert place.read_bytes() == b"new"


@pytest.mark.skipif(os.name == "nt" or os.getuid() != 0, reason="only root gives files away")
def test_the_owner_of_what_is_replaced_keeps_it(tmp_path: Path) -> None:
    place = tmp_path / "a.wav"
    place.write_bytes(b"old")
    os.chown(place, 1234, 4321)
    place.chmod(0o640)
    write_whole(place, b"new", overwrite=True)
    found = place.stat()
    assert (found.st_uid, found.st_gid, mode(place)) == (1234, 4321, 0o640)


@pytest.mark.skipif(os.name == "nt" or os.getuid() != 0, reason="only root can become another")
def test_a_group_that_cannot_be_kept_leaves_no_other_group_in_its_place() -> None:
    with tempfile.TemporaryDirectory() as name:
        place = Path(name, "a.wav")
        place.write_bytes(b"old")
        place.chmod(0o664)
        os.chown(place, 1234, 4321)
        os.chown(name, 1234, 1234)
        program = (
            "import os; from pathlib import Path; from speakup.files import write_whole;"
            "os.setgroups([]); os.setgid(1234); os.setuid(1234);"
            f"write_whole(Path({str(place)!r}), b'new', overwrite=True)"
        )
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        subprocess.run([sys.executable, "-c", program], env=environment, check=True)
        found = place.stat()
        assert (place.read_bytes(), found.st_gid, mode(place)) == (b"new", 1234, 0o604)


@pytest.mark.parametrize("links", [True, False])
def test_what_appears_meanwhile_is_not_replaced_unasked(
    tmp_path: Path, links: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_links(source: Path, target: Path) -> None:
        raise PermissionError(1, "Operation not permitted")

    if not links:  # as on FAT
        monkeypatch.setattr(os, "link", no_links)
    place = tmp_path / "a.wav"
    held = Temporary(place, overwrite=False)
    place.write_bytes(b"mine")
    with pytest.raises(FileExistsError):
        held.move()
    held.remove()
    assert place.read_bytes() == b"mine"
    with pytest.raises(OutputError, match=r"a\.wav: it is there already\. Set `overwrite`"):
        write_whole(place, b"ours")
    with pytest.raises(OutputError, match="it is there already"):
        check_free(place, overwrite=False)
    check_free(place, overwrite=True)
    place.unlink()
    write_whole(place, b"ours")
    assert place.read_bytes() == b"ours"
    assert [path.name for path in tmp_path.iterdir()] == ["a.wav"]


def test_a_folder_left_in_the_temporary_one_goes_with_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    killed(tmp_path, "TemporaryFolder().__enter__().joinpath('input').write_bytes(b'x')")
    (left,) = tmp_path.iterdir()
    assert [path.name for path in left.iterdir()] == ["input"]
    assert mode(left) == 0o700
    (tmp_path / ".speakup.0123.speakup.part").mkdir()  # somebody else's
    with TemporaryFolder() as first, TemporaryFolder() as second:
        assert not left.exists()
        assert first.is_dir() and second.is_dir() and first != second
        (second / "a" / "b").mkdir(parents=True)
    assert [path.name for path in tmp_path.iterdir()] == [".speakup.0123.speakup.part"]
    with TemporaryFolder() as held:
        (held / "input").touch()
        remove_all()
        assert not held.exists()


def test_a_claim_is_had_by_one_at_a_time(tmp_path: Path) -> None:
    first = claim(tmp_path, KEY)
    assert first is not None
    with first:
        assert claim(tmp_path, KEY) is None
    with claim(tmp_path, KEY):  # type: ignore[union-attr]
        pass
    assert hidden(tmp_path) == []
    killed(tmp_path, f"c = claim(Path(), {KEY!r})")
    with claim(tmp_path, KEY):  # type: ignore[union-attr]
        pass
    assert hidden(tmp_path) == []


def test_nothing_of_ours_is_left_when_the_process_must_go(tmp_path: Path) -> None:
    held = [Temporary(tmp_path / "a.wav"), claim(tmp_path, KEY)]
    (tmp_path / "b.wav").touch()
    remove_all()
    assert [path.name for path in tmp_path.iterdir()] == ["b.wav"]
    held[0].remove()  # type: ignore[union-attr]


def test_lines_of_several_programs_do_not_mix(tmp_path: Path) -> None:
    code = """
import sys
from pathlib import Path
from speakup.files import locked
for number in range(200):
    with locked(Path("log")) as descriptor:
        for part in (sys.argv[1], str(number), "\\n"):
            os.write(descriptor, part.encode())
"""
    command = [sys.executable, "-c", "import os\n" + code]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    writers = [
        subprocess.Popen([*command, name], cwd=tmp_path, env=environment) for name in ("a", "b")
    ]
    assert [writer.wait() for writer in writers] == [0, 0]
    lines = (tmp_path / "log").read_text().splitlines()
    assert sorted(lines) == sorted(f"{name}{number}" for name in "ab" for number in range(200))
    with locked(tmp_path / "log") as descriptor:
        assert os.fstat(descriptor).st_size == (tmp_path / "log").stat().st_size


def test_a_file_that_changes_is_noticed(tmp_path: Path) -> None:
    source = tmp_path / "a.wav"
    source.write_bytes(b"one")
    told: list[os.stat_result] = []
    settle = unchanged(source, told.append)
    settle(source.stat())
    assert len(told) == 1
    os.utime(source, ns=(0, 1))
    with pytest.raises(InputError, match=r"a\.wav: changed while it was read"):
        settle(source.stat())
    for in_place in (True, False):  # size and time are set back to what they were
        before = source.stat()
        settle = unchanged(source, told.append)
        place = source if in_place else tmp_path / "b.wav"
        place.write_bytes(b"two")
        os.replace(place, source)
        os.utime(source, ns=(before.st_atime_ns, before.st_mtime_ns))
        with pytest.raises(InputError, match="changed while"):
            settle(source.stat())
    settle = unchanged(source, told.append)
    source.unlink()
    with pytest.raises(InputError, match="changed while"):
        settle(os.stat(tmp_path))
    assert len(told) == 1


@pytest.mark.skipif(os.name == "nt", reason="Windows makes links for administrators alone")
def test_a_link_in_the_place_of_a_claim_or_a_locked_file_is_refused(tmp_path: Path) -> None:
    """It would never be the file that was opened, however often that is tried."""
    with claim(tmp_path, "0123456789") as held:  # type: ignore[union-attr]
        assert held is not None
        (place,) = tmp_path.iterdir()
    place.symlink_to("elsewhere")
    with pytest.raises(OSError, match="symbolic links"):
        claim(tmp_path, "0123456789")
    with pytest.raises(OSError, match="symbolic links"), locked(place):
        pass
    assert [path.name for path in tmp_path.iterdir()] == [place.name]

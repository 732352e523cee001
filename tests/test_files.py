from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from speakup.errors import InputError
from speakup.files import Temporary, claim, clear, locked, remove_all, unchanged

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
    held.move(tmp_path / "a.wav")
    held.remove()
    assert (tmp_path / "a.wav").read_bytes() == b"whole"
    umask = os.umask(0)
    os.umask(umask)
    assert (tmp_path / "a.wav").stat().st_mode & 0o777 == 0o666 & ~umask
    assert hidden(tmp_path) == []


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

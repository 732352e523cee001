"""Environments broken in each way that the doctor knows, and mended by what it says."""

from __future__ import annotations

import hashlib
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

import pytest
from environments import ROOT, Environment, built_wheel, make_wheel, wheel_of

from speakup.machine import doctor, installation

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(os.name == "nt", reason="links and shell of POSIX systems"),
]

DOES_NOT_LOAD = 'raise OSError("Could not load this library: libtorchaudio.so")\n'


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("hatchling")
    pytest.importorskip("pip")
    return built_wheel(tmp_path_factory.mktemp("wheel"))


@pytest.fixture
def environment(wheel: Path, tmp_path: Path) -> Callable[..., Environment]:
    def make(*without: str) -> Environment:
        return Environment(tmp_path, wheel, without)

    return make


def lowest(name: str, extra: str = "") -> str:
    wanted = [(item.name, item.extra) for item in installation.requirements()]
    return installation.requirements()[wanted.index((name, extra))].lowest


# Any torchaudio, and none


@pytest.mark.parametrize("how", ["does not load", "absent"])
def test_the_first_command_runs_whatever_torchaudio_is(
    environment: Callable[..., Environment], how: str
) -> None:
    place = environment("torchaudio")
    if how == "does not load":
        place.shadow("torchaudio", "2.11.1", {"torchaudio/__init__.py": DOES_NOT_LOAD})
    readme = (ROOT / "README.md").read_text("utf-8")
    assert "speakup enhance examples/room.flac" in readme
    (place.folder / "examples").mkdir()
    shutil.copy(ROOT / "examples" / "room.flac", place.folder / "examples")
    command = f"{shlex.quote(place.python)} -m speakup enhance examples/room.flac"
    done = place.run(command)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "examples/room_enhanced.wav\n"
    made = (place.folder / done.stdout.strip()).read_bytes()
    here = [sys.executable, "-m", "speakup", "enhance", "examples/room.flac", "-o", "here.wav"]
    variables = {**os.environ, "PYTHONPATH": str(ROOT)}
    subprocess.run(here, cwd=place.folder, env=variables, check=True, capture_output=True)
    usual = (place.folder / "here.wav").read_bytes()
    assert hashlib.sha256(made).digest() == hashlib.sha256(usual).digest()
    found = place.doctor()
    assert [finding for finding in found.values() if finding["status"] == "wrong"] == []
    assert "nothing of speakup needs it" in found["torchaudio"]["detail"]
    assert found["torchaudio"]["remedy"] is None


# What the doctor says mends it


def mended(place: Environment, name: str, status: str = "wrong") -> dict[str, object]:
    """See a finding, do what it says, and give what is found of it then."""
    before = place.doctor()[name]
    assert before["status"] == status, before
    done = place.run(before["remedy"])
    assert done.returncode == 0, f"{before['remedy']}: {done.stderr}"
    after = place.doctor()
    assert [finding for finding in after.values() if finding["status"] == "wrong"] == []
    return {"before": before["detail"], **after.get(name, {"status": "gone"})}


def test_a_torch_too_old_is_replaced(environment: Callable[..., Environment]) -> None:
    place = environment()
    place.shadow("torch", "2.9.0")
    make_wheel(place.wheels, "torch", f"{lowest('torch')}.0")
    found = mended(place, "packages")
    assert found["before"] == "torch 2.9.0 is too old"
    assert found["status"] == "good" and f"torch {lowest('torch')}.0" in str(found["detail"])


@pytest.mark.parametrize("also", ["soxr", "pip"])
def test_a_missing_package_is_installed(
    environment: Callable[..., Environment], also: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With pip, and where there is no pip, and no uv either."""
    monkeypatch.setenv("PATH", os.defpath)
    place = environment("soxr", also)
    wheel_of(place.wheels, "soxr")
    found = mended(place, "packages")
    assert found["before"] == "missing: soxr" and found["status"] == "good"


def test_a_package_that_does_not_load_is_installed_anew(
    environment: Callable[..., Environment],
) -> None:
    place = environment()
    broken = 'raise ImportError("libavcodec.so.62: cannot open shared object file")\n'
    place.shadow("av", lowest("av"), {"av/__init__.py": broken})
    make_wheel(place.wheels, "av", installation.tried_versions()["av"])
    found = mended(place, "av")
    assert "libavcodec.so.62" in str(found["before"]) and found["status"] == "gone"


def test_a_missing_extra_is_installed(environment: Callable[..., Environment]) -> None:
    wanted = [item for item in installation.requirements() if item.extra == "eval"]
    place = environment(*(item.name for item in wanted if item.name != "requests"))
    for item in wanted:
        make_wheel(place.wheels, item.name, item.lowest)
    found = mended(place, "extra eval", "note")
    assert "pesq" in str(found["before"]) and found["status"] == "good"


def test_weights_are_installed_anew(environment: Callable[..., Environment]) -> None:
    place = environment()
    weights = place.site / "speakup" / "_weights"
    shutil.rmtree(weights / "speakup-upsample-44k")
    damaged = weights / "speakup-denoise-16k" / "model.safetensors"
    damaged.write_bytes(damaged.read_bytes()[:1_000_000])
    found = mended(place, "models")
    assert "speakup-denoise-16k" in str(found["before"]) and found["status"] == "gone"


def test_codecs_are_installed_anew(environment: Callable[..., Environment]) -> None:
    place = environment()
    deaf = (
        "from importlib.machinery import PathFinder\n"
        "from importlib.util import module_from_spec\n"
        f"spec = PathFinder.find_spec('soundfile', [{str(place.packages)!r}])\n"
        "real = module_from_spec(spec)\n"
        "spec.loader.exec_module(real)\n"
        "globals().update(vars(real))\n"
        "def info(*_, **__): raise RuntimeError('no codec')\n"
        "SoundFile = info\n"
    )
    place.shadow("soundfile", lowest("soundfile"), {"soundfile.py": deaf})
    for name in ("av", "soundfile"):
        make_wheel(place.wheels, name, installation.tried_versions()[name])
    found = mended(place, "formats")
    assert found["status"] == "good"


def test_what_nobody_foresaw_is_shown_where_it_came_up(
    environment: Callable[..., Environment],
) -> None:
    place = environment()
    module = place.site / "speakup" / "pipeline.py"
    module.write_text(module.read_text("utf-8") + '\nraise RuntimeError("a fault")\n', "utf-8")
    tried = place.site / "speakup" / "machine" / "tried.txt"
    lines = tried.read_text("utf-8").splitlines()
    here = [f"{item.package}=={item.here}" for item in doctor.list_versions()]
    tried.write_text("\n".join([*lines, *here]) + "\n")  # whatever is newer here was tried
    found = place.doctor()["chain"]
    assert (found["status"], found["detail"]) == ("wrong", "RuntimeError: a fault")
    done = place.run(found["remedy"])
    assert 'raise RuntimeError("a fault")' in done.stderr

    # Where a package is newer than what was tried, that is the first thing to undo.
    tried.write_text(f"{tried.read_text('utf-8')}rich=={lowest('rich')}\n")
    make_wheel(place.wheels, "rich", lowest("rich"))
    done = place.run(place.doctor()["chain"]["remedy"])
    assert done.returncode == 0, done.stderr
    assert f"rich {lowest('rich')}" in place.doctor()["packages"]["detail"]


# What the shell is to set


def cleared(place: Environment, **variables: str) -> None:
    """Do what is said of the shell's variables, all at once, and see that nothing more is said."""
    names = ("terminal", "temporary files", "model cache")
    before = place.doctor(**variables)
    assert [before[name]["status"] for name in names] == ["note"] * 3, before
    after = place.doctor(" && ".join(before[name]["remedy"] for name in names), **variables)
    assert [after[name]["status"] for name in names] == ["good"] * 3, after


def test_where_there_is_no_room_another_folder_is_named(
    environment: Callable[..., Environment], small_disk: Path
) -> None:
    """As little room for files and models, and a terminal of few letters."""
    hub = str(small_disk / "hub")
    cleared(environment(), PYTHONIOENCODING="ascii", TMPDIR=str(small_disk), HF_HOME=hub)


def test_folders_that_cannot_be_used_are_put_elsewhere(
    environment: Callable[..., Environment], tmp_path: Path
) -> None:
    """A folder that is none, another that is missing, and a terminal of few letters."""
    (tmp_path / "file").write_text("")
    place, missing = environment(), str(tmp_path / "file" / "missing")
    cleared(place, PYTHONIOENCODING="cp1252", TMPDIR=missing, HF_HUB_CACHE=str(tmp_path / "file"))


@pytest.mark.skipif(os.name != "nt" and os.geteuid() == 0, reason="root may read everything")
def test_a_cache_without_permission_is_put_elsewhere(tmp_path: Path) -> None:
    (tmp_path / "closed").mkdir(mode=0)
    assert not doctor._may_write(tmp_path / "closed" / "hub")


# Another Python


def test_a_python_that_its_system_manages_gets_an_environment(
    environment: Callable[..., Environment], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The command is run for real, but for speakup's own requirements, which are no wheels here."""
    place = environment()
    make_wheel(place.wheels, "pesq", lowest("pesq", "eval"))
    monkeypatch.setattr(installation, "_is_managed_by_the_system", lambda: True)
    monkeypatch.setattr(installation, "_origin", lambda: [str(place.wheel)])
    monkeypatch.setenv("HOME", str(tmp_path))
    command = installation.install_command(f"pesq>={lowest('pesq', 'eval')}")
    done = place.run(command, PIP_NO_DEPS="1")
    assert done.returncode == 0, done.stderr
    made = tmp_path / ".venvs" / "speakup" / "bin" / "speakup"
    done = place.run(f"{made} --version", PYTHONPATH=str(place.packages))
    assert done.stdout.startswith("speakup "), done.stderr


def test_another_python_is_named_where_this_one_will_not_do(
    environment: Callable[..., Environment], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = environment()
    minor = sys.version_info.minor
    monkeypatch.setattr(installation, "supported_pythons", lambda: ((3, minor), (3, minor)))
    monkeypatch.setattr(doctor.sys, "version_info", (3, minor - 1, 0))
    monkeypatch.setattr(installation, "_origin", lambda: [str(place.wheel)])
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "bin").mkdir()
    named = tmp_path / "bin" / f"python3.{minor}"
    named.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} "$@"\n')
    named.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"), prepend=os.pathsep)
    found = {finding.name: finding for finding in doctor._program()}["python"]
    assert found.status == "wrong" and found.remedy is not None
    assert str(named) in found.remedy
    done = place.run(found.remedy, PIP_NO_DEPS="1")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / ".venvs" / "speakup" / "bin" / "speakup").exists()


# Where a copy came from


@pytest.mark.parametrize(
    ("stated", "origin"),
    [
        ("", ["speakup=={version}"]),
        (
            '{"url": "https://example.org/speakup.whl"}',
            ["speakup @ https://example.org/speakup.whl"],
        ),
        (
            '{"url": "https://example.org/r", "vcs_info": {"vcs": "git", "commit_id": "abc"}}',
            ["speakup @ git+https://example.org/r@abc"],
        ),
        ('{"url": "file:///no/such/folder"}', ["speakup @ git+{repository}"]),
        ('{"url": "file:///", "dir_info": {"editable": true}}', ["-e", "/"]),
        ('{"url": "file:///", "dir_info": {}}', ["/"]),
    ],
)
def test_a_copy_is_installed_anew_from_where_it_came(
    monkeypatch: pytest.MonkeyPatch, stated: str, origin: list[str]
) -> None:
    class Copy:
        version = "1.2"

        def read_text(self, name: str) -> str | None:
            assert name == "direct_url.json"
            return stated or None

    monkeypatch.setattr(metadata, "distribution", lambda name: Copy())
    monkeypatch.setattr(installation, "project_address", lambda: "https://example.org/project")
    known = {"version": "1.2", "repository": "https://example.org/project"}
    assert installation._origin() == [item.format(**known) for item in origin]

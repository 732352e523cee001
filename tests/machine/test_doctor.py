from __future__ import annotations

import importlib.metadata
import importlib.util
import os
from pathlib import Path
from typing import Any

import pytest

from speakup.errors import OutputError
from speakup.machine import doctor, installation
from speakup.machine.doctor import Finding, examine
from speakup.models import places


def wrong(findings: list[Finding]) -> dict[str, Finding]:
    return {finding.name: finding for finding in findings if finding.status == "wrong"}


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out what takes a second, where it is not the point."""
    for look in ("_chain", "_formats"):
        named = getattr(doctor, look)

        def nothing() -> list[Finding]:
            return []

        nothing.__name__ = named.__name__
        monkeypatch.setattr(doctor, look, nothing)


def test_a_sound_installation_is_well() -> None:
    findings = examine()
    assert wrong(findings) == {}
    names = [finding.name for finding in findings]
    for name in ("speakup", "python", "packages", "device", "temporary files", "formats", "chain"):
        assert name in names
    details = {finding.name: finding.detail for finding in findings}
    assert details["formats"].startswith("wav, flac, mp3, ogg, opus, m4a; libsndfile")
    assert "speakup-denoise-16k" in details["model denoise"]
    assert "speakup-upsample-44k" in details["model upsample"]


def test_missing_weights_are_wrong(
    quick: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(places, "bundled_folder", lambda: tmp_path)
    found = wrong(examine())
    assert set(found) == {"model denoise", "model upsample"}
    assert str(tmp_path) in found["model denoise"].detail
    assert found["model denoise"].remedy


def test_damaged_weights_are_wrong(
    quick: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "damaged"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_text("nothing")
    monkeypatch.setattr(places, "bundled_folder", lambda: tmp_path)
    assert "no usable model folder" in wrong(examine())["models"].detail


def test_missing_packages_are_named(quick: None, monkeypatch: pytest.MonkeyPatch) -> None:
    version = importlib.metadata.version

    def lost(name: str) -> str:
        if name in ("soxr", "pesq"):
            raise importlib.metadata.PackageNotFoundError(name)
        return version(name)

    monkeypatch.setattr(importlib.metadata, "version", lost)
    findings = {finding.name: finding for finding in examine()}
    assert findings["packages"].status == "wrong"
    assert findings["packages"].detail == "missing: soxr"
    assert str(findings["packages"].remedy).endswith("install 'soxr>=0.5'")
    assert findings["the rest"].detail == "not looked at before that is mended"
    assert findings["extra eval"].status == "note"  # not needed to enhance
    assert "pesq" in findings["extra eval"].detail
    assert "'pesq>=0.0.4'" in str(findings["extra eval"].remedy)


def test_one_fault_does_not_hide_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise OutputError("the disk is full", "somewhere", "Free some space")

    def crash(*_: Any, **__: Any) -> None:
        raise RuntimeError("a fault")

    monkeypatch.setattr("speakup.media.writer.AudioWriter", broken)
    monkeypatch.setattr("speakup.pipeline.Pipeline", crash)
    findings = examine()
    found = wrong(findings)
    assert set(found) == {"formats", "chain"}
    assert "opus (somewhere: the disk is full" in found["formats"].detail
    assert found["chain"].detail == "RuntimeError: a fault"
    assert "model denoise" in {finding.name for finding in findings}


def test_no_room_anywhere_is_worth_a_note(quick: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "_ROOM_BYTES", 2**80)
    notes = {finding.name: finding for finding in examine() if finding.status == "note"}
    for name in ("temporary files", "model cache"):
        assert "GB free" in notes[name].detail
        assert notes[name].remedy is None  # no other folder has more


@pytest.mark.skipif(os.name == "nt", reason="users of POSIX systems")
def test_a_user_without_a_home_is_well(quick: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a container that runs under the number of a user whom it does not know."""
    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.setattr("pwd.getpwuid", lambda number: {}[number])
    monkeypatch.setattr(doctor, "_ROOM_BYTES", 2**80)
    assert wrong(examine()) == {}


def test_what_is_tried_is_listed_beside_what_is_here() -> None:
    listed = {item.package: item for item in doctor.list_versions()}
    assert {"torch", "torchaudio", "numpy", "typer"} <= set(listed)
    for item in listed.values():
        assert item.tried is not None, f"{item.package} is not in tried.txt"
        assert not installation.is_older(item.tried, item.lowest)
        assert item.here == importlib.metadata.version(item.package)


def test_a_package_is_imported_by_the_module_that_it_has() -> None:
    assert installation.module_of("PyYAML") == "yaml"
    assert installation.module_of("huggingface-hub") == "huggingface_hub"
    for item in doctor.list_versions():
        assert importlib.util.find_spec(installation.module_of(item.package)) is not None


def test_versions_are_compared_by_their_numbers() -> None:
    assert installation.is_older("2.9.1", "2.11")
    assert not installation.is_older("2.11.0+cpu", "2.11")
    assert not installation.is_older("2.11", "2.11.0")
    assert installation.is_older("0.1.1", "0.2")

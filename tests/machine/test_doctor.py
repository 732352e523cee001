from __future__ import annotations

import importlib.metadata
from pathlib import Path
from typing import Any

import pytest

from speakup.errors import OutputError
from speakup.machine import doctor
from speakup.machine.doctor import Finding, examine
from speakup.models import catalogue


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
    monkeypatch.setattr(catalogue, "bundled_folder", lambda: tmp_path)
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
    monkeypatch.setattr(catalogue, "bundled_folder", lambda: tmp_path)
    assert "no usable model folder" in wrong(examine())["models"].detail


def test_packages_that_do_not_belong_together_are_wrong(
    quick: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    version = importlib.metadata.version

    def changed(name: str) -> str:
        return "2.12.0" if name == "torch" else version(name)

    monkeypatch.setattr(importlib.metadata, "version", changed)
    found = wrong(examine())["packages"]
    assert "do not belong together" in found.detail
    assert "torch==2.11" in str(found.remedy)


def test_missing_packages_are_named(quick: None, monkeypatch: pytest.MonkeyPatch) -> None:
    version = importlib.metadata.version

    def lost(name: str) -> str:
        if name in ("soxr", "pesq"):
            raise importlib.metadata.PackageNotFoundError(name)
        return version(name)

    monkeypatch.setattr(importlib.metadata, "version", lost)
    findings = {finding.name: finding for finding in examine()}
    assert findings["packages"].status == "wrong"
    assert findings["packages"].remedy == "pip install soxr"
    assert findings["extra eval"].status == "note"  # not needed to enhance
    assert "pesq" in findings["extra eval"].detail
    assert findings["extra eval"].remedy == "pip install 'speakup[eval]'"


def test_one_fault_does_not_hide_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise OutputError("the disk is full", "somewhere", "Free some space")

    def crash(*_: Any, **__: Any) -> None:
        raise RuntimeError("a fault")

    monkeypatch.setattr("speakup.media.write.AudioWriter", broken)
    monkeypatch.setattr("speakup.pipeline.Pipeline", crash)
    findings = examine()
    found = wrong(findings)
    assert set(found) == {"formats", "chain"}
    assert "opus (somewhere: the disk is full" in found["formats"].detail
    assert found["chain"].detail == "RuntimeError: a fault"
    assert "model denoise" in {finding.name for finding in findings}


def test_little_room_is_worth_a_note(quick: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "_ROOM_BYTES", 2**80)
    notes = {finding.name: finding for finding in examine() if finding.status == "note"}
    assert "TMPDIR" in str(notes["temporary files"].remedy)
    assert "HF_HOME" in str(notes["model cache"].remedy)

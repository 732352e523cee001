"""WAV files whose headers are not true: nothing is lost, nothing is added, and it is said."""

from __future__ import annotations

import io
import struct
from pathlib import Path

import numpy as np
import pytest
import soundfile
from sounds import RATE, noise, read

from speakup.media.recording import probe


def wav(waveform: np.ndarray, kind: str = "WAV") -> bytearray:
    file = io.BytesIO()
    soundfile.write(file, waveform.T, RATE, "FLOAT", format=kind)
    return bytearray(file.getvalue())


def with_size(content: bytearray, size: int) -> bytearray:
    at = content.index(b"data") + 4
    content[at : at + 4] = struct.pack("<I", size)
    return content


def chunk(name: bytes, body: bytes) -> bytes:
    return name + struct.pack("<I", len(body)) + body + bytes(len(body) % 2)


WAVEFORM = noise(2, 2 * RATE)
HALF = WAVEFORM.nbytes // 2
SAID = "the header states 50 % of the samples; all were read"


@pytest.mark.parametrize(
    "behind",
    [
        b"",
        chunk(b"LIST", b"INFOINAM\4\0\0\0talk"),
        chunk(b"iXML", b"<x/>") + chunk(b"bext", b"a" * 602),
    ],
)
def test_samples_behind_the_stated_size_are_read_and_the_chunks_behind_them_are_not(
    tmp_path: Path, behind: bytes
) -> None:
    (tmp_path / "a.wav").write_bytes(with_size(wav(WAVEFORM), HALF) + behind)
    warnings: list[str] = []
    np.testing.assert_array_equal(read(tmp_path / "a.wav", warnings=warnings), WAVEFORM)
    assert warnings == [SAID]
    assert probe(tmp_path / "a.wav").samples == 2 * RATE


@pytest.mark.parametrize(
    "behind",
    [
        b"",
        chunk(b"LIST", b"INFO" + bytes(6000)),
        chunk(b"abcd", np.random.default_rng(1).bytes(6000)),
        b"LIST\xff\xff\xff\x7f" + np.random.default_rng(1).bytes(6000),
        b"TAG" + b"talk" + bytes(121),
        b"ID3" + bytes(9000),
        b"<xml>" + b"words " * 1000,
        bytes(100_000),
        bytes(200_000),
        np.random.default_rng(1).bytes(100),
    ],
)
def test_what_is_behind_the_samples_and_is_no_sound_is_not_heard(
    tmp_path: Path, behind: bytes
) -> None:
    (tmp_path / "a.wav").write_bytes(wav(WAVEFORM) + behind)
    warnings: list[str] = []
    np.testing.assert_array_equal(read(tmp_path / "a.wav", warnings=warnings), WAVEFORM)
    assert warnings == []


@pytest.mark.parametrize("excess", [8, 36, 44, 58])
def test_a_size_that_counts_the_header_is_no_alarm(tmp_path: Path, excess: int) -> None:
    (tmp_path / "a.wav").write_bytes(with_size(wav(WAVEFORM), WAVEFORM.nbytes + excess))
    warnings: list[str] = []
    assert read(tmp_path / "a.wav", warnings=warnings).shape == WAVEFORM.shape
    assert warnings == []


def test_several_data_chunks_are_joined(tmp_path: Path) -> None:
    second = noise(2, RATE)
    content = wav(WAVEFORM) + chunk(b"JUNK", bytes(10)) + chunk(b"data", second.T.tobytes())
    (tmp_path / "a.wav").write_bytes(content)
    warnings: list[str] = []
    decoded = read(tmp_path / "a.wav", warnings=warnings)
    np.testing.assert_array_equal(decoded, np.concatenate([WAVEFORM, second], axis=1))
    assert warnings == ["the samples are in 2 parts, which were joined"]


@pytest.mark.parametrize("kind", ["WAV", "RF64", "AIFF", "CAF"])
@pytest.mark.parametrize("length", [0, 20, 5000, 300_000])
def test_a_tag_in_front_hides_no_sound(tmp_path: Path, kind: str, length: int) -> None:
    size = bytes(length >> 7 * at & 0x7F for at in (3, 2, 1, 0))
    front = b"ID3\3\0\0" + size + bytes(length)
    path = tmp_path / f"a.{kind.lower()}"
    path.write_bytes(front + wav(WAVEFORM, kind))
    warnings: list[str] = []
    np.testing.assert_array_equal(read(path, warnings=warnings), WAVEFORM)
    assert warnings == []

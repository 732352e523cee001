from __future__ import annotations

import os

import pytest

from speakup.folders.naming import MARK, is_recording, marked_stems, output_names


@pytest.mark.parametrize(
    ("names", "outputs"),
    [
        (["a.mp3", "b.flac"], ["a.wav", "b.wav"]),
        (["a.mp3", "a.wav"], ["a.mp3.wav", "a.wav"]),  # who has the name already, keeps it
        (["a.m4a", "a.mp3"], ["a.m4a.wav", "a.mp3.wav"]),
        (["A.wav", "a.wav"], ["A.wav", "a.wav.wav"]),  # one file on many disks
        (["caf\u00e9.wav", "cafe\u0301.mp3"], ["caf\u00e9.wav", "cafe\u0301.mp3.wav"]),
        (["a.mp3", "a.mp3.wav", "a.wav"], ["a.mp3 (2).wav", "a.mp3.wav", "a.wav"]),
        (["a", "a.wav"], ["a (2).wav", "a.wav"]),
        (["two words\n.mp3", "\udcff.mp3"], ["two words\n.wav", "\udcff.wav"]),
    ],
)
def test_no_two_outputs_share_a_name(names: list[str], outputs: list[str]) -> None:
    expected = dict(zip(names, outputs, strict=True))
    assert output_names(names, ".wav") == expected
    assert output_names(reversed(names), ".wav") == expected


def test_the_mark_stands_between_name_and_extension() -> None:
    marked = output_names(["a.mp3", "a.wav", "b.ogg"], ".wav", MARK)
    assert marked == {
        "a.mp3": "a.mp3_enhanced.wav",
        "a.wav": "a_enhanced.wav",
        "b.ogg": "b_enhanced.wav",
    }


@pytest.mark.parametrize("letter", ["x", "\N{SNOWMAN}", "\U0001f399", "\udcff"])
@pytest.mark.parametrize("extension", [".wav", ".flac"])
def test_names_fit_the_disk_and_stay_apart(letter: str, extension: str) -> None:
    width = len(os.fsencode(letter))
    stem = letter * (250 // width)
    names = [f"{stem}.mp3", f"{stem}.wav", f"{stem[:-1]}y.mp3"]
    for mark in ("", MARK):
        outputs = output_names(names, extension, mark)
        assert len(set(outputs.values())) == len(names)
        for output in outputs.values():
            assert len(os.fsencode(output)) <= 255
            assert output.endswith(mark + extension)
            assert output.startswith(letter * (200 // width))
    for name, output in output_names(names, extension, MARK).items():
        assert output.removesuffix(extension) in marked_stems(name)


def test_recordings_are_told_by_their_names() -> None:
    assert is_recording("a.WAV")
    assert is_recording("a.b.m4a")
    for extension in ("qta", "ts", "mxf", "dts", "voc", "mpga", "3gp", "MTS", "bwf", "m4r"):
        assert is_recording(f"a.{extension}")
    for name in ("._a.wav", ".a.wav", "a.txt", "wav", "a.wav.part"):
        assert not is_recording(name)

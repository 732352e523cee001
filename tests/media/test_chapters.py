"""Chapters, names of tracks and what a WAV says of its making: kept, or named in a warning."""

from __future__ import annotations

import struct
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile
from sounds import RATE, noise

from speakup.config import Config
from speakup.media.ffmpeg import Chapter
from speakup.media.formats import resolve_format
from speakup.media.recording import probe
from speakup.media.writer import AudioWriter
from speakup.pipeline import Pipeline

CHAPTERS = (Chapter(0.0, 1.0, "One"), Chapter(1.0, 2.5, "Zwölf Körner"), Chapter(2.5, 4.0, ""))


def write(path: Path) -> None:
    coded = resolve_format(
        path, format=None, bit_depth=None, bitrate=None, sample_rate=48000, channels=1
    )
    with AudioWriter(path, 48000, 1, coded, chapters=CHAPTERS) as writer:
        writer.write(noise(1, 4 * 48000, 48000))


@pytest.mark.parametrize("target", ["mp3", "m4a", "flac", "ogg", "opus"])
@pytest.mark.parametrize("source", ["mp3", "m4a", "flac", "ogg", "opus"])
def test_chapters_pass_between_any_two_formats(tmp_path: Path, source: str, target: str) -> None:
    write(tmp_path / f"a.{source}")
    chain = Pipeline(Config(denoise=False, upsample="off"))
    result = chain.run(tmp_path / f"a.{source}", tmp_path / f"b.{target}")
    found = probe(tmp_path / f"b.{target}").chapters
    assert [chapter.title for chapter in found] == [chapter.title for chapter in CHAPTERS]
    assert [chapter.start for chapter in found] == pytest.approx([0.0, 1.0, 2.5], abs=0.002)
    assert not [warning for warning in result.warnings if "chapter" in warning]


def test_a_wav_holds_no_chapters_and_says_so(tmp_path: Path) -> None:
    write(tmp_path / "a.m4a")
    chain = Pipeline(Config(denoise=False, upsample="off"))
    result = chain.run(tmp_path / "a.m4a", tmp_path / "b.wav")
    assert "left out: 3 chapters, which wav cannot hold" in result.warnings


def test_what_a_recorder_says_of_a_take_is_named(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", noise(1, RATE).T, RATE)
    content = (tmp_path / "a.wav").read_bytes()
    for name, body in ((b"bext", bytes(602)), (b"iXML", b"<BWFXML/>"), (b"cue ", bytes(4))):
        content += name + struct.pack("<I", len(body)) + body + bytes(len(body) % 2)
    (tmp_path / "a.wav").write_bytes(content)
    chain = Pipeline(Config(denoise=False, upsample="off"))
    result = chain.run(tmp_path / "a.wav", tmp_path / "b.wav")
    assert "left out: the WAV file's bext, iXML, cue, which are not taken over" in result.warnings


def write_video(path: Path, names: dict[str, str], tags: dict[str, str]) -> None:
    options = {"movflags": "use_metadata_tags"} if path.suffix == ".mov" else {}
    with av.open(str(path), "w", options=options) as container:
        container.metadata.update(tags)
        picture = container.add_stream("mpeg4", rate=25)
        picture.width, picture.height, picture.pix_fmt = 64, 48, "yuv420p"
        tracks = []
        for name in names.values():
            sound = container.add_stream("aac", rate=RATE)
            sound.layout = "mono"
            sound.metadata["handler_name" if path.suffix != ".mkv" else "title"] = name
            tracks.append(sound)
        for sound in tracks:
            frame = av.AudioFrame.from_ndarray(noise(1, RATE), format="flt", layout="mono")
            frame.sample_rate, frame.time_base, frame.pts = RATE, Fraction(1, RATE), 0
            container.mux(sound.encode(frame))
        for number in range(25):
            image = av.VideoFrame.from_ndarray(np.zeros((48, 64, 3), np.uint8))
            image.pts = number
            container.mux(picture.encode(image))
        container.mux(picture.encode(None))
        for sound in tracks:
            container.mux(sound.encode(None))


@pytest.mark.parametrize("source", ["a.mp4", "a.mkv"])
@pytest.mark.parametrize("target", ["b.mp4", "b.mkv"])
def test_tracks_keep_their_names(tmp_path: Path, source: str, target: str) -> None:
    write_video(tmp_path / source, {"1": "Mic", "2": "Desktop"}, {})
    Pipeline(Config(denoise=False, upsample="off")).run(tmp_path / source, tmp_path / target)
    with av.open(str(tmp_path / target)) as container:
        name = "title" if target == "b.mkv" else "handler_name"
        names = [stream.metadata.get(name) for stream in container.streams.audio]
    assert names == ["Mic", "Desktop"]


def test_the_place_of_a_telephones_video_keeps_its_key(tmp_path: Path) -> None:
    place = {"com.apple.quicktime.location.ISO6709": "+59.9+010.7/", "title": "Harbour"}
    write_video(tmp_path / "a.mov", {"1": "SoundHandler"}, place)
    Pipeline(Config(denoise=False, upsample="off")).run(tmp_path / "a.mov", tmp_path / "b.mov")
    with av.open(str(tmp_path / "b.mov")) as container:
        assert place.items() <= container.metadata.items()

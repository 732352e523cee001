"""Videos: what is not sound comes out as it went in, and the sound stays where it was."""

from __future__ import annotations

import shutil
import subprocess
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from numpy.typing import NDArray
from sounds import lag, noise, read

from speakup.config import Config
from speakup.errors import ConfigError, InputError
from speakup.media.recording import kept_extension, probe
from speakup.pipeline import Pipeline, enhance
from speakup.result import Result

RATE = 48000
PLAIN: dict[str, Any] = {"denoise": False, "upsample": "off"}
PICTURES = {"mp4": "libx264", "mov": "libx264", "mkv": "libx264", "webm": "libvpx"}
SOUND = {"mp4": "aac", "mov": "aac", "mkv": "aac", "webm": "libopus"}
FRAME = 1024 / 44100
"""Seconds of a frame of AAC, the longest there is."""


def frames(waveform: NDArray[np.float32], start: float) -> av.AudioFrame:
    samples = np.ascontiguousarray(waveform.T).reshape(1, -1)
    layout = "mono" if len(waveform) == 1 else "stereo"
    frame = av.AudioFrame.from_ndarray(samples, format="flt", layout=layout)
    frame.sample_rate, frame.time_base = RATE, Fraction(1, RATE)
    frame.pts = round(start * RATE)
    return frame


def make_video(
    path: Path,
    tracks: list[tuple[NDArray[np.float32], float, str]],
    *,
    seconds: float = 1.5,
    codec: str | None = None,
    picture_start: float = 0.0,
    **more: Any,
) -> None:
    """Write a video with pictures that need each other, and tracks of (sound, start, language)."""
    kind = path.suffix[1:]
    with av.open(str(path), "w") as out:
        out.metadata.update(more.get("tags", {}))
        picture = out.add_stream(PICTURES.get(kind, "mpeg4"), rate=25)
        picture.width, picture.height, picture.pix_fmt = 64, 48, "yuv420p"
        picture.codec_context.gop_size = 12
        if kind != "webm":
            picture.codec_context.max_b_frames = 2
        streams = []
        for number, (_, _, language) in enumerate(tracks):
            stream = out.add_stream(codec or SOUND.get(kind, "aac"), rate=RATE)
            stream.layout = "mono" if len(tracks[number][0]) == 1 else "stereo"
            stream.metadata["language"] = language
            stream.disposition = int(number == 0)
            streams.append(stream)
        if "chapters" in more:
            out.set_chapters(more["chapters"])
        out.start_encoding()
        chance = np.random.default_rng(3)
        for number in range(round(25 * seconds)):
            pixels = chance.integers(0, 255, (48, 64, 3), dtype=np.uint8)
            image = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            image.pts, image.time_base = number + round(25 * picture_start), Fraction(1, 25)
            out.mux(picture.encode(image))
        out.mux(picture.encode(None))
        for stream, (waveform, start, _) in zip(streams, tracks, strict=True):
            out.mux(stream.encode(frames(waveform, start)))
            out.mux(stream.encode(None))


def packets(path: Path, kind: str = "video") -> list[tuple[Any, ...]]:
    """Give all packets of a kind of stream: bytes, times in seconds, key or not."""
    with av.open(str(path)) as file:
        found = []
        for packet in file.demux(*[s for s in file.streams if s.type == kind]):
            if packet.size:
                tick = packet.time_base or Fraction(1)
                times = [None if when is None else when * tick for when in (packet.pts, packet.dts)]
                found.append((packet.stream.index, bytes(packet), *times, packet.is_keyframe))
        return found


def run(source: Path, target: Path, **settings: Any) -> Result:
    result = Pipeline(Config(**(PLAIN | settings))).run(source, target)
    assert result.status == "ok"
    return result


@pytest.mark.parametrize("kind", PICTURES)
def test_pictures_are_copied_bit_for_bit_and_the_sound_stays_in_place(
    tmp_path: Path, kind: str
) -> None:
    source, target = tmp_path / f"a.{kind}", tmp_path / f"b.{kind}"
    waveform = noise(2, RATE, RATE)
    make_video(source, [(waveform, 0.0, "eng")], tags={"title": "A talk", "artist": "Ada"})
    result = run(source, target)
    assert result.warnings == ()
    before = packets(source)
    assert len(before) == 38
    assert packets(target) == before
    old, new = probe(source), probe(target)
    assert new.has_video and new.tags == old.tags
    assert {"title": "A talk", "artist": "Ada"}.items() <= new.tags.items()
    assert abs(new.start - old.start) <= FRAME
    there, here = read(source), read(target)
    if new.sample_rate == RATE:
        assert abs(here.shape[1] - there.shape[1]) <= RATE // 1000
        assert abs(lag(here, there)) <= 1


@pytest.mark.parametrize("kind", PICTURES)
@pytest.mark.parametrize("start", [0.5, 0.013])
def test_sound_that_starts_late_starts_as_late_afterwards(
    tmp_path: Path, kind: str, start: float
) -> None:
    source, target = tmp_path / f"a.{kind}", tmp_path / f"b.{kind}"
    click = np.zeros((1, RATE // 2), np.float32)
    click[0, 12000:12100] = 0.5  # a quarter of a second after the start of the sound
    make_video(source, [(click, start, "eng")])
    run(source, target, loudness="off")
    old, new = probe(source), probe(target)
    assert abs(new.start - old.start) <= FRAME + 1e-3

    def heard(path: Path) -> float:
        info = probe(path)
        sound = np.abs(read(path)[0])
        return info.start + int(np.argmax(sound > 0.5 * sound.max())) / info.sample_rate

    assert heard(source) == pytest.approx(start + 0.25, abs=0.003)
    assert heard(target) == pytest.approx(heard(source), abs=0.002)
    assert packets(target) == packets(source)


def test_pictures_that_start_late_do_so_afterwards(tmp_path: Path) -> None:
    for kind in ("mp4", "mkv"):
        source, target = tmp_path / f"a.{kind}", tmp_path / f"b.{kind}"
        make_video(source, [(noise(1, RATE, RATE), 0.0, "eng")], picture_start=0.4)
        run(source, target)
        assert packets(target) == packets(source)


@pytest.mark.parametrize("kind", ["mp4", "mkv", "webm"])
def test_every_audio_track_is_enhanced_as_its_own(tmp_path: Path, kind: str) -> None:
    source, target = tmp_path / f"a.{kind}", tmp_path / f"b.{kind}"
    quiet = 0.02 * noise(1, RATE, RATE)
    make_video(source, [(noise(2, RATE, RATE), 0.0, "eng"), (quiet, 0.2, "fra")])
    run(source, target, loudness="-20")
    assert probe(target).tracks == 2
    assert [probe(target, number).channels for number in (1, 2)] == [2, 1]
    assert probe(target, 2).start == pytest.approx(probe(source, 2).start, abs=FRAME + 1e-3)
    levels = [np.sqrt(np.mean(read(target, track=number) ** 2)) for number in (1, 2)]
    assert levels[1] > 0.03  # brought up from 0.002
    with av.open(str(target)) as file:
        assert [stream.language for stream in file.streams.audio] == ["eng", "fra"]
        defaults = [bool(stream.disposition & 1) for stream in file.streams.audio]
        assert defaults == [True, False]


def test_a_track_can_be_chosen(tmp_path: Path) -> None:
    source = tmp_path / "a.mkv"
    make_video(source, [(noise(2, RATE, RATE), 0.0, "eng"), (noise(1, RATE, RATE), 0.0, "fra")])
    run(source, tmp_path / "b.mkv", track=2)
    assert (probe(tmp_path / "b.mkv").tracks, probe(tmp_path / "b.mkv").channels) == (1, 1)
    assert run(source, tmp_path / "b.wav", track=2).channels == 1
    assert run(source, tmp_path / "c.wav", track=1).channels == 2
    with pytest.raises(InputError, match="has no audio track 3. It has 2 audio tracks"):
        run(source, tmp_path / "d.wav", track=3)
    with pytest.raises(ConfigError, match="`track` is 0"):
        Config(track=0)


def test_chapters_are_kept(tmp_path: Path) -> None:
    tick = Fraction(1, 1000)
    chapters = [
        {"id": 1, "start": 0, "end": 700, "time_base": tick, "metadata": {"title": "One"}},
        {"id": 2, "start": 700, "end": 1500, "time_base": tick, "metadata": {"title": "Two"}},
    ]
    for kind in ("mp4", "mkv"):
        source, target = tmp_path / f"a.{kind}", tmp_path / f"b.{kind}"
        make_video(source, [(noise(1, RATE, RATE), 0.0, "eng")], chapters=chapters)
        run(source, target)
        with av.open(str(target)) as file:
            found = [
                (c["start"] * c["time_base"], c["end"] * c["time_base"], c["metadata"]["title"])
                for c in file.chapters()
            ]
        assert found == [(0, Fraction(7, 10), "One"), (Fraction(7, 10), Fraction(3, 2), "Two")]


def test_a_video_keeps_its_container_and_other_files_become_wav(tmp_path: Path) -> None:
    make_video(tmp_path / "a.mp4", [(noise(1, RATE, RATE), 0.0, "eng")])
    made = enhance(tmp_path / "a.mp4", config=Config(**PLAIN)).output
    assert made == str(tmp_path / "a_enhanced.mp4")
    assert probe(made).has_video
    run(tmp_path / "a.mp4", tmp_path / "b.flac")
    assert not probe(tmp_path / "b.flac").has_video
    run(tmp_path / "b.flac", tmp_path / "sound.mp4")
    assert not probe(tmp_path / "sound.mp4").has_video
    assert kept_extension(tmp_path / "a.mp4") == ".mp4"
    assert kept_extension(tmp_path / "sound.mp4") is None
    assert kept_extension(tmp_path / "b.flac") is None


def test_what_no_container_of_ours_holds_goes_into_matroska(tmp_path: Path) -> None:
    make_video(tmp_path / "a.avi", [(noise(1, RATE, RATE), 0.0, "eng")], codec="mp3")
    made = enhance(tmp_path / "a.avi", config=Config(**PLAIN)).output
    assert made == str(tmp_path / "a_enhanced.mkv")
    assert [one[1] for one in packets(Path(made))] == [
        one[1] for one in packets(tmp_path / "a.avi")
    ]


def test_a_container_that_cannot_hold_the_pictures_is_refused_before_the_work(
    tmp_path: Path,
) -> None:
    make_video(tmp_path / "a.mp4", [(noise(1, RATE, RATE), 0.0, "eng")])
    with pytest.raises(ConfigError, match="webm cannot hold .*Choose mkv"):
        run(tmp_path / "a.mp4", tmp_path / "b.webm")
    assert [path.name for path in tmp_path.iterdir()] == ["a.mp4"]


def test_the_same_video_gives_the_same_bytes(tmp_path: Path) -> None:
    for kind in PICTURES:
        source = tmp_path / f"a.{kind}"
        make_video(source, [(noise(1, RATE, RATE), 0.0, "eng"), (noise(2, RATE), 0.1, "fra")])
        for name in ("b", "c"):
            run(source, tmp_path / f"{name}.{kind}")
        assert (tmp_path / f"b.{kind}").read_bytes() == (tmp_path / f"c.{kind}").read_bytes(), kind


def test_a_gap_in_the_sound_stays_a_gap(tmp_path: Path) -> None:
    source = tmp_path / "a.mkv"
    first, second = noise(1, RATE // 2, RATE), noise(1, RATE // 2, RATE)
    with av.open(str(source), "w") as out:
        picture = out.add_stream("mpeg4", rate=25)
        picture.width, picture.height, picture.pix_fmt = 64, 48, "yuv420p"
        sound = out.add_stream("pcm_s16le", rate=RATE)
        sound.layout = "mono"
        for number in range(38):
            image = av.VideoFrame.from_ndarray(np.zeros((48, 64, 3), np.uint8), format="rgb24")
            image.pts = number
            out.mux(picture.encode(image))
        for waveform, start in ((first, 0.0), (second, 0.9)):  # 0.4 s are missing between them
            samples = np.asarray(waveform * 32767, np.int16)
            for at in range(0, samples.shape[1], 960):
                block = np.ascontiguousarray(samples[:, at : at + 960])
                frame = av.AudioFrame.from_ndarray(block, format="s16", layout="mono")
                frame.sample_rate, frame.time_base = RATE, Fraction(1, RATE)
                frame.pts = round(start * RATE) + at
                out.mux(sound.encode(frame))
        out.mux(picture.encode(None))
        out.mux(sound.encode(None))
    decoded = read(source)
    assert decoded.shape[1] == pytest.approx(1.4 * RATE, abs=RATE // 500)
    assert not decoded[:, int(0.51 * RATE) : int(0.89 * RATE)].any()
    assert lag(decoded[:, RATE:], second[:, RATE // 10 :]) == pytest.approx(0, abs=RATE // 1000)


SUBTITLES = """1
00:00:00,200 --> 00:00:00,900
Hello

2
00:00:01,100 --> 00:00:01,400
There
"""


@pytest.mark.parametrize(("kind", "codec"), [("mp4", "mov_text"), ("mkv", "srt")])
def test_subtitles_covers_and_rotation_are_kept(tmp_path: Path, kind: str, codec: str) -> None:
    ffmpeg = shutil.which("ffmpeg")
    if ffmpeg is None:
        pytest.skip("makes its video with ffmpeg")
    make_video(tmp_path / "plain.mp4", [(noise(1, RATE, RATE), 0.0, "eng")])
    (tmp_path / "s.srt").write_text(SUBTITLES)
    picture = ["-f", "lavfi", "-i", "color=red:size=16x16", "-frames:v", "1"]
    subprocess.run([ffmpeg, "-v", "error", *picture, tmp_path / "c.jpg"], check=True)
    source, target = tmp_path / f"a.{kind}", tmp_path / f"b.{kind}"
    words: list[Any] = ["-i", tmp_path / "plain.mp4", "-i", tmp_path / "s.srt"]
    cover: list[Any] = ["-i", tmp_path / "c.jpg", "-map", "2", "-disposition:v:1", "attached_pic"]
    if kind == "mkv":
        cover = ["-attach", tmp_path / "c.jpg", "-metadata:s:t", "mimetype=image/jpeg"]
    maps = [
        "-map",
        "0",
        "-map",
        "1",
        "-c",
        "copy",
        "-c:s",
        codec,
        "-metadata:s:s:0",
        "language=deu",
    ]
    if kind == "mp4":
        words, cover = [*words, *cover[:2]], cover[2:]
        maps += ["-metadata:s:v:0", "rotate=90"]
    subprocess.run([ffmpeg, "-v", "error", *words, *maps, *cover, source], check=True)
    assert run(source, target).warnings == ()
    assert [p[1:] for p in packets(target, "subtitle")] == [
        p[1:] for p in packets(source, "subtitle")
    ]
    assert {p[1] for p in packets(target)} == {p[1] for p in packets(source)}
    assert probe(target).cover == probe(source).cover != None  # noqa: E711
    with av.open(str(source)) as before, av.open(str(target)) as after:
        assert [s.language for s in after.streams.subtitles] == ["deu"]
        turns = [next(file.decode(video=0)).rotation for file in (before, after)]
        assert turns[0] == turns[1]

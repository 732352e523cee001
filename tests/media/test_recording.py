"""What reading a file promises, on real files of many formats, sound ones and broken ones."""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile
from av_files import write_with_ffmpeg
from people import nobody, public_folder
from scipy import signal
from sounds import RATE, lag, loudest_hertz, noise, read, tones

from speakup.errors import InputError
from speakup.media.recording import probe, read_blocks


@pytest.mark.parametrize("channels", [1, 2, 6, 8])
@pytest.mark.parametrize("rate", [8000, 44100, 192000])
@pytest.mark.parametrize(
    ("subtype", "step"),
    [
        ("PCM_U8", 2**-7),
        ("PCM_16", 2**-15),
        ("PCM_24", 2**-23),
        ("PCM_32", 2**-23),
        ("FLOAT", 0.0),
        ("DOUBLE", 0.0),
    ],
)
def test_a_wav_of_any_rate_depth_and_channels_reads_as_it_was_written(
    tmp_path: Path, subtype: str, step: float, rate: int, channels: int
) -> None:
    waveform = tones(channels, 1000, rate)
    soundfile.write(tmp_path / "a.wav", waveform.T, rate, subtype)
    info = probe(tmp_path / "a.wav")
    assert (info.sample_rate, info.channels, info.samples) == (rate, channels, 1000)
    assert info.seconds == pytest.approx(1000 / rate)
    assert (info.container, info.codec, info.has_video) == ("wav", subtype.lower(), False)
    decoded = read(tmp_path / "a.wav")
    assert decoded.dtype == np.float32
    assert decoded.shape == (channels, 1000)
    assert np.max(np.abs(decoded - waveform)) <= step


@pytest.mark.parametrize("extension", ["aiff", "caf", "w64", "rf64", "au", "flac", "ogg"])
def test_the_formats_of_libsndfile_are_read(tmp_path: Path, extension: str) -> None:
    path = tmp_path / f"a.{extension}"
    waveform = noise(2, 30001)
    soundfile.write(path, waveform.T, RATE, format=extension.upper())
    info = probe(path)
    assert (info.sample_rate, info.channels, info.samples) == (RATE, 2, 30001)
    decoded = read(path)
    assert decoded.shape == waveform.shape
    assert lag(decoded, waveform) == 0


@pytest.mark.parametrize(
    ("name", "codec", "lossless"),
    [
        ("a.mka", "flac", True),
        ("a.mov", "pcm_f32le", True),
        ("a.avi", "pcm_s16le", True),
        ("a.m4a", "alac", True),
        ("a.mkv", "libopus", False),
        ("a.webm", "libopus", False),
        ("a.mp3", "libmp3lame", False),
        ("a.m4a", "aac", False),
        ("a.mp4", "aac", False),
    ],
)
def test_the_formats_of_ffmpeg_are_read_without_the_codecs_delay(
    tmp_path: Path, name: str, codec: str, lossless: bool
) -> None:
    path = tmp_path / name
    rate = 48000 if codec == "libopus" else RATE
    waveform = noise(2, 2 * rate + 123, rate)
    write_with_ffmpeg(path, codec, waveform, rate=rate)
    info = probe(path)
    family = {"mka": "matroska", "mkv": "matroska"}.get(path.suffix[1:], path.suffix[1:])
    assert (info.container, info.sample_rate, info.channels) == (family, rate, 2)
    assert info.seconds == pytest.approx(waveform.shape[1] / rate, abs=0.05)
    decoded = read(path)
    # MP4's clock ticks in milliseconds here, so its length is a millisecond's.
    assert waveform.shape[1] <= decoded.shape[1] <= waveform.shape[1] + rate // 1000
    assert lag(decoded, waveform) == 0
    if lossless:
        assert np.max(np.abs(decoded - waveform)) <= 2**-15
        assert decoded.shape == waveform.shape


@pytest.mark.parametrize(
    ("name", "codec"), [("a.wma", "wmav2"), ("a.aac", "aac"), ("a.ac3", "ac3")]
)
def test_formats_that_do_not_tell_their_delay_are_read_all_the_same(
    tmp_path: Path, name: str, codec: str
) -> None:
    waveform = noise(1, RATE)
    write_with_ffmpeg(tmp_path / name, codec, waveform)
    decoded = read(tmp_path / name)
    assert abs(lag(decoded, waveform)) <= 2048
    assert abs(decoded.shape[1] - waveform.shape[1]) <= 2048


@pytest.mark.parametrize(
    ("name", "codec", "channels"),
    [("a.mka", "flac", 8), ("a.mka", "flac", 6), ("a.opus", "libopus", 3), ("a.ogg", "libopus", 6)],
)
def test_channels_come_in_the_order_of_wav(
    tmp_path: Path, name: str, codec: str, channels: int
) -> None:
    write_with_ffmpeg(tmp_path / name, codec, tones(channels, 48000, 48000), rate=48000)
    decoded = read(tmp_path / name)
    assert loudest_hertz(decoded, 48000) == [200 + 100 * k for k in range(channels)]


@pytest.mark.parametrize("name", ["a.wav", "a.m4a"])
@pytest.mark.parametrize("block_samples", [1, 777, 1024, 65536])
def test_blocks_are_full_but_for_the_last_and_join_to_the_whole(
    tmp_path: Path, name: str, block_samples: int
) -> None:
    path = tmp_path / name
    samples = 3000 if block_samples == 1 else 70000
    if name == "a.wav":
        soundfile.write(path, noise(2, samples).T, RATE, "FLOAT")
    else:
        write_with_ffmpeg(path, "aac", noise(2, samples))
    blocks = list(read_blocks(path, block_samples))
    assert {block.shape[1] for block in blocks[:-1]} <= {block_samples}
    assert 0 < blocks[-1].shape[1] <= block_samples
    np.testing.assert_array_equal(np.concatenate(blocks, axis=1), read(path))


def test_samples_beyond_full_scale_and_not_a_number_pass(tmp_path: Path) -> None:
    waveform = np.array([[0.5, -3.25, 17.0, np.nan, np.inf, -np.inf, 0.0]], dtype=np.float32)
    soundfile.write(tmp_path / "a.wav", waveform.T, RATE, "FLOAT")
    np.testing.assert_array_equal(read(tmp_path / "a.wav"), waveform)


def test_ogg_files_joined_end_to_end_are_read_to_the_end(tmp_path: Path) -> None:
    for name in ("a.ogg", "b.ogg"):
        soundfile.write(tmp_path / name, noise(1, 2 * RATE).T, RATE)
    joined = (tmp_path / "a.ogg").read_bytes() + (tmp_path / "b.ogg").read_bytes()
    (tmp_path / "a.ogg").write_bytes(joined)
    assert read(tmp_path / "a.ogg").shape[1] == pytest.approx(4 * RATE, abs=2048)


def test_one_sample_is_audio(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", np.array([0.5]), RATE)
    assert probe(tmp_path / "a.wav").samples == 1
    np.testing.assert_array_equal(read(tmp_path / "a.wav"), [[0.5]])


def test_a_video_is_known_as_one_and_its_audio_is_read(tmp_path: Path) -> None:
    waveform = noise(1, RATE)
    write_with_ffmpeg(tmp_path / "a.mp4", "aac", waveform, video=True)
    info = probe(tmp_path / "a.mp4")
    assert info.has_video
    assert info.codec == "aac"
    assert lag(read(tmp_path / "a.mp4"), waveform) == 0


def test_tags_have_the_same_names_in_every_format_and_leave_the_coding_out(tmp_path: Path) -> None:
    tags = {"title": "Über uns", "artist": "A", "date": "2024", "comment": "c", "genre": "Podcast"}
    stale = {"encoder": "x", "replaygain_track_gain": "-7 dB", "encoded_by": "y"}
    for name, codec in [
        ("a.wav", "pcm_s16le"),
        ("a.flac", "flac"),
        ("a.mp3", "libmp3lame"),
        ("a.opus", "libopus"),
        ("a.m4a", "aac"),
        ("a.mka", "flac"),
    ]:
        write_with_ffmpeg(
            tmp_path / name, codec, noise(1, 4800, 48000), rate=48000, metadata=tags | stale
        )
        assert probe(tmp_path / name).tags == tags, name


def test_tags_in_an_old_code_page_are_readable(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    write_with_ffmpeg(path, "pcm_s16le", noise(1, 100), metadata={"title": "Gru\xdf"})
    path.write_bytes(path.read_bytes().replace("Gru\xdf".encode(), b"Gr\xfc\xdf\0"))
    assert probe(path).tags["title"] == "Grüß"
    assert read(path).shape == (1, 100)


@pytest.mark.skipif(os.name == "nt", reason="no such names")
def test_a_name_that_looks_like_an_address_is_a_name(tmp_path: Path) -> None:
    path = tmp_path / "http:talk.m4a"
    write_with_ffmpeg(tmp_path / "a.m4a", "aac", noise(1, 4410))
    (tmp_path / "a.m4a").rename(path)
    assert read(path).shape[1] >= 4410


# --- files with something wrong ------------------------------------------------------------------


def refused(path: Path) -> str:
    """Give the message with which both doors refuse a file."""
    with pytest.raises(InputError) as by_probe:
        probe(path)
    with pytest.raises(InputError) as by_read:
        list(read_blocks(path))
    message = str(by_read.value)
    assert message == str(by_probe.value)
    assert str(path) in message
    assert "\n" not in message
    return message


def test_what_is_no_audio_is_refused_in_one_line(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty.wav").touch()
    (tmp_path / "folder.wav").mkdir()
    soundfile.write(tmp_path / "zero.wav", np.zeros((0, 1)), RATE)
    soundfile.write(tmp_path / "a.flac", np.zeros(10), RATE)
    (tmp_path / "zero.flac").write_bytes((tmp_path / "a.flac").read_bytes()[:42])
    write_with_ffmpeg(tmp_path / "silent.mp4", "", np.zeros((1, 1)), video=True, audio=False)
    assert "no such file" in refused(tmp_path / "missing.wav")
    assert "no such file" in refused(tmp_path / "missing" / "a.wav")
    assert "empty" in refused(tmp_path / "empty.wav")
    assert "folder" in refused(tmp_path / "folder.wav")
    assert "no audio" in refused(tmp_path / "zero.wav")
    assert "audio" in refused(tmp_path / "zero.flac")
    assert "no audio track" in refused(tmp_path / "silent.mp4")
    if os.name != "nt":
        os.mkfifo(tmp_path / "pipe.wav")
        assert "not an ordinary file" in refused(tmp_path / "pipe.wav")
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    "extension", ["wav", "flac", "mp3", "m4a", "ogg", "raw", "txt", "webm", ""]
)
@pytest.mark.parametrize("content", [b"Dear all, this is a text. " * 99, b"hi", b"\0" * 5000])
def test_junk_under_any_extension_is_refused_in_one_line(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], extension: str, content: bytes
) -> None:
    path = tmp_path / f"junk.{extension}"
    path.write_bytes(content)
    assert re.search("audio", refused(path))
    assert capfd.readouterr() == ("", "")


def test_noise_posing_as_mp3_is_quiet_in_the_terminal(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.mp3").write_bytes(np.random.default_rng(1).bytes(60000))
    refused(tmp_path / "a.mp3")
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    "playlist", ["#EXTM3U\n#EXTINF:9,\n{}\n", "ffconcat version 1.0\nfile {}\n"]
)
def test_a_playlist_posing_as_audio_opens_no_other_file(tmp_path: Path, playlist: str) -> None:
    write_with_ffmpeg(tmp_path / "private.mp3", "libmp3lame", noise(1, RATE))
    (tmp_path / "a.mp3").write_text(playlist.format("private.mp3"))
    refused(tmp_path / "a.mp3")


def test_a_file_that_must_not_be_read_is_refused() -> None:
    with public_folder() as folder:
        soundfile.write(folder / "a.wav", np.zeros(10), RATE)
        (folder / "a.wav").chmod(0)
        with nobody():
            assert "no permission" in refused(folder / "a.wav")


@pytest.mark.parametrize("name", ["a.wav", "a.flac", "a.mp3", "a.ogg", "a.mka"])
def test_a_truncated_file_gives_what_is_there(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], name: str
) -> None:
    path = tmp_path / name
    waveform = noise(2, 3 * RATE)
    if name in ("a.mp3", "a.mka"):
        write_with_ffmpeg(path, "libmp3lame" if name == "a.mp3" else "flac", waveform)
    else:
        soundfile.write(path, waveform.T, RATE)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) * 6 // 10])
    warnings: list[str] = []
    decoded = read(path, warnings=warnings)
    assert 0.45 < decoded.shape[1] / waveform.shape[1] < 0.65
    assert lag(decoded, waveform[:, : decoded.shape[1]]) == 0
    if name != "a.ogg":  # Ogg does not say how long it means to be
        assert any("1.8" in warning or "1.7" in warning for warning in warnings), warnings
    assert capfd.readouterr() == ("", "")


def test_a_length_only_guessed_from_the_bit_rate_is_no_promise(tmp_path: Path) -> None:
    path = tmp_path / "a.mp3"
    loud_then_silent = np.concatenate([noise(1, 12 * RATE), np.zeros((1, 30 * RATE), "f4")], 1)
    # Variable bit rate, and no header to tell the length.
    with av.open(str(path), "w", options={"write_xing": "0"}) as container:
        sound = container.add_stream("libmp3lame", rate=RATE, options={"flags": "+qscale"})
        sound.layout = "mono"
        frame = av.AudioFrame.from_ndarray(loud_then_silent, format="fltp", layout="mono")
        frame.sample_rate, frame.pts = RATE, 0
        container.mux(sound.encode(frame))
        container.mux(sound.encode(None))
    warnings: list[str] = []
    decoded = read(path, warnings=warnings)
    assert decoded.shape[1] == pytest.approx(42 * RATE, rel=0.01)
    assert probe(path).seconds != pytest.approx(42, rel=0.05)
    assert warnings == []


def test_a_file_cut_off_before_its_index_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.m4a"
    write_with_ffmpeg(path, "aac", noise(1, RATE))
    path.write_bytes(path.read_bytes()[:2000])
    assert "incomplete" in refused(path)


@pytest.mark.parametrize("name", ["a.flac", "a.mp3", "a.m4a"])
def test_a_hole_in_a_file_does_not_lose_what_follows(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    waveform = noise(2, 6 * RATE)
    codec = {".flac": "flac", ".mp3": "libmp3lame", ".m4a": "aac"}[path.suffix]
    if codec == "flac":
        soundfile.write(path, waveform.T, RATE)
    else:
        write_with_ffmpeg(path, codec, waveform)
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 1500] = np.random.default_rng(3).bytes(1500)
    path.write_bytes(content)
    decoded = read(path)
    assert 0.9 * waveform.shape[1] < decoded.shape[1] <= waveform.shape[1] + 1024
    last = slice(-RATE, None)
    correlation = signal.correlate(decoded[0, last], waveform[0, last])
    assert correlation.max() > 0.8 * np.sum(waveform[0, last] ** 2) * 0.8


@pytest.mark.parametrize("size", [b"\0\0\0\0", b"\xff\xff\xff\xff", b"\x00\x00\x00\x80"])
def test_a_wav_written_to_a_pipe_or_by_a_crashed_recorder_is_whole(
    tmp_path: Path, size: bytes
) -> None:
    path = tmp_path / "a.wav"
    waveform = noise(1, RATE)
    soundfile.write(path, waveform.T, RATE)
    content = bytearray(path.read_bytes())
    at = content.index(b"data") + 4
    content[at : at + 4] = size
    path.write_bytes(content)
    warnings: list[str] = []
    assert read(path, warnings=warnings).shape == waveform.shape
    assert probe(path).channels == 1
    assert warnings == []


def test_reading_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    soundfile.write(path, noise(1, 1000).T, RATE)
    path.chmod(stat.S_IRUSR)
    before = path.read_bytes(), path.stat().st_mtime_ns
    probe(path)
    read(path)
    assert (path.read_bytes(), path.stat().st_mtime_ns) == before
    assert os.listdir(tmp_path) == ["a.wav"]


@pytest.mark.parametrize(
    ("rate", "taken"), [(1, False), (1999, False), (2000, True), (768_000, True), (768_001, False)]
)
@pytest.mark.parametrize("extension", ["wav", "paf", "caf"])
def test_rates_that_are_no_sounds_are_refused(
    tmp_path: Path, extension: str, rate: int, taken: bool
) -> None:
    path = tmp_path / f"a.{extension}"
    soundfile.write(path, noise(2, 1000).T, rate, "PCM_16", format=extension.upper())
    if taken:
        assert (probe(path).sample_rate, read(path).shape) == (rate, (2, 1000))
    else:
        assert f"{rate} Hz; 2 to 768 kHz" in refused(path)


def test_more_channels_than_a_studio_has_are_refused(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", np.zeros((100, 65)), RATE)
    assert "65 channels; 64 are supported" in refused(tmp_path / "a.wav")


def test_what_a_file_holds_is_found_out_once_until_it_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from speakup.config import Config
    from speakup.media import sandbox
    from speakup.pipeline import Pipeline

    asked: list[int | None] = []
    real = sandbox.probe
    monkeypatch.setattr(sandbox, "probe", lambda p, track: asked.append(track) or real(p, track))
    path = tmp_path / "a.wav"
    soundfile.write(path, noise(1, RATE).T, RATE)
    for _ in range(3):
        assert probe(path).samples == probe(path, 1).samples == RATE
    Pipeline(Config(denoise=False, upsample="off")).run(path, tmp_path / "b.wav")
    assert asked == [None]
    soundfile.write(path, noise(1, 2 * RATE).T, RATE)
    assert probe(path).samples == 2 * RATE


def test_a_fault_is_told_each_time_it_is_asked_for(tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_bytes(b"no sound")
    for _ in range(3):
        refused(tmp_path / "a.wav")
    soundfile.write(tmp_path / "a.wav", noise(1, RATE).T, RATE)
    assert probe(tmp_path / "a.wav").samples == RATE

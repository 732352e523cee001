"""What writing a file promises: the sound, the tags, and that there is a whole file or none."""

from __future__ import annotations

import errno
import io
import os
import stat
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from numpy.typing import NDArray
from people import nobody, public_folder
from sounds import RATE, lag, loudest_hertz, noise, read, tones

from speakup.errors import ConfigError, OutputError
from speakup.media.formats import OutputFormat, resolve_format
from speakup.media.recording import probe
from speakup.media.writer import AudioWriter

FORMATS = ["wav", "flac", "mp3", "ogg", "opus", "m4a"]
LOSSY = ["mp3", "ogg", "opus", "m4a"]
TAGS = {
    "title": "Über uns — 1",
    "artist": "Ada",
    "album": "Talks",
    "date": "2024-05-06",
    "comment": "recorded outdoors",
    "genre": "Podcast",
    "track": "3/9",
}


def coding(name: str, rate: int = RATE, channels: int = 1, **options: Any) -> OutputFormat:
    settings = {"format": name, "bit_depth": None, "bitrate": None} | options
    return resolve_format(Path("a"), **settings, sample_rate=rate, channels=channels)


def write(
    path: Path,
    waveform: NDArray[np.float32],
    rate: int = RATE,
    *,
    block_samples: int = 65536,
    tags: dict[str, str] | None = None,
    cover: bytes | None = None,
    **options: Any,
) -> AudioWriter:
    """Write a waveform in the format of the path's extension, at the rate given or above."""
    output_format = coding(path.suffix[1:], rate, len(waveform), **options)
    with AudioWriter(
        path, output_format.sample_rate, len(waveform), output_format, tags=tags, cover=cover
    ) as writer:
        for start in range(0, waveform.shape[1], block_samples):
            writer.write(waveform[:, start : start + block_samples])
    return writer


def picture(codec: str) -> bytes:
    """Give a small picture file."""
    encoder = av.CodecContext.create(codec, "w")
    encoder.width = encoder.height = 16
    encoder.pix_fmt = "yuvj420p" if codec == "mjpeg" else "rgb24"
    encoder.time_base = Fraction(1, 25)
    frame = av.VideoFrame.from_ndarray(np.full((16, 16, 3), 90, np.uint8), format="rgb24")
    frame.pts = 0
    packets = encoder.encode(frame.reformat(format=encoder.pix_fmt)) + encoder.encode(None)
    return b"".join(bytes(packet) for packet in packets)


# --- the sound ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "depth", "step"),
    [("wav", "24", 2**-24), ("flac", "24", 2**-24), ("wav", "32f", 0.0)],
)
@pytest.mark.parametrize("channels", [1, 2, 6, 8])
def test_lossless_formats_give_back_what_was_written(
    tmp_path: Path, name: str, depth: str, step: float, channels: int
) -> None:
    path = tmp_path / f"a.{name}"
    waveform = noise(channels, 10007)
    write(path, waveform, bit_depth=depth)
    decoded = read(path)
    assert decoded.shape == waveform.shape
    assert np.max(np.abs(decoded - waveform)) <= step
    assert probe(path).codec == {"24": "pcm_24", "32f": "float"}[depth]


@pytest.mark.parametrize("name", LOSSY)
@pytest.mark.parametrize("samples", [100, 1000, 4410, 2 * RATE + 77])
def test_lossy_formats_keep_length_and_place(tmp_path: Path, name: str, samples: int) -> None:
    path = tmp_path / f"a.{name}"
    rate = 48000 if name == "opus" else RATE
    waveform = noise(2, samples, rate)
    write(path, waveform, rate)
    assert probe(path).sample_rate == rate
    decoded = read(path)
    assert decoded.shape == waveform.shape
    if samples > RATE:
        assert lag(decoded, waveform) == 0
        error = np.sum((decoded - waveform) ** 2) / np.sum(waveform**2)
        assert 10 * np.log10(error) < -12


@pytest.mark.parametrize("name", FORMATS)
def test_one_sample_can_be_written(tmp_path: Path, name: str) -> None:
    write(tmp_path / f"a.{name}", np.array([[0.5]], dtype=np.float32), 48000)
    # LAME's header cannot say that less than one millisecond is to stay.
    assert 1 <= read(tmp_path / f"a.{name}").shape[1] < (48 if name == "mp3" else 2)


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("channels", [1, 2, 3, 4, 5, 6, 7, 8])
def test_every_channel_comes_back_in_its_place(tmp_path: Path, name: str, channels: int) -> None:
    if (name, channels) in [("opus", 5), ("opus", 7)] or (name == "mp3" and channels > 2):
        with pytest.raises(ConfigError, match=f"{channels} channels"):
            coding(name, 48000, channels)
        return
    path = tmp_path / f"a.{name}"
    write(path, tones(channels, 24000, 48000), 48000)
    expected = [200 + 100 * channel for channel in range(channels)]
    found = loudest_hertz(read(path), 48000)
    if (name, channels) in [("m4a", 6), ("m4a", 8), ("ogg", 6)]:
        found[3] = expected[3]  # the bass channel, cut off below its tone by the codec
    if (name, channels) == ("m4a", 7):
        # FFmpeg 9 gives the back centre last, and tells so in the layout: 6.1(back).
        found = [*found[:3], expected[3], *sorted(found[4:])]
    assert found == expected


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("rate", [8000, 11025, 16000, 22050, 32000, 48000, 96000, 192000])
def test_every_rate_is_written_as_the_format_says(tmp_path: Path, name: str, rate: int) -> None:
    path = tmp_path / f"a.{name}"
    rate = coding(name, rate).sample_rate
    write(path, noise(1, 9000, max(rate, 8000)), rate)
    assert read(path).shape == (1, 9000)
    assert probe(path).sample_rate == rate


def test_another_rate_than_the_formats_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="48000"):
        AudioWriter(tmp_path / "a.opus", RATE, 1, coding("opus"))


def test_a_higher_bit_rate_makes_a_bigger_file(tmp_path: Path) -> None:
    for name in LOSSY:
        sizes = []
        for bitrate in (48, 96):
            write(tmp_path / f"a.{name}", noise(1, 4 * 48000, 48000), 48000, bitrate=bitrate)
            sizes.append((tmp_path / f"a.{name}").stat().st_size)
        assert sizes[1] > 1.3 * sizes[0], name


@pytest.mark.parametrize("depth", ["16", "24"])
def test_beyond_full_scale_is_cut_counted_and_never_wraps(tmp_path: Path, depth: str) -> None:
    waveform = np.array([[1.5, -1.5, 1.0, -1.0, 0.999, np.nan, np.inf]], dtype=np.float32)
    writer = write(tmp_path / "a.wav", waveform, bit_depth=depth)
    assert writer.clipped_samples == 2
    expected = [1, -1, 1, -1, 0.999, 0, 0]
    np.testing.assert_allclose(read(tmp_path / "a.wav")[0], expected, atol=2**-14)


def test_float_wav_keeps_what_is_beyond_full_scale(tmp_path: Path) -> None:
    waveform = np.array([[1.5, -17.0]], dtype=np.float32)
    writer = write(tmp_path / "a.wav", waveform, bit_depth="32f")
    assert writer.clipped_samples == 0
    np.testing.assert_array_equal(read(tmp_path / "a.wav"), waveform)


def test_a_wav_has_room_for_sizes_beyond_4_gib(tmp_path: Path) -> None:
    # RF64 turns this chunk into ds64 when the file has outgrown RIFF (EBU Tech 3306).
    write(tmp_path / "a.wav", noise(1, 100))
    content = (tmp_path / "a.wav").read_bytes()
    room = content.index(b"JUNK")
    assert room < content.index(b"data")
    assert int.from_bytes(content[room + 4 : room + 8], "little") >= 28


def test_the_callers_block_is_not_changed(tmp_path: Path) -> None:
    waveform = noise(2, 1000) * 20
    before = waveform.copy()
    write(tmp_path / "a.wav", waveform, bit_depth="16")
    np.testing.assert_array_equal(waveform, before)


# --- 16 bits --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["wav", "flac"])
def test_dither_keeps_a_tone_below_the_last_bit_and_makes_the_error_plain_noise(
    tmp_path: Path, name: str
) -> None:
    step = 2**-15
    tone = 0.3 * step * np.sin(2 * np.pi * 1000 * np.arange(5 * RATE) / RATE)
    write(tmp_path / f"a.{name}", tone[None].astype(np.float32), bit_depth="16")
    decoded = read(tmp_path / f"a.{name}")[0]
    assert np.dot(decoded, tone) / np.dot(tone, tone) == pytest.approx(1, abs=0.05)
    error = (decoded - tone) / step
    # Rounding's 1/12 and the dither's 2/12, whatever the signal (Lipshitz et al., section 4).
    assert np.mean(error) == pytest.approx(0, abs=0.01)
    assert np.var(error) == pytest.approx(0.25, abs=0.01)


def test_digital_silence_stays_silence_and_16_bits_stay_16_bits(tmp_path: Path) -> None:
    samples = np.random.default_rng(1).integers(-(2**15), 2**15, (2, 5000))
    samples[1] = 0
    waveform = (samples / 2**15).astype(np.float32)
    write(tmp_path / "a.wav", waveform, bit_depth="16")
    np.testing.assert_array_equal(read(tmp_path / "a.wav"), waveform)


@pytest.mark.parametrize("name", FORMATS)
def test_the_same_samples_give_the_same_bytes_however_they_are_cut(
    tmp_path: Path, name: str
) -> None:
    path = tmp_path / f"a.{name}"
    waveform = noise(2, 30001, 48000)
    contents = set()
    for block_samples in (65536, 65536, 777):
        options = {"bit_depth": "16"} if name in ("wav", "flac") else {}
        write(path, waveform, 48000, block_samples=block_samples, tags=TAGS, **options)
        contents.add(path.read_bytes())
    assert len(contents) == 1


# --- tags -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("source", FORMATS)
def test_tags_pass_from_any_format_to_any_other(tmp_path: Path, source: str) -> None:
    first = tmp_path / f"a.{source}"
    write(first, noise(1, 2000, 48000), 48000, tags=TAGS)
    assert probe(first).tags == TAGS
    for target in FORMATS:
        second = tmp_path / f"b.{target}"
        write(second, noise(1, 2000, 48000), 48000, tags=probe(first).tags)
        assert probe(second).tags == TAGS, target


@pytest.mark.parametrize("name", ["flac", "mp3", "ogg", "opus", "m4a"])
def test_less_common_tags_are_kept_where_there_is_a_place(tmp_path: Path, name: str) -> None:
    tags = {"album_artist": "Bo", "composer": "Cy", "disc": "1/2", "copyright": "2024 Ada"}
    write(tmp_path / f"a.{name}", noise(1, 2000, 48000), 48000, tags=tags)
    assert probe(tmp_path / f"a.{name}").tags == tags


@pytest.mark.parametrize("name", FORMATS)
def test_odd_tags_do_no_harm(tmp_path: Path, name: str) -> None:
    odd = {"a=b": "c", "größe": "x", "empty": "", "long": "x" * 100_000, "lines": "a\nb"}
    write(tmp_path / f"a.{name}", noise(1, 2000, 48000), 48000, tags=odd | TAGS)
    assert TAGS.items() <= probe(tmp_path / f"a.{name}").tags.items()
    assert read(tmp_path / f"a.{name}").shape == (1, 2000)


@pytest.mark.parametrize("name", FORMATS)
def test_a_file_says_what_made_it(tmp_path: Path, name: str) -> None:
    write(tmp_path / f"a.{name}", noise(1, 2000, 48000), 48000)
    assert b"speakup" in (tmp_path / f"a.{name}").read_bytes().replace(b"\0", b"")


@pytest.mark.parametrize("name", ["flac", "mp3", "ogg", "opus", "m4a"])
@pytest.mark.parametrize("kind", ["mjpeg", "png"])
def test_the_cover_picture_is_kept_where_there_is_a_place(
    tmp_path: Path, name: str, kind: str
) -> None:
    cover = picture(kind)
    waveform = noise(1, 5000, 48000)
    write(tmp_path / f"a.{name}", waveform, 48000, tags=TAGS, cover=cover)
    info = probe(tmp_path / f"a.{name}")
    assert info.cover == cover
    assert not info.has_video
    assert info.tags == TAGS
    assert read(tmp_path / f"a.{name}").shape == waveform.shape


def test_a_cover_that_is_no_picture_is_left_out(tmp_path: Path) -> None:
    write(tmp_path / "a.mp3", noise(1, 5000), cover=b"not a picture")
    assert probe(tmp_path / "a.mp3").cover is None


# --- a whole file or none -------------------------------------------------------------------------


def test_nothing_has_the_name_until_the_file_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    path.write_bytes(b"an older file")
    with AudioWriter(path, RATE, 1, coding("wav")) as writer:
        writer.write(noise(1, 1000))
        assert path.read_bytes() == b"an older file"
        assert all(name == "a.wav" or name.startswith(".") for name in os.listdir(tmp_path))
    assert os.listdir(tmp_path) == ["a.wav"]
    assert read(path).shape == (1, 1000)


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_whatever_stops_the_writing_leaves_nothing_behind(
    tmp_path: Path, name: str, error: type[BaseException]
) -> None:
    path = tmp_path / f"a.{name}"
    path.write_bytes(b"an older file")
    with pytest.raises(error), AudioWriter(path, 48000, 1, coding(name, 48000)) as writer:
        writer.write(noise(1, 20000))
        raise error
    assert os.listdir(tmp_path) == [path.name]
    assert path.read_bytes() == b"an older file"


@pytest.mark.skipif(os.name == "nt", reason="POSIX modes")
def test_the_file_has_the_mode_of_any_new_file(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        write(tmp_path / "a.wav", noise(1, 10))
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "a.wav").stat().st_mode) == 0o640


@pytest.mark.skipif(os.name == "nt", reason="links")
def test_a_link_stays_a_link_and_the_file_behind_it_is_written(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "latest.wav").symlink_to(tmp_path / "real" / "a.wav")
    write(tmp_path / "latest.wav", noise(1, 10))
    assert (tmp_path / "latest.wav").is_symlink()
    assert os.listdir(tmp_path / "real") == ["a.wav"]


def refused(path: Path) -> str:
    """Give the message of a write that must fail and leave nothing behind."""
    before = os.listdir(path.parent) if path.parent.is_dir() else []
    with pytest.raises(OutputError) as caught:
        write(path, noise(2, 4 * 48000, 48000), 48000)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert "\n" not in message
    assert (os.listdir(path.parent) if path.parent.is_dir() else []) == before
    return message


def test_where_nothing_can_be_written_the_reason_is_said(tmp_path: Path) -> None:
    (tmp_path / "folder.wav").mkdir()
    (tmp_path / "file").touch()
    assert "folder does not exist" in refused(tmp_path / "missing" / "a.wav")
    assert "is a folder" in refused(tmp_path / "folder.wav")
    assert "is a file" in refused(tmp_path / "file" / "a.wav")
    if os.name != "nt":
        os.mkfifo(tmp_path / "pipe.wav")
        assert "not an ordinary file" in refused(tmp_path / "pipe.wav")


def test_a_name_as_long_as_the_disk_allows_is_fine(tmp_path: Path) -> None:
    write(tmp_path / ("ü" * 125 + ".wav"), noise(1, 10))
    assert "too long" in refused(tmp_path / ("a" * 300 + ".wav")).lower()


def test_a_folder_that_must_not_be_written_to_is_named() -> None:
    with public_folder() as folder:
        (folder / "locked").mkdir(mode=0o555)
        with nobody():
            assert "no permission" in refused(folder / "locked" / "a.wav")


class FailingFile(io.FileIO):
    """A file on a disk that is full after 20 kB, or a person who presses Ctrl-C then."""

    error: Callable[[], BaseException]
    left = 20_000

    def write(self, data: Any) -> int:
        self.left -= len(data)
        if self.left < 0:
            raise type(self).error()
        return super().write(data)


@pytest.mark.parametrize("name", FORMATS)
def test_a_disk_filling_up_is_said_and_nothing_half_written_stays(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(FailingFile, "error", lambda: OSError(errno.ENOSPC, "full"), raising=False)
    monkeypatch.setattr("speakup.media.output_file.io.FileIO", FailingFile)
    assert "disk is full" in refused(tmp_path / f"a.{name}")
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("name", FORMATS)
def test_an_interrupt_inside_an_encoder_is_not_lost(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(FailingFile, "error", KeyboardInterrupt, raising=False)
    monkeypatch.setattr("speakup.media.output_file.io.FileIO", FailingFile)
    with pytest.raises(KeyboardInterrupt):
        write(tmp_path / f"a.{name}", noise(2, 4 * 48000, 48000), 48000)
    assert os.listdir(tmp_path) == []
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("name", FORMATS)
def test_a_full_disk_is_said_and_nothing_half_written_stays(small_disk: Path, name: str) -> None:
    (small_disk / "other").write_bytes(bytes(150_000))
    assert "disk is full" in refused(small_disk / f"a.{name}")

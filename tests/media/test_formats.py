"""What an output's name and the options say about its coding."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from speakup.errors import ConfigError
from speakup.media.formats import OutputFormat, resolve_format, video_extension


def resolve(name: str, **options: Any) -> OutputFormat:
    settings: dict[str, Any] = {
        "format": None,
        "bit_depth": None,
        "bitrate": None,
        "sample_rate": 44100,
        "channels": 2,
    }
    return resolve_format(Path(name), **(settings | options))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("a.wav", ("wav", ".wav", 44100, "24", None)),
        ("a.WAV", ("wav", ".WAV", 44100, "24", None)),
        ("a", ("wav", ".wav", 44100, "24", None)),
        ("-", ("wav", ".wav", 44100, "24", None)),
        ("a.flac", ("flac", ".flac", 44100, "24", None)),
        ("a.mp3", ("mp3", ".mp3", 44100, None, 192)),
        ("a.ogg", ("ogg", ".ogg", 44100, None, 160)),
        ("a.opus", ("opus", ".opus", 48000, None, 128)),
        ("a.m4a", ("m4a", ".m4a", 44100, None, 192)),
        ("a.mp4", ("mp4", ".mp4", 44100, None, 192)),
        ("a.M4V", ("mp4", ".M4V", 44100, None, 192)),
        ("a.mov", ("mov", ".mov", 44100, None, 192)),
        ("a.mkv", ("mkv", ".mkv", 44100, "24", None)),
        ("a.webm", ("webm", ".webm", 48000, None, 128)),
    ],
)
def test_the_extension_decides_and_wav_24_is_the_default(
    name: str, expected: tuple[object, ...]
) -> None:
    found = resolve(name)
    assert (
        found.name,
        found.extension,
        found.sample_rate,
        found.bit_depth,
        found.bitrate,
    ) == expected


def test_matroska_is_lossless_unless_a_bit_rate_is_given() -> None:
    assert resolve("a.mkv").codec == "flac"
    lossy = resolve("a.mkv", bitrate=96)
    assert (lossy.name, lossy.codec, lossy.sample_rate, lossy.bitrate) == (
        "mkv",
        "libopus",
        48000,
        96,
    )


@pytest.mark.parametrize(
    ("name", "extension"),
    [("a.mp4", ".mp4"), ("a.MOV", ".MOV"), ("a.avi", ".mkv"), ("a.wmv", ".mkv"), ("a.wav", None)],
)
def test_a_video_keeps_its_container_where_it_can_be_written(
    name: str, extension: str | None
) -> None:
    assert video_extension(name) == extension


def test_a_format_asked_for_names_what_has_no_extension() -> None:
    assert resolve("talk", format="mp3").extension == ".mp3"
    assert resolve("talk.m4b", format="m4a").extension == ".m4b"


@pytest.mark.parametrize(
    ("name", "asked", "given"),
    [
        ("a.opus", 44100, 48000),
        ("a.opus", 22050, 24000),
        ("a.opus", 8000, 8000),
        ("a.opus", 192000, 48000),
        ("a.mp3", 96000, 48000),
        ("a.mp3", 44100, 44100),
        ("a.m4a", 192000, 96000),
        ("a.wav", 192000, 192000),
        ("a.flac", 96000, 96000),
    ],
)
def test_the_rate_is_the_nearest_above_that_the_format_carries(
    name: str, asked: int, given: int
) -> None:
    assert resolve(name, sample_rate=asked).sample_rate == given


def test_the_default_bit_rate_follows_channels_and_rate() -> None:
    assert resolve("a.mp3", channels=1).bitrate == 192
    assert resolve("a.mp3", channels=1, sample_rate=8000).bitrate == 64
    assert resolve("a.ogg", channels=1).bitrate == 80
    assert resolve("a.m4a", channels=6).bitrate == 576
    assert resolve("a.m4a", channels=1, sample_rate=8000).bitrate == 48
    assert resolve("a.opus", channels=1, bitrate=32).bitrate == 32


@pytest.mark.parametrize(
    ("name", "options", "says"),
    [
        ("a.xyz", {}, ".xyz"),
        ("a.avi", {}, ".avi"),
        ("a.webm", {"bit_depth": "16"}, "bit depth"),
        ("a.mkv", {"bit_depth": "16", "bitrate": 96}, "bit depth"),
        ("a.wav", {"format": "mp3"}, "wav"),
        ("a", {"format": "aiff"}, "aiff"),
        ("a.flac", {"bit_depth": "32f"}, "32f"),
        ("a.mp3", {"bit_depth": "16"}, "bit depth"),
        ("a.wav", {"bitrate": 192}, "bit rate"),
        ("a.mp3", {"bitrate": 1000}, "320"),
        ("a.mp3", {"bitrate": 192, "sample_rate": 8000}, "64"),
        ("a.opus", {"bitrate": 2}, "12"),
        ("a.mp3", {"channels": 6}, "6 channels"),
        ("a.opus", {"channels": 5}, "5 channels"),
        ("a.flac", {"channels": 9}, "9 channels"),
    ],
)
def test_what_cannot_be_is_refused_with_a_way_out(
    name: str, options: dict[str, Any], says: str
) -> None:
    with pytest.raises(ConfigError, match=says) as caught:
        resolve(name, **options)
    assert caught.value.remedy

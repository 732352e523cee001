from __future__ import annotations

import html.parser
import json
import math
import re
import stat
from base64 import b64decode
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray

from speakup.errors import InputError, OutputError
from speakup.judge import page, spectrogram
from speakup.judge.analysis import Analysis, DeliveryCheck, analyze, delivery_checks
from speakup.judge.page import write_report, write_spectrograms
from speakup.result import duration

RATE = 44_100
Signal = NDArray[np.floating[Any]]


def write(path: Path, samples: Signal, rate: int = RATE, subtype: str = "FLOAT") -> Path:
    soundfile.write(path, samples.T if samples.ndim == 2 else samples, rate, subtype=subtype)
    return path


def noise(seconds: float, rms: float, seed: int = 0, rate: int = RATE) -> Signal:
    return np.random.default_rng(seed).standard_normal(round(seconds * rate)) * rms


def tone(seconds: float, peak: float, hertz: float = 997.0) -> Signal:
    return peak * np.sin(2 * np.pi * hertz * np.arange(round(seconds * RATE)) / RATE)


def bursts(seconds: float, rms: float) -> Signal:
    """Imitate speech's rhythm: noise that comes and goes, silent in half of the time."""
    sound = noise(seconds, 1.0, seed=7)
    sound *= np.sin(np.pi * np.arange(len(sound)) / RATE / 0.4).clip(0, None)
    return sound * rms / np.sqrt(np.mean(sound**2))


def test_a_tone_measures_as_calculated(tmp_path: Path) -> None:
    # BS.1770: a 997 Hz tone at 0 dBFS in one channel reads -3.01 LUFS.
    found = analyze(write(tmp_path / "tone.wav", tone(5.0, 0.1)))
    assert found.integrated_lufs == pytest.approx(-23.01, abs=0.05)
    assert found.true_peak_dbtp == pytest.approx(-20.0, abs=0.1)
    assert found.sample_peak_dbfs == pytest.approx(-20.0, abs=0.01)
    assert found.rms_dbfs == pytest.approx(-23.01, abs=0.01)
    assert found.noise_floor_dbfs == pytest.approx(-23.01, abs=0.05)
    assert found.loudness_range_lu == pytest.approx(0.0, abs=0.05)
    assert (found.seconds, found.sample_rate, found.channels) == (5.0, RATE, 1)
    assert found.clipped_share == 0.0 and found.silent_share == 0.0
    assert found.dnsmos is None and found.warnings == ()


@pytest.mark.parametrize("snr_db", [0, 10, 20, 30])
def test_steady_noise_is_told_within_1_db(tmp_path: Path, snr_db: float) -> None:
    mixed = bursts(6.0, 0.05) + noise(6.0, 0.05 * 10 ** (-snr_db / 20))
    assert analyze(write(tmp_path / "a.wav", mixed)).snr_db == pytest.approx(snr_db, abs=1.0)


def test_silence_has_no_level_and_no_clipping(tmp_path: Path) -> None:
    found = analyze(write(tmp_path / "silence.wav", np.zeros((2, RATE))))
    assert found.integrated_lufs == -math.inf and found.noise_floor_dbfs == -math.inf
    assert math.isnan(found.snr_db)
    assert found.silent_share == 1.0 and found.clipped_share == 0.0
    text = json.dumps(found.to_json(), allow_nan=False)
    assert json.loads(text)["integrated_lufs"] is None
    assert dict(found.rows())["Loudness"] == "-∞ LUFS"


def test_half_silence_is_half(tmp_path: Path) -> None:
    sound = np.concatenate([tone(1.0, 0.1), np.zeros(RATE)])
    found = analyze(write(tmp_path / "half.wav", sound))
    assert found.silent_share == pytest.approx(0.5, abs=0.02)


@pytest.mark.parametrize("level", [1.0, 0.4])
def test_clipping_is_found_at_any_level(tmp_path: Path, level: float) -> None:
    sound = noise(2.0, 0.2).cumsum()
    sound -= np.convolve(sound, np.ones(400) / 400, "same")  # smooth, as speech is
    edge = np.quantile(np.abs(sound), 0.97)
    clipped = np.clip(sound, -edge, edge) / edge * level * (1 - 2**-15)
    found = analyze(write(tmp_path / "clipped.wav", clipped, subtype="PCM_16"))
    assert 0.01 < found.clipped_share <= 0.03
    gentle = analyze(write(tmp_path / "whole.wav", sound / np.abs(sound).max() * level * 0.99))
    assert gentle.clipped_share < 1e-4


def test_measuring_is_the_same_in_any_blocks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clipped = np.clip(bursts(2.0, 0.3), -0.5, 0.5)
    path = write(tmp_path / "a.wav", np.stack([clipped, 0.5 * clipped]))
    whole = analyze(path)
    read = page.recording.read_blocks
    monkeypatch.setattr(page.recording, "read_blocks", lambda name, **kw: read(name, 1013, **kw))
    in_blocks = analyze(path)
    assert in_blocks.clipped_share == whole.clipped_share
    assert in_blocks.silent_share == whole.silent_share
    assert in_blocks.snr_db == pytest.approx(whole.snr_db, abs=1e-6)


def test_samples_that_are_no_numbers_do_no_harm(tmp_path: Path) -> None:
    sound = tone(1.0, 0.1)
    sound[1000:1010] = np.nan
    sound[2000] = np.inf
    found = analyze(write(tmp_path / "odd.wav", sound))
    assert found.integrated_lufs == pytest.approx(-23.0, abs=0.2)
    assert math.isfinite(found.snr_db) and math.isfinite(found.silent_share)


def test_listeners_scores_are_predicted_on_request(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lengths: list[int] = []

    def predict(samples: Signal, rate: int) -> dict[str, float]:
        lengths.append(samples.shape[-1])
        return {"ovrl": float(len(lengths)), "sig": 3.0, "bak": 4.0}

    monkeypatch.setattr("speakup.judge.metrics.dnsmos", predict)
    path = write(tmp_path / "a.wav", noise(26.0, 0.1, rate=8000), 8000)
    found = analyze(path, dnsmos=True)
    assert lengths == [80_000, 80_000, 48_000]
    assert found.dnsmos == {"ovrl": 2.0, "sig": 3.0, "bak": 4.0}
    assert dict(found.rows())["DNSMOS overall"] == "2.00"
    lengths.clear()
    analyze(write(tmp_path / "b.wav", noise(12.0, 0.1, rate=8000), 8000), dnsmos=True)
    assert lengths == [80_000], "a short rest does not count"


def measured(lufs: float, peak: float, rms: float, floor: float) -> Analysis:
    return Analysis(
        *("a.wav", 60.0, RATE, 1, lufs, 3.0, peak, peak - 0.1, rms, floor),
        *(30.0, 16_000.0, False, 0.0, 0.0),
    )


@pytest.mark.parametrize(
    ("lufs", "peak", "rms", "floor", "passing"),
    [
        (-16.0, -1.0, -17.0, -70.0, {"Apple Podcasts"}),
        (-16.9, -1.5, -17.0, -70.0, {"Apple Podcasts"}),
        (-14.3, -1.0, -15.0, -70.0, {"Spotify"}),
        (-23.4, -6.0, -25.0, -70.0, {"EBU R 128"}),
        (-19.0, -3.0, -20.0, -60.0, {"ACX audiobook"}),
        (-19.0, -3.0, -20.0, -59.0, set()),
        (-19.0, -2.0, -20.0, -70.0, set()),
        (-16.0, -0.5, -17.0, -70.0, set()),
        (-math.inf, -math.inf, -math.inf, -math.inf, set()),
    ],
)
def test_delivery_specifications(
    lufs: float, peak: float, rms: float, floor: float, passing: set[str]
) -> None:
    checks = delivery_checks(measured(lufs, peak, rms, floor))
    assert [one.spec for one in checks] == [
        *("Apple Podcasts", "Spotify", "EBU R 128", "ACX audiobook")
    ]
    assert {one.spec for one in checks if one.passed} == passing


def test_a_failed_check_says_what_is_wanted() -> None:
    apple = delivery_checks(measured(-20.0, -0.2, -21.0, -70.0))[0]
    assert apple == DeliveryCheck(
        *("Apple Podcasts", False),
        "-20.0 LUFS, wanted -17 to -15; -0.2 dBTP, wanted at most -1",
    )


def test_lengths_are_written_as_on_a_clock() -> None:
    assert [duration(s) for s in (0.04, 59.94, 60, 754.6, 3600, 10_801)] == [
        *("0.0 s", "59.9 s", "1:00", "12:35", "1:00:00", "3:00:01")
    ]


def test_a_spectrogram_shows_a_tone_where_it_is() -> None:
    sound = tone(1.0, 0.5, 5000.0)
    sound[RATE // 2 :] = 0.0
    level = spectrogram.spectrogram_db(sound, RATE, width=100, height=210)
    assert level.shape == (210, 100)
    row = int(np.argmax(level[:, 20]))
    assert row == pytest.approx(210 - 5000 / 105, abs=1.5)
    assert level[:, 60].max() < -100
    assert level[row, 20] == pytest.approx(-6.0, abs=6.0)


@pytest.mark.parametrize(("samples", "rate"), [(1, 44_100), (50, 8000), (3000, 192_000)])
def test_a_spectrogram_of_any_length_and_rate_is_filled(samples: int, rate: int) -> None:
    level = spectrogram.spectrogram_db(np.full((2, samples), 0.1), rate, width=64, height=32)
    assert level.shape == (32, 64)
    assert not np.isnan(level).any()
    if rate == 8000:
        assert np.isneginf(level[:20]).all(), "nothing above 4 kHz"


def decoded(png: bytes, path: Path) -> NDArray[np.uint8]:
    path.write_bytes(png)
    with av.open(str(path)) as file:
        return next(file.decode(video=0)).to_ndarray(format="rgb24")


def test_png_keeps_every_pixel(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (33, 70, 3), np.uint8)
    np.testing.assert_array_equal(decoded(spectrogram.png(pixels), tmp_path / "a.png"), pixels)


class _Page(html.parser.HTMLParser):
    """Collects the tags and what they refer to."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.open: list[str] = []
        self.sources: list[str] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag not in ("meta", "link", "img", "input"):
            self.open.append(tag)
        self.sources += [value or "" for name, value in attrs if name in ("src", "href")]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture
def recordings(tmp_path: Path) -> tuple[Path, Path]:
    before = write(tmp_path / "talk <b>&.wav", bursts(2.0, 0.02)[::4], RATE // 4)
    return before, write(tmp_path / "talk_enhanced.wav", np.stack([bursts(2.0, 0.1)] * 2))


def test_the_page_needs_nothing_else(recordings: tuple[Path, Path], tmp_path: Path) -> None:
    write_report(*recordings, tmp_path / "page.html")
    text = (tmp_path / "page.html").read_text(encoding="utf-8")
    page = _Page(text)
    assert page.open == [], "every tag is closed"
    assert page.tags.count("audio") == 2 and page.tags.count("img") == 2
    assert all(source.startswith("data:") for source in page.sources)
    assert not re.search(r"https?://|@import|url\(|\$\w+", text)
    assert "<b>" not in text and "talk &lt;b&gt;&amp;" in text
    for words in ("Bandwidth", "Apple Podcasts", "LUFS", "Made by speakup"):
        assert words in page.text


def test_the_page_plays_both_recordings(recordings: tuple[Path, Path], tmp_path: Path) -> None:
    write_report(*recordings, tmp_path / "page.html")
    text = (tmp_path / "page.html").read_text(encoding="utf-8")
    found = re.findall(r"data:audio/mp4;base64,([\w+/=]+)", text)
    assert len(found) == 2
    for channels, coded in zip((1, 2), found, strict=True):
        (tmp_path / "sound.m4a").write_bytes(b64decode(coded))
        info = page.recording.probe(tmp_path / "sound.m4a")
        assert (info.sample_rate, info.channels) == (44_100, channels)
        assert info.seconds == pytest.approx(2.0, abs=0.1)
    before, after = (float(v) for v in re.findall(r'data-volume="([\d.]+)"', text))
    lufs = [analyze(path).integrated_lufs for path in recordings]
    assert before == 1.0
    assert 20 * math.log10(after) == pytest.approx(lufs[0] - lufs[1], abs=0.01)


def test_the_page_holds_a_beginning_and_measures_the_whole(
    recordings: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(page, "EXCERPT_SECONDS", 1.0)
    write_report(*recordings, tmp_path / "page.html")
    text = _Page((tmp_path / "page.html").read_text(encoding="utf-8")).text
    assert "the first 1.0 s" in text
    assert "2.0 s" in text


def test_silence_and_one_sample_make_a_page_too(tmp_path: Path) -> None:
    silent = write(tmp_path / "a.wav", np.zeros(RATE))
    tiny = write(tmp_path / "b.wav", np.full((6, 1), 0.5))
    write_report(silent, tiny, tmp_path / "page.html")
    text = _Page((tmp_path / "page.html").read_text(encoding="utf-8")).text
    assert "\N{MINUS SIGN}∞ LUFS" in text and "too short to tell" in text


def test_what_cannot_be_read_or_written_is_said(
    recordings: tuple[Path, Path], tmp_path: Path
) -> None:
    with pytest.raises(InputError):
        write_report(tmp_path / "missing.wav", recordings[1], tmp_path / "page.html")
    with pytest.raises(OutputError, match="the folder does not exist"):
        write_report(*recordings, tmp_path / "missing" / "page.html")
    (tmp_path / "folder.html").mkdir()
    with pytest.raises(OutputError):
        write_report(*recordings, tmp_path / "folder.html")
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {*(path.name for path in recordings), "folder.html"}


def test_files_are_readable_as_any_new_file(recordings: tuple[Path, Path], tmp_path: Path) -> None:
    write_report(*recordings, tmp_path / "page.html")
    (tmp_path / "other").write_text("")
    modes = [stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("page.html", "other")]
    assert modes[0] == modes[1]


def test_the_picture_is_lettered(recordings: tuple[Path, Path], tmp_path: Path) -> None:
    pytest.importorskip("PIL")
    write_spectrograms(*recordings, tmp_path / "picture.png")
    pixels = decoded((tmp_path / "picture.png").read_bytes(), tmp_path / "copy.png")
    height, width, _ = pixels.shape
    assert height > 600 and width > 1200
    assert tuple(pixels[0, 0]) == (255, 255, 255)
    assert (pixels[:40, :200] < 100).any(), "its name stands above it"


def test_a_page_that_is_there_is_kept_unless_it_is_to_be_replaced(
    recordings: tuple[Path, Path], tmp_path: Path
) -> None:
    for write, name in ((write_report, "page.html"), (write_spectrograms, "picture.png")):
        place = tmp_path / name
        place.write_text("mine")
        with pytest.raises(OutputError, match="Set `overwrite` to replace it"):
            write(*recordings, place)
        assert place.read_text() == "mine"
        write(*recordings, place, overwrite=True)
        assert b"mine" not in place.read_bytes()[:100]

from __future__ import annotations

import html.parser
import math
import re
import stat
from base64 import b64decode
from pathlib import Path

import av
import numpy as np
import pytest
from numpy.typing import NDArray
from signals import RATE, bursts, noise, tone, write

from speakup.config import Config
from speakup.errors import ConfigError, InputError, OutputError
from speakup.judge import excerpts, spectrogram
from speakup.judge.analysis import analyze
from speakup.judge.page import write_report
from speakup.judge.plot import write_plot, write_spectrograms
from speakup.media import recording
from speakup.result import Result, StageReport, duration


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
        info = recording.probe(tmp_path / "sound.m4a")
        assert (info.sample_rate, info.channels) == (44_100, channels)
        assert info.seconds == pytest.approx(2.0, abs=0.1)
    before, after = (float(v) for v in re.findall(r'data-volume="([\d.]+)"', text))
    lufs = [analyze(path).integrated_lufs for path in recordings]
    assert before == 1.0
    assert 20 * math.log10(after) == pytest.approx(lufs[0] - lufs[1], abs=0.01)


def test_the_page_holds_a_beginning_and_measures_the_whole(
    recordings: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(excerpts, "MOST_SECONDS", 1.0)
    write_report(*recordings, tmp_path / "page.html")
    text = _Page((tmp_path / "page.html").read_text(encoding="utf-8")).text
    assert "0.0 s to 1.0 s of 2.0 s" in text


def text_of(path: Path) -> str:
    return _Page(path.read_text(encoding="utf-8")).text


def test_any_stretch_can_be_heard_and_is_named_on_top(
    recordings: tuple[Path, Path], tmp_path: Path
) -> None:
    write_report(*recordings, tmp_path / "page.html", start=0.5, length=1.0)
    assert "0.5 s to 1.5 s of 2.0 s" in text_of(tmp_path / "page.html")
    for start in (0.0, 0.5):
        whole, part = (
            excerpts.read_excerpts(recordings, *stretch)[1] for stretch in ((), (start, 1.0))
        )
        first = round(start * RATE)
        np.testing.assert_array_equal(part, whole[:, first : first + RATE])
    with pytest.raises(ConfigError, match="starts at 3.0 s, when the recordings have ended"):
        write_report(*recordings, tmp_path / "late.html", start=3.0)


def test_the_verdict_is_that_of_the_target_and_the_others_are_put_away(tmp_path: Path) -> None:
    master = write(tmp_path / "master.wav", tone(5.0, 10 ** (-13.0 / 20)))  # -16 LUFS
    write_report(master, master, tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text("utf-8")
    shown, _, away = page.partition('<details id="others">')
    assert "✓ Ready" in shown and "✗" not in shown.partition("<body")[2]
    assert "Apple Podcasts" not in away.partition("</details>")[0] and "Spotify" in away
    write_report(master, master, tmp_path / "page.html", target="ebu", overwrite=True)
    assert "✗ Not ready for EBU R 128" in text_of(tmp_path / "page.html")
    write_report(master, master, tmp_path / "page.html", target="off", overwrite=True)
    assert "eady for" not in text_of(tmp_path / "page.html")


def test_levels_are_compared_at_equal_loudness(tmp_path: Path) -> None:
    sound = bursts(4.0, 0.02) + noise(4.0, 0.001)
    quiet = write(tmp_path / "a.wav", sound)
    loud = write(tmp_path / "b.wav", 4.0 * sound)
    write_report(quiet, loud, tmp_path / "page.html")
    row = re.search(
        r"below the speech</th><td>(.*?)</td><td>(.*?)</td>",
        (tmp_path / "page.html").read_text("utf-8"),
    )
    assert row and row[1] == row[2], "making it louder is no more noise"


def test_recordings_that_do_not_belong_together_get_a_warning(tmp_path: Path) -> None:
    voice = bursts(6.0, 0.05)
    before = write(tmp_path / "a.wav", voice + noise(6.0, 0.05, seed=1))
    same = write(tmp_path / "b.wav", -0.3 * voice)
    other = np.roll(np.abs(bursts(6.0, 0.05)), RATE // 5) * noise(6.0, 1.0, seed=2)
    pages = {"same": same, "other": write(tmp_path / "c.wav", other)}
    pages["short"] = write(tmp_path / "d.wav", voice[: 4 * RATE])
    for name, after in pages.items():
        write_report(before, after, tmp_path / f"{name}.html")
    assert "belong together" not in text_of(tmp_path / "same.html")
    assert "do not seem to belong together" in text_of(tmp_path / "other.html")
    assert "different lengths, 6.0 s and 4.0 s" in text_of(tmp_path / "short.html")


def test_what_was_done_is_told_where_it_is_known(
    recordings: tuple[Path, Path], tmp_path: Path
) -> None:
    stage = StageReport("denoise", "speakup-denoise-16k", "a1b2c3", 1.5)
    result = Result("a", "b", "ok", stages=(stage,), gain_db=-3.2, warnings=("a <tag> was left",))
    config = Config(loudness="ebu", strength=0.5)
    write_report(*recordings, tmp_path / "page.html", result=result, config=config)
    text = text_of(tmp_path / "page.html")
    for words in (
        "speakup-denoise-16k, a1b2c3 (Apache-2.0)",
        "1.5 s",
        "\N{MINUS SIGN}3.2 dB",
        "strength 0.5, loudness ebu",
        "A <tag> was left.",
    ):
        assert words in text, words
    write_report(*recordings, tmp_path / "page.html", overwrite=True)
    assert "Not known" in text_of(tmp_path / "page.html")


def test_a_page_that_is_there_is_kept_unless_it_is_to_be_replaced(
    recordings: tuple[Path, Path], tmp_path: Path
) -> None:
    pytest.importorskip("PIL")
    for make, name in ((write_report, "page.html"), (write_spectrograms, "picture.png")):
        place = tmp_path / name
        place.write_text("mine")
        with pytest.raises(OutputError, match="Set `overwrite` to replace it"):
            make(*recordings, place)
        assert place.read_text() == "mine"
        make(*recordings, place, overwrite=True)
        assert b"mine" not in place.read_bytes()[:100]


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


def test_the_plot_of_a_recording_is_lettered_and_shows_it(tmp_path: Path) -> None:
    pytest.importorskip("PIL")
    sound = np.concatenate([np.zeros(2 * RATE), tone(2.0, 0.5, 5000.0)])
    write_plot(write(tmp_path / "a.wav", sound), tmp_path / "plot.png")
    pixels = decoded((tmp_path / "plot.png").read_bytes(), tmp_path / "copy.png").astype(int)
    wave, spectrum = pixels[44:344, 84:1284], pixels[388:688, 84:1284]
    assert (wave[74] > 200).all(), "half full scale is the highest"
    assert (wave[80, 700:] < 100).all() and (wave[80, :500] > 200).all()
    row = round(300 * (1 - 5000 / spectrogram.TOP_HZ))
    assert spectrum[row, 900].sum() > 500 and spectrum[row, 300].sum() < 50
    with pytest.raises(OutputError, match="there already"):
        write_plot(tmp_path / "a.wav", tmp_path / "plot.png")

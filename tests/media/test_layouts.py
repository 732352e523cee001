"""Which speaker a channel feeds is kept where the format can say it, and named where it cannot."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from sounds import loudest_hertz, read, tones

from speakup.config import Config
from speakup.measure.loudness import LoudnessMeter
from speakup.media.recording import probe
from speakup.pipeline import Pipeline

HZ = 48000
LAYOUTS = {"2.1": 3, "3.0(back)": 3, "3.1": 4, "4.0": 4, "4.1": 5, "5.0(side)": 5, "5.1(side)": 6,
           "6.0": 6, "6.1(back)": 7, "7.0": 7, "7.1(wide)": 8}  # fmt: skip


def write(path: Path, layout: str, waveform: np.ndarray, codec: str = "flac") -> None:
    with av.open(str(path), "w") as container:
        sound = container.add_stream(codec, rate=HZ)
        sound.layout = layout
        flat = np.ascontiguousarray(waveform.T).reshape(1, -1)
        if codec == "flac":
            sound.format = "s32"
            flat, kind = np.int32(flat * (2**31 - 1)), "s32"
        else:
            kind = "flt"
        frame = av.AudioFrame.from_ndarray(flat, format=kind, layout=layout)
        frame.sample_rate, frame.time_base, frame.pts = HZ, Fraction(1, HZ), 0
        container.mux(sound.encode(frame))
        container.mux(sound.encode(None))


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(("source", "target"), [("a.flac", "b.wav"), ("a.mka", "b.flac")])
def test_the_speakers_stay(tmp_path: Path, source: str, target: str, layout: str) -> None:
    waveform = tones(LAYOUTS[layout], HZ, HZ)
    write(tmp_path / source, layout, waveform)
    assert probe(tmp_path / source).layout == layout
    result = Pipeline(Config(denoise=False, upsample="off")).run(
        tmp_path / source, tmp_path / target
    )
    assert probe(tmp_path / target).layout == layout
    assert loudest_hertz(read(tmp_path / target)) == loudest_hertz(waveform, HZ)
    assert not [warning for warning in result.warnings if "speakers" in warning]


@pytest.mark.parametrize(("layout", "becomes"), [("2.1", "3.0"), ("4.1", "5.0")])
@pytest.mark.parametrize("extension", ["m4a", "ogg"])
def test_what_a_format_cannot_say_is_said(
    tmp_path: Path, layout: str, becomes: str, extension: str
) -> None:
    write(tmp_path / "a.flac", layout, tones(LAYOUTS[layout], HZ, HZ))
    result = Pipeline(Config(denoise=False, upsample="off")).run(
        tmp_path / "a.flac", tmp_path / f"b.{extension}"
    )
    said = f"speakers: {layout} becomes {becomes}, as {extension} cannot say {layout}"
    assert said in result.warnings


def test_loudness_goes_by_the_speakers() -> None:
    """ITU-R BS.1770-5: the LFE counts nothing, what is at the side 1.5 dB more."""
    silent = np.zeros((5, 4 * HZ), np.float32)
    tone = tones(1, 4 * HZ, HZ)

    def lufs(speakers: tuple[str, ...], channel: int) -> float:
        block = silent[: len(speakers)].copy()
        block[channel] = tone
        meter = LoudnessMeter(HZ, len(speakers), speakers)
        meter.push(block)
        return meter.integrated_lufs()

    assert lufs(("FL", "FR", "LFE"), 2) == -np.inf
    front = lufs(("FL", "FR", "LFE"), 0)
    assert lufs(("FL", "FR", "FC", "LFE", "BC"), 4) == pytest.approx(front, abs=0.01)
    assert lufs(("FL", "FR", "SL", "SR"), 2) == pytest.approx(front + 1.49, abs=0.01)
    assert lufs(("FL", "FR", "BL", "BR"), 3) == pytest.approx(front + 1.49, abs=0.01)

"""A mix to mono that loses the voice is noticed, and nothing else is."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray

from speakup.config import Config
from speakup.measure.downmix import DownmixMeter
from speakup.pipeline import Pipeline

RATE = 16_000
MONO = Config(
    denoise=False, upsample="off", loudness="off", sample_rate="keep", channels="mono", device="cpu"
)


def voice(seconds: float = 6.0) -> NDArray[np.float32]:
    """Give something that comes and goes, as speech does."""
    random = np.random.default_rng(1)
    time = np.arange(int(seconds * RATE)) / RATE
    swells = np.clip(np.sin(2 * np.pi * 1.3 * time), 0.0, None)
    return (0.3 * swells * random.standard_normal(len(time))).astype(np.float32)


def hiss(channels: int, samples: int, level: float = 0.003) -> NDArray[np.float32]:
    noise = np.random.default_rng(2).standard_normal((channels, samples))
    return (level * noise).astype(np.float32)


def weights(waveform: NDArray[np.float32]) -> list[float] | None:
    meter = DownmixMeter(RATE)
    for start in range(0, waveform.shape[1], 10_007):
        list(meter.watched([waveform[:, start : start + 10_007]]))
    mix = meter.mix()
    return None if mix is None else np.round(mix.weights, 3).tolist()


def test_what_does_not_cancel_is_mixed_as_ever() -> None:
    one, other = voice(), np.roll(voice(), 3 * RATE)
    late = np.roll(one, 40)
    for channels in ([one, one], [one, other], [one, late], [one, 0 * one], [one, -0.2 * one]):
        assert weights(np.stack(channels) + hiss(2, len(one))) is None
    assert weights(np.stack([one])) is None
    assert weights(np.stack([one] + 5 * [0 * one]) + hiss(6, len(one))) is None
    assert weights(np.zeros((2, RATE), np.float32)) is None
    assert weights(np.zeros((2, 0), np.float32)) is None


@pytest.mark.parametrize("level", [0.0, 0.003, 0.03])
def test_a_channel_turned_over_is_turned_back(level: float) -> None:
    one = voice()
    assert weights(np.stack([one, -one]) + hiss(2, len(one), level)) in ([0.5, -0.5], [-0.5, 0.5])
    found = weights(np.stack([one, one, -one, -one]) + hiss(4, len(one), level))
    assert found is not None and abs(sum(found)) < 0.01


def test_where_a_part_cancels_one_channel_is_taken() -> None:
    one = voice()
    turned = np.where(np.arange(len(one)) < len(one) // 2, one, -one)
    assert weights(np.stack([one, 0.9 * turned])) == [1.0, 0.0]


@pytest.mark.parametrize("door", ["run", "process", "stream"])
def test_the_voice_of_reversed_stereo_comes_through(door: str, tmp_path: Path) -> None:
    sound = np.stack([voice(), -voice()]) + hiss(2, len(voice()))
    pipeline = Pipeline(MONO)
    if door == "run":
        soundfile.write(tmp_path / "a.wav", sound.T, RATE, "FLOAT")
        result = pipeline.run(tmp_path / "a.wav", tmp_path / "b.wav")
        assert result.channels == 1
        assert any("the channels cancel each other" in warning for warning in result.warnings)
        mixed = soundfile.read(tmp_path / "b.wav", dtype="float32")[0]
    elif door == "process":
        mixed = pipeline.process(sound, RATE)[0]
    else:
        blocks = np.array_split(sound, 7, axis=1)
        mixed = np.concatenate(list(pipeline.stream(blocks, RATE)), axis=1)[0]
    assert abs(float(np.corrcoef(mixed, voice())[0, 1])) > 0.99
    assert mixed.std() == pytest.approx(voice().std(), rel=0.1)

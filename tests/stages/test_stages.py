"""What each stage does to a recording, and what it must leave alone."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import pytest
import torch
from nets import Gate, Recorded, small_extender, small_mixer
from numpy.typing import NDArray
from sounds import lag, noise

from speakup.measure.delivery import resolve_target
from speakup.measure.loudness import LoudnessMeter
from speakup.networks.compute import Compute
from speakup.networks.contract import SPEECH_LEVEL_DB
from speakup.networks.published.ap_bwe import APBWE
from speakup.networks.published.lavasr import LavaSR
from speakup.networks.resampling import resample
from speakup.stages import neural
from speakup.stages.base import Stage
from speakup.stages.denoise import denoise
from speakup.stages.loudness import Loudness
from speakup.stages.neural import NeuralStage
from speakup.stages.upsample import upsample

Waveform = NDArray[np.float32]
RATE = 44_100
EXACT = Compute("cpu", "fp32")


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the chunks as short as the networks' contexts let them be."""
    monkeypatch.setattr(neural, "_CHUNK_SECONDS", 0.1)


def speech_like(channels: int = 1, seconds: float = 3.0, seed: int = 1) -> Waveform:
    """Give full-band noise that comes and goes four times a second, as syllables do."""
    random = np.random.default_rng(seed)
    time = np.arange(round(seconds * RATE)) / RATE
    level = 0.02 + np.clip(np.sin(2 * np.pi * 4 * time + np.arange(channels)[:, None]), 0, 1) ** 2
    return (0.1 * level * random.standard_normal(level.shape)).astype(np.float32)


def through(stage: Stage, waveform: Waveform, blocks: Iterable[int] = ()) -> Waveform:
    """Push blocks of these lengths, then the rest."""
    edges = np.cumsum(list(blocks))
    parts = [stage.push(block) for block in np.split(waveform, edges, axis=1)]
    return np.concatenate([*parts, *stage.flush()], axis=1)


def denoiser(network: torch.nn.Module, waveform: Waveform, **options: float) -> NeuralStage:
    """Make the stage for a waveform, at the level that the network expects."""
    known: dict[str, Any] = {"channels": len(waveform), "lufs": -25.0, "compute": EXACT}
    return denoise(network, "a-model", "1", **(known | options))


def resolver(network: torch.nn.Module, waveform: Waveform, **options: float) -> NeuralStage:
    """Make the stage for a waveform, at the level that the network expects."""
    known: dict[str, Any] = {"channels": len(waveform), "lufs": -25.0, "compute": EXACT}
    return upsample(network, "a-model", "1", **(known | {"cutoff_hz": 6e3} | options))


def decibels(estimate: Waveform, reference: Waveform) -> float:
    """Give the power of the difference over that of the reference."""
    error = np.square(estimate - reference, dtype=np.float64).sum()
    return float(10.0 * np.log10(error / np.square(reference, dtype=np.float64).sum() + 1e-30))


MAKERS = {"denoise": denoiser, "upsample": resolver}


@pytest.mark.parametrize("task", MAKERS)
class TestNeuralStages:
    def test_the_stage_says_what_it_is(self, task: str) -> None:
        stage = MAKERS[task](Recorded(), speech_like())
        assert (stage.name, stage.model, stage.revision) == (task, "a-model", "1")
        assert stage.input_rate == stage.output_rate == RATE
        assert stage.latency is not None and stage.latency > 0

    @pytest.mark.parametrize("samples", [0, 1, 2, 100, 440, 441, 3_528, 40_000])
    def test_an_identity_network_changes_nothing(self, task: str, samples: int) -> None:
        waveform = speech_like(2)[:, :samples]
        result = through(MAKERS[task](Recorded(), waveform), waveform)
        assert result.shape == waveform.shape
        assert result.dtype == np.float32
        assert np.allclose(result, waveform, atol=1e-6)

    @pytest.mark.usefixtures("small_chunks")
    def test_an_identity_network_changes_nothing_where_chunks_meet(self, task: str) -> None:
        waveform = speech_like(2)
        network = Recorded()
        stage = MAKERS[task](network, waveform)
        assert np.allclose(through(stage, waveform, [1, 50_000]), waveform, atol=1e-6)
        assert len(network.shapes) > 3

    @pytest.mark.usefixtures("small_chunks")
    @pytest.mark.parametrize("seed", [1, 2, 3])
    def test_streamed_is_whole(self, task: str, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
        waveform = speech_like(2, 4.0, seed)
        waveform[:, 70_000:90_000] = 0.0
        waveform[0, 120_300:121_000] = 0.0
        network = small_mixer(seed) if task == "denoise" else small_extender(seed)
        lengths = np.random.default_rng(seed).integers(0, 30_000, 20)
        streamed = through(MAKERS[task](network, waveform), waveform, lengths)
        monkeypatch.setattr(neural, "_CHUNK_SECONDS", 100.0)
        whole = through(MAKERS[task](network, waveform), waveform)
        assert decibels(whole, waveform) > -30.0
        assert decibels(streamed, whole) < -100.0

    @pytest.mark.parametrize("rest", [1, 100, 440, 3_000])
    def test_streamed_is_whole_whatever_is_left_for_the_end(
        self, task: str, rest: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        waveform = speech_like(1, 3.0)
        waveform = waveform[:, : 2 * RATE + rest]
        network = small_mixer() if task == "denoise" else small_extender()
        whole = through(MAKERS[task](network, waveform), waveform)
        monkeypatch.setattr(neural, "_CHUNK_SECONDS", 0.1)
        streamed = through(MAKERS[task](network, waveform), waveform)
        assert decibels(streamed, whole) < -100.0

    def test_digital_silence_stays_silence_whatever_the_network_says(self, task: str) -> None:
        hum = Recorded(lambda waveform: waveform + 0.1)
        waveform = speech_like(2)
        waveform[:, 40_000:60_000] = 0.0
        waveform[1] = 0.0
        result = through(MAKERS[task](hum, waveform), waveform)
        assert not result[:, 40_441:59_559].any()
        assert result[0, 39_000:40_000].mean() > 0.05
        assert not result[1].any()
        assert {batch for batch, _ in hum.shapes} == {1}

    def test_silence_asks_no_network(self, task: str) -> None:
        network = Recorded()
        waveform = np.zeros((2, 100_000), np.float32)
        assert not through(MAKERS[task](network, waveform), waveform).any()
        assert network.shapes == []

    @pytest.mark.usefixtures("small_chunks")
    def test_a_chunk_of_no_numbers_is_left_as_it_was_and_said(self, task: str) -> None:
        calls = 0

        def breaks_once(waveform: torch.Tensor) -> torch.Tensor:
            nonlocal calls
            calls += 1
            return waveform * (math.nan if calls == 2 else 1.0)

        waveform = speech_like(1)
        stage = MAKERS[task](Recorded(breaks_once), waveform)
        assert np.allclose(through(stage, waveform), waveform, atol=1e-6)
        (warning,) = stage.warnings
        assert task in warning and "no numbers" in warning

    def test_the_recording_is_not_changed(self, task: str) -> None:
        waveform = speech_like(1)
        before = waveform.copy()
        network = Recorded(lambda chunk: chunk.mul_(0.5))
        through(MAKERS[task](network, waveform), waveform)
        assert np.array_equal(waveform, before)

    @pytest.mark.parametrize("precision", ["bf16", "fp16"])
    def test_a_shorter_number_format_is_nearly_the_same(
        self, task: str, precision: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        waveform = speech_like(1, 1.0)
        network = small_mixer() if task == "denoise" else small_extender()
        exact = through(MAKERS[task](network, waveform), waveform)
        monkeypatch.setattr(sys.modules[__name__], "EXACT", Compute("cpu", precision))
        result = through(MAKERS[task](network, waveform), waveform)
        assert result.dtype == np.float32
        assert decibels(result, exact) < (-30.0 if task == "denoise" else -10.0)


def test_a_click_stays_in_its_place() -> None:
    click = np.zeros((1, 50_000), np.float32)
    click[0, 20_123] = 0.5
    for network in (Recorded(), small_mixer()):
        result = through(denoiser(network, click), click)
        assert np.abs(result[0]).argmax() == 20_123


@pytest.mark.parametrize("options", [{"strength": 0.0}, {"max_attenuation_db": 0.0}])
def test_nothing_to_do_is_nothing_done(options: dict[str, float]) -> None:
    waveform = speech_like(2, 1.0)
    network = Recorded(lambda chunk: 0.0 * chunk)
    result = through(denoiser(network, waveform, **options), waveform)
    assert np.array_equal(result, waveform)
    assert network.shapes == []


@pytest.mark.parametrize("strength", [0.25, 0.5])
def test_strength_mixes_the_input_in(strength: float) -> None:
    waveform = speech_like(1, 1.0)
    network = small_mixer()
    full = through(denoiser(network, waveform), waveform)
    result = through(denoiser(network, waveform, strength=strength), waveform)
    assert np.allclose(result, (1 - strength) * waveform + strength * full, atol=1e-5)


@pytest.mark.parametrize("limit_db", [6.0, 20.0])
def test_nothing_is_attenuated_by_more_than_the_limit(limit_db: float) -> None:
    waveform = speech_like(1, 1.0)
    mute = Recorded(lambda chunk: 0.0 * chunk)
    result = through(denoiser(mute, waveform, max_attenuation_db=limit_db), waveform)
    assert np.allclose(result, waveform * 10 ** (-limit_db / 20), atol=1e-5)
    gone = through(denoiser(mute, waveform), waveform)
    assert np.abs(gone).max() < 1e-6


@pytest.mark.parametrize("task", MAKERS)
@pytest.mark.parametrize("lufs", [-60.0, -25.0, -5.0])
def test_networks_hear_speech_at_their_level(task: str, lufs: float) -> None:
    waveform = noise(1, RATE)
    meter = LoudnessMeter(RATE, 1)
    meter.push(waveform)
    waveform *= np.float32(10 ** ((lufs - meter.integrated_lufs()) / 20))
    levels: list[float] = []

    def listen(chunk: torch.Tensor) -> torch.Tensor:
        heard = LoudnessMeter(16_000 if task == "denoise" else RATE, 1)
        heard.push(chunk.numpy())
        levels.append(heard.integrated_lufs())
        return chunk

    stage = MAKERS[task](Recorded(listen), waveform, lufs=lufs)
    assert np.allclose(through(stage, waveform), waveform, atol=1e-5)
    assert levels == [pytest.approx(SPEECH_LEVEL_DB, abs=0.5)]


def test_a_level_that_cannot_be_measured_is_left() -> None:
    waveform = speech_like(1, 0.1)
    network = Recorded()
    stage = denoise(network, "", "", channels=1, lufs=-math.inf, compute=EXACT)
    assert np.allclose(through(stage, waveform), waveform, atol=1e-6)


def band_level(waveform: Waveform, low_hz: float, high_hz: float, part: slice) -> float:
    spectrum = np.fft.rfft(waveform[0, part] * np.hanning(part.stop - part.start))
    hertz = np.fft.rfftfreq(part.stop - part.start, 1 / RATE)
    chosen = (hertz > low_hz) & (hertz < high_hz)
    return float(10 * np.log10(np.square(np.abs(spectrum[chosen])).mean()))


def test_what_lies_above_the_denoisers_band_follows_its_gain() -> None:
    """Noise that the denoiser turns down by 20 dB from 1 s on goes down above 8 kHz as well."""
    waveform = (0.1 * np.random.default_rng(1).standard_normal((1, 2 * RATE))).astype(np.float32)

    def half(chunk: torch.Tensor) -> torch.Tensor:
        gain = torch.ones(chunk.shape[1])
        gain[16_000:] = 0.1
        return chunk * gain

    result = through(denoiser(Recorded(half), waveform), waveform)
    for part, expected in [(slice(5_000, 40_000), 0.0), (slice(48_000, 84_000), -20.0)]:
        for low_hz, high_hz in [(200, 7_000), (9_000, 21_000)]:
            level = band_level(result, low_hz, high_hz, part)
            change = level - band_level(waveform, low_hz, high_hz, part)
            assert change == pytest.approx(expected, abs=0.2)


def test_what_lies_above_is_never_amplified() -> None:
    waveform = speech_like(1, 1.0)
    louder = through(denoiser(Recorded(lambda chunk: 4.0 * chunk), waveform), waveform)
    part = slice(2_000, 42_000)
    low, top = (200, 7_000), (9_000, 21_000)
    gained = band_level(louder, *low, part) - band_level(waveform, *low, part)
    assert gained == pytest.approx(12.0, abs=0.2)
    assert band_level(louder, *top, part) == pytest.approx(
        band_level(waveform, *top, part), abs=0.2
    )


def test_a_top_over_an_empty_band_is_kept() -> None:
    """The whistle has nothing under it that could tell whether it is noise."""
    whistle = 0.3 * np.sin(2 * np.pi * 15_000 * np.arange(RATE) / RATE)[None].astype(np.float32)
    result = through(denoiser(Recorded(), whistle), whistle)
    assert np.allclose(result, whistle, atol=1e-4)


@pytest.mark.usefixtures("small_chunks")
def test_the_top_follows_the_gain_alike_in_every_chunk(monkeypatch: pytest.MonkeyPatch) -> None:
    waveform = speech_like(1, 3.0)
    lengths = [9_999] * 10
    streamed = through(denoiser(Gate(), waveform), waveform, lengths)
    monkeypatch.setattr(neural, "_CHUNK_SECONDS", 100.0)
    whole = through(denoiser(Gate(), waveform), waveform)
    assert decibels(whole, waveform) > -20.0
    assert decibels(streamed, whole) < -100.0


def test_the_upsampler_is_told_the_cutoff() -> None:
    heard: list[list[float]] = []

    class Listener(Recorded):
        def forward(
            self, waveform: torch.Tensor, cutoff_hz: torch.Tensor | None = None
        ) -> torch.Tensor:
            assert cutoff_hz is not None
            heard.append(cutoff_hz.tolist())
            return super().forward(waveform, cutoff_hz)

    waveform = speech_like(2, 1.0)
    through(resolver(Listener(), waveform, cutoff_hz=5_432.0), waveform)
    assert heard == [[5_432.0], [5_432.0]]  # one channel after the other


def test_the_upsampler_fills_the_top_and_keeps_the_rest() -> None:
    spectrum = np.fft.rfft(speech_like(1, 2.0))
    spectrum[:, 2 * 6_000 :] = 0.0
    waveform = np.fft.irfft(spectrum).astype(np.float32)
    result = through(resolver(small_extender(), waveform, cutoff_hz=6_000.0), waveform)
    part = slice(5_000, 80_000)
    top = band_level(result, 7_000, 20_000, part)
    assert top > band_level(waveform, 7_000, 20_000, part) + 60.0
    assert band_level(result - waveform, 100, 5_500, part) < top - 35.0


@pytest.mark.parametrize("seam_at", [30_000, 44_100])
def test_the_upsampler_ends_at_its_ceiling_wherever_chunks_meet(
    monkeypatch: pytest.MonkeyPatch, seam_at: int
) -> None:
    waveform = speech_like(1, 2.0)
    options = {"cutoff_hz": 6_000.0, "ceiling_hz": 12_000.0}
    monkeypatch.setattr(neural, "_CHUNK_SECONDS", seam_at / RATE)
    streamed = through(resolver(small_extender(), waveform, **options), waveform)
    monkeypatch.setattr(neural, "_CHUNK_SECONDS", 100.0)
    whole = through(resolver(small_extender(), waveform, **options), waveform)
    assert decibels(streamed, whole) < -100.0
    part = slice(5_000, 80_000)
    open_top = through(resolver(small_extender(), waveform, cutoff_hz=6_000.0), waveform)
    assert band_level(whole - waveform, 12_500, 20_000, part) < -50.0 + band_level(
        open_top - waveform, 12_500, 20_000, part
    )


def test_loudness_gives_nothing_before_the_end() -> None:
    stage = Loudness(RATE, 2, resolve_target("podcast", None))
    assert stage.latency is None
    assert stage.push(noise(2, 5_000)).shape == (2, 0)
    assert sum(block.shape[1] for block in stage.flush()) == 5_000


@pytest.mark.parametrize(("name", "lufs"), [("podcast", -16.0), ("ebu", -23.0), ("-20", -20.0)])
def test_loudness_reaches_its_target(name: str, lufs: float) -> None:
    waveform = noise(2, 3 * RATE)
    stage = Loudness(RATE, 2, resolve_target(name, None))
    result = through(stage, waveform, [1_000, 70_000])
    meter = LoudnessMeter(RATE, 2)
    meter.push(result)
    assert meter.integrated_lufs() == pytest.approx(lufs, abs=0.2)
    assert meter.true_peak_dbtp() <= -1.0
    assert stage.warnings == []


def test_without_a_target_the_level_stays() -> None:
    waveform = noise(2, RATE)
    stage = Loudness(RATE, 2, None)
    assert np.array_equal(through(stage, waveform, [20_000]), waveform)
    assert stage.gain_db == 0.0


def test_without_a_target_nothing_leaves_full_scale() -> None:
    waveform = 4.0 * noise(1, RATE)
    assert np.abs(waveform).max() > 1.0
    result = through(Loudness(RATE, 1, None), waveform)
    assert np.abs(result).max() <= 1.0
    assert result.shape == waveform.shape


@pytest.mark.parametrize("samples", [0, 1, 100, RATE])
def test_silence_gets_no_gain_and_a_warning(samples: int) -> None:
    silence = np.zeros((2, samples), np.float32)
    stage = Loudness(RATE, 2, resolve_target("podcast", None))
    assert np.array_equal(through(stage, silence), silence)
    assert stage.gain_db == 0.0
    assert "left as it is" in stage.warnings[0]


def test_near_silence_gains_no_more_than_the_cap() -> None:
    waveform = noise(1, 3 * RATE) * np.float32(10 ** (-45 / 20))
    stage = Loudness(RATE, 1, resolve_target("podcast", None))
    result = through(stage, waveform)
    assert stage.gain_db == 30.0
    assert "very quiet" in stage.warnings[0]
    assert np.allclose(result, waveform * 10 ** (30 / 20), rtol=1e-5)


# Super-resolution by networks that work at rates of their own


class Resampled(torch.nn.Module):
    """Give the recording as well as the output's rate can hold it, times a gain."""

    context_samples = 400
    hop_length = 80

    def __init__(self, input_rate: int, output_rate: int, gain: float = 1.0) -> None:
        super().__init__()
        self.input_rate, self.output_rate, self.gain = input_rate, output_rate, gain
        self.heard: list[torch.Tensor] = []

    def forward(self, waveform: torch.Tensor, cutoff_hz: torch.Tensor) -> torch.Tensor:
        self.heard.append(waveform)
        return self.gain * resample(waveform, self.input_rate, self.output_rate)


PUBLISHED: dict[str, Callable[[], torch.nn.Module]] = {
    "lavasr": lambda: seeded(LavaSR, dim=16, intermediate_dim=32, num_layers=2),
    "ap-bwe": lambda: seeded(APBWE, channels=16, layers=2),
}


def seeded(architecture: type[torch.nn.Module], **sizes: int) -> torch.nn.Module:
    torch.manual_seed(0)
    return architecture(**sizes).eval()


def band_limited(cutoff_hz: float, channels: int = 1, seconds: float = 2.0) -> Waveform:
    """Give syllables of noise without anything above a cutoff."""
    spectrum = np.fft.rfft(speech_like(channels, seconds))
    spectrum[:, round(cutoff_hz * seconds) :] = 0.0
    return np.fft.irfft(spectrum).astype(np.float32)


@pytest.mark.parametrize("rates", [(16_000, 48_000), (48_000, 48_000), (24_000, 24_000)])
@pytest.mark.parametrize("samples", [1, 2, 441, 40_001, 90_000])
def test_networks_of_any_rate_keep_the_length(rates: tuple[int, int], samples: int) -> None:
    waveform = band_limited(6_000.0, 2, 3.0)[:, :samples]
    result = through(resolver(Resampled(*rates), waveform), waveform, [1, samples // 2])
    assert result.shape == waveform.shape and result.dtype == np.float32
    assert np.isfinite(result).all()


def test_a_network_hears_the_recording_at_its_own_rate() -> None:
    network = Resampled(16_000, 48_000)
    waveform = noise(1, RATE)
    through(resolver(network, waveform), waveform)
    (heard,) = network.heard
    assert heard.shape == (1, 16_000)
    spectrum = np.abs(np.fft.rfft(heard[0].numpy()))
    original = np.abs(np.fft.rfft(waveform[0]))[: len(spectrum)] * 16_000 / RATE
    assert np.allclose(spectrum[200:3_000], original[200:3_000], atol=0.02 * original.max())


@pytest.mark.usefixtures("small_chunks")
@pytest.mark.parametrize(
    ("rates", "left_db"), [((48_000, 48_000), -55.0), ((32_000, 48_000), -40.0)]
)
@pytest.mark.parametrize("cutoff_hz", [3_400.0, 8_000.0, 11_000.0])
def test_a_network_that_hears_and_gives_all_moves_nothing(
    rates: tuple[int, int], left_db: float, cutoff_hz: float
) -> None:
    """Above the cutoff the result is the network's, through two resamplers and many chunks.

    The edge of the published resampler, at 32 kHz, begins early and softly.
    """
    waveform = band_limited(12_500.0, 2)
    network = Resampled(*rates)
    result = through(resolver(network, waveform, cutoff_hz=cutoff_hz), waveform, [9_999] * 5)
    assert len(network.heard) > 3
    assert decibels(result, waveform) < left_db
    top = np.fft.irfft(np.fft.rfft(waveform) * (np.arange(RATE + 1) > 2 * cutoff_hz + 400))
    assert lag(result, top.astype(np.float32)) == 0


@pytest.mark.parametrize("name", PUBLISHED)
@pytest.mark.parametrize("cutoff_hz", [3_400.0, 7_950.0, 11_000.0])
def test_the_recordings_own_band_is_kept_whatever_the_network_does(
    name: str, cutoff_hz: float
) -> None:
    """The second cutoff is the end of what a 16 kHz network hears, the third lies above it."""
    waveform = band_limited(cutoff_hz, 1, 3.0)
    result = through(resolver(PUBLISHED[name](), waveform, cutoff_hz=cutoff_hz), waveform)
    part = slice(10_000, 120_000)
    low, top = (0.0, cutoff_hz - 30.0), (cutoff_hz + 200.0, 20_000.0)
    own = band_level(waveform, *low, part)
    assert band_level(result - waveform, *low, part) < own - 50.0
    assert band_level(result, *top, part) > band_level(waveform, *top, part) + 40.0


@pytest.mark.parametrize("gain", [0.6, 1.6])
def test_a_network_at_another_level_is_matched_where_it_meets_the_recording(gain: float) -> None:
    waveform = band_limited(19_000.0)
    result = through(resolver(Resampled(48_000, 48_000, gain), waveform), waveform)
    assert decibels(result, waveform) < -45.0


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_networks_streamed_are_whole(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    waveform = band_limited(7_500.0, 1, 3.0)
    waveform[:, 50_000:60_000] = 0.0
    network = PUBLISHED[name]()
    monkeypatch.setattr(neural, "_CHUNK_SECONDS", 0.1)
    lengths = [1, 30_000, 0, 20_011]
    streamed = through(resolver(network, waveform, cutoff_hz=7_500.0), waveform, lengths)
    monkeypatch.setattr(neural, "_CHUNK_SECONDS", 100.0)
    whole = through(resolver(network, waveform, cutoff_hz=7_500.0), waveform)
    assert decibels(whole, waveform) > -30.0
    assert decibels(streamed - waveform, whole - waveform) < -40.0
    assert not streamed[:, 50_441:59_559].any() and not whole[:, 50_441:59_559].any()


@pytest.mark.parametrize("rates", [(16_000, 48_000), (48_000, 48_000)])
def test_a_click_stays_in_its_place_through_the_networks_rates(rates: tuple[int, int]) -> None:
    click = np.zeros((1, 50_000), np.float32)
    click[0, 20_123] = 0.5
    result = through(resolver(Resampled(*rates), click, cutoff_hz=4_000.0), click)
    assert np.abs(result[0]).argmax() == 20_123


@pytest.mark.parametrize("precision", ["bf16", "fp32"])
@pytest.mark.parametrize("name", PUBLISHED)
def test_published_networks_run_in_shorter_numbers(name: str, precision: str) -> None:
    waveform = band_limited(6_000.0, 1, 1.0)
    stage = resolver(PUBLISHED[name](), waveform, compute=Compute("cpu", precision))
    result = through(stage, waveform)
    assert np.isfinite(result).all() and stage.warnings == []
    top = slice(5_000, 40_000)
    assert band_level(result, 8_000, 16_000, top) > band_level(waveform, 8_000, 16_000, top) + 40.0


@pytest.mark.parametrize("context_seconds", [0.6, 3.3])
def test_a_network_that_looks_far_computes_little_twice(context_seconds: float) -> None:
    class Far(Recorded):
        context_samples = round(context_seconds * 16_000)

    network, waveform = Far(), speech_like(seconds=120.0)
    assert through(denoiser(network, waveform), waveform).shape == waveform.shape
    computed = sum(batch * samples for batch, samples in network.shapes) / 16_000
    assert computed < 1.4 * 120.0

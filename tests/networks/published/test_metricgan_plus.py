"""MetricGAN+: its sizes, its lengths, its alignment, and the authors' own outputs."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from chunks import away_db, chunked, voice
from golden import Golden, furthest
from torch import Tensor

from speakup.networks import ARCHITECTURES
from speakup.networks.published.metricgan_plus import MetricGANPlus

SMALL: dict[str, Any] = {"hidden_size": 12, "linear1": [24, 16], "linear2": [16, 257]}
OTHER: dict[str, Any] = {
    "input_size": 161,
    "hidden_size": 10,
    "num_layers": 3,
    "linear1": (20, 8),
    "linear2": (8, 161),
    "hop_length": 80,
}


def small(**changes: Any) -> MetricGANPlus:
    torch.manual_seed(0)
    network = MetricGANPlus(**{**SMALL, **changes}).eval().requires_grad_(False)
    torch.nn.init.uniform_(network.Learnable_sigmoid.slope, 0.5, 2.0)
    return network


def white(batch: int, samples: int) -> Tensor:
    return 0.1 * torch.randn(batch, samples, generator=torch.Generator().manual_seed(1))


def test_it_goes_by_its_name() -> None:
    assert ARCHITECTURES["metricgan-plus"] is MetricGANPlus


def test_the_full_network_has_the_published_number_of_parameters() -> None:
    with torch.device("meta"):
        network = MetricGANPlus()
    assert sum(weight.numel() for weight in network.parameters()) == 1_895_514
    assert len(network.state_dict()) == 21


@pytest.mark.parametrize("changes", [SMALL, OTHER], ids=["small", "other"])
@pytest.mark.parametrize("samples", [1, 2, 255, 256, 257, 3_001])
def test_any_length_comes_out_as_long(changes: dict[str, Any], samples: int) -> None:
    network, waveform = small(**changes), white(2, samples)
    result = network(waveform)
    assert result.shape == waveform.shape
    assert result.isfinite().all()
    assert torch.equal(result, network(waveform))


def test_silence_stays_silent() -> None:
    assert float(small()(torch.zeros(1, 5_000)).abs().max()) < 1e-6


def test_widths_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="twice the hidden_size 200"):
        MetricGANPlus(linear1=[200, 300])


@pytest.mark.parametrize("rest", range(0, 256, 51))
def test_no_click_at_the_end(rest: int) -> None:
    result = small()(white(8, 8_192 + rest))
    usual = float(result[:, 2_000:6_000].abs().max())
    assert float(result[:, -64:].abs().max()) < 1.5 * usual


def test_nothing_is_delayed() -> None:
    waveform = white(1, 16_000)
    spectra = torch.fft.rfft(torch.cat([waveform, small()(waveform)]), 32_768)
    correlation = torch.fft.irfft(spectra[0].conj() * spectra[1])
    assert int(correlation.argmax()) == 0


def test_the_mask_stays_under_its_limit() -> None:
    network = small()
    network.linear2.bias.fill_(100.0)
    mask = network.denoise_spectrum(network.features(network.analyse(white(1, 5_000))))
    assert torch.allclose(mask, torch.tensor(1.2))


def test_signals_of_several_lengths_are_as_they_are_alone() -> None:
    """Frames that do not count leave those that do as they would be without them."""
    network = small()
    feature = network.features(network.analyse(white(2, 5_120)))
    together = network.denoise_spectrum(feature, torch.tensor([21, 9]))
    assert torch.allclose(together[0], network.denoise_spectrum(feature[:1])[0], atol=1e-6)
    assert torch.allclose(together[1, :9], network.denoise_spectrum(feature[1:, :9])[0], atol=1e-6)
    assert not torch.allclose(together[1], network.denoise_spectrum(feature[1:])[0], atol=1e-4)


def test_chunks_are_as_the_whole() -> None:
    """Measured: -130 dB with these weights; trained ones remember longer."""
    network, waveform = small(), voice(8 * 16_000)
    with torch.inference_mode():
        assert away_db(chunked(network, waveform, 5.0), network(waveform)) < -40.0


def test_it_runs_in_float32_where_others_do_not() -> None:
    network, waveform = small(), white(1, 4_000)
    with torch.autocast("cpu", torch.bfloat16):
        surrounded = network(waveform)
    assert torch.equal(surrounded, network(waveform))


class TestAgainstTheAuthors:
    """Reference outputs, at the network's border and as waveforms."""

    @pytest.fixture
    def golden(self) -> Golden:
        return Golden("metricgan-plus")

    @pytest.fixture
    def network(self, golden: Golden) -> MetricGANPlus:
        sizes = {k: v for k, v in golden.facts["hyper_parameters"].items() if k != "note"}
        network = golden.loaded(MetricGANPlus(**sizes))
        assert isinstance(network, MetricGANPlus)
        return network

    def test_the_full_layout_is_the_published_one(self, golden: Golden) -> None:
        golden.check_layout(lambda: MetricGANPlus(**golden.layout["hyper_parameters"]))
        golden.check_layout(MetricGANPlus)

    def test_the_network_is_theirs(self, golden: Golden, network: MetricGANPlus) -> None:
        feature = network.features(network.analyse(golden["wave_in"][None]))
        assert furthest(feature, golden["net_in_log1p_mag"]) < golden.tolerance["net_in_log1p_mag"]
        mask = network.denoise_spectrum(golden["net_in_log1p_mag"])
        assert furthest(mask, golden["net_out_mask"]) < golden.tolerance["net_out_mask"]

    def test_the_waveform_is_theirs(self, golden: Golden, network: MetricGANPlus) -> None:
        waveform, reference = golden["wave_in"][None], golden["wave_out"]
        tolerance = golden.tolerance["wave_out"]
        assert furthest(network.denoise_clip(waveform), reference) < tolerance
        # Theirs ends on one end of a window; frames from there on differ, and what they touch.
        assert away_db(network(waveform)[:, :-4_000], reference[:, :-4_000]) < -60.0

    def test_a_batch_of_several_lengths_is_theirs(
        self, golden: Golden, network: MetricGANPlus
    ) -> None:
        batch = torch.stack([golden["wave_in"], golden["wave_in_2"]])
        share = (golden["wave_in_2"].nonzero().max() + 1) / batch.shape[1]
        result = network.denoise_clip(batch, torch.tensor([1.0, round(float(share), 6)]))
        assert furthest(result, golden["wave_out_batch2"]) < golden.tolerance["wave_out"]

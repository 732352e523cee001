"""DPDFNet: its sizes, its look-ahead, its alignment, and the authors' own outputs."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
import torch
from chunks import away_db, chunked, voice
from golden import Golden, furthest
from torch import Tensor, nn
from torch.nn import functional

from speakup.blocks import db_to_gain
from speakup.networks import ARCHITECTURES
from speakup.networks.published.dpdfnet import DPDFNet, erb_widths
from speakup.networks.resampling import resample

SMALL: dict[str, Any] = {
    "conv_ch": 4,
    "enc_gru_dim": 32,
    "erb_dec_gru_dim": 16,
    "df_dec_gru_dim": 16,
    "dprnn_num_blocks": 1,
}
OTHER: dict[str, Any] = {
    "n_fft": 512,
    "win_length": 0.032,
    "hop_length": 0.016,
    "freq_df": 3_000,
    "conv_ch": 6,
    "conv_kernel": [2, 3],
    "conv_kernel_inp": [2, 5],
    "enc_gru_dim": 8,
    "erb_dec_gru_dim": 24,
    "df_dec_gru_dim": 8,
    "enc_lin_groups": 3,
    "lin_groups": 4,
    "enc_concat": False,
    "emb_num_layers": 1,
    "df_num_layers": 3,
    "df_order": 3,
    "df_lookahead": 0,
    "conv_lookahead": 1,
    "df_pathway_kernel_size_t": 2,
    "min_nb_freqs": 2,
    "dprnn_num_blocks": 0,
}


def small(**changes: Any) -> DPDFNet:
    """Build it with few random weights and statistics, as if trained."""
    torch.manual_seed(0)
    network = DPDFNet(**{**SMALL, **changes}).eval().requires_grad_(False)
    for part in network.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.running_mean.normal_(std=0.1)
            part.running_var.uniform_(0.02, 0.1)  # Small ones make it heed what it is given.
    return network


def white(batch: int, samples: int) -> Tensor:
    return 0.1 * torch.randn(batch, samples, generator=torch.Generator().manual_seed(1))


def test_it_goes_by_its_name() -> None:
    assert ARCHITECTURES["dpdfnet"] is DPDFNet


@pytest.mark.parametrize(
    ("blocks", "parameters", "tensors"),
    [(0, 2_147_323, 403), (2, 2_497_531, 483), (4, 2_847_739, 563), (8, 3_548_155, 723)],
)
def test_the_full_networks_have_the_published_numbers_of_parameters(
    blocks: int, parameters: int, tensors: int
) -> None:
    with torch.device("meta"):
        network = DPDFNet(dprnn_num_blocks=blocks)
    assert sum(weight.numel() for weight in network.parameters()) == parameters
    assert len(network.state_dict()) == tensors


@pytest.mark.parametrize("changes", [{}, OTHER], ids=["small", "other"])
@pytest.mark.parametrize("samples", [1, 2, 159, 160, 161, 3_001])
def test_any_length_comes_out_as_long(changes: dict[str, Any], samples: int) -> None:
    network, waveform = small(**changes), white(2, samples)
    result = network(waveform)
    assert result.shape == waveform.shape
    assert result.isfinite().all()
    assert torch.equal(result, network(waveform))


def test_every_signal_of_a_batch_is_worked_on_alone() -> None:
    network, waveform = small(), white(3, 4_000)
    alone = torch.cat([network(row[None]) for row in waveform])
    assert torch.allclose(network(waveform), alone, atol=1e-6)


def test_silence_stays_silent() -> None:
    assert float(small()(torch.zeros(1, 5_000)).abs().max()) == 0.0


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"conv_width": 3}, "no hyperparameter conv_width"),
        ({"mask_method": "after_df"}, "mask_method can only be 'before_df'"),
        ({"nb_erb": 30}, "multiple of 4"),
        ({"lin_groups": 5}, "5 groups must divide"),
    ],
)
def test_what_no_published_network_has_is_refused(change: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        small(**change)


def test_bands_share_out_the_spectrum() -> None:
    published = [1] * 11 + [2] * 3 + [3] * 3 + [4] * 3
    published += [5, 6, 7, 7, 8, 8, 10, 12, 12, 14, 16, 18]
    assert erb_widths(16_000, 320, 32) == published
    wide = erb_widths(48_000, 960, 32, least=2)
    assert min(wide) == 2
    assert sum(wide) == 481


def test_running_means_begin_where_training_had_them() -> None:
    """Steady levels at those values are as usual from the first frame on."""
    network = small()
    levels = torch.linspace(-60.0, -90.0, 32).expand(1, 20, 32)
    assert torch.allclose(network._running_mean(levels, (-60.0, -90.0)), levels)
    steady = network._running_mean(torch.full((1, 400, 32), -20.0), (-60.0, -90.0))
    assert torch.allclose(steady[0, 0], -20.0 + 0.98 * (levels[0, 0] + 20.0), atol=1e-4)
    assert torch.allclose(steady[0, -1], torch.tensor(-20.0), atol=0.03)


class Always(nn.Module):
    """Stand in for a decoder: gives the same for every frame."""

    def __init__(self, give: Callable[[int], Tensor]) -> None:
        super().__init__()
        self.give = give

    def forward(self, embedding: Tensor, _: object) -> Tensor:
        return self.give(embedding.shape[1])


def test_a_mask_and_a_filter_that_pass_all_are_the_identity() -> None:
    def frame_itself(frames: int) -> Tensor:
        taps = torch.zeros(1, 5, frames, 96, 2)
        taps[:, 2, ..., 0] = 1.0  # Two frames before the newest, which is two ahead.
        return taps

    network = small()
    network.erb_dec = Always(lambda frames: torch.ones(1, frames, 32))
    network.df_dec = Always(frame_itself)
    waveform = white(1, 5_003)
    assert torch.allclose(network(waveform), waveform, atol=1e-6)


def test_nothing_is_delayed() -> None:
    """Above the filtered bins a positive mask alone works on the noise: it stays in place."""
    waveform = white(1, 16_000)
    waveform = waveform - resample(resample(waveform, 16_000, 10_000), 10_000, 16_000)
    bins = torch.fft.rfft(torch.cat([waveform, small()(waveform)]), 32_768)
    correlation = torch.fft.irfft(bins[0].conj() * bins[1])
    assert int(correlation.argmax()) == 0


@pytest.mark.parametrize("changes", [{}, {"df_lookahead": 1, "conv_lookahead": 3}, OTHER])
def test_it_looks_ahead_by_its_frames_alone(changes: dict[str, Any]) -> None:
    network, waveform, place = small(**changes), white(1, 16_000), 12_000
    changed = waveform.clone()
    changed[:, place:] = 0.0
    frames = network.size.conv_lookahead + network.size.df_lookahead
    reach = frames * network.hop_length + network.win_length
    moved = (network(changed) - network(waveform))[0].abs() > 1e-6
    first = int(moved.nonzero()[0])
    assert place - reach <= first < place - reach + 2 * network.hop_length


def test_beyond_the_start_both_forms_are_the_same() -> None:
    network, waveform = small(), voice(10 * 16_000)
    start, end = 5 * 16_000, 10 * 16_000 - 1_600
    streaming, trained = network(waveform), network.denoise_clip(waveform)
    assert away_db(streaming[:, start:end], trained[:, start:end]) < -60.0


def test_chunks_are_as_the_whole() -> None:
    """The running means have settled, and the recurrent layers have forgotten the rest."""
    network, waveform = small(), voice(18 * 16_000)
    with torch.inference_mode():
        assert away_db(chunked(network, waveform, 10.0), network(waveform)) < -40.0


def test_it_runs_in_float32_where_others_do_not() -> None:
    network, waveform = small(), white(1, 4_000)
    with torch.autocast("cpu", torch.bfloat16):
        surrounded = network(waveform)
    assert torch.equal(surrounded, network(waveform))


class TestAgainstTheAuthors:
    """Reference outputs: features, network, and waveforms of the trained and streaming forms."""

    @pytest.fixture
    def golden(self) -> Golden:
        return Golden("dpdfnet")

    @pytest.fixture
    def network(self, golden: Golden) -> DPDFNet:
        sizes = {k: v for k, v in golden.facts["hyper_parameters"].items() if k != "note"}
        network = golden.loaded(DPDFNet(**sizes))
        assert isinstance(network, DPDFNet)
        return network

    def test_the_full_layout_is_the_published_one(self, golden: Golden) -> None:
        golden.check_layout(lambda: DPDFNet(**golden.layout["hyper_parameters"]))
        baseline = json.loads((golden.folder / "keys_baseline.json").read_text(encoding="utf-8"))
        golden.layout = baseline
        golden.check_layout(lambda: DPDFNet(**baseline["hyper_parameters"]))

    def test_bands_and_window_are_theirs(self, golden: Golden, network: DPDFNet) -> None:
        theirs = network.state_dict()
        sizes = {k: v for k, v in golden.facts["hyper_parameters"].items() if k != "note"}
        ours = DPDFNet(**sizes).state_dict()
        for name in ("erb_fb", "erb_inv_fb", "mask.erb_inv_fb", "stft.w", "istft.w_inv"):
            assert torch.allclose(ours[name], theirs[name], atol=1e-6), name

    def test_the_network_is_theirs(self, golden: Golden, network: DPDFNet) -> None:
        tolerance = golden.tolerance
        spectrum = network.analyse(golden["wave_in"][None])
        assert furthest(torch.view_as_real(spectrum), golden["spec"]) < tolerance["features"]
        bands, bins = network.features(spectrum)
        assert furthest(bands[:, None], golden["feat_erb"]) < tolerance["features"]
        assert furthest(torch.view_as_real(bins), golden["feat_spec"]) < tolerance["features"]
        ahead = network.size.conv_lookahead
        estimate = network.estimate(
            *(functional.pad(feature, (0, 0, -ahead, ahead)) for feature in (bands, bins))
        )
        assert furthest(estimate.embedding, golden["emb"]) < tolerance["emb"]
        assert furthest(estimate.snr_db, golden["lsnr"]) < 1e-3
        assert furthest(estimate.mask, golden["erb_mask"]) < tolerance["erb_mask"]
        taps = estimate.filters[:, :, ::4, ::3]
        assert furthest(taps, golden["df_coefs_sub"]) < tolerance["df_coefs_sub"]

    def test_the_waveform_is_theirs(self, golden: Golden, network: DPDFNet) -> None:
        result = network.denoise_clip(golden["wave_in"][None])
        assert furthest(result, golden["wave_out"]) < golden.tolerance["wave_out"]

    def test_the_stream_is_theirs(self, golden: Golden, network: DPDFNet) -> None:
        """All of it but the end, which theirs leaves silent where ours is flushed."""
        waveform, reference = golden["wave_in"], golden["wave_out_package"]
        whole = len(waveform) - 2 * network.hop_length - len(waveform) % network.hop_length
        assert not reference[whole:].any()
        result = network(waveform[None])[0]
        tolerance = golden.tolerance["wave_out_package"]
        assert furthest(result[:whole], reference[:whole]) < tolerance
        assert result[whole:].any()
        floor = db_to_gain(-12.0)
        limited = floor * waveform + (1.0 - floor) * result
        reference = golden["wave_out_package_attn12"]
        assert furthest(limited[:whole], reference[:whole]) < tolerance

    def test_chunks_are_as_the_whole(self, network: DPDFNet) -> None:
        """Measured: -47 dB, where the running means have not settled yet."""
        waveform = voice(18 * 16_000)
        with torch.inference_mode():
            assert away_db(chunked(network, waveform, 10.0), network(waveform)) < -40.0

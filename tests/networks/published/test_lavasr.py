"""LavaSR's enhancer: its shape, its reach, its parts, and the authors' own outputs."""

from __future__ import annotations

import math
from typing import Any

import pytest
import soxr
import torch
from golden import Golden, furthest, snr_db
from torch import Tensor

from speakup.networks import ARCHITECTURES
from speakup.networks.published.lavasr import LavaSR, merge_low_band
from speakup.networks.resampling import resample

SMALL: dict[str, Any] = {"dim": 16, "intermediate_dim": 32, "num_layers": 2}


def small(**changes: Any) -> LavaSR:
    torch.manual_seed(0)
    return LavaSR(**{**SMALL, **changes}).eval().requires_grad_(False)


def white(batch: int, samples: int) -> Tensor:
    return 0.1 * torch.randn(batch, samples, generator=torch.Generator().manual_seed(1))


def run(network: LavaSR, waveform: Tensor) -> Tensor:
    return network(waveform, torch.full((len(waveform),), 8_000.0))


def test_it_goes_by_its_name() -> None:
    assert ARCHITECTURES["lavasr"] is LavaSR
    assert (LavaSR.input_rate, LavaSR.output_rate) == (48_000, 48_000)


def test_the_full_network_has_the_published_number_of_parameters() -> None:
    with torch.device("meta"):
        network = LavaSR()
    assert sum(weight.numel() for weight in network.parameters()) == 13_985_282
    assert len(network.state_dict()) == 83


@pytest.mark.parametrize("padding", ["same", "center"])
@pytest.mark.parametrize("samples", [1, 2, 511, 512, 769, 1_024, 5_000])
def test_any_length_is_kept(samples: int, padding: str) -> None:
    result = run(small(padding=padding), white(2, samples))
    assert result.shape == (2, samples)
    assert result.isfinite().all()


def test_silence_gives_numbers() -> None:
    assert run(small(), torch.zeros(1, 5_000)).isfinite().all()


def test_a_loud_weight_stays_bounded() -> None:
    network = small()
    network.head.out.bias.fill_(50.0)
    result = run(network, white(1, 5_000))
    # 1025 bins of magnitude 1000 at most, and no overlap adds more than it is divided by.
    assert float(result.abs().max()) < 2_000.0


@pytest.mark.parametrize(
    "changes", [{}, {"num_layers": 1, "n_fft": 1024, "hop_length": 256}, {"padding": "center"}]
)
def test_context_is_what_the_output_depends_on(changes: dict[str, Any]) -> None:
    network = small(**changes)
    waveform = white(1, 65_536)
    bent = waveform.clone()
    bent[:, 32_700:32_800] += 0.5
    moved = (run(network, bent) - run(network, waveform)).abs()[0] > 1e-6
    reached = moved.nonzero()
    assert int(reached.min()) >= 32_700 - network.context_samples
    assert int(reached.max()) <= 32_800 + network.context_samples
    assert int(reached.max() - reached.min()) > 0.8 * network.context_samples


def test_parts_are_as_the_whole() -> None:
    network = small()
    waveform = white(1, 96_000)
    hop, context = network.hop_length, network.context_samples
    start, end = 40 * hop, 150 * hop
    whole, part = run(network, waveform), run(network, waveform[:, start:end])
    middle = slice(context, end - start - context)
    assert snr_db(part[:, middle], whole[:, start:end][:, middle]) > 90.0


def test_whole_hops_are_as_the_bare_network() -> None:
    network, waveform = small(), white(1, 20 * 512)
    assert torch.equal(run(network, waveform), network.synthesise(waveform))


def test_shorter_numbers_leave_phases_whole() -> None:
    network = small()
    network.head.out.weight.mul_(30.0)
    waveform = white(1, 48_000)
    with torch.autocast("cpu", torch.bfloat16):
        features = network.feature_extractor(waveform)
        result = network.head(network.backbone(features).float())
    assert features.dtype == result.dtype == torch.float32
    assert furthest(features, network.feature_extractor(waveform)) == 0.0


@pytest.mark.parametrize("seconds", [0.5, 2.0])
def test_the_merge_keeps_the_band_under_its_transition(seconds: float) -> None:
    samples = int(seconds * 48_000)
    time = torch.arange(samples, dtype=torch.float64) / 48_000
    low = torch.sin(2 * math.pi * 1_000 * time).float()[None]
    high = torch.sin(2 * math.pi * 16_000 * time).float()[None]
    merged = merge_low_band(high - 0.5 * low, low, 8_000.0)
    assert snr_db(merged, low + high) > 80.0


def test_an_unknown_padding_is_refused() -> None:
    with pytest.raises(ValueError, match="padding"):
        LavaSR(padding="valid")


@pytest.fixture(scope="module")
def golden() -> Golden:
    return Golden("lavasr-v2")


@pytest.fixture(scope="module")
def network(golden: Golden) -> LavaSR:
    parts = {name: part["init_args"] for name, part in golden.facts["hyper_parameters"].items()}
    backbone = {key: value for key, value in parts["backbone"].items() if key in SMALL}
    network = LavaSR(**parts["feature_extractor"], **backbone)
    assert isinstance(golden.loaded(network), LavaSR)
    return network


class TestPublished:
    def test_layout(self, golden: Golden) -> None:
        golden.check_layout(LavaSR)

    def test_the_formula_gives_the_stored_buffers(self, golden: Golden, network: LavaSR) -> None:
        for name, made in LavaSR(**SMALL).named_buffers():
            assert furthest(made, network.get_buffer(name)) < 1e-6

    def test_parts(self, golden: Golden, network: LavaSR) -> None:
        features = network.feature_extractor(golden["wave_48k"])
        assert furthest(features, golden["features"]) < golden.tolerance["features"]
        hidden = network.backbone(golden["features"])
        assert furthest(hidden, golden["backbone_out"]) < golden.tolerance["backbone_out"]
        waveform = network.synthesise(golden["wave_48k"])
        assert furthest(waveform, golden["head_wave"]) < golden.tolerance["waves"]

    def test_merges(self, golden: Golden) -> None:
        estimate, source = golden["head_wave"], golden["wave_48k"]
        for merged, name in [
            (merge_low_band(estimate, source, 4_000.0, 256), "infer_default_merge"),
            (merge_low_band(estimate, source, 8_000.0), "infer_merge_8000"),
        ]:
            assert furthest(merged, golden[name]) < golden.tolerance["waves"]

    def test_waveform_to_waveform(self, golden: Golden, network: LavaSR) -> None:
        source = golden["wave_in_16k"][None]
        result = network.published(source)[0]
        assert furthest(result, golden["wave_out"]) < golden.tolerance["waves"]
        whole = -(-source.shape[1] // 20_480) * 20_480
        chunks = source.repeat(1, 2)[:, :whole].view(-1, 20_480)
        result = network.published(chunks).flatten()
        assert furthest(result, golden["wave_out_batch"]) < golden.tolerance["waves"]

    def test_from_another_rate(self, golden: Golden, network: LavaSR) -> None:
        full = torch.from_numpy(soxr.resample(golden["wave_in_24k"].numpy(), 24_000, 48_000))[None]
        sinc = {"zero_crossings": 6, "roll_off": 0.99}
        waveform = resample(resample(full, 48_000, 24_000, **sinc), 24_000, 16_000, **sinc)
        assert furthest(waveform, golden["load24_wave_16k"]) < golden.tolerance["waves"]
        result = network.published(waveform, 12_000.0)[0]
        assert furthest(result, golden["load24_wave_out"]) < golden.tolerance["waves"]

    def test_the_end_is_the_only_other_thing(self, golden: Golden, network: LavaSR) -> None:
        """A length that is no multiple of the hop costs upstream its last samples, not us."""
        waveform = golden["wave_48k"]
        result = run(network, waveform)
        assert result.shape == waveform.shape
        same = slice(0, golden["head_wave"].shape[1] - network.context_samples)
        assert furthest(result[:, same], golden["head_wave"][:, same]) < golden.tolerance["waves"]

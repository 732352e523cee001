"""HiFi-GAN's denoising generator: its shape, its reach, its memory, and reference outputs."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from golden import Golden, furthest
from torch import Tensor, nn

from speakup.networks import ARCHITECTURES, hifigan_denoiser
from speakup.networks.hifigan_denoiser import HiFiGANDenoiser

SMALL: dict[str, Any] = {
    "n_stacks": 2,
    "n_layers_per_stack": 4,
    "n_channels_dilated": 8,
    "n_channels_out_1": 16,
    "n_channels_out_2": 8,
    "postnet_layers": 3,
    "postnet_channels": 8,
}


def small(**changes: Any) -> HiFiGANDenoiser:
    torch.manual_seed(0)
    return HiFiGANDenoiser(**{**SMALL, **changes}).eval()


def white(batch: int, samples: int) -> Tensor:
    return 0.1 * torch.randn(batch, samples, generator=torch.Generator().manual_seed(1))


def run(network: nn.Module, waveform: Tensor) -> Tensor:
    with torch.inference_mode():
        return network(waveform)


def test_it_goes_by_its_name() -> None:
    assert ARCHITECTURES["hifi-gan-denoiser"] is HiFiGANDenoiser


def test_the_full_network_has_the_papers_size() -> None:
    with torch.device("meta"):
        network = HiFiGANDenoiser()
    counts = [
        sum(weight.numel() for weight in part.parameters())
        for part in (network.wavenet, network.postnet)
    ]
    assert counts == [4_993_793, 5_088_385]
    assert len(network.state_dict()) == 112
    assert network.context_samples == 2_046 + 2 + 180


@pytest.mark.parametrize("samples", [1, 2, 100, 3_001])
def test_any_length_is_kept(samples: int) -> None:
    result = run(small(), white(2, samples))
    assert result.shape == (2, samples)
    assert float(result.abs().max()) < 1.0


@pytest.mark.parametrize("changes", [{}, {"kernel_size_dilated": 5, "postnet_kernel_size": 9}])
def test_context_is_what_the_output_depends_on(changes: dict[str, Any]) -> None:
    network = small(**changes)
    waveform = white(1, 1_001).requires_grad_()
    network.both(waveform[:, None])[1][0, 0, 500].backward()
    assert waveform.grad is not None
    reached = waveform.grad[0].nonzero()
    assert int(reached.min()) == 500 - network.context_samples
    assert int(reached.max()) == 500 + network.context_samples


def test_parts_make_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    network, waveform = small(), white(2, 2_500)
    whole = run(network, waveform)
    monkeypatch.setattr(hifigan_denoiser, "_PART", 700)
    monkeypatch.setattr(hifigan_denoiser, "_OUTPUT_PART", 90)
    assert furthest(run(network, waveform), whole) < 1e-6


def test_every_weight_learns() -> None:
    network = small()
    network(white(2, 2_000)).square().sum().backward()
    idle = [
        name
        for name, weight in network.named_parameters()
        if weight.grad is None or not weight.grad.any()
    ]
    assert idle == []


def test_shorter_numbers_are_nearly_the_same() -> None:
    network, waveform = small(), white(1, 8_000)
    exact = run(network, waveform)
    with torch.autocast("cpu", torch.bfloat16):
        result = run(network, waveform)
    assert result.dtype == torch.float32
    assert furthest(result, exact) < 0.02 * float(exact.abs().max())


def test_kernels_without_a_middle_are_refused() -> None:
    with pytest.raises(ValueError, match="odd"):
        HiFiGANDenoiser(postnet_kernel_size=30)


@pytest.fixture(scope="module")
def golden() -> Golden:
    return Golden("hifi-gan-denoising")


class TestReference:
    def test_layout(self, golden: Golden) -> None:
        golden.check_layout(HiFiGANDenoiser)

    def test_outputs(self, golden: Golden) -> None:
        facts = golden.facts["hyper_parameters"]
        sizes = {key: value for key, value in facts["wavenet"].items() if value is not None}
        sizes["postnet_layers"] = facts["postnet"]["n_layers"]
        sizes["postnet_channels"] = facts["postnet"]["n_channels"]
        sizes["postnet_kernel_size"] = facts["postnet"]["kernel_size"]
        network = golden.loaded(HiFiGANDenoiser(**sizes))
        assert isinstance(network, HiFiGANDenoiser)
        waveform = golden["wave_in"][None]
        hidden, skip = network.wavenet.stacks.dilation_layers[0](
            network.wavenet.in_conv(waveform[:, None])
        )
        tolerance = golden.tolerance["wavenet_out"]
        assert furthest(hidden[..., ::16], golden["layer0_out_sub"]) < tolerance
        assert furthest(skip[..., ::16], golden["layer0_skip_sub"]) < tolerance
        first, second = network.both(waveform[:, None])
        assert furthest(first, golden["wavenet_out"]) < tolerance
        assert furthest(second, golden["postnet_out"]) < golden.tolerance["postnet_out"]
        result = run(network, waveform)[0]
        assert furthest(result, golden["wave_out"]) < golden.tolerance["postnet_out"]

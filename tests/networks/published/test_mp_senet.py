"""MP-SENet: its sizes, its lengths, its memory, and the authors' own outputs."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from chunks import away_db, chunked, voice
from golden import Golden, furthest
from nets import Recorded
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from speakup.blocks import db_to_gain
from speakup.networks import ARCHITECTURES, spectra
from speakup.networks.compute import Compute
from speakup.networks.contract import SPEECH_LEVEL_DB
from speakup.networks.published.mp_senet import INPUT_LEVEL_DB, MPSENet
from speakup.stages.denoise import denoise

SMALL: dict[str, Any] = {"dense_channel": 4, "num_tsblocks": 1}
OTHER: dict[str, Any] = {
    "dense_channel": 6,
    "num_tsblocks": 2,
    "n_heads": 3,
    "n_fft": 256,
    "hop_size": 64,
    "win_size": 200,
    "compress_factor": 0.5,
    "beta": 1.0,
}


def small(**changes: Any) -> MPSENet:
    torch.manual_seed(0)
    return MPSENet(**{**SMALL, **changes}).eval().requires_grad_(False)


def white(batch: int, samples: int) -> Tensor:
    return 0.05 * torch.randn(batch, samples, generator=torch.Generator().manual_seed(1))


def test_it_goes_by_its_name() -> None:
    assert ARCHITECTURES["mp-senet"] is MPSENet


def test_the_full_network_has_the_published_number_of_parameters() -> None:
    with torch.device("meta"):
        network = MPSENet()
    assert sum(weight.numel() for weight in network.parameters()) == 2_263_372
    assert len(network.state_dict()) == 247


@pytest.mark.parametrize("changes", [{}, OTHER], ids=["small", "other"])
@pytest.mark.parametrize("samples", [1, 2, 399, 400, 401, 3_001])
def test_any_length_comes_out_as_long(changes: dict[str, Any], samples: int) -> None:
    network, waveform = small(**changes), white(2, samples)
    result = network(waveform)
    assert result.shape == waveform.shape
    assert result.isfinite().all()
    assert torch.equal(result, network(waveform))


def test_every_signal_of_a_batch_is_worked_on_alone() -> None:
    """Also where the network itself is given a batch."""
    network, waveform = small(), white(3, 4_000)
    alone = torch.cat([network(row[None]) for row in waveform])
    assert torch.equal(network(waveform), alone)
    together = network._denoise_segment(waveform)
    alone = torch.cat([network._denoise_segment(row[None]) for row in waveform])
    assert torch.allclose(together, alone, atol=1e-5)


def test_silence_stays_nearly_silent() -> None:
    network = small()
    assert float(network(torch.zeros(1, 5_000)).abs().max()) < 1e-4
    assert float(network.denoise_clip(torch.zeros(1, 5_000)).abs().max()) < 1e-2


@pytest.mark.parametrize("change", [{"n_fft": 402}, {"n_heads": 3}, {"win_size": 500}])
def test_sizes_that_do_not_fit_are_refused(change: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="multiple of 4"):
        small(**change)


def test_recordings_come_at_the_level_it_expects() -> None:
    assert INPUT_LEVEL_DB == SPEECH_LEVEL_DB


def test_at_that_level_it_does_what_the_published_package_does() -> None:
    network, waveform = small(), voice(20_000)
    waveform[:, :300] = 0.0  # The phases of a first frame that is not silent hang on rounding.
    waveform *= db_to_gain(INPUT_LEVEL_DB) / spectra.rms(waveform)
    assert furthest(network(waveform), network.denoise_clip(waveform)) < 1e-5


def test_the_published_package_makes_levels_equal() -> None:
    network, waveform = small(), white(1, 5_000)
    louder = network.denoise_clip(8.0 * waveform) / 8.0
    assert torch.allclose(louder, network.denoise_clip(waveform), atol=1e-5)


@pytest.mark.parametrize(
    ("samples", "lengths"),
    [
        (1_999, [1_999]),
        (2_000, [2_000]),
        (2_999, [2_999]),
        (3_000, [2_000, 1_000]),
        (4_999, [2_000, 2_999]),
        (300, [400]),
    ],
)
def test_the_published_package_works_in_segments(samples: int, lengths: list[int]) -> None:
    """The last one takes up to half of one more; each loses what is beyond its whole hops."""
    network, waveform = small(), white(1, samples)
    seen: list[int] = []
    network._denoise_segment = lambda part: seen.append(part.shape[-1]) or part  # type: ignore[method-assign,assignment]
    network.denoise_clip(waveform, segment_size=2_000)
    assert seen == lengths


def test_the_mask_stays_under_its_limit() -> None:
    network = small(beta=1.5)
    network.mask_decoder.mask_conv[-1].bias.fill_(100.0)
    magnitude, phase = network.features(white(1, 2_000))
    louder, _ = network.denoise_spectrum(magnitude, phase)
    assert torch.allclose(louder, 1.5 * magnitude)


@pytest.mark.parametrize("changes", [{}, OTHER], ids=["small", "other"])
def test_the_spectrum_is_undone(changes: dict[str, Any]) -> None:
    network, waveform = small(**changes), white(2, 6_400)
    again = network.synthesise(*network.features(waveform))
    assert torch.allclose(again, waveform, atol=2e-4)


def test_nothing_is_delayed() -> None:
    """With random weights the phases are random, but a burst stays where it is."""
    waveform = torch.zeros(1, 16_000)
    waveform[:, 8_000:8_400] = 4.0 * white(1, 400)
    power = small()(waveform)[0].square()
    centre = float((power * torch.arange(16_000)).sum() / power.sum())
    assert abs(centre - 8_200.0) < 50.0


def test_chunks_are_near_the_whole() -> None:
    """Its instance norms and its attention see all that they are given. Measured: -32 dB."""
    network, waveform = small(), voice(8 * 16_000)
    with torch.inference_mode():
        assert away_db(chunked(network, waveform, 4.0), network(waveform)) < -20.0


class Largest(TorchDispatchMode):
    """Keep the number of values of the largest tensor that any operation gives."""

    values = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for each in result if isinstance(result, tuple | list) else (result,):
            if isinstance(each, Tensor):
                self.values = max(self.values, each.numel())
        return result


def test_memory_grows_with_length_and_not_with_its_square() -> None:
    network = small()
    sizes = []
    for seconds in (1, 2):
        with torch.inference_mode(), Largest() as largest:
            network(white(1, seconds * 16_000))
        sizes.append(largest.values)
    assert sizes[1] < 2.1 * sizes[0]


def test_a_long_file_reaches_it_in_chunks() -> None:
    network = small(n_fft=1_024, hop_size=512, win_size=1_024)
    recorded = Recorded(network)
    recorded.context_samples, recorded.hop_length = network.context_samples, network.hop_length
    stage = denoise(
        recorded, "mp-senet", "", channels=1, lufs=-25.0, compute=Compute("cpu", "fp32")
    )
    minute = np.random.default_rng(1).normal(0.0, 0.05, (1, 60 * 44_100)).astype(np.float32)
    given = 0
    for at in range(0, minute.shape[1], 44_100):
        given += stage.push(minute[:, at : at + 44_100]).shape[1]
    given += sum(block.shape[1] for block in stage.flush())
    assert given == minute.shape[1]
    assert len(recorded.shapes) >= 6
    assert max(samples for _, samples in recorded.shapes) < 13 * 16_000


def test_it_runs_in_float32_where_others_do_not() -> None:
    network, waveform = small(), white(1, 4_000)
    with torch.autocast("cpu", torch.bfloat16):
        surrounded = network(waveform)
    assert torch.equal(surrounded, network(waveform))


def circle(phase: Tensor) -> Tensor:
    """Give phases as points, for which -pi and pi are one."""
    return torch.view_as_real(torch.polar(torch.ones_like(phase), phase))


class TestAgainstTheAuthors:
    """Reference outputs, at the network's border and as waveforms."""

    @pytest.fixture
    def golden(self) -> Golden:
        return Golden("mp-senet")

    @pytest.fixture
    def network(self, golden: Golden) -> MPSENet:
        network = golden.loaded(MPSENet(**golden.facts["hyper_parameters"]))
        assert isinstance(network, MPSENet)
        return network

    def test_the_full_layout_is_the_published_one(self, golden: Golden) -> None:
        golden.check_layout(lambda: MPSENet(**golden.layout["hyper_parameters"]))
        golden.check_layout(MPSENet)

    def test_the_input_is_theirs(self, golden: Golden, network: MPSENet) -> None:
        waveform = golden["wave_in"][None]
        magnitude, phase = network.features(waveform / spectra.rms(waveform))
        assert furthest(magnitude, golden["net_in_mag"]) < golden.tolerance["net_out_mag"]
        # An angle is as good as its magnitude is large.
        error = (circle(phase) - circle(golden["net_in_pha"])).abs() * magnitude[..., None]
        assert float(error.max()) < golden.tolerance["net_out_phase_mod_2pi"]

    def test_the_network_is_theirs(self, golden: Golden, network: MPSENet) -> None:
        magnitude, phase = network.denoise_spectrum(golden["net_in_mag"], golden["net_in_pha"])
        assert furthest(magnitude, golden["net_out_mag"]) < golden.tolerance["net_out_mag"]
        error = furthest(circle(phase), circle(golden["net_out_pha"]))
        assert error < golden.tolerance["net_out_phase_mod_2pi"]

    def test_the_parts_are_theirs(self, golden: Golden, network: MPSENet) -> None:
        planes = torch.stack([golden["net_in_mag"], golden["net_in_pha"]], dim=1)
        maps = network.dense_encoder(planes.transpose(2, 3))
        assert furthest(maps[:, :, ::6, ::4], golden["dense_encoder_out_sub"]) < 1e-4
        block = network.TSTransformer[0]
        along = block.time_transformer(maps[0].permute(1, 2, 0)).transpose(0, 1)
        assert furthest(along[::4, ::6], golden["ts0_time_transformer_out_sub"]) < 1e-4
        assert furthest(block(maps)[:, :, ::6, ::4], golden["ts0_out_sub"]) < 1e-4

    @pytest.mark.parametrize(
        ("given", "wanted", "segment_size"),
        [
            ("wave_in", "wave_out", None),
            ("wave_in", "wave_out_segment4800", 4_800),
            ("wave_in_short", "wave_out_short", None),
        ],
    )
    def test_the_waveform_is_theirs(
        self, golden: Golden, network: MPSENet, given: str, wanted: str, segment_size: int | None
    ) -> None:
        result = network.denoise_clip(golden[given][None], segment_size)[0]
        assert furthest(result, golden[wanted]) < golden.tolerance[wanted]

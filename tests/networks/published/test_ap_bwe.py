"""AP-BWE: its shape, its reach, its parts, and the authors' own outputs."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from golden import Golden, furthest, snr_db
from torch import Tensor

from speakup.networks import ARCHITECTURES
from speakup.networks.published.ap_bwe import APBWE

SMALL: dict[str, Any] = {"channels": 16, "layers": 2}


def small(**changes: Any) -> APBWE:
    torch.manual_seed(0)
    return APBWE(**{**SMALL, **changes}).eval().requires_grad_(False)


def white(batch: int, samples: int) -> Tensor:
    return 0.1 * torch.randn(batch, samples, generator=torch.Generator().manual_seed(1))


def run(network: APBWE, waveform: Tensor) -> Tensor:
    return network(waveform, torch.full((len(waveform),), 8_000.0))


def test_it_goes_by_its_name() -> None:
    assert ARCHITECTURES["ap-bwe"] is APBWE


def test_the_full_network_has_the_published_number_of_parameters() -> None:
    with torch.device("meta"):
        network = APBWE()
    assert sum(weight.numel() for weight in network.parameters()) == 29_760_515
    assert len(network.state_dict()) == 162


@pytest.mark.parametrize(
    ("rates", "hop_length"),
    [((16_000, 48_000), 80), ((24_000, 48_000), 40), ((8_000, 48_000), 40), ((2_000, 16_000), 10)],
)
@pytest.mark.parametrize("samples", [1, 2, 170, 171, 3_000])
def test_any_length_becomes_as_much_longer_as_the_rates_say(
    rates: tuple[int, int], hop_length: int, samples: int
) -> None:
    network = small(input_rate=rates[0], output_rate=rates[1])
    assert network.hop_length == hop_length
    result = run(network, white(2, samples))
    assert result.shape == (2, samples * rates[1] // rates[0])
    assert result.isfinite().all()


def test_silence_gives_numbers() -> None:
    assert run(small(), torch.zeros(1, 5_000)).isfinite().all()


@pytest.mark.parametrize("changes", [{}, {"layers": 4, "hop_size": 120, "win_size": 480}])
def test_context_is_what_the_output_depends_on(changes: dict[str, Any]) -> None:
    network = small(**changes)
    waveform = white(1, 20_000)
    bent = waveform.clone()
    bent[:, 10_000:10_050] += 0.5
    moved = (run(network, bent) - run(network, waveform)).abs()[0] > 1e-5
    reached = moved.nonzero() / 3
    assert float(reached.min()) >= 10_000 - network.context_samples
    assert float(reached.max()) <= 10_050 + network.context_samples
    assert float(reached.max() - reached.min()) > 0.8 * network.context_samples


def test_parts_are_as_the_whole() -> None:
    network = small()
    waveform = white(1, 32_000)
    context, start, end = network.context_samples, 100 * network.hop_length, 24_000
    whole, part = run(network, waveform), run(network, waveform[:, start:end])
    middle = slice(3 * context, 3 * (end - start - context))
    assert snr_db(part[:, middle], whole[:, 3 * start : 3 * end][:, middle]) > 80.0


def test_a_network_that_adds_nothing_keeps_the_amplitudes() -> None:
    network = small()
    torch.nn.init.zeros_(network.linear_post_mag.weight)
    torch.nn.init.zeros_(network.linear_post_mag.bias)
    log_amplitude, phase = network.analyse(white(1, 9_600))
    assert log_amplitude.shape == phase.shape == (1, 513, 121)
    assert torch.equal(network.predict(log_amplitude, phase)[0], log_amplitude)


def test_amplitudes_and_phases_make_the_waveform_again() -> None:
    network, waveform = small(), white(2, 9_650)
    log_amplitude, phase = network.analyse(waveform)
    again = network.synthesise(log_amplitude, phase, waveform.shape[1])
    # The floor of 1e-4 under the logarithm stays in the amplitudes.
    assert snr_db(again, waveform) > 60.0
    assert network.synthesise(log_amplitude, phase).shape == (2, 9_600)


def test_each_stream_hears_the_other() -> None:
    network = small()
    log_amplitude, phase = network.analyse(white(1, 9_600))
    amplitudes, angles = network.predict(log_amplitude, phase)
    other_amplitudes, _ = network.predict(log_amplitude, 0.5 * phase)
    _, other_angles = network.predict(log_amplitude + 1.0, phase)
    assert furthest(amplitudes, other_amplitudes) > 1e-3
    assert furthest(angles, other_angles) > 1e-3


def test_shorter_numbers_come_out_as_long_ones() -> None:
    with torch.autocast("cpu", torch.bfloat16):
        result = run(small(), white(1, 8_000))
    assert result.dtype == torch.float32 and result.isfinite().all()


@pytest.fixture(scope="module")
def golden() -> Golden:
    return Golden("ap-bwe")


@pytest.fixture(scope="module")
def network(golden: Golden) -> APBWE:
    facts = golden.facts["hyper_parameters"]
    network = APBWE(
        channels=facts["ConvNeXt_channels"],
        layers=facts["ConvNeXt_layers"],
        n_fft=facts["n_fft"],
        hop_size=facts["hop_size"],
        win_size=facts["win_size"],
        input_rate=facts["lr_sampling_rate"],
        output_rate=facts["hr_sampling_rate"],
    )
    assert isinstance(golden.loaded(network), APBWE)
    return network


class TestPublished:
    def test_layout(self, golden: Golden) -> None:
        golden.check_layout(APBWE)

    def test_features(self, golden: Golden, network: APBWE) -> None:
        full = network.resample(golden["wave_in_16k"][None])
        assert furthest(full, golden["wave_lr_48k"]) < 1e-6
        log_amplitude, phase = (part[:, :, 20:120] for part in network.analyse(full))
        made = torch.polar(log_amplitude.exp(), phase)
        given = torch.polar(golden["net_in_logmag"].exp(), golden["net_in_pha"])
        assert furthest(made, given) < golden.tolerance["complex_features"]

    def test_network(self, golden: Golden, network: APBWE) -> None:
        log_amplitude, phase = network.predict(golden["net_in_logmag"], golden["net_in_pha"])
        tolerance = golden.tolerance["net_out_logmag"]
        assert furthest(log_amplitude, golden["net_out_logmag"]) < tolerance
        one = torch.ones_like(phase)
        turned, given = torch.polar(one, phase), torch.polar(one, golden["net_out_pha"])
        assert furthest(turned, given) < tolerance
        waveform = network.synthesise(log_amplitude, phase)
        assert furthest(waveform, golden["net_to_wave"]) < golden.tolerance["net_to_wave"]

    def test_waveform_to_waveform(self, golden: Golden, network: APBWE) -> None:
        reference = golden["wave_out"][:, 2_400:]
        result = run(network, golden["wave_in_16k"][None])[:, 2_400 : golden["wave_out"].shape[1]]
        assert snr_db(result, reference) > golden.tolerance["wave_out_min_snr_db_from_2400"]

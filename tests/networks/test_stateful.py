"""Streams through networks that remember: the same output however the stream is cut."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from speakup.networks.stateful import StatefulStream

HOP = 10
LATENCY = 30
Block = NDArray[np.float32]


def delayed(waveform: Tensor, state: Tensor) -> Tensor:
    """Halve the signal, late by LATENCY; the state holds what has not come out, and a sum."""
    both = torch.cat([state[:, :LATENCY], waveform], dim=1)
    total = state[:, LATENCY:] + waveform.abs().sum(1, keepdim=True)
    return torch.cat([0.5 * both[:, :-LATENCY], both[:, -LATENCY:], total], dim=1)


def stream(
    network: Callable[[Tensor, Tensor], Tensor] = delayed,
    *,
    channels: int = 2,
    block: int = 70,
    margin: int | None = None,
    quiet_power: float = 1e-7,
    warm_up: bool = False,
) -> StatefulStream:
    return StatefulStream(
        network,
        torch.zeros(channels, LATENCY + 1),
        hop=HOP,
        latency=LATENCY,
        block=block,
        margin=margin,
        quiet_power=quiet_power,
        warm_up=warm_up,
    )


def sent(model: StatefulStream, waveform: Block, step: int) -> tuple[Block, Block]:
    parts = [model.push(waveform[:, at : at + step]) for at in range(0, waveform.shape[1], step)]
    parts.append(model.flush())
    dry, wet = zip(*parts, strict=True)
    return np.concatenate(dry, axis=1), np.concatenate(wet, axis=1)


def white(samples: int, channels: int = 2) -> Block:
    return np.random.default_rng(3).standard_normal((channels, samples)).astype(np.float32)


@pytest.mark.parametrize("samples", [1, 9, 10, 29, 70, 71, 100, 345, 700])
@pytest.mark.parametrize("step", [1, 13, 70, 1000])
@pytest.mark.parametrize("margin", [None, 40])
def test_the_output_has_the_inputs_length_and_no_delay(
    samples: int, step: int, margin: int | None
) -> None:
    waveform = white(samples)
    dry, wet = sent(stream(margin=margin), waveform, step)
    assert np.array_equal(dry, waveform)
    assert np.array_equal(wet, 0.5 * waveform)


def test_it_holds_back_no_more_than_it_says() -> None:
    model, waveform, given = stream(margin=40), white(1000), 0
    for at in range(0, 1000, 7):
        block = waveform[:, at : at + 7]
        given += model.push(block)[1].shape[1]
        assert at + block.shape[1] - given <= model.latency


def test_nothing_in_gives_nothing_out() -> None:
    dry, wet = stream().flush()
    assert dry.shape == wet.shape == (2, 0)


def test_the_network_hears_every_sample_once() -> None:
    heard: list[Tensor] = []

    def listens(waveform: Tensor, state: Tensor) -> Tensor:
        heard.append(waveform.clone())
        return delayed(waveform, state)

    waveform = white(500)
    sent(stream(listens), waveform, 33)
    assert np.array_equal(torch.cat(heard, dim=1)[:, :500].numpy(), waveform)


class TestSilence:
    def quiet(self, before: int, silence: int, after: int, floor: float = 0.0) -> Block:
        waveform = white(before + silence + after)
        waveform[:, before : before + silence] *= floor
        return waveform

    def heard(self, waveform: Block, margin: int | None, step: int = 55) -> int:
        hops = 0

        def listens(block: Tensor, state: Tensor) -> Tensor:
            nonlocal hops
            hops += block.shape[1] // HOP
            return delayed(block, state)

        dry, wet = sent(stream(listens, margin=margin), waveform, step)
        assert np.array_equal(dry, waveform)
        voiced = np.abs(waveform) > 1e-3
        assert np.array_equal(wet[voiced], 0.5 * waveform[voiced])
        return hops - LATENCY // HOP

    @pytest.mark.parametrize("floor", [0.0, 1e-5])
    @pytest.mark.parametrize("step", [7, 55, 5000])
    def test_of_a_long_one_only_the_ends_are_heard(self, floor: float, step: int) -> None:
        waveform = self.quiet(200, 1000, 300, floor)
        assert self.heard(waveform, 40, step) == (200 + 2 * 40 + 300) // HOP

    def test_at_the_ends_of_the_recording_only_what_touches_the_voice(self) -> None:
        waveform = self.quiet(0, 1000, 200)
        assert self.heard(waveform, 40) == (40 + 200) // HOP
        assert self.heard(np.ascontiguousarray(waveform[:, ::-1]), 40) == (40 + 200) // HOP

    def test_a_short_one_is_heard_whole(self) -> None:
        assert self.heard(self.quiet(200, 80, 300), 40) == 580 // HOP

    def test_what_is_louder_than_silence_is_heard(self) -> None:
        assert self.heard(self.quiet(200, 1000, 300, 1e-3), 40) == 1500 // HOP

    def test_without_a_margin_all_is_heard(self) -> None:
        assert self.heard(self.quiet(200, 1000, 300), None) == 1500 // HOP

    def test_one_channel_that_speaks_is_enough(self) -> None:
        waveform = self.quiet(200, 1000, 300)
        waveform[1] = white(1500)[1]
        assert self.heard(waveform, 40) == 1500 // HOP

    def test_digital_silence_stays(self) -> None:
        def hisses(waveform: Tensor, state: Tensor) -> Tensor:
            joined = delayed(waveform, state)
            joined[:, : waveform.shape[1]] += 0.01
            return joined

        waveform = white(600)
        waveform[0, 200:400] = 0.0
        _, wet = sent(stream(hisses), waveform, 44)
        assert not wet[0, 210:390].any()
        assert wet[0, :200].all() and wet[0, 400:].all() and wet[1].all()

    def test_silence_alone_stays(self) -> None:
        for margin in (None, 40):
            _, wet = sent(stream(margin=margin), np.zeros((2, 333), np.float32), 50)
            assert wet.shape == (2, 333) and not wet.any()


def test_what_is_no_number_passes_as_it_was_and_is_forgotten() -> None:
    def breaks(waveform: Tensor, state: Tensor) -> Tensor:
        """Give no number for a row that holds a sample over 100, ever after."""
        broken = (waveform.abs() > 100.0).any(1, keepdim=True) | state[:, -1:].isnan()
        return torch.where(broken, torch.nan, delayed(waveform, state))

    waveform = white(700)
    waveform[0, 300] = 1000.0
    model = stream(breaks)
    _, wet = sent(model, waveform, 50)
    assert model.fallbacks == 1
    assert np.isfinite(wet).all()
    assert np.array_equal(wet[1], 0.5 * waveform[1])
    # The 70 samples of the block pass, 30 earlier by the delay; then the channel starts anew.
    assert np.array_equal(wet[0, 250:320], waveform[0, 250:320])
    assert np.array_equal(wet[0, 350:], 0.5 * waveform[0, 350:])


def test_channels_go_through_the_network_as_one_batch() -> None:
    rows: list[int] = []

    def listens(waveform: Tensor, state: Tensor) -> Tensor:
        rows.append(len(waveform))
        return delayed(waveform, state)

    sent(stream(listens, channels=5), white(200, 5), 50)
    assert set(rows) == {5}


def test_a_recurrence_is_the_same_in_one_piece_and_in_many() -> None:
    """A leaky sum, whose state is all of its past."""
    decay = 0.9

    def leaks(waveform: Tensor, state: Tensor) -> Tensor:
        values = []
        level = state[:, :1]
        for sample in waveform.unbind(1):
            level = decay * level + sample[:, None]
            values.append(level)
        late = torch.cat([state[:, 1:], torch.cat(values, dim=1)], dim=1)
        return torch.cat([late[:, :-LATENCY], level, late[:, -LATENCY:]], dim=1)

    waveform = white(400)
    _, whole = sent(stream(leaks, block=10_000), waveform, 400)
    _, pieces = sent(stream(leaks, block=10), waveform, 3)
    assert np.array_equal(whole, pieces)
    _, response = sent(stream(leaks), np.ones((2, 400), np.float32), 90)
    expected = (1.0 - decay ** (np.arange(400.0) + 1.0)) / (1.0 - decay)
    assert np.allclose(response, expected, atol=1e-4)


def test_rows_shorter_than_a_hop_are_filled_up_for_the_network_alone() -> None:
    shapes: list[int] = []

    def listens(waveform: Tensor, state: Tensor) -> Tensor:
        shapes.append(waveform.shape[1])
        late = functional.pad(waveform, (LATENCY, 0))[:, : waveform.shape[1]]
        return torch.cat([late, state], dim=1)

    _, wet = sent(stream(listens), white(7), 7)
    assert wet.shape == (2, 7) and all(length % HOP == 0 for length in shapes)


def test_a_warm_up_lets_the_network_hear_the_first_block_once_before() -> None:
    """A running peak, known from the first sample on."""

    def follows(waveform: Tensor, state: Tensor) -> Tensor:
        peak = torch.maximum(state[:, :1], waveform.abs().amax(1, keepdim=True))
        both = torch.cat([state[:, 1:], waveform / peak], dim=1)
        return torch.cat([both[:, :-LATENCY], peak, both[:, -LATENCY:]], dim=1)

    waveform = white(300)
    waveform[:, :70] *= 0.5
    waveform[:, 60] = 9.0
    _, cold = sent(stream(follows, block=50), waveform, 300)
    _, warm = sent(stream(follows, block=70, warm_up=True), waveform, 33)
    assert np.allclose(warm, waveform / 9.0, atol=1e-6)
    assert not np.allclose(cold[:, :50], waveform[:, :50] / 9.0, atol=1e-2)

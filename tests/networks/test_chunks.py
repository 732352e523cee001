"""What streams promise: as if the whole signal had been there at once, sample by sample."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch
from nets import small_extender, small_mixer
from numpy.typing import NDArray
from torch import Tensor

from speakup.networks.chunks import ChunkedModel
from speakup.stages.flow import Resampler, ahead, resampled_length

Waveform = NDArray[np.float32]
RATES = [8_000, 11_025, 16_000, 22_050, 44_100, 48_000, 96_000, 192_000]


def white(channels: int, samples: int, seed: int = 1) -> Waveform:
    return np.random.default_rng(seed).normal(0.0, 0.1, (channels, samples)).astype(np.float32)


def cut(waveform: Waveform, seed: int, most: int) -> Iterator[Waveform]:
    """Cut into blocks of random lengths, empty ones among them."""
    random = np.random.default_rng(seed)
    start = 0
    while start < waveform.shape[1]:
        length = int(random.integers(0, most))
        yield waveform[:, start : start + length]
        start += length


def streamed(stream: ChunkedModel | Resampler, blocks: Iterator[Waveform]) -> Waveform:
    return np.concatenate([*[stream.push(block) for block in blocks], stream.flush()], axis=1)


def difference_db(estimate: Waveform, reference: Waveform) -> float:
    error = np.square(estimate - reference, dtype=np.float64).sum()
    return float(10.0 * np.log10(error / np.square(reference, dtype=np.float64).sum() + 1e-30))


@pytest.mark.parametrize("samples", [0, 1, 2, 999, 3_071, 3_072, 3_073, 4_096, 10_007, 20_000])
@pytest.mark.parametrize(("context", "grid"), [(0, 1), (100, 1), (300, 256), (1_000, 441)])
def test_the_identity_comes_back_bit_for_bit(context: int, grid: int, samples: int) -> None:
    waveform = white(2, samples)
    chunks = ChunkedModel(lambda chunk: chunk, channels=2, chunk=3_000, context=context, grid=grid)
    assert np.array_equal(streamed(chunks, cut(waveform, samples, 2_500)), waveform)


def test_chunks_start_on_the_grid_and_the_last_is_longer_than_the_overlap() -> None:
    lengths: list[int] = []

    def function(chunk: Tensor) -> Tensor:
        lengths.append(chunk.shape[1])
        return chunk

    for samples in range(20_000, 26_000, 250):
        lengths.clear()
        chunks = ChunkedModel(function, channels=1, chunk=8_000, context=500, grid=256)
        assert chunks.chunk % 256 == chunks.hop % 256 == 0
        streamed(chunks, cut(white(1, samples), 0, 5_000))
        assert set(lengths[:-1]) <= {chunks.chunk}
        assert 2 * 500 < lengths[-1] <= chunks.latency
        assert (len(lengths) - 1) * chunks.hop + lengths[-1] == samples


def test_push_holds_back_no_more_than_the_latency() -> None:
    chunks = ChunkedModel(lambda chunk: chunk, channels=1, chunk=6_000, context=500)
    taken = given = held = 0
    for block in cut(white(1, 50_000), 3, 50):
        taken += block.shape[1]
        given += chunks.push(block).shape[1]
        held = max(held, taken - given)
    assert chunks.latency - 50 < held <= chunks.latency


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_function_of_its_context_is_the_same_in_chunks(seed: int) -> None:
    kernel = torch.from_numpy(white(1, 2 * 700 + 1, seed))[None]

    def smear(chunk: Tensor) -> Tensor:
        return torch.nn.functional.conv1d(chunk[:, None], kernel, padding=700)[:, 0]

    waveform = white(3, 30_011)
    chunks = ChunkedModel(smear, channels=3, chunk=5_000, context=700)
    whole = smear(torch.from_numpy(waveform)).numpy()
    assert difference_db(streamed(chunks, cut(waveform, seed, 4_000)), whole) < -120.0


@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize(
    "network",
    [small_mixer(), small_mixer(dilations=[1, 2, 4, 8, 4, 2]), small_extender()],
    ids=["mixer", "wide mixer", "extender"],
)
def test_the_networks_are_the_same_in_chunks(network: torch.nn.Module, seed: int) -> None:
    def function(chunk: Tensor) -> Tensor:
        with torch.inference_mode():
            if hasattr(network, "frequencies"):
                return network(chunk, torch.full((len(chunk),), 6_000.0))
            return network(chunk)

    waveform = white(2, 60_013, seed)
    chunks = ChunkedModel(
        function,
        channels=2,
        chunk=0,  # the least there can be
        context=network.context_samples,
        grid=network.hop_length,
    )
    assert chunks.hop < 40_000
    whole = function(torch.from_numpy(waveform)).numpy()
    assert difference_db(whole, waveform) > -20.0
    assert difference_db(streamed(chunks, cut(waveform, seed, 20_000)), whole) < -100.0


def test_a_silent_channel_is_not_computed_and_stays_silent() -> None:
    shapes: list[tuple[int, ...]] = []

    def one_more(chunk: Tensor) -> Tensor:
        shapes.append(tuple(chunk.shape))
        return chunk + 1.0

    waveform = white(3, 9_000)
    waveform[1] = 0.0
    chunks = ChunkedModel(one_more, channels=3, chunk=3_000, context=100)
    result = streamed(chunks, cut(waveform, 1, 3_000))
    assert {batch for batch, _ in shapes} == {2}
    assert not result[1].any()
    assert np.allclose(result[::2], waveform[::2] + 1.0)
    shapes.clear()
    assert not streamed(chunks, iter([np.zeros((3, 9_000), np.float32)])).any()
    assert shapes == []


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_chunk_that_comes_out_as_no_numbers_passes_as_it_was(bad: float) -> None:
    calls = 0

    def half_broken(chunk: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        result = 2.0 * chunk
        if calls == 2:
            result[0, 17] = bad
        return result

    waveform = white(2, 20_000)
    chunks = ChunkedModel(half_broken, channels=2, chunk=4_000, context=200)
    result = streamed(chunks, iter([waveform]))
    assert chunks.fallbacks == 1
    assert np.isfinite(result).all()
    assert np.allclose(result[1], 2.0 * waveform[1])
    faded = 200 + 1_024  # samples after its start from which on a chunk is alone
    first, second, rest = np.split(np.arange(20_000), [chunks.hop, 2 * chunks.hop])
    assert np.allclose(result[0, first], 2.0 * waveform[0, first])
    assert np.array_equal(result[0, second[faded:]], waveform[0, second[faded:]])
    assert np.allclose(result[0, rest[faded:]], 2.0 * waveform[0, rest[faded:]])


def test_the_blocks_pushed_are_not_changed() -> None:
    def in_place(chunk: Tensor) -> Tensor:
        return chunk.mul_(3.0)

    waveform = white(1, 9_000)
    before = waveform.copy()
    result = streamed(ChunkedModel(in_place, channels=1, chunk=3_000, context=0), iter([waveform]))
    assert np.array_equal(waveform, before)
    assert np.allclose(result, 3.0 * before, rtol=1e-6)


@pytest.mark.parametrize("to_rate", [16_000, 44_100, 48_000])
@pytest.mark.parametrize("from_rate", RATES)
def test_resampling_gives_the_length_to_the_sample(from_rate: int, to_rate: int) -> None:
    for samples in [0, 1, 2, 3, 100, 999, 4_411, from_rate // 5 + 1]:
        resampler = Resampler(from_rate, to_rate, 2)
        result = streamed(resampler, cut(white(2, samples), samples, 1_500))
        assert result.dtype == np.float32
        assert result.shape == (2, int(np.floor(samples * to_rate / from_rate + 0.5)))
        assert resampled_length(samples, from_rate, to_rate) == result.shape[1]


@pytest.mark.parametrize("from_rate", RATES)
def test_a_click_comes_out_of_the_resampler_where_it_went_in(from_rate: int) -> None:
    place = from_rate // 10 // 25 * 25
    click = np.zeros((1, from_rate // 5), np.float32)
    click[0, place] = 1.0
    result = streamed(Resampler(from_rate, 44_100, 1), cut(click, 1, 3_000))
    assert np.abs(result[0]).argmax() == round(place * 44_100 / from_rate)


@pytest.mark.parametrize(("from_rate", "to_rate"), [(48_000, 44_100), (16_000, 44_100)])
def test_resampled_in_blocks_is_resampled_whole(from_rate: int, to_rate: int) -> None:
    waveform = white(2, from_rate)
    whole = streamed(Resampler(from_rate, to_rate, 2), iter([waveform]))
    pieces = streamed(Resampler(from_rate, to_rate, 2), cut(waveform, 5, 4_000))
    assert difference_db(pieces, whole) < -120.0


@pytest.mark.parametrize(("from_rate", "to_rate"), [(48_000, 44_100), (16_000, 44_100)])
def test_resampling_keeps_a_tone_and_brings_in_nothing_else(from_rate: int, to_rate: int) -> None:
    def tone(rate: int) -> Waveform:
        return np.sin(2 * np.pi * 1_000 * np.arange(rate) / rate)[None].astype(np.float32)

    result = streamed(Resampler(from_rate, to_rate, 1), cut(tone(from_rate), 2, 5_000))
    middle = slice(2_000, -2_000)
    assert difference_db(result[:, middle], tone(to_rate)[:, middle]) < -100.0


def test_one_rate_passes_bit_for_bit() -> None:
    waveform = white(2, 5_000)
    assert np.array_equal(streamed(Resampler(48_000, 48_000, 2), cut(waveform, 1, 99)), waveform)


@pytest.mark.parametrize("rate", RATES)
def test_there_and_back_the_length_is_what_it_was(rate: int) -> None:
    for samples in range(10_000, 10_012):
        there = streamed(Resampler(rate, 16_000, 1), iter([white(1, samples)]))
        back = Resampler(16_000, rate, 1, samples=samples)
        assert streamed(back, cut(there, 1, 3_000)).shape == (1, samples)


def test_a_length_changed_on_purpose_stays_changed() -> None:
    resampler = Resampler(16_000, 48_000, 1, samples=48_000)
    assert streamed(resampler, iter([white(1, 8_000)])).shape == (1, 24_000)


def counted(stop: int, slow: Callable[[int], None] = lambda number: None) -> Iterator[Waveform]:
    for number in range(stop):
        slow(number)
        yield np.full((1, 1), number, np.float32)


def test_what_is_computed_ahead_comes_in_order() -> None:
    result = ahead(counted(50, lambda number: time.sleep(0.001 * (number % 3))))
    assert [int(block[0, 0]) for block in result] == list(range(50))


def test_what_is_computed_ahead_is_few_blocks() -> None:
    asked: list[int] = []
    stream = ahead(counted(50, asked.append), depth=2)
    assert int(next(stream)[0, 0]) == 0
    time.sleep(0.1)
    assert len(asked) <= 1 + 2 + 1  # given, waiting, in hand
    stream.close()


def test_an_error_ahead_is_raised_in_its_place() -> None:
    def breaks(number: int) -> None:
        if number == 3:
            raise OSError("broken")

    seen: list[int] = []
    with pytest.raises(OSError, match="broken"):
        for block in ahead(counted(50, breaks)):
            seen.append(int(block[0, 0]))
    assert seen == [0, 1, 2]


def test_no_thread_is_left_by_a_reader_that_stops() -> None:
    ended = threading.Event()

    def forever() -> Iterator[Waveform]:
        try:
            while True:
                yield np.zeros((1, 1), np.float32)
        finally:
            ended.set()

    before = threading.active_count()
    stream = ahead(ahead(forever()))
    next(stream)
    stream.close()
    assert ended.wait(5.0)
    assert threading.active_count() == before

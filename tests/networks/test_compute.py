"""Batches shared between threads, and what happens where the memory is too small for them."""

from __future__ import annotations

import contextlib
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from speakup.networks.compute import Compute, SharedNetwork
from speakup.stages.denoise import denoise
from speakup.stages.neural import NeuralStage

CPU = torch.device("cpu")


class Counting(nn.Module):
    """Doubles its rows; remembers batches; has memory for `most` rows, off the CPU that is."""

    hop_length = 1
    context_samples = 100

    def __init__(self, most: int = 1_000, seconds: float = 0.0) -> None:
        super().__init__()
        self.most, self.seconds = most, seconds
        self.batches: list[int] = []
        self.moves: list[str] = []
        self.gate: threading.Event | None = None

    def to(self, *args: object, **kwargs: object) -> Counting:
        self.moves.append(str(args[0]))
        if len(self.moves) > 1:
            self.most = 1_000
        return self

    def forward(self, rows: Tensor, *_: Tensor) -> Tensor:
        self.batches.append(len(rows))
        if self.gate is not None:
            self.gate.wait(10.0)
        time.sleep(self.seconds)
        if len(rows) > self.most:
            raise torch.cuda.OutOfMemoryError("no room")
        if bool((rows == 13.0).any()):
            raise RuntimeError("cannot bear this number")
        return rows * 2.0


def shared(network: nn.Module, rows: int | None) -> SharedNetwork:
    return SharedNetwork(network, CPU, lambda device: contextlib.nullcontext(), rows=rows)


def asked_together(
    run: SharedNetwork, network: Counting, inputs: list[Tensor]
) -> list[Tensor | Exception]:
    """Let one caller in, have all others wait behind it, and give everybody's result."""
    network.gate = threading.Event()

    def ask(value: Tensor) -> Tensor | Exception:
        try:
            return run(value)
        except RuntimeError as error:
            return error

    with ThreadPoolExecutor(len(inputs)) as pool:
        asked = [pool.submit(ask, inputs[0])]
        while not network.batches:
            time.sleep(0.001)
        asked += [pool.submit(ask, value) for value in inputs[1:]]
        while len(run._waiting) < len(inputs) - 1:
            time.sleep(0.001)
        network.gate.set()
        return [each.result(10.0) for each in asked]


def numbered(count: int, samples: int = 50) -> list[Tensor]:
    return [torch.full((1, samples), float(number)) for number in range(count)]


def test_those_who_wait_share_a_batch_and_get_their_own_rows() -> None:
    network = Counting()
    inputs = numbered(9)
    results = asked_together(shared(network, 4), network, inputs)
    assert network.batches == [1, 4, 4]
    for value, result in zip(inputs, results, strict=True):
        assert isinstance(result, Tensor) and torch.equal(result, 2.0 * value)


def test_rows_of_other_lengths_go_by_themselves() -> None:
    network = Counting()
    inputs = [*numbered(3), *numbered(2, 70), torch.zeros(3, 50)]
    results = asked_together(shared(network, 4), network, inputs)
    assert sorted(network.batches) == [1, 2, 2, 3]
    assert [tuple(result.shape) for result in results if isinstance(result, Tensor)] == [
        tuple(value.shape) for value in inputs
    ]


def test_more_rows_than_a_batch_holds_are_split() -> None:
    network = Counting()
    rows = torch.arange(7.0)[:, None].expand(7, 20)
    assert torch.equal(shared(network, 3)(rows), 2.0 * rows)
    assert network.batches == [3, 3, 1]


def test_the_cpu_takes_every_request_by_itself_without_waiting() -> None:
    network = Counting()
    run = shared(network, None)
    assert run.ahead == 0
    network.gate = threading.Event()
    with ThreadPoolExecutor(3) as pool:
        asked = [pool.submit(run, value) for value in numbered(3)]
        while len(network.batches) < 3:  # all at once, as none waits for another's end
            time.sleep(0.001)
        network.gate.set()
        assert [float(each.result(10.0)[0, 0]) for each in asked] == [0.0, 2.0, 4.0]


def test_on_the_cpu_channels_go_one_by_one_and_take_the_memory_of_one() -> None:
    network = Counting()
    rows = torch.arange(8.0)[:, None].expand(8, 20)
    assert torch.equal(shared(network, None)(rows), 2.0 * rows)
    assert network.batches == [1] * 8


def test_where_memory_is_too_small_batches_are_halved() -> None:
    network = Counting(most=3)
    run = shared(network, 8)
    rows = torch.arange(8.0)[:, None].expand(8, 20)
    assert torch.equal(run(rows), 2.0 * rows)
    assert network.batches == [8, 4, 2, 2, 2, 2]
    assert not run.moved
    run(rows)
    assert network.batches[6:] == [2, 2, 2, 2], "what was too much is not tried again"


def test_where_it_is_too_small_for_one_the_cpu_goes_on() -> None:
    network = Counting(most=0)
    run = shared(network, 4)
    inputs = numbered(6)
    results = asked_together(run, network, inputs)
    assert run.moved and network.moves == ["cpu", "cpu"]
    assert all(
        isinstance(result, Tensor) and torch.equal(result, 2.0 * value)
        for value, result in zip(inputs, results, strict=True)
    )
    assert run.ahead == 0


def test_memory_that_lacks_on_the_cpu_too_is_an_error() -> None:
    network = Counting(most=0)
    network.moves = ["cpu"]
    run = shared(network, 1)
    run.use_cpu()
    network.most = 0
    with pytest.raises(torch.OutOfMemoryError):
        run(torch.zeros(1, 5))


def test_one_that_fails_does_not_spoil_the_others() -> None:
    network = Counting()
    inputs = [torch.full((1, 5), value) for value in (1.0, 2.0, 13.0, 4.0)]
    results = asked_together(shared(network, 4), network, inputs)
    assert isinstance(results[2], RuntimeError)
    assert [float(results[k][0, 0]) for k in (0, 1, 3)] == [2.0, 4.0, 8.0]  # type: ignore[index]


def streamed(stage: NeuralStage, waveform: np.ndarray) -> np.ndarray:
    parts = [stage.push(block) for block in np.array_split(waveform, 31, axis=1)]
    parts += list(stage.flush())
    stage.close()
    return np.concatenate(parts, axis=1)


def made(network: nn.Module, compute: Compute, channels: int = 1) -> NeuralStage:
    return denoise(network, "a", "1", channels=channels, lufs=-25.0, compute=compute)


def voice(seconds: float, seed: int, channels: int = 1) -> np.ndarray:
    random = np.random.default_rng(seed)
    samples = 0.1 * random.standard_normal((channels, round(seconds * 44_100)))
    return samples.astype(np.float32)


def test_chunks_of_one_recording_share_batches_and_come_out_in_order() -> None:
    waveform = voice(65.0, 1)
    alone, together = Counting(), Counting(seconds=0.1)
    expected = streamed(made(alone, Compute("cpu", "fp32")), waveform)
    result = streamed(made(together, Compute("cpu", "fp32", batch_size=4)), waveform)
    assert sum(together.batches) == sum(alone.batches) and max(alone.batches) == 1
    assert max(together.batches) > 1
    np.testing.assert_array_equal(result, expected)


def test_recordings_in_several_threads_share_batches() -> None:
    network = Counting(seconds=0.1)
    compute = Compute("cpu", "fp32", batch_size=8)
    waveforms = [voice(14.0, seed, 1 + seed % 2) for seed in range(6)]
    stages = [made(network, compute, len(waveform)) for waveform in waveforms]
    with ThreadPoolExecutor(6) as pool:
        results = list(pool.map(streamed, stages, waveforms))
    rows = sum(network.batches)
    assert len(network.batches) < rows
    for waveform, result in zip(waveforms, results, strict=True):
        expected = streamed(made(Counting(), Compute("cpu", "fp32"), len(waveform)), waveform)
        np.testing.assert_allclose(result, expected, atol=1e-6)


def test_a_stage_tells_that_the_cpu_went_on() -> None:
    network = Counting(most=0)
    stage = made(network, Compute("cpu", "fp32", batch_size=2))
    waveform = voice(25.0, 3)
    expected = streamed(made(Counting(), Compute("cpu", "fp32")), waveform)
    np.testing.assert_allclose(streamed(stage, waveform), expected, atol=1e-6)
    (warning,) = stage.warnings
    assert "memory" in warning and "CPU" in warning


def test_an_error_in_a_chunk_reaches_the_caller_and_the_threads_end() -> None:
    class Broken(Counting):
        def forward(self, rows: Tensor, *_: Tensor) -> Tensor:
            raise RuntimeError("broken")

    stage = made(Broken(), Compute("cpu", "fp32", batch_size=2))
    before = threading.active_count()
    with pytest.raises(RuntimeError, match="broken"):
        streamed(stage, voice(35.0, 4))
    stage.close()
    assert threading.active_count() <= before

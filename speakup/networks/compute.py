"""Where networks run, and how chunks of all recordings come to share their batches."""

from __future__ import annotations

import contextlib
import math
import threading
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from speakup.errors import ConfigError
from speakup.networks.contract import Network

_SHARE_OF_MEMORY = 0.4  # the denoiser and the upsampler each take as much, at the same time
_MOST_ROWS = 64
_MOST_AHEAD = 8

Autocast = Callable[[torch.device], contextlib.AbstractContextManager[object]]


@dataclass(eq=False)
class _Request:
    inputs: tuple[Tensor, ...]
    result: Tensor | None = None
    error: Exception | None = None
    done: bool = False

    @property
    def shape(self) -> tuple[object, ...]:
        """All that inputs must have in common to go through the network together."""
        return tuple((each.shape[1:], each.dtype, each.device) for each in self.inputs)


class SharedNetwork:
    """Run a network for several threads at once, in batches of what they ask for meanwhile.

    There is no thread of its own, and no waiting for company: whoever finds the network free runs
    it on his own rows and on those of the same shape that others have handed in while it was busy.
    With a batch size of 1, as on the CPU, where larger batches gain nothing, everybody runs it by
    himself.

    Where the memory does not suffice, batches are halved; where it does not suffice for a single
    row, the network moves to the CPU, and `moved` is true from then on.

    A row's result does not depend on the rows beside it but for rounding: the products of larger
    matrices may be added up in another order.

    Args:
        network: Maps tensors (B, ...) to a tensor (B, ...), each row by itself. It is moved to
            the device.
        device: Where it runs.
        autocast: Gives the context it runs in on a device.
        rows: Most rows of a batch; None sizes batches to the memory that a GPU has free, and
            takes one row at a time on the CPU.
    """

    def __init__(
        self,
        network: Network,
        device: torch.device,
        autocast: Autocast,
        *,
        rows: int | None = None,
    ) -> None:
        self.device = device
        self.moved = False
        self._network: Network = network.to(device)
        self._autocast = autocast
        # On a GPU everybody takes turns, so that one at a time finds that the memory is too small.
        self._shared = device.type == "cuda" or (rows or 1) > 1
        self._to_measure = device.type == "cuda" and rows is None
        # On the CPU the rows of one request go singly too: that is as fast, and takes less memory.
        self._most = rows or (1 if device.type == "cpu" else _MOST_ROWS)
        self._most_samples = math.inf
        self._waiting: list[_Request] = []
        self._hand_in = threading.Lock()
        self._turn = threading.Lock()

    @property
    def ahead(self) -> int:
        """How many chunks of one recording are worth asking for at a time; 0 for one by one."""
        return min(self._most, _MOST_AHEAD) if self._shared and self._most > 1 else 0

    def __call__(self, *inputs: Tensor) -> Tensor:
        """Give the network's result for inputs (B, ...), on the device of the first of them.

        Raises:
            torch.OutOfMemoryError: not even the CPU has the memory for a row.
        """
        request = _Request(inputs)
        if not self._shared:
            return self._forward(inputs)
        with self._hand_in:
            self._waiting.append(request)
        with self._turn:
            if not request.done:
                self._run(self._companions(request))
        if request.error is not None:
            raise request.error
        assert request.result is not None
        return request.result

    def use_cpu(self) -> None:
        """Move to the CPU for good, where it can go on however slowly."""
        with self._turn:
            self._move()

    def _companions(self, request: _Request) -> list[_Request]:
        """Take out of those waiting a request and what fits into a batch with it."""
        most = self._most_rows(request.inputs)
        with self._hand_in:
            self._waiting.remove(request)
            chosen, rows = [request], len(request.inputs[0])
            for other in self._waiting:
                count = len(other.inputs[0])
                if other.shape == request.shape and rows + count <= most:
                    chosen.append(other)
                    rows += count
            self._waiting = [other for other in self._waiting if other not in chosen]
        return chosen

    def _run(self, requests: list[_Request]) -> None:
        counts = [len(request.inputs[0]) for request in requests]
        try:
            joined = zip(*(request.inputs for request in requests), strict=True)
            results = self._forward(tuple(map(torch.cat, joined))).split(counts)
        except Exception as error:
            if len(requests) == 1:
                requests[0].error, requests[0].done = error, True
                return
            for request in requests:  # One that cannot be computed is not to spoil the others.
                self._run([request])
            return
        for request, result in zip(requests, results, strict=True):
            request.result, request.done = result, True

    def _forward(self, inputs: tuple[Tensor, ...]) -> Tensor:
        if self._to_measure:
            self._to_measure = False
            self._measure(inputs)
        rows, done = len(inputs[0]), 0
        results: list[Tensor] = []
        while done < rows:
            count = min(self._most_rows(inputs), rows - done)
            result = self._attempt(tuple(each[done : done + count] for each in inputs))
            if result is None:
                self._shrink(count)
                continue
            results.append(result.to(inputs[0].device))
            done += count
        return results[0] if len(results) == 1 else torch.cat(results)

    def _attempt(self, inputs: tuple[Tensor, ...]) -> Tensor | None:
        """Give the network's result, or None where the memory does not suffice.

        By returning it lets go of all that the error's traceback holds, before the next attempt.
        """
        try:
            with self._autocast(self.device):
                result: Tensor = self._network(*(each.to(self.device) for each in inputs))
            if self.device.type == "cuda":
                # Others hand in their rows while this batch is computed, not after it.
                torch.cuda.current_stream(self.device).synchronize()
            return result
        except torch.OutOfMemoryError:
            if self.moved:
                raise
            return None

    def _most_rows(self, inputs: tuple[Tensor, ...]) -> int:
        samples = inputs[0][0].numel()
        return int(max(1, min(self._most, self._most_samples // max(1, samples))))

    def _measure(self, inputs: tuple[Tensor, ...]) -> None:
        """Find by a single row how many samples a batch may have for the memory that is free."""
        torch.cuda.reset_peak_memory_stats(self.device)
        before = torch.cuda.memory_allocated(self.device)
        if self._attempt(tuple(each[:1] for each in inputs)) is None:
            return
        taken = torch.cuda.max_memory_allocated(self.device) - before
        free, _ = torch.cuda.mem_get_info(self.device)
        self._most_samples = _SHARE_OF_MEMORY * free * inputs[0][0].numel() / max(1, taken)

    def _shrink(self, rows: int) -> None:
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        if rows > 1:
            self._most = rows // 2
        else:
            self._move()

    def _move(self) -> None:
        if not self.moved:
            self.moved, self._shared, self._most = True, False, 1
            self.device = torch.device("cpu")
            self._network.to(self.device)


class Compute:
    """Where and in which number format networks run; what runs them is shared by all stages.

    Args:
        device: "auto" takes CUDA if there is one, else the CPU; or a torch device.
        precision: "auto" takes bfloat16 where the device computes it natively, else float32.
        batch_size: Most chunks that go through a network at a time, of all recordings together;
            None sizes batches to a GPU's free memory, and takes one at a time on the CPU.

    Raises:
        ConfigError: the device is not there.
    """

    def __init__(
        self, device: str = "auto", precision: str = "auto", *, batch_size: int | None = None
    ) -> None:
        self.device = pick_device(device)
        self.dtype = pick_dtype(precision, self.device)
        self._batch_size = batch_size
        self._networks: dict[Network, SharedNetwork] = {}
        self._lock = threading.Lock()

    def shared(self, network: Network) -> SharedNetwork:
        """Give what runs a network on the device, the same one for all who ask."""
        with self._lock:
            if network not in self._networks:
                self._networks[network] = SharedNetwork(
                    network, self.device, self.autocast, rows=self._batch_size
                )
            return self._networks[network]

    def autocast(self, device: torch.device) -> contextlib.AbstractContextManager[object]:
        """Give the context in which networks' matrix products use the number format.

        On the CPU, where it is not the device asked for, that format is the CPU's own choice.
        """
        dtype = self.dtype
        if device.type != self.device.type and dtype != torch.float32:
            dtype = pick_dtype("auto", device)
        if dtype == torch.float32:
            return contextlib.nullcontext()
        return torch.autocast(device.type, dtype)


def pick_device(name: str) -> torch.device:
    """Resolve "auto" to CUDA where there is one, else the CPU; check any other device.

    Raises:
        ConfigError: the device is unknown or not there.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(
            f"device {name!r} cannot be used here", None, "Choose auto, cpu, cuda[:N] or mps"
        ) from error
    return device


def pick_dtype(precision: str, device: torch.device) -> torch.dtype:
    """Resolve a precision; "auto" takes bfloat16 where matrix products are native in it."""
    if precision == "auto":
        if device.type == "cuda":
            native = torch.cuda.is_bf16_supported(including_emulation=False)
        else:
            native = device.type == "cpu" and _cpu_has_bfloat16()
        return torch.bfloat16 if native else torch.float32
    return {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]


def _cpu_has_bfloat16() -> bool:
    capabilities = torch.cpu.get_capabilities()
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))

"""What a network must tell for a stage to run it: its rates, its frames, how far it looks.

Tensors alone; nothing here knows a file, a stage or a model's name.
"""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

SPEECH_LEVEL_DB = -25.0
"""Level to which speech is brought before a network: LUFS in use, RMS in dBFS in training."""


class Network(Protocol):
    """What every network is: a function of rows, and how it cuts them; samples are its input's."""

    def to(self, device: torch.device, /) -> Any:
        """Move to a device."""

    def __call__(self, *inputs: Any) -> Tensor:
        """Map tensors (B, ...) to one (B, T), each row by itself."""

    @property
    def hop_length(self) -> int:
        """Samples between its frames; where a signal is cut, it is cut at a multiple of this."""


class Denoiser(Network, Protocol):
    """Maps speech (B, T) to clean speech (B, T), float32, full scale at 1."""

    @property
    def sample_rate(self) -> int:
        """Hz of what it takes and gives."""

    @property
    def context_samples(self) -> int:
        """Samples on either side of a sample that its output depends on."""


@runtime_checkable
class StatefulDenoiser(Network, Protocol):
    """A denoiser that goes through a stream once; its past lies in a state of fixed size.

    Maps speech (B, T) of whole hops, and the state (B, S) that its past has left, to clean speech
    that comes late, and the new state, joined: (B, T + S), float32. What calls on the pieces of a
    stream give, in order, is what one call on the whole would give.
    """

    @property
    def sample_rate(self) -> int:
        """Hz of what it takes and gives."""

    @property
    def latency(self) -> int:
        """Samples, whole hops, by which its output comes late."""

    @property
    def settled(self) -> bool:
        """Whether it is to be kept from all that it takes a while to get used to.

        A settled one hears recordings at the speech level, their beginning twice, and no long
        silences. Another one hears every recording as it is.
        """

    def start(self, rows: int) -> Tensor:
        """Give the state (B, S) of so many streams before their first sample."""


class Upsampler(Network, Protocol):
    """Maps speech (B, T) and cutoffs (B,) in Hz to speech (B, T') with a top, float32.

    T' = ceil(T * output_rate / input_rate). One whose rates are both the working rate keeps what
    lies under the cutoff; of one at other rates the top alone is taken.
    """

    @property
    def input_rate(self) -> int:
        """Hz of what it takes."""

    @property
    def output_rate(self) -> int:
        """Hz of what it gives."""

    @property
    def context_samples(self) -> int:
        """Samples on either side of a sample that its output depends on."""

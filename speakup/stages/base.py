"""What a stage is: one step of the chain, which takes blocks and gives blocks.

`Pipeline` runs whatever meets `Stage`; users pass their own.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from speakup.blocks import Block


class Stage(Protocol):
    """One step of the chain; blocks are float32 (C, T), full scale at 1.

    A subclass sets what differs from the defaults here, and gives `push` and `flush`. Each stage
    runs in a thread of its own, is used for one recording, and may change the blocks it is given.

    Attributes:
        name: What reports call it.
        model: The model it runs, or "".
        revision: The model's revision, or "".
        input_rate: Hz it needs; None takes any.
        output_rate: Hz it gives; None gives the rate it got.
        latency: Most samples of its input that `push` holds back; None holds all of them back
            until `flush`.
        exceeds_full_scale: Whether what it gives rises beyond full scale on purpose, and the
            loudness stage is to make room for it.
        gain_db: The gain it applied to everything, known after `flush`.
        warnings: What the user should know, known after `flush`.
    """

    name: str
    model: str = ""
    revision: str = ""
    input_rate: int | None = None
    output_rate: int | None = None
    latency: int | None = 0
    exceeds_full_scale: bool = False
    gain_db: float = 0.0
    warnings: list[str]

    @property
    def did(self) -> dict[str, float]:
        """What it did, by name in dB or as a count, known after `flush`."""
        return {}

    def push(self, block: Block) -> Block:
        """Take (C, T) and give the (C, T') that is ready, T' from 0 on."""

    def flush(self) -> Iterable[Block]:
        """Give the rest, in as many blocks as need be."""

    def close(self) -> None:
        """Let go of threads and files; called at the end, however it comes, and once."""
        return None

"""Reference inputs and outputs of published networks, where SPEAKUP_TEST_DATA has them."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import Tensor, nn


class Golden:
    """One published network's folder: its full layout, small weights, inputs and outputs."""

    def __init__(self, name: str) -> None:
        root = os.environ.get("SPEAKUP_TEST_DATA")
        if not root:
            pytest.skip("SPEAKUP_TEST_DATA names no folder of reference outputs")
        self.folder = Path(root) / "hub" / name
        if not self.folder.is_dir():
            pytest.skip(f"SPEAKUP_TEST_DATA has no hub/{name}")
        self.facts: dict[str, Any] = self._json("golden.json")
        self.layout: dict[str, Any] = self._json("keys.json")
        self.tolerance: dict[str, float] = self.facts["recommended_tolerance"]
        self._arrays = np.load(self.folder / "golden_io.npz", allow_pickle=False)

    def __getitem__(self, name: str) -> Tensor:
        return torch.from_numpy(self._arrays[name])

    def loaded(self, network: nn.Module) -> nn.Module:
        """Fill a network with the small weights, all keys and no others."""
        weights = safetensors.torch.load_file(self.folder / "golden.safetensors")
        network.load_state_dict(weights, strict=True)
        return network.eval().requires_grad_(False)

    def check_layout(self, build: Callable[[], nn.Module]) -> None:
        """Compare the full-size network's keys, shapes and parameter count with the published."""
        with torch.device("meta"):
            network = build()
        shapes = {key: list(value.shape) for key, value in network.state_dict().items()}
        assert shapes == self.layout["keys"]
        assert sum(weight.numel() for weight in network.parameters()) == self.layout["parameters"]

    def _json(self, name: str) -> dict[str, Any]:
        facts: dict[str, Any] = json.loads((self.folder / name).read_text(encoding="utf-8"))
        return facts


def furthest(estimate: Tensor, reference: Tensor) -> float:
    """Give the largest absolute difference of two tensors of one shape."""
    assert estimate.shape == reference.shape
    return float((estimate - reference).abs().max())


def snr_db(estimate: Tensor, reference: Tensor) -> float:
    """Give the power of the reference over that of the difference."""
    assert estimate.shape == reference.shape
    error = (estimate - reference).double().square().sum()
    return float(10.0 * (reference.double().square().sum() / error).log10())

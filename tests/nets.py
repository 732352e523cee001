"""Networks for tests: ones of known effect, and the real architectures with few weights."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn

from speakup.models.cards import ModelCard
from speakup.models.catalogue import LoadedModel
from speakup.networks import BandExtender, BandMemory, BandMixer, SourceFilterExtender

SMALL_MIXER: dict[str, Any] = {
    "groups": [[16, 4], [8, 8], [8, 16]],
    "features": 8,
    "bottleneck": 8,
    "dilations": [1, 2],
}
SMALL_MEMORY: dict[str, Any] = {
    "groups": [[16, 4], [8, 8], [8, 16]],
    "features": 8,
    "bottleneck": 16,
    "dilations": [1, 2],
    "memory": [1],
    "heads": 2,
    "reach": 6,
    "history_reach": 5,
}
SMALL_EXTENDER: dict[str, Any] = {"features": 16, "expansion": 2, "blocks": 2}


class Recorded(nn.Module):
    """Apply a function to the waveform, for either stage, and keep what it was called with."""

    sample_rate = 16_000
    input_rate = output_rate = 44_100
    hop_length = 1
    context_samples = 0

    def __init__(self, function: Callable[[Tensor], Tensor] = lambda waveform: waveform) -> None:
        super().__init__()
        self.function = function
        self.shapes: list[tuple[int, ...]] = []

    def forward(self, waveform: Tensor, cutoff_hz: Tensor | None = None) -> Tensor:
        self.shapes.append(tuple(waveform.shape))
        return self.function(waveform)


class Gate(nn.Module):
    """Turn quiet moments down, as a denoiser does: gain follows the level 25 ms around."""

    sample_rate = 16_000
    hop_length = 1
    context_samples = 400

    def forward(self, waveform: Tensor) -> Tensor:
        level = nn.functional.avg_pool1d(waveform.abs()[:, None], 801, 1, 400)[:, 0]
        return waveform * (level / 0.05).clamp(max=1.0)


def small_mixer(seed: int = 0, **changes: Any) -> BandMixer:
    """Build the denoiser's architecture with few random weights."""
    torch.manual_seed(seed)
    return BandMixer(**{**SMALL_MIXER, **changes}).eval()


def small_source_filter(seed: int = 0, **changes: Any) -> SourceFilterExtender:
    """Build the upsampler's architecture with few random weights."""
    torch.manual_seed(seed)
    return SourceFilterExtender(**{**SMALL_EXTENDER, **changes}).eval()


def small_memory(seed: int = 0, **changes: Any) -> BandMemory:
    """Build the architecture with attention with few random weights, more of them at work."""
    torch.manual_seed(seed)
    network = BandMemory(**{**SMALL_MEMORY, **changes}).eval()
    for weight in network.join.weights:
        nn.init.normal_(weight, std=0.3)
    return network


def small_extender(seed: int = 0, **changes: Any) -> BandExtender:
    """Build the upsampler's architecture with few random weights."""
    torch.manual_seed(seed)
    return BandExtender(**{**SMALL_EXTENDER, **changes}).eval()


def loaded(network: nn.Module, task: str, name: str = "a-model") -> LoadedModel:
    """Wrap a network as the catalogue would."""
    rate = 16_000 if task == "denoise" else 44_100
    card = ModelCard(
        name, task, "none", rate, {}, 0, 0, "CC0-1.0", "", Path("nowhere"), "sha256:0123456789ab"
    )
    return LoadedModel(network, card, card.revision)


def save_model(folder: Path, network: nn.Module, **changes: Any) -> Path:
    """Write a model folder: half-precision weights of a small network, and its config."""
    mixer = isinstance(network, BandMixer)
    config = {
        "name": folder.name,
        "task": "denoise" if mixer else "upsample",
        "architecture": "band-mixer" if mixer else "band-extender",
        "sample_rate": 16_000 if mixer else 44_100,
        "hyperparameters": SMALL_MIXER if mixer else SMALL_EXTENDER,
        "licence": "CC0-1.0",
        "description": "Random weights",
    }
    folder.mkdir(parents=True, exist_ok=True)
    weights = {key: value.half().contiguous() for key, value in network.state_dict().items()}
    safetensors.torch.save_file(weights, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(config | changes), encoding="utf-8")
    return folder

"""From a training checkpoint to a model folder that inference loads."""

from __future__ import annotations

import json
from pathlib import Path

import safetensors.torch
import torch

from speakup.catalogue import CONFIG_FILE, WEIGHTS_FILE, load_model
from speakup.errors import ModelError


def export(checkpoint: Path, folder: Path, *, licence: str = "Apache-2.0") -> Path:
    """Write the averaged generator of a checkpoint as half-precision safetensors with its config.

    Args:
        checkpoint: The trainer's checkpoint.pt.
        folder: The model folder to write; made if missing.
        licence: Of the weights.

    Returns:
        The folder; it is loaded once as a check.

    Raises:
        ModelError: the checkpoint is missing or is none of this trainer's.
    """
    try:
        stored = torch.load(checkpoint, map_location="cpu", weights_only=True)
        weights = {key: value.half().contiguous() for key, value in stored["average"].items()}
        config = {
            key: stored[key]
            for key in ("name", "task", "architecture", "sample_rate", "hyperparameters")
        }
    except (OSError, KeyError, RuntimeError, AttributeError) as error:
        raise ModelError(f"is no checkpoint to export ({error})", checkpoint) from error
    config |= {"licence": licence, "description": stored["description"], "steps": stored["step"]}
    folder.mkdir(parents=True, exist_ok=True)
    safetensors.torch.save_file(weights, folder / WEIGHTS_FILE)
    (folder / CONFIG_FILE).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    load_model(str(folder))
    return folder

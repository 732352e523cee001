"""From a training checkpoint to a model folder that inference loads."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import safetensors.torch

from speakup.cards import CONFIG_FILE, WEIGHTS_FILE
from speakup.catalogue import load_model
from speakup.errors import OutputError
from speakup.training.trainer import read_checkpoint


def export(checkpoint: Path, folder: Path, *, licence: str = "Apache-2.0") -> Path:
    """Write the averaged generator of a checkpoint as half-precision safetensors with its config.

    Args:
        checkpoint: The trainer's checkpoint.pt.
        folder: The model folder to write; made if missing.
        licence: Of the weights.

    Returns:
        The folder. The model is loaded once as a check before it replaces one that is there.

    Raises:
        ModelError: the checkpoint is missing, is none of this trainer's, or makes no model.
        OutputError: the folder cannot be written.
    """
    stored = read_checkpoint(checkpoint)
    weights = {key: value.half().contiguous() for key, value in stored["average"].items()}
    config = {
        key: stored[key]
        for key in ("name", "task", "architecture", "sample_rate", "hyperparameters")
    }
    config |= {"licence": licence, "description": stored["description"], "steps": stored["step"]}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".export-", dir=folder) as place:
            new = Path(place)
            # Not `save_file`, which lets nobody else read the file.
            (new / WEIGHTS_FILE).write_bytes(safetensors.torch.save(weights))
            (new / CONFIG_FILE).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
            load_model(str(new))
            for name in (WEIGHTS_FILE, CONFIG_FILE):
                (new / name).replace(folder / name)
    except OSError as error:
        raise OutputError(f"cannot be written ({error.strerror})", folder) from error
    return folder

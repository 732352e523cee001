"""What training runs begin with and go on from."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from speakup.errors import ModelError
from speakup.models.cards import CONFIG_FILE
from speakup.models.catalogue import load_model


def start_from(generator: nn.Module, sources: str | tuple[str, ...]) -> None:
    """Give a generator the weights of a model folder or checkpoint, or the mean of several.

    The mean of runs that began alike is often better than each of them.

    Args:
        generator: Of the sources' shape.
        sources: Paths.

    Raises:
        ModelError: one cannot be read, or belongs to another network.

    Reference:
        Wortsman et al. 2022, Model soups, arXiv 2203.05482.
    """
    paths = [Path(source) for source in ((sources,) if isinstance(sources, str) else sources)]
    found = [_weights(path) for path in paths]
    for weights, path in zip(found, paths, strict=True):  # one by one, to name what does not fit
        load_part(generator, weights, path)
    if len(found) > 1:
        mean = {name: torch.stack([one[name] for one in found]).mean(0) for name in found[0]}
        generator.load_state_dict(mean)


def load_part(part: Any, stored: dict[str, Any], path: Path) -> None:
    """Load a network's or an optimiser's state.

    Raises:
        ModelError: it is not of this kind.
    """
    try:
        part.load_state_dict(stored)
    except (RuntimeError, ValueError, KeyError) as error:
        reason = " ".join(str(error).split())[:300]
        raise ModelError(
            f"belongs to another recipe ({reason})", path, "Name another run folder"
        ) from error


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Read what a training run has saved, to the CPU.

    Raises:
        ModelError: it is missing, or no checkpoint.
    """
    try:
        stored = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise ModelError(f"cannot be read ({error.strerror})", path) from error
    except Exception as error:  # Of torch, pickle or zipfile, by what is wrong with the file.
        raise ModelError("is no checkpoint of a training run", path) from error
    if not isinstance(stored, dict) or "average" not in stored:
        raise ModelError("is no checkpoint of a training run", path)
    return stored


def read_start(path: Path) -> dict[str, Any]:
    """Read a checkpoint, or a model folder as one that has lost all but its averaged weights.

    Raises:
        ModelError: it is missing, or neither.
    """
    if not path.is_dir():
        return read_checkpoint(path)
    weights = load_model(str(path)).network.state_dict()
    config = json.loads((path / CONFIG_FILE).read_text(encoding="utf-8"))
    known = {"phase": None, "steps": 0, "hours": 0.0} | config
    place = {"phase": known["phase"], "step": known["steps"], "hours": known["hours"]}
    network = {key: config[key] for key in ("architecture", "hyperparameters")}
    return {"generator": weights, "average": weights, **place, **network}


def _weights(path: Path) -> dict[str, Tensor]:
    weights: dict[str, Tensor] = read_start(path)["average"]
    return weights

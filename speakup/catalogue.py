"""From a model's name to a built network: card, local files, weights checked key by key.

A model is a folder with `config.json` (architecture, hyperparameters and card) and
`model.safetensors`. Bundled models lie in the package; others in a folder of the user's, or in a
repository on the Hugging Face Hub.
"""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from speakup.errors import ModelError

if TYPE_CHECKING:
    from torch import nn

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"
_HUB = re.compile(r"hf://(?P<repo>[\w.-]+/[\w.-]+)(?:@(?P<revision>[\w./-]+))?$")
_REQUIRED: dict[str, type] = {
    "name": str,
    "task": str,
    "architecture": str,
    "sample_rate": int,
    "hyperparameters": dict,
}


@dataclass(frozen=True)
class ModelCard:
    """What is known of a model without building it.

    Attributes:
        name: How to ask for it.
        task: "denoise" or "upsample".
        architecture: A key of `speakup.networks.ARCHITECTURES`.
        sample_rate: Hz of the waveforms it maps.
        hyperparameters: The architecture's keyword arguments.
        parameters: How many weights.
        bytes: Size of the weights file.
        licence: Of the weights.
        description: One line.
        folder: Where its files lie on this machine.
        revision: Content of the weights file, as "sha256:" and 12 hex digits, or the Hub commit.
    """

    name: str
    task: str
    architecture: str
    sample_rate: int
    hyperparameters: dict[str, Any]
    parameters: int
    bytes: int
    licence: str
    description: str
    folder: Path
    revision: str


@dataclass(frozen=True)
class LoadedModel:
    """A network in evaluation mode, its card, and the revision of its weights."""

    network: nn.Module
    card: ModelCard
    revision: str


def list_models() -> list[ModelCard]:
    """List the bundled models, by name."""
    folders = sorted(path.parent for path in bundled_folder().glob(f"*/{CONFIG_FILE}"))
    return [read_card(folder) for folder in folders]


def load_model(name_or_path: str, *, device: str = "cpu", offline: bool = False) -> LoadedModel:
    """Build a model's network and load its weights.

    Args:
        name_or_path: A bundled model's name, a folder, or hf://org/repo[@revision].
        device: A torch device.
        offline: Make no network request; the Hub's models must lie in the cache.

    Raises:
        ModelError: there is no such model, its files cannot be had, or the weights do not match
            the architecture key by key.
    """
    import safetensors.torch
    from safetensors import SafetensorError

    from speakup.networks import ARCHITECTURES

    folder = resolve(name_or_path, offline=offline)
    card = read_card(folder)
    if card.architecture not in ARCHITECTURES:
        raise ModelError(
            f"architecture {card.architecture!r} is unknown",
            folder,
            f"This version knows {', '.join(ARCHITECTURES)}",
        )
    try:
        network = ARCHITECTURES[card.architecture](**card.hyperparameters)
    except Exception as error:  # Whatever numbers from a file may lead to.
        raise ModelError(f"the hyperparameters make no network ({error})", folder) from error
    try:
        weights = safetensors.torch.load_file(folder / WEIGHTS_FILE)
        network.load_state_dict({key: value.float() for key, value in weights.items()})
    except (SafetensorError, OSError) as error:
        raise ModelError(f"the weights cannot be read ({error})", folder) from error
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:300]
        raise ModelError(f"the weights do not match the architecture ({reason})", folder) from error
    network = network.to(device).eval().requires_grad_(False)
    return LoadedModel(network, card, card.revision)


def resolve(name_or_path: str, *, offline: bool = False) -> Path:
    """Find a model's folder on this machine, fetching it from the Hub if that is where it is.

    Raises:
        ModelError: there is no such model, or it cannot be fetched.
    """
    if name_or_path.startswith("hf://"):
        return _fetch(name_or_path, offline)
    bundled, given = bundled_folder() / name_or_path, Path(os.path.expanduser(name_or_path))
    for folder in (bundled, given):
        if not _missing(folder):
            return folder
    if os.path.isdir(given):
        raise ModelError(f"the folder has no {_missing(given)}", name_or_path)
    known = ", ".join(card.name for card in list_models()) or "none"
    raise ModelError(
        "no such model", name_or_path, f"Bundled: {known}; or give a folder or hf://org/repo"
    )


def read_card(folder: Path) -> ModelCard:
    """Read the card in a model's folder.

    Raises:
        ModelError: config.json is missing or malformed, or the weights are missing.
    """
    from safetensors import SafetensorError, safe_open

    weights = folder / WEIGHTS_FILE
    try:
        values = json.loads((folder / CONFIG_FILE).read_text(encoding="utf-8"))
        with safe_open(weights, "numpy") as file:
            shapes = [file.get_slice(key).get_shape() for key in file.keys()]  # noqa: SIM118
        parameters = sum(_product(shape) for shape in shapes)
    except (OSError, ValueError, SafetensorError) as error:
        raise ModelError(f"is no usable model folder ({error})", folder) from error
    _check_config(values, folder)
    return ModelCard(
        name=values["name"],
        task=values["task"],
        architecture=values["architecture"],
        sample_rate=values["sample_rate"],
        hyperparameters=values["hyperparameters"],
        parameters=parameters,
        bytes=weights.stat().st_size,
        licence=str(values.get("licence", "unstated")),
        description=str(values.get("description", "")),
        folder=folder,
        revision=_revision(weights),
    )


def _check_config(values: Any, folder: Path) -> None:
    if not isinstance(values, dict):
        raise ModelError(f"{CONFIG_FILE} holds no object", folder)
    missing = [key for key in _REQUIRED if key not in values]
    if missing:
        raise ModelError(f"{CONFIG_FILE} lacks {', '.join(missing)}", folder)
    for key, kind in _REQUIRED.items():
        if not isinstance(values[key], kind):
            raise ModelError(f"{CONFIG_FILE} has the {key} {values[key]!r}", folder)


def bundled_folder() -> Path:
    """Give the folder of the bundled models: in the package, or beside it in a checkout."""
    installed = Path(__file__).parent / "_weights"
    return installed if installed.is_dir() else Path(__file__).parent.parent / "weights"


def _fetch(address: str, offline: bool) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    match = _HUB.match(address)
    if match is None:
        raise ModelError("is no Hub address", address, "Write hf://org/repo or hf://org/repo@rev")
    try:
        folder = snapshot_download(
            match["repo"],
            revision=match["revision"],
            allow_patterns=[CONFIG_FILE, WEIGHTS_FILE],
            local_files_only=offline,
        )
    except LocalEntryNotFoundError as error:
        raise ModelError(
            "is not in the cache and the Hub cannot be reached",
            address,
            "Go online once, without --offline and HF_HUB_OFFLINE",
        ) from error
    except RepositoryNotFoundError as error:
        raise ModelError(
            "the Hub has no such repository, or does not show it to everyone",
            address,
            "Check the name; for a private one, put a token into HF_TOKEN",
        ) from error
    except RevisionNotFoundError as error:
        raise ModelError("the repository has no such revision", address) from error
    except Exception as error:  # Of requests, httpx or httpx2, as the Hub's library has changed.
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ModelError(f"cannot be fetched from the Hub ({reason})", address) from error
    if missing := _missing(Path(folder)):
        raise ModelError(f"the repository has no {missing}", address)
    return Path(folder)


def _missing(folder: Path) -> str:
    """Name the file of a model that a folder lacks, or "" where it is whole."""
    names = (CONFIG_FILE, WEIGHTS_FILE)
    return next((name for name in names if not os.path.isfile(folder / name)), "")


def _revision(weights: Path) -> str:
    """Name the weights' content; for a Hub snapshot the commit its folder is called by."""
    if re.fullmatch(r"[0-9a-f]{40}", weights.parent.name):
        return weights.parent.name
    import hashlib

    with weights.open("rb") as file:
        return "sha256:" + hashlib.file_digest(file, "sha256").hexdigest()[:12]


def _product(shape: list[int]) -> int:
    total = 1
    for size in shape:
        total *= size
    return total

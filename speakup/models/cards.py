"""What is known of a model in our own layout, read from its folder and checked.

The folder has `config.json` (architecture, hyperparameters, name, licence) and `model.safetensors`;
on the Hub also `README.md`, whose front matter states the licence too.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from speakup.errors import ModelError

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"
CARD_FILE = "README.md"
_COMMIT = re.compile(r"[0-9a-f]{40}")
_NON_COMMERCIAL = re.compile(r"(?i)(?:^|[-_ ])nc(?:[-_ ]|$)|non-?_?commercial")
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
        sample_rate: Hz of the waveforms it gives.
        hyperparameters: The architecture's keyword arguments.
        parameters: How many weights.
        bytes: Size of the weights file.
        licence: Of the weights.
        description: One line.
        folder: Where its files lie on this machine, or will.
        revision: Content of the weights file, as "sha256:" and 12 hex digits, or the Hub commit.
        source: Where it comes from.
        file: The weights file, below the folder.
        cached: Whether it can be used without a request.
        repository: Of the Hub, or "".
        sha256: What the weights file must hash to, or "".
        paper: Address of the paper, or "".
        package: The optional package that it comes with, or "".
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
    source: Literal["bundled", "folder", "hub", "package"] = "folder"
    file: str = WEIGHTS_FILE
    cached: bool = True
    repository: str = ""
    sha256: str = ""
    paper: str = ""
    package: str = ""


def read_card(folder: Path, *, source: Literal["bundled", "folder", "hub"] = "folder") -> ModelCard:
    """Read the card in a model's folder.

    Raises:
        ModelError: config.json is missing or malformed, or the weights are missing.
    """
    from safetensors import SafetensorError, safe_open

    weights = folder / WEIGHTS_FILE
    try:
        with safe_open(weights, "numpy") as file:
            shapes = [file.get_slice(key).get_shape() for key in file.keys()]  # noqa: SIM118
    except (OSError, ValueError, SafetensorError) as error:
        raise ModelError(f"is no usable model folder ({error})", folder) from error
    values = read_config(folder)
    return ModelCard(
        name=values["name"],
        task=values["task"],
        architecture=values["architecture"],
        sample_rate=values["sample_rate"],
        hyperparameters=values["hyperparameters"],
        parameters=sum(math.prod(shape) for shape in shapes),
        bytes=weights.stat().st_size,
        licence=licence_of(folder, values),
        description=str(values.get("description", "")),
        folder=folder,
        revision=_revision(weights),
        source=source,
    )


def forbids_commerce(licence: str) -> bool:
    """Tell whether a licence's name says that it is for non-commercial use alone."""
    return _NON_COMMERCIAL.search(licence) is not None


def licence_of(folder: Path, values: dict[str, Any]) -> str:
    """Give the licence that a folder states in its config and its card; the stricter of two."""
    stated = [str(values.get(key, "")) for key in ("licence", "license")]
    with contextlib.suppress(OSError, ValueError):
        text = (folder / CARD_FILE).read_text(encoding="utf-8")
        front = re.match(r"---\s*\n(.*?)\n---\s*\n", text, re.DOTALL)
        for line in front[1].splitlines() if front else ():
            key, _, value = line.partition(":")
            if key in ("license", "license_name"):
                stated.append(value.strip().strip("\"'"))
    found = [licence for licence in stated if licence and licence != "other"]
    return next(filter(_NON_COMMERCIAL.search, found), found[0] if found else "unstated")


def read_config(folder: Path) -> dict[str, Any]:
    """Read and check the config in a model's folder.

    Raises:
        ModelError: it is missing or malformed.
    """
    try:
        values = json.loads((folder / CONFIG_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"is no usable model folder ({error})", folder) from error
    if not isinstance(values, dict):
        raise ModelError(f"{CONFIG_FILE} holds no object", folder)
    missing = [key for key in _REQUIRED if key not in values]
    if missing:
        raise ModelError(f"{CONFIG_FILE} lacks {', '.join(missing)}", folder)
    for key, kind in _REQUIRED.items():
        if not isinstance(values[key], kind):
            raise ModelError(f"{CONFIG_FILE} has the {key} {values[key]!r}", folder)
    return values


def missing_file(folder: Path) -> str:
    """Name the file of a model that a folder lacks, or "" where it is whole."""
    names = (CONFIG_FILE, WEIGHTS_FILE)
    return next((name for name in names if not os.path.isfile(folder / name)), "")


def _revision(weights: Path) -> str:
    """Name the weights' content; for a Hub snapshot the commit its folder is called by."""
    if _COMMIT.fullmatch(weights.parent.name):
        return weights.parent.name
    with weights.open("rb") as file:
        return "sha256:" + hashlib.file_digest(file, "sha256").hexdigest()[:12]

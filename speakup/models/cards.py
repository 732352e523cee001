"""What is known of a model in our own layout, read from its folder and checked.

The folder has `config.json` (architecture, hyperparameters, name, licence) and `model.safetensors`;
on the Hub also `README.md`, whose front matter states the licence too.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import reprlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from speakup.errors import ModelError

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"
CARD_FILE = "README.md"
MOST_CONFIG_BYTES = 64 << 10
"""What a config may hold; ours have a hundredth of that."""
UNREADABLE = "unreadable"
"""Stands for a licence that a model states in a way that cannot be read."""
_MOST_FRONT_MATTER_BYTES = 64 << 10
_LARGEST_RATE, _LARGEST_NUMBER = 400_000, 4_096
"""Of hyperparameters: above all that networks have, below what makes much of their tables."""
_RATE = re.compile(r"rate|hz|^sr$|^f_m")
_COMMIT = re.compile(r"[0-9a-f]{40}")
_NON_COMMERCIAL = re.compile(r"(?i)(?<![a-z])nc(?![a-z])|non[-_ ]?commercial")
_LICENCE_KEYS = ("licence", "license", "license_name")
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
        task: "denoise" or "upsample"; "" as long as that is not known.
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
        entry: Under which key of a checkpoint the weights lie; "" for the checkpoint itself.
        may_have_prefix: Whether all its keys may begin with one more word than the network's.
    """

    name: str
    task: str = ""
    architecture: str = ""
    sample_rate: int = 0
    hyperparameters: dict[str, Any] = field(default_factory=dict)
    parameters: int = 0
    bytes: int = 0
    licence: str = "unknown"
    description: str = ""
    folder: Path = Path()
    revision: str = "unknown"
    source: Literal["bundled", "folder", "hub", "package"] = "folder"
    file: str = WEIGHTS_FILE
    cached: bool = True
    repository: str = ""
    sha256: str = ""
    paper: str = ""
    package: str = ""
    entry: str = ""
    may_have_prefix: bool = False


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
        **{key: values[key] for key in _REQUIRED},
        parameters=sum(math.prod(shape) for shape in shapes),
        bytes=weights.stat().st_size,
        licence=licence_of(folder, values),
        description=str(values.get("description", "")),
        folder=folder,
        revision=_revision(weights),
        source=source,
    )


def forbids_commerce(licence: str) -> bool:
    """Tell whether a licence's name says that it is for non-commercial use alone, or may say so."""
    return licence == UNREADABLE or _NON_COMMERCIAL.search(licence) is not None


def licence_of(folder: Path, values: dict[str, Any]) -> str:
    """Give the licence that a folder states in its config and its card; the strictest of all."""
    stated = [
        *(name for key in _LICENCE_KEYS if key in values for name in _names(values[key])),
        *_licences_of_card(folder / CARD_FILE),
    ]
    found = [licence for licence in stated if licence not in ("", "other")]
    return next(filter(forbids_commerce, found), found[0] if found else "unstated")


def _names(value: object) -> list[str]:
    """Give the licences that one or a list of them names."""
    values = value if isinstance(value, list) else [value]
    return [value.strip() if isinstance(value, str) else UNREADABLE for value in values]


def _licences_of_card(path: Path) -> Iterator[str]:
    """Give what the front matter of a card, which is YAML between two lines of ---, says.

    It is composed, not built: nothing in it multiplies, and a key given twice counts twice.
    """
    try:
        with path.open("rb") as file:
            head = file.read(_MOST_FRONT_MATTER_BYTES)
    except OSError:
        return
    import yaml

    lines = head.decode("utf-8-sig", "replace").lstrip().splitlines()
    if not lines or lines[0].rstrip() != "---":
        return
    ends = (number for number, line in enumerate(lines) if number and line.rstrip() == "---")
    try:
        text = "\n".join(lines[1 : next(ends)])
        root = yaml.compose(text, Loader=yaml.BaseLoader)
    except (StopIteration, yaml.YAMLError, RecursionError):
        yield UNREADABLE
        return
    for key, value in root.value if isinstance(root, yaml.MappingNode) else ():
        word = str(key.value).strip().lower()
        if word in _LICENCE_KEYS:
            nodes = value.value if isinstance(value, yaml.SequenceNode) else [value]
            for node in nodes:
                yield node.value.strip() if isinstance(node, yaml.ScalarNode) else UNREADABLE
        elif word == "<<":  # Other mappings' keys, which may be any.
            yield UNREADABLE


def read_config(folder: Path) -> dict[str, Any]:
    """Read and check the config in a model's folder.

    Raises:
        ModelError: it is missing or malformed.
    """
    try:
        with (folder / CONFIG_FILE).open("rb") as file:
            content = file.read(MOST_CONFIG_BYTES + 1)
        if len(content) > MOST_CONFIG_BYTES:
            raise ValueError(f"more than {MOST_CONFIG_BYTES} bytes")
        values = json.loads(content)
    except (OSError, ValueError, RecursionError) as error:
        problem = f"is no usable model folder ({CONFIG_FILE}: {error})"
        raise ModelError(problem, folder) from error
    if not isinstance(values, dict):
        raise ModelError(f"{CONFIG_FILE} holds no object", folder)
    missing = [key for key in _REQUIRED if key not in values]
    if missing:
        raise ModelError(f"{CONFIG_FILE} lacks {', '.join(missing)}", folder)
    for key, kind in _REQUIRED.items():
        if not isinstance(values[key], kind):
            raise ModelError(f"{CONFIG_FILE} has the {key} {reprlib.repr(values[key])}", folder)
    stated = values["hyperparameters"] | {"sample_rate": values["sample_rate"]}
    for key, number in _numbers(stated):
        if not abs(number) <= (_LARGEST_RATE if _RATE.search(key) else _LARGEST_NUMBER):
            raise ModelError(
                f"{CONFIG_FILE} has the {reprlib.repr(key)} {reprlib.repr(number)}", folder
            )
    return values


def _numbers(values: dict[str, Any]) -> Iterator[tuple[str, float]]:
    """Give all numbers in what was read from JSON, however deep, and the keys they are under."""
    left = list(values.items())
    while left:
        key, value = left.pop()
        if isinstance(value, (int, float)):
            yield key, value
        elif isinstance(value, dict):
            left += value.items()
        elif isinstance(value, list):
            left += ((key, each) for each in value)


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
